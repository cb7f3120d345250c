"""Coverage of objects by anchors: hand-made cases, all pairs as reference, and the fit."""

from pathlib import Path

import numpy as np
import pytest
import torch

from retina.datasets import CocoConfig
from retina.geometry.anchors import AnchorConfig
from retina.geometry.boxes import pairwise_iou
from retina.instruments.doctor.anchors.coverage import (
    AnchorCoverage,
    InputImage,
    Outcome,
    input_images,
    measure_coverage,
    padded,
    side_names,
    within_budget,
)
from retina.instruments.doctor.anchors.proposals import propose_anchors
from retina.instruments.doctor.anchors.search import (
    BoxSample,
    best_overlaps,
    fit_anchors,
    level_shapes,
)
from retina.modeling.backbones import ResNetConfig
from retina.modeling.config import ModelConfig
from retina.modeling.head import HeadConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.modeling.pyramid import PyramidConfig
from retina.objective.assignment import ATSSConfig, MaxIoUConfig
from retina.structures import Targets

STRIDES = (8, 16, 32, 64, 128)
ONE_ANCHOR = AnchorConfig(
    sizes=(16.0, 32.0, 64.0, 128.0, 256.0), scales=(1.0,), ratios=(1.0,), center_offset=0.5
)


def image(*boxes: tuple[float, ...], size: tuple[int, int] = (64, 64)) -> InputImage:
    count = len(boxes)
    return InputImage(
        targets=Targets(
            boxes=torch.tensor(boxes, dtype=torch.float32).reshape(count, 4),
            labels=torch.arange(count),
            is_crowd=torch.zeros(count, dtype=torch.bool),
        ),
        size=size,
        padded_size=padded(size, 32, None),
    )


def cover(*images: InputImage, assigner: object = None) -> AnchorCoverage:
    return measure_coverage(
        images,
        anchors=ONE_ANCHOR.build(STRIDES),
        assigner=assigner or MaxIoUConfig().build(),  # type: ignore[arg-type]
    )


def test_matched_low_quality_and_unmatched_by_hand() -> None:
    """Anchors of 16 pixels are centred at 4, 12, 20 …, those of 32 pixels at 8, 24, 40, 56."""
    coverage = cover(
        image(
            (4, 4, 20, 20),  # is the anchor centred at 12, 12
            (34, 34, 42, 42),  # 8 pixels inside of one of 16: IoU 64 / 256
            (56, 0, 60, 4),  # 4 pixels: its best anchors are no one else's
        )
    )
    assert coverage.outcomes.tolist() == [Outcome.MATCHED, Outcome.LOW_QUALITY, Outcome.LOW_QUALITY]
    assert coverage.sides.tolist() == [16, 8, 4]
    share = coverage.share()
    assert (share.count, share.matched, share.low_quality, share.unmatched) == (3, 1 / 3, 2 / 3, 0)
    assert coverage.by_class(3)[0].matched == 1
    assert dict(coverage.by_side())["below 8"].count == 1
    assert dict(coverage.by_side())["16 to 32"].matched == 1
    assert coverage.anchors_per_image == 64 + 16 + 4 + 1 + 1


def test_an_object_in_the_shadow_of_another_is_unmatched() -> None:
    """Its best anchor overlaps its neighbour more, and 'anchor_best' gives it to that one."""
    coverage = cover(image((4, 4, 20, 20), (8, 8, 16, 16)))
    assert coverage.outcomes.tolist() == [Outcome.MATCHED, Outcome.UNMATCHED]
    low_quality = cover(
        image((4, 4, 20, 20), (8, 8, 16, 16)), assigner=MaxIoUConfig(low_quality="object").build()
    )
    assert Outcome.LOW_QUALITY in low_quality.outcomes.tolist()


def test_without_low_quality_matches_nothing_has_one() -> None:
    coverage = cover(image((34, 34, 42, 42)), assigner=MaxIoUConfig(low_quality="none").build())
    assert coverage.outcomes.tolist() == [Outcome.UNMATCHED]
    assert coverage.num_anchors.tolist() == [0]


def test_an_adaptive_rule_has_no_low_quality_match() -> None:
    coverage = cover(image((34, 34, 42, 42), (4, 4, 20, 20)), assigner=ATSSConfig().build())
    assert Outcome.LOW_QUALITY not in coverage.outcomes.tolist()
    assert coverage.outcomes.tolist()[1] == Outcome.MATCHED


def test_no_object_is_no_share() -> None:
    share = cover(image()).share()
    assert (share.count, share.matched, share.unmatched) == (0, 0.0, 0.0)
    assert cover().anchors_per_image == 0


def test_names_of_the_sizes() -> None:
    assert side_names()[0] == "below 8"
    assert side_names()[1] == "8 to 16"
    assert side_names()[-1] == "256 and more"


