from __future__ import annotations

import math
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead

from retina.configuration import ConfigError, validate
from retina.geometry.anchors import AnchorConfig
from retina.geometry.box_coders import DeltasConfig
from retina.modeling.postprocess import Postprocess, PostprocessConfig
from retina.structures import Anchors, DensePredictions, Detections

SHAPES = [(16, 20), (8, 10), (4, 5), (2, 3), (1, 2)]
PADDED_SIZE = (128, 160)
VALID_SIZES = ((128, 100), (90, 160))
STRIDES = (8, 16, 32, 64, 128)


def build(**fields: object) -> Postprocess:
    config = validate({"max_detections": 300, **fields}, PostprocessConfig, source="")
    return config.build(DeltasConfig().build())


def anchors() -> Anchors:
    return AnchorConfig().build(STRIDES)(SHAPES, PADDED_SIZE, "cpu")


def random_predictions(
    num_classes: int, bias: float, seed: int, batch: int = 2
) -> DensePredictions:
    generator = torch.Generator().manual_seed(seed)
    return DensePredictions(
        class_logits=tuple(
            torch.randn(batch, h, w, 9, num_classes, generator=generator) * 1.5 + bias
            for h, w in SHAPES
        ),
        box_codes=tuple(
            torch.randn(batch, h, w, 9, 4, generator=generator) * 0.5 for h, w in SHAPES
        ),
    )


def torchvision_postprocess(
    predictions: DensePredictions, settings: Postprocess, reference: ModuleType
) -> list[dict[str, Tensor]]:
    backbone = torch.nn.Identity()
    backbone.out_channels = 8
    model = TorchvisionRetinaNet(
        backbone,
        num_classes=2,
        head=RetinaNetHead(8, 9, 2),
        score_thresh=settings.score_threshold,
        nms_thresh=settings.nms_iou_threshold,
        detections_per_img=settings.max_detections,
        topk_candidates=settings.candidates_per_level,
    )
    levels = list(anchors().boxes.split(list(anchors().num_per_level)))
    heads = {
        "cls_logits": [level.flatten(1, 3) for level in predictions.class_logits],
        "bbox_regression": [level.flatten(1, 3) for level in predictions.box_codes],
    }
    sizes = list(VALID_SIZES)
    with reference.exact_suppression(settings.smallest_side):
        result: list[dict[str, Tensor]] = model.postprocess_detections(heads, [levels] * 2, sizes)
    return result


@pytest.mark.parametrize("num_classes", [1, 4, 80])
@pytest.mark.parametrize("bias", [-6.0, -3.0, 0.0])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"candidates_per_level": 50},
        {"score_threshold": 0.0, "max_detections": 1000},
        {"score_threshold": 0.6, "nms_iou_threshold": 0.1},
        {"nms_iou_threshold": 1.0, "max_detections": 7},
    ],
)
def test_equal_to_torchvision(
    num_classes: int, bias: float, fields: dict[str, object], torchvision_reference: ModuleType
) -> None:
    postprocess = build(**fields)
    predictions = random_predictions(num_classes, bias, seed=num_classes)
    ours = postprocess(predictions, anchors(), VALID_SIZES)
    reference = torchvision_postprocess(predictions, postprocess, torchvision_reference)
    assert len(ours) == 2
    for detections, expected in zip(ours, reference, strict=True):
        # The last bit of a sigmoid depends on its place in memory; boxes are equal to the bit.
        problems = torchvision_reference.differences(
            detections,
            Detections(expected["boxes"], expected["scores"], expected["labels"]),
            box_tolerance=0.0,
            score_tolerance=2e-7,
            order_tolerance=2e-7,
        )
        assert problems == []


def test_the_parity_cases_are_no_empty_talk() -> None:
    counts = {
        bias: [
            len(image) for image in build()(random_predictions(4, bias, 4), anchors(), VALID_SIZES)
        ]
        for bias in (-6.0, -3.0, 0.0)
    }
    assert 0 < min(counts[-6.0]) < max(counts[-6.0]) < 300
    assert counts[0.0] == [300, 300]


def test_no_detections_are_empty_tensors_of_the_right_shape() -> None:
    for detections in build()(random_predictions(3, -50.0, 0), anchors(), VALID_SIZES):
        assert len(detections) == 0
        assert detections.boxes.shape == (0, 4)
        assert detections.labels.dtype == torch.int64
        assert detections.scores.dtype == torch.float32


def test_an_empty_batch_gives_an_empty_list() -> None:
    predictions = random_predictions(3, 0.0, 0, batch=0)
    assert build()(predictions, anchors(), torch.zeros(0, 2, dtype=torch.int64)) == []


def one_cell(logits: list[list[float]], deltas: list[list[float]], **fields: object) -> Detections:
    """Of one cell of stride 8 with a square anchor of 32 and one of 64 pixels around (4, 4)."""
    generator = AnchorConfig(
        sizes=(32.0,), scales=(1.0, 2.0), ratios=(1.0,), center_offset=0.5
    ).build((8,))
    predictions = DensePredictions(
        (torch.tensor(logits).view(1, 1, 1, 2, -1),), (torch.tensor(deltas).view(1, 1, 1, 2, 4),)
    )
    postprocess = build(score_threshold=0.5, **fields)
    return postprocess(predictions, generator([(1, 1)], (200, 200), "cpu"), [(200, 200)])[0]


