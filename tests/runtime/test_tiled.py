"""Looking at an image tile by tile, in file and in memory, and several times."""

from __future__ import annotations

import pytest
import torch

from retina.errors import UserError
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.runtime import TiledRuntime, TorchRuntime, Views
from retina.runtime.augmented import AugmentedRuntime
from retina.runtime.views import parse_test_time
from retina.structures import Categories, Detections
from tests.runtime.blobs import Blobs, found_boxes, painted  # type: ignore[import-not-found]
from tests.small_detector import small_detector  # type: ignore[import-not-found]

OBJECTS = {
    (10, 10, 20, 22): 0,  # small
    (95, 30, 125, 50): 0,  # at a seam
    (95, 54, 125, 74): 0,  # its neighbour at the same seam
    (200, 5, 206, 9): 1,  # tiny
    (60, 90, 240, 230): 1,  # larger than a tile
    (255, 180, 262, 299): 0,  # higher than a tile, and at the border of the image
}
SIZE = (300, 263)


@pytest.fixture(scope="module")
def small() -> TorchRuntime:
    """An untrained detector that is sure of many things."""
    detector = small_detector(2)
    torch.nn.init.normal_(detector.head.classification.output.weight, std=0.5)
    torch.nn.init.zeros_(detector.head.classification.output.bias)
    return TorchRuntime(
        detector,
        categories=Categories.from_names(["a", "b"]),
        preprocess=PreprocessConfig(min_size=64, max_size=96).build(),
        postprocess=PostprocessConfig(max_detections=20).build(detector.box_coder),
        device=torch.device("cpu"),
        precision="fp32",
        memory_fix="",
    )


def noise(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes
    ]


def assert_same(found: Detections, expected: Detections) -> None:
    assert len(expected) > 0
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("merge", ["nms", "weighted"])
@pytest.mark.parametrize("overlap", [0.2, 0.5])
@pytest.mark.parametrize("full_image", [True, False])
def test_every_object_is_found_once_and_whole(merge: str, overlap: float, full_image: bool) -> None:
    views = Views(tile=100, overlap=overlap, full_image=full_image, merge=merge)  # type: ignore[arg-type]
    (found,) = views.wrap(Blobs()).detect([painted(SIZE, OBJECTS)])
    assert found_boxes(found) == OBJECTS
    assert bool((found.scores.diff() <= 0).all())


def test_tiles_of_all_images_go_in_batches() -> None:
    inner = Blobs()
    tiled = TiledRuntime(inner, tile=100, overlap=0.0, batch_size=4)
    images = [painted((100, 200), {}), painted((50, 80), {}), painted((200, 250), {})]
    assert len(tiled.detect(images)) == 3
    whole, *tiles = inner.calls
    assert whole == [(100, 200), (50, 80), (200, 250)]
    assert tiles == [[(100, 100)] * 4, [(100, 100)] * 4]
    assert tiled.detect([]) == []


def test_an_image_of_one_tile_is_the_plain_result(small: TorchRuntime) -> None:
    images = noise((64, 96), (90, 50), (100, 100))
    for full_image in (True, False):
        tiled = TiledRuntime(small, tile=100, full_image=full_image)
        for found, expected in zip(tiled.detect(images), small.detect(images), strict=True):
            assert_same(found, expected)


def test_tiles_find_more_than_the_whole(small: TorchRuntime) -> None:
    (image,) = noise((250, 300))
    (plain,), (found,) = small.detect([image]), TiledRuntime(small, tile=100).detect([image])
    assert len(found) > len(plain) > 0
    limits = torch.tensor([300.0, 250, 300, 250])
    assert bool(((found.boxes >= 0) & (found.boxes <= limits + 1e-3)).all())


def test_a_mirrored_view_finds_the_same_in_the_same_place() -> None:
    image = painted(SIZE, OBJECTS)
    inner = Blobs()
    (found,) = AugmentedRuntime(inner, flip=True).detect([image])
    assert found_boxes(found) == OBJECTS
    assert len(inner.calls) == 2
    (both,) = Views(tile=100, flip=True, merge="weighted").wrap(Blobs()).detect([image])
    assert found_boxes(both) == OBJECTS


def test_scales_change_the_input_of_the_network(small: TorchRuntime) -> None:
    images = noise((64, 96), (120, 80))
    larger = small.at_scale(1.5)
    assert larger.preprocess.input_size((64, 96)) == (96, 144)
    assert small.preprocess.input_size((64, 96)) == (64, 96)
    assert larger.detector is small.detector
    found = AugmentedRuntime(small, scales=(1.5,)).detect(images)
    plain, scaled = small.detect(images), larger.detect(images)
    for one, *views in zip(found, plain, scaled, strict=True):
        assert float(one.scores[0]) == max(float(view.scores[0]) for view in views)
        assert not torch.equal(views[0].boxes, views[1].boxes)
    only_one = AugmentedRuntime(small).detect(images)
    for ours, expected in zip(only_one, plain, strict=True):
        assert_same(ours, expected)


def test_an_input_of_fixed_size_has_no_scales(small: TorchRuntime) -> None:
    fixed = PreprocessConfig(min_size=64, max_size=96, pad_to=(96, 96)).build()
    with pytest.raises(UserError, match=r"always 96 × 96 pixels \(preprocess.pad_to\); leave the"):
        fixed.scaled(0.5)
    with pytest.raises(UserError, match="this detector's input has a fixed size"):
        Views(scales=(0.5,)).wrap(Blobs())


def test_views_say_what_they_are() -> None:
    flip, scales = parse_test_time(["flip", "0.8", 1.0, 0.8])
    views = Views(tile=640, flip=flip, scales=scales)
    assert views.describe() == "tiles of 640, flip, 0.8"
    assert views.to_json() == {
        "tile": 640,
        "overlap": 0.2,
        "full_image": True,
        "flip": True,
        "scales": [0.8],
        "merge": "nms",
    }
    assert not Views()
    inner = Blobs()
    assert Views().wrap(inner) is inner


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tile": 8}, "--tile 8: a tile has at least 32 pixels a side"),
        ({"tile": 64, "overlap": 1.0}, "--overlap 1: give a part of a tile from 0 to 0.9"),
        ({"scales": (9.0,)}, "--test-time 9: a scale lies within 0.25 … 4"),
        ({"merge": "wbf"}, "--merge: 'wbf' is none of nms, weighted"),
    ],
)
def test_views_that_are_none(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Views(**fields)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--test-time mirror: write flip, or a scale"):
        parse_test_time(["mirror"])