def test_boxes_are_taken_at_the_size_of_the_input(synthetic_data: Path) -> None:
    split = synthetic_data / "train"
    dataset = CocoConfig(images=split / "images", annotations=split / "annotations.json").build()
    images = input_images(dataset, PreprocessConfig(), sizes=[(64, 96), (128, 192)], limit=None)
    filled = [i for i in range(len(dataset)) if (~dataset.targets(i).is_crowd).any()]
    assert len(images) == len(filled)
    for number, (index, found) in enumerate(zip(filled, images, strict=True)):
        targets = dataset.targets(index)
        shorter = (64, 128)[number % 2]
        assert min(found.size) <= shorter
        height, width = dataset.image_sizes[index]
        factor = torch.tensor([found.size[1] / width, found.size[0] / height] * 2)
        expected = targets.boxes[~targets.is_crowd] * factor
        torch.testing.assert_close(found.targets.boxes, expected.float())
    assert 1 <= within_budget(images, STRIDES, 1) == 1
    assert within_budget(images, STRIDES, 10**12) == len(images)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_best_overlaps_are_those_of_all_pairs(offset: float) -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(200, 4, generator=generator)
    low, high = (
        torch.minimum(corners[:, :2], corners[:, 2:]),
        torch.maximum(corners[:, :2], corners[:, 2:]),
    )
    boxes = torch.cat([low * 150, low * 150 + (high - low) * 100 + 1], dim=1).clamp(max=160)
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    many = image(*map(tuple, boxes.tolist()), size=(150, 160))
    sample = BoxSample.of([many])
    config = AnchorConfig(sizes=(16.0, 32.0, 64.0, 128.0, 256.0), center_offset=offset)
    shapes = level_shapes(np.array(config.sizes), np.array(config.scales), np.array(config.ratios))
    anchors = config.build(STRIDES)(
        [(-(-160 // s), -(-160 // s)) for s in STRIDES], (160, 160), "cpu"
    )
    expected = pairwise_iou(boxes, anchors.boxes).amax(dim=1)
    found = best_overlaps(sample, shapes, STRIDES, offset)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=2e-6)


def squares(side: float, count: int = 60) -> list[InputImage]:
    generator = np.random.default_rng(0)
    return [
        image((x, y, x + side, y + 2 * side), size=(256, 256))
        for x, y in generator.uniform(0, 256 - 2 * side, (count, 2))
    ]


def propose(images: list[InputImage], **changes: object) -> tuple[str, dict[str, float], object]:
    proposals = propose_anchors(
        images,
        current=AnchorConfig(**changes),  # type: ignore[arg-type]
        strides=STRIDES,
        assigner=MaxIoUConfig().build(),
    )
    best = proposals.best
    return best.name, {p.name: p.coverage.share().matched for p in proposals.sets}, best


def test_anchors_that_fit_are_kept() -> None:
    name, matched, _ = propose(squares(40))
    assert name == "current"
    assert matched["current"] == 1


def test_anchors_are_fitted_to_objects_that_the_usual_ones_miss() -> None:
    name, matched, best = propose(squares(14))
    assert name == "fitted"
    assert matched["current"] == 0
    assert matched["fitted"] == 1
    patch = best.patch()  # type: ignore[attr-defined]
    side = (14 * 28) ** 0.5  # 19.8
    assert patch["model"]["anchors"]["sizes"][0] == pytest.approx(side, rel=0.1)
    assert max(patch["model"]["anchors"]["ratios"]) > 1.5  # twice as high as wide
    assert "backbone" not in patch["model"]


def test_a_level_p2_is_proposed_for_objects_of_a_few_pixels() -> None:
    name, matched, best = propose(squares(8))
    assert name == "fitted with P2"
    assert matched["fitted"] < 0.7
    assert matched["fitted with P2"] == 1
    patch = best.patch()  # type: ignore[attr-defined]
    assert patch["model"]["backbone"] == {"finest_map": "c2"}
    assert len(patch["model"]["anchors"]["sizes"]) == 6


def test_the_fit_keeps_the_number_of_anchors_and_the_octaves_of_the_levels() -> None:
    sample = BoxSample.of(squares(12))
    setting = fit_anchors(
        sample, strides=STRIDES, num_scales=2, num_ratios=4, threshold=0.5, center_offset=0.0
    )
    assert (len(setting.scales), len(setting.ratios)) == (2, 4)
    np.testing.assert_allclose(setting.sizes[1:] / setting.sizes[:-1], 2)


def test_a_detector_with_p2_has_six_levels() -> None:
    model = ModelConfig(
        backbone=ResNetConfig(name="resnet18", finest_map="c2"),
        pyramid=PyramidConfig(channels=8),
        head=HeadConfig(num_convs=1),
        anchors=AnchorConfig(sizes=(8.0, 16.0, 32.0, 64.0, 128.0, 256.0)),
    ).build(2)
    predictions = model(torch.zeros(1, 3, 64, 96))
    assert model.pyramid.strides == (4, 8, 16, 32, 64, 128)
    assert predictions.feature_shapes[0] == (16, 24)
    anchors = model.anchors(predictions.feature_shapes, (64, 96), "cpu")
    assert len(anchors) == predictions.flatten()[0].shape[1]
