"""Which pictures run together, when, and that nobody's answer depends on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from retina.errors import UserError
from retina.modeling.detector import RetinaNet
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig, size_of
from retina.runtime import Runtime, TiledRuntime, TorchRuntime
from retina.runtime.augmented import AugmentedRuntime
from retina.serving.batching import Batcher
from retina.serving.metrics import Metrics
from retina.structures import Categories, Detections
from tests.serving.running import RectangleRuntime, scene  # type: ignore[import-not-found]
from tests.small_detector import small_detector  # type: ignore[import-not-found]


def picture(width: int = 48, height: int = 32) -> Tensor:
    return torch.from_numpy(scene(width, height)).permute(2, 0, 1)


def run(runtime: Runtime, body: Any, *, batch_size: int = 4, max_wait: float = 10.0) -> Any:
    """What a coroutine gives that is called with a batcher that runs."""

    async def inside() -> Any:
        metrics = Metrics(lambda: 0)
        batcher = Batcher(runtime, batch_size=batch_size, max_wait=max_wait, metrics=metrics)
        task = asyncio.create_task(batcher.run())
        try:
            return await body(batcher)
        finally:
            task.cancel()
            batcher.close()

    return asyncio.run(inside())


async def all_of(batcher: Batcher, images: Sequence[Tensor]) -> list[Detections]:
    return await asyncio.gather(*(batcher.detect(image) for image in images))


def test_a_full_batch_waits_for_nobody() -> None:
    runtime = RectangleRuntime()
    started = time.monotonic()
    found = run(runtime, lambda batcher: all_of(batcher, [picture()] * 8))
    assert time.monotonic() - started < 5
    assert runtime.batches == [4, 4]
    assert [len(one) for one in found] == [2] * 8


def test_a_picture_waits_for_others_only_so_long() -> None:
    runtime = RectangleRuntime()
    started = time.monotonic()
    run(runtime, lambda batcher: all_of(batcher, [picture()] * 3), max_wait=0.1)
    assert 0.1 <= time.monotonic() - started < 5
    assert runtime.batches == [3]


def test_what_has_gathered_while_a_batch_ran_runs_at_once() -> None:
    """Their time to wait is over already."""
    runtime = RectangleRuntime()

    async def body(batcher: Batcher) -> None:
        runtime.gate.clear()
        first = asyncio.create_task(batcher.detect(picture()))
        while not runtime.batches:
            await asyncio.sleep(0.005)
        rest = asyncio.create_task(all_of(batcher, [picture()] * 3))
        await asyncio.sleep(0.06)
        runtime.gate.set()
        await asyncio.gather(first, rest)

    run(runtime, body, max_wait=0.05)
    assert runtime.batches == [1, 3]


def test_only_pictures_of_one_padded_size_run_together_the_oldest_first() -> None:
    runtime = RectangleRuntime()
    wide, tall = picture(48, 32), picture(48, 64)
    almost = picture(47, 32)  # is padded to the same
    shapes = [runtime.preprocess.input_shape([one.shape[1:]]) for one in (wide, tall, almost)]
    assert shapes[0] == shapes[2] != shapes[1]
    run(runtime, lambda batcher: all_of(batcher, [wide, tall, almost, tall, tall]), max_wait=0.05)
    assert runtime.batches == [2, 3]


def test_pictures_whose_tiles_are_of_other_sizes_do_not_run_together() -> None:
    """As a whole all of these are padded to one size."""
    inner = RectangleRuntime()
    runtime = TiledRuntime(inner, tile=64)
    large, larger, small, flat = (
        picture(width, height) for width, height in ((96, 64), (192, 128), (48, 32), (80, 53))
    )
    shapes = [inner.preprocess.input_shape([one.shape[1:]]) for one in (large, larger, small, flat)]
    assert len(set(shapes)) == 1
    keys = [runtime.input_shapes(size_of(one)) for one in (large, larger, small, flat)]
    assert [len(key) for key in keys] == [2, 2, 1, 2]
    assert keys[0] == keys[1] != keys[3]
    seen: list[set[tuple[int, ...]]] = []
    detect = inner.detect

    def watched(images: Sequence[Tensor]) -> list[Detections]:
        seen.append({inner.preprocess.input_shape([size_of(image)]) for image in images})
        return detect(images)

    inner.detect = watched  # type: ignore[method-assign]
    run(runtime, lambda batcher: all_of(batcher, [large, larger, small, flat]), max_wait=0.05)
    assert all(len(shapes) == 1 for shapes in seen)


def test_scales_and_mirrors_have_their_shapes_too() -> None:
    augmented = AugmentedRuntime(small_runtime(), flip=True, scales=[0.5])
    inner = augmented.inner
    assert augmented.input_shapes((64, 96)) == (
        inner.preprocess.input_shape([(64, 96)]),
        inner.at_scale(0.5).preprocess.input_shape([(64, 96)]),
    )


def test_who_has_given_up_is_not_run() -> None:
    runtime = RectangleRuntime()

    async def body(batcher: Batcher) -> None:
        tasks = [asyncio.create_task(batcher.detect(picture())) for _ in range(3)]
        await asyncio.sleep(0.01)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(runtime, body, max_wait=0.1)
    assert runtime.batches == [2]


def test_a_picture_that_the_detector_cannot_take_is_refused_before_it_waits() -> None:
    runtime = RectangleRuntime()
    runtime.preprocess = PreprocessConfig(min_size=64, max_size=96, pad_to=(64, 96)).build()
    with pytest.raises(UserError, match="pad_to"):
        run(runtime, lambda batcher: batcher.detect(picture(32, 48)))
    assert runtime.batches == []


def small_runtime(detector: RetinaNet | None = None) -> TorchRuntime:
    detector = detector or small_detector()
    return TorchRuntime(
        detector,
        categories=Categories.from_names(["disc", "star"]),
        preprocess=PreprocessConfig(min_size=64, max_size=256).build(),
        postprocess=PostprocessConfig(score_threshold=0.0, max_detections=10).build(
            detector.box_coder
        ),
        device=torch.device("cpu"),
        precision="fp32",
        memory_fix="",
    )


def test_no_answer_depends_on_the_pictures_beside() -> None:
    """Padding a picture to the size of another one would change what is found in it."""
    detector = small_detector()
    with torch.no_grad():  # what lies in the padding is not nothing after a bias
        for name, values in detector.named_parameters():
            if name.endswith("bias") and "head" not in name:
                values.fill_(0.5)
    runtime = small_runtime(detector)
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
        for height, width in ((64, 64), (64, 250), (60, 64), (64, 64), (250, 64))
    ]
    together = run(runtime, lambda batcher: all_of(batcher, images), max_wait=0.05)
    alone = [runtime.detect([image])[0] for image in images]
    padded = runtime.detect(images)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-6)
        torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=1e-3)
    gap = max(float((a.scores - b.scores).abs().max()) for a, b in zip(padded, alone, strict=True))
    assert gap > 1e-5