NO_CHANGE = [[0.0] * 4] * 2


def test_one_anchor_may_give_several_classes() -> None:
    detections = one_cell([[2.0, 1.0], [-9.0, 3.0]], NO_CHANGE)
    assert detections.labels.tolist() == [1, 0, 1]
    torch.testing.assert_close(detections.scores, torch.tensor([3.0, 2.0, 1.0]).sigmoid())
    assert detections.boxes.tolist() == [[0, 0, 36, 36], [0, 0, 20, 20], [0, 0, 20, 20]]


def test_suppression_is_by_class() -> None:
    same_place = [[0.0, 0.0, math.log(2), math.log(2)], [0.0] * 4]
    assert one_cell([[2.0, -9.0], [-9.0, 1.0]], same_place).labels.tolist() == [0, 1]
    assert one_cell([[2.0, -9.0], [1.0, -9.0]], same_place).labels.tolist() == [0]


@pytest.mark.parametrize(("clip_before_nms", "count"), [(True, 1), (False, 2)])
def test_clipping_before_the_suppression_changes_overlaps(
    clip_before_nms: bool, count: int
) -> None:
    # 32² in 64² overlap by 0.25; of their parts in the image, 20² in 36², it is 0.31.
    detections = one_cell(
        [[1.0], [2.0]], NO_CHANGE, nms_iou_threshold=0.28, clip_before_nms=clip_before_nms
    )
    assert detections.boxes.tolist() == [[0, 0, 36, 36], [0, 0, 20, 20]][:count]


def test_bfloat16_predictions_give_float32_detections() -> None:
    predictions = random_predictions(3, -2.0, 5)
    half = DensePredictions(
        tuple(level.bfloat16() for level in predictions.class_logits),
        tuple(level.bfloat16() for level in predictions.box_codes),
    )
    (first, _) = build()(half, anchors(), VALID_SIZES)
    assert first.boxes.dtype == first.scores.dtype == torch.float32
    rounded = DensePredictions(
        tuple(level.float() for level in half.class_logits),
        tuple(level.float() for level in half.box_codes),
    )
    (expected, _) = build()(rounded, anchors(), VALID_SIZES)
    assert torch.equal(first.scores, expected.scores)


def test_the_sizes_of_a_batch_may_be_a_tensor() -> None:
    predictions = random_predictions(3, -2.0, 6)
    listed = build()(predictions, anchors(), VALID_SIZES)
    tensor = build()(predictions, anchors(), torch.tensor(VALID_SIZES))
    assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(listed, tensor, strict=True))


@pytest.mark.parametrize("fields", [{"score_threshold": 1.0}, {"max_detections": 0}])
def test_settings_without_sense_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        build(**fields)


def with_value(
    levels: tuple[Tensor, ...], level: int, place: tuple[int, ...], value: float
) -> tuple[Tensor, ...]:
    changed = list(levels)
    changed[level] = changed[level].clone()
    changed[level][place] = value
    return tuple(changed)


