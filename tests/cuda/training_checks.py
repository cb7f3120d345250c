"""Whole trainings in this process: resume, memory, and what a GPU detects beside a CPU."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from retina.devices import Precision, pick_precision
from retina.errors import DivergedError, RunError
from retina.experiment import build_experiment, load_experiment
from retina.modeling.detector import RetinaNet
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.runtime import TorchRuntime
from retina.structures import Batch, Categories, Detections
from retina.training.checkpoint import load_state
from retina.training.trainer import Trainer, TrainingOutcome
from tests.cuda.check import Check, Setting  # type: ignore[import-not-found]
from tests.cuda.small import (  # type: ignore[import-not-found]
    MODEL,
    assert_equal,
    flat,
    write_config,
)
from tests.training.poison import poison_trainings  # type: ignore[import-not-found]

EVERYTHING_ON = (
    *("training.deterministic=true", "training.average_decay=0.9", "training.clip_norm=1.0"),
    *("training.accumulation_steps=2", "training.anatomy_every_steps=3"),
    *("augmentation.preset=strong", "objective.normalizer=moving_average"),
)


def check_exact_resume(precision: Precision, setting: Setting) -> str:
    """A training that is stopped at half and resumed ends with the same bits as one that is not."""
    config = write_config(setting.folder, setting.device)
    folders = [setting.folder / "whole", setting.folder / "halves"]
    options = [*EVERYTHING_ON, f"training.precision={precision}", "training.epochs=3"]
    whole = _train(config, folders[0], options)
    with _stopping_after(whole.step // 2):
        half = _train(config, folders[1], options)
    assert (half.step, half.signal) == (whole.step // 2, signal.SIGTERM), half
    again = _train(config, folders[1], options, resume=True)
    assert again.step == whole.step, again

    ours, theirs = (_state_of(folder) for folder in reversed(folders))
    assert_equal(ours, theirs)
    for name in ("last.safetensors", "best.safetensors"):
        files = [(folder / "checkpoints" / name).read_bytes() for folder in folders]
        assert files[0] == files[1], f"{name} differs"
    return f"{whole.step} steps, stopped after {half.step}; {len(ours)} values equal"


def _train(
    config: Path, folder: Path, options: Sequence[str], *, resume: bool = False
) -> TrainingOutcome:
    try:
        experiment = build_experiment(
            load_experiment(config, [f"output_dir={folder}", *options]), resume=resume, quiet=True
        )
        return experiment.trainer.run()
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def _stopping_after(step: int) -> Iterator[None]:
    """Trainings in the block get SIGTERM in the middle of a step."""
    advance = Trainer._advance

    def stopping(trainer: Trainer, micro_batches: list[Batch]) -> None:
        if trainer.training_run.step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        advance(trainer, micro_batches)

    Trainer._advance = stopping  # type: ignore[method-assign]
    try:
        yield
    finally:
        Trainer._advance = advance  # type: ignore[method-assign]


def _state_of(folder: Path) -> dict[str, Any]:
    """The last training state by dotted names, without the config, file lengths and the clock."""
    state = load_state(folder / "checkpoints" / "last.pt")
    names = set(type(state).__slots__) - {"config", "log"}
    values = flat({name: getattr(state, name) for name in names})
    clock = {".meter.seconds", ".meter.waited"}
    return {name: value for name, value in values.items() if name not in clock}


@contextmanager
def _memory_limit(device: torch.device, num_bytes: int) -> Iterator[None]:
    """This process may have so much of the GPU in the block, beside what it has already."""
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    allowed = torch.cuda.memory_reserved(device) + num_bytes
    torch.cuda.set_per_process_memory_fraction(min(1.0, allowed / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        gc.collect()
        torch.cuda.empty_cache()


LARGE = (
    *("preprocess={min_size: 1024, max_size: 1024}", "model.pyramid.channels=256"),
    *("training.precision=auto", "dataset.validation=null"),
)


def check_auto_batch(setting: Setting) -> str:
    """``training.batch_size=auto`` finds a batch that trains, smaller than the data set."""
    config = write_config(setting.folder, setting.device)
    options = [*LARGE, "training.batch_size=auto", "training.max_steps=3"]
    with _memory_limit(setting.device, 2**30):
        experiment = build_experiment(
            load_experiment(config, [f"output_dir={setting.folder / 'run'}", *options]), quiet=True
        )
        decided = experiment.config.training.decided_batch_size
        assert 1 <= decided < 24, f"{decided} images of the 24 that there are"
    # The margin is a part of the whole GPU's memory, so that the limit leaves none.
    with _memory_limit(setting.device, 5 * 2**28):
        assert experiment.trainer.run().step == 3
    return f"{decided} images in 1 GiB"


def check_out_of_memory_is_named(setting: Setting) -> str:
    """Running out of memory is one message that names the batch and the remedies."""
    config = write_config(setting.folder, setting.device)
    with _memory_limit(setting.device, 2**29):
        try:
            _train(config, setting.folder / "run", [*LARGE, "training.batch_size=24"])
        except RunError as error:
            message = str(error)
        else:
            raise AssertionError("24 images of 1024 × 1024 fit into 512 MiB")
    start = f"out of memory on {setting.device} at step 1, with a batch of 24 × 3 × "
    assert message.startswith(start), message
    assert "training.batch_size" in message, message
    return message[:80]


def check_pinned_memory(setting: Setting) -> str:
    """Batches of workers and of this process arrive in page-locked memory, channels-last."""
    config = load_experiment(write_config(setting.folder, setting.device), ["output_dir=unused"])
    for workers in (0, 2):
        training = config.training.model_copy(update={"num_workers": workers})
        folder = setting.folder / f"workers_{workers}"
        changed = config.model_copy(update={"training": training, "output_dir": folder})
        batches = build_experiment(changed, quiet=True).trainer._batches.between(0, 2)
        for batch in batches:
            assert batch.images.is_pinned()
            assert batch.targets.boxes.is_pinned()
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
    return ""


def check_detections_are_the_cpus(setting: Setting) -> str:
    """In fp32, the detections of the GPU: boxes within 0.01 pixels, scores within 1e-5."""
    torch.manual_seed(0)
    detector = MODEL.build(3).eval()
    torch.nn.init.normal_(detector.head.classification.output.weight, std=0.05)  # scores differ
    generator = torch.Generator().manual_seed(1)
    images = [
        torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
        for height, width in ((120, 160), (90, 200), (200, 150))
    ]
    ours = _detect(detector, images, setting.device)
    # Without a GPU, other kernels of the CPU: they round elsewhere, too.
    with torch.backends.mkldnn.flags(enabled=setting.is_gpu):
        theirs = _detect(detector, images, torch.device("cpu"))
    worst = torch.tensor([_differences(*pair) for pair in zip(ours, theirs, strict=True)])
    box, score = worst.amax(dim=0).tolist()
    count = sum(len(one) for one in theirs)
    assert count > 20, f"only {count} detections to compare"
    assert box <= 1e-2, f"a box is {box:.3g} pixels away"
    assert score <= 1e-5, f"a score is {score:.3g} away"
    return f"{count} detections, boxes within {box:.1e}, scores within {score:.1e}"


def _detect(
    detector: RetinaNet, images: Sequence[torch.Tensor], device: torch.device
) -> list[Detections]:
    runtime = TorchRuntime(
        detector.to(device),
        categories=Categories.from_names(["a", "b", "c"]),
        preprocess=PreprocessConfig(min_size=160, max_size=256).build().to(device),
        postprocess=PostprocessConfig().build(detector.box_coder),
        device=device,
        precision=pick_precision("fp32", device),
        memory_fix="",
    )
    return runtime.detect(images)


def _differences(ours: Detections, theirs: Detections) -> tuple[float, float]:
    """The largest difference of a box and of a score, each detection with its likest one.

    Those at the lowest kept score may be others: which of equal ones is kept is left open.
    """
    worst_box = worst_score = 0.0
    lowest = float(theirs.scores[-1]) + 1e-4 if len(theirs) else 0.0
    for box, score, label in zip(theirs.boxes, theirs.scores, theirs.labels, strict=True):
        if score < lowest:
            continue
        same = ours.labels == label
        assert same.any(), f"no detection of class {int(label)}"
        distances = (ours.boxes[same] - box).abs().amax(dim=1)
        nearest = int(distances.argmin())
        worst_box = max(worst_box, float(distances[nearest]))
        worst_score = max(worst_score, float((ours.scores[same][nearest] - score).abs()))
    return worst_box, worst_score


def check_divergence_is_told(setting: Setting) -> str:
    """A loss that is not finite ends a training; it is looked into on the device, and kept."""
    config = write_config(setting.folder, setting.device)
    folder, before = setting.folder / "run", list[tuple[Any, str, Any]]()

    def patch(owner: Any, name: str, value: Any) -> None:
        before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    poison_trainings(patch, {3: 1})
    try:
        _train(config, folder, ["training.precision=bf16", "training.checkpoint_every_steps=1"])
    except DivergedError as error:
        message = str(error)
    else:
        raise AssertionError("a training went on from a loss that is not finite")
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
    for part in ("step 3", "image ids", "backbone.conv1", "The step was not applied"):
        assert part in message, message
    assert load_state(folder / "checkpoints" / "last.pt").step == 2
    return message[:80]


TRAINING_CHECKS = [
    Check("exact resume: fp32", partial(check_exact_resume, "fp32"), seconds=120),
    Check("exact resume: bf16", partial(check_exact_resume, "bf16"), seconds=120),
    Check("exact resume: fp16", partial(check_exact_resume, "fp16"), needs_gpu=True, seconds=120),
    Check("batch_size=auto", check_auto_batch, needs_gpu=True, seconds=120),
    Check("out of memory is named", check_out_of_memory_is_named, needs_gpu=True),
    Check("page-locked memory", check_pinned_memory, needs_gpu=True),
    Check("divergence is told", check_divergence_is_told),
    Check("detections are the CPU's", check_detections_are_the_cpus),
]