def are_equal(ours: list[Detections], theirs: list[Detections]) -> bool:
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for a, b in zip(ours, theirs, strict=True)
        for name in ("boxes", "scores", "labels")
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "fields", [{}, {"clip_before_nms": False}, {"candidates_per_level": 3}, {"max_detections": 5}]
)
def test_what_is_not_finite_is_no_detection_and_changes_no_other(
    value: float, dtype: torch.dtype, fields: dict[str, object]
) -> None:
    postprocess = build(**fields)
    for level in range(len(SHAPES)):
        predictions = random_predictions(4, -1.0, seed=level)
        anchor = (level % 2, SHAPES[level][0] // 2, SHAPES[level][1] // 2, 4)
        logits = tuple(part.to(dtype) for part in predictions.class_logits)
        logits = with_value(logits, level, anchor, 9.0)  # the best of all, if it counted
        deltas = tuple(part.to(dtype) for part in predictions.box_codes)
        place = (*anchor, level % 4)
        for broken, without in (
            (
                DensePredictions(with_value(logits, level, place, value), deltas),
                DensePredictions(with_value(logits, level, place, -60.0), deltas),
            ),
            (
                DensePredictions(logits, with_value(deltas, level, place, value)),
                DensePredictions(with_value(logits, level, anchor, -60.0), deltas),
            ),
        ):
            found = postprocess(broken, anchors(), VALID_SIZES)
            assert are_equal(found, postprocess(without, anchors(), VALID_SIZES))
            assert all(bool(image.boxes.isfinite().all()) for image in found)
            assert min(len(image) for image in found) > 2


def test_a_network_that_has_diverged_finds_nothing() -> None:
    nothing = DensePredictions(
        tuple(torch.full((2, *shape, 9, 3), math.nan) for shape in SHAPES),
        tuple(torch.full((2, *shape, 9, 4), math.nan) for shape in SHAPES),
    )
    for fields in ({}, {"score_threshold": 0.0}):
        found = build(**fields)(nothing, anchors(), VALID_SIZES)
        assert [len(image) for image in found] == [0, 0]


@pytest.mark.parametrize("clip_before_nms", [True, False])
@pytest.mark.parametrize("delta", [1e30, 3e38, -3e38])
def test_a_box_that_overflows_is_no_detection(delta: float, clip_before_nms: bool) -> None:
    detections = one_cell(
        [[2.0], [1.0]], [[delta, 0.0, 0.0, 0.0], [0.0] * 4], clip_before_nms=clip_before_nms
    )
    assert detections.boxes.tolist() == [[0, 0, 36, 36]]


@pytest.mark.parametrize("clip_before_nms", [True, False])
def test_a_box_without_a_part_in_the_image_is_no_detection(clip_before_nms: bool) -> None:
    # 32 pixels wide, 100 pixels left of the image: nothing of it is in there, nor does it take the
    # one place or suppress the box of 64 pixels that it is moved onto.
    outside = [-3.5, 0.0, 0.0, 0.0]
    there_too = [-1.75, 0.0, math.log(0.5), math.log(0.5)]
    for deltas in ([outside, [0.0] * 4], [outside, there_too]):
        detections = one_cell(
            [[2.0], [1.0]], deltas, clip_before_nms=clip_before_nms, max_detections=1
        )
        assert len(detections) == (1 if deltas[1] == [0.0] * 4 else 0)


@pytest.mark.parametrize("clip_before_nms", [True, False])
def test_the_smallest_side_is_that_within_the_image(clip_before_nms: bool) -> None:
    # Moved so that 2 of its 32 pixels are left in the image.
    deltas = [[-18 / 32, 0.0, 0.0, 0.0], [0.0] * 4]
    for smallest_side, count in ((0.0, 2), (0.01, 2), (2.0, 2), (2.1, 1)):
        detections = one_cell(
            [[2.0], [1.0]], deltas, smallest_side=smallest_side, clip_before_nms=clip_before_nms
        )
        assert len(detections) == count
    collapsed = [[0.0, 0.0, 0.0, -14.0], [0.0] * 4]
    assert len(one_cell([[2.0], [1.0]], collapsed)) == 1
    assert len(one_cell([[2.0], [1.0]], collapsed, smallest_side=0.0)) == 2


def test_of_equal_logits_the_first_anchor_and_the_lowest_class_come_first() -> None:
    everywhere = DensePredictions(
        tuple(torch.zeros(1, *shape, 9, 3) for shape in SHAPES),
        tuple(torch.zeros(1, *shape, 9, 4) for shape in SHAPES),
    )
    (found,) = build(nms_iou_threshold=1.0, candidates_per_level=30, max_detections=60)(
        everywhere, anchors(), VALID_SIZES[:1]
    )
    finest, second = anchors().boxes.split(list(anchors().num_per_level))[:2]
    expected = torch.cat([finest[:10], second[:10]]).repeat_interleave(3, dim=0)
    inside = expected.clamp(min=0)
    inside = inside[(inside[:, 2:] - inside[:, :2] > 0.01).all(dim=1)]
    assert torch.equal(found.boxes[: len(inside)], inside[: len(found)])
    assert found.labels[:6].tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("num_classes", [1, 4])
def test_coarse_logits_are_chosen_among_as_by_a_stable_sort(num_classes: int) -> None:
    """As those of bfloat16, of which many are equal."""
    predictions = random_predictions(num_classes, 0.0, 7, batch=1)
    logits = tuple((level * 4).round() / 4 for level in predictions.class_logits)
    found = build(
        candidates_per_level=40, nms_iou_threshold=1.0, max_detections=1000, smallest_side=0
    )(DensePredictions(logits, predictions.box_codes), anchors(), VALID_SIZES[:1])[0]
    flat = [level.flatten() for level in logits]
    chosen = [level.sort(descending=True, stable=True).indices[:40] for level in flat]
    best = torch.cat([level[rows] for level, rows in zip(flat, chosen, strict=True)])
    labels = torch.cat([rows % num_classes for rows in chosen])
    order = best.sort(descending=True, stable=True).indices
    order = order[best[order].sigmoid() > 0.05]
    assert found.labels.tolist() == labels[order].tolist()


def test_the_last_bit_of_a_score_is_the_same_at_every_place() -> None:
    logits = torch.full((1, 1, 1, 1, 37), 1.2345)
    predictions = DensePredictions((logits,), (torch.zeros(1, 1, 1, 1, 4),))
    generator = AnchorConfig(sizes=(32.0,), scales=(1.0,), ratios=(1.0,)).build((8,))
    (found,) = build()(predictions, generator([(1, 1)], (64, 64), "cpu"), [(64, 64)])
    assert len(found) == 37
    assert found.scores.unique().numel() == 1
