"""The losses of the generalized focal loss against a plain reference, over images and ranks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from retina.configuration import validate
from retina.geometry.anchors import AnchorConfig
from retina.geometry.box_coders import DistributionConfig
from retina.losses import distribution_focal_loss, quality_focal_loss
from retina.objective.criterion import Criterion, ObjectiveConfig
from retina.structures import Anchors, BatchedTargets, DensePredictions, Targets

NUM_CLASSES = 5
BINS = 8
SHAPES = ((16, 24), (8, 12), (4, 6))
OBJECTIVE = {
    "assigner": {"kind": "atss"},
    "classification": {"kind": "quality_focal"},
    "box": {"kind": "giou", "weight": 2.0, "weighted_by_score": True},
}


@pytest.fixture(scope="module")
def anchors() -> Anchors:
    config = AnchorConfig(sizes=(64.0, 128.0, 256.0), scales=(1.0,), ratios=(1.0,))
    return config.build((8, 16, 32))(SHAPES, (128, 192), "cpu")


def criterion_of(**box: object) -> Criterion:
    tree = {**OBJECTIVE, "box": {**OBJECTIVE["box"], **box}}  # type: ignore[dict-item]
    config = validate(tree, ObjectiveConfig, source="test")
    return config.build(DistributionConfig(bins=BINS).build())


def make_predictions(batch: int) -> DensePredictions:
    generator = torch.Generator().manual_seed(0)

    def level(height: int, width: int, last: int) -> Tensor:
        return torch.randn(batch, height, width, 1, last, generator=generator).requires_grad_()

    return DensePredictions(
        tuple(level(h, w, NUM_CLASSES) for h, w in SHAPES),
        tuple(level(h, w, 4 * (BINS + 1)) for h, w in SHAPES),
    )


def make_targets(count: int, seed: int) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 90
    side = torch.rand(count, 2, generator=generator) * 60 + 20
    labels = torch.randint(0, NUM_CLASSES, (count,), generator=generator)
    boxes = torch.cat([corner, (corner + side).clamp(max=128)], dim=1)
    return Targets(boxes, labels, torch.zeros(count, dtype=torch.bool))


IMAGES = [make_targets(6, 0), Targets.empty(), make_targets(1, 1), make_targets(9, 2)]


def reference(
    predictions: DensePredictions, anchors: Anchors, targets: BatchedTargets
) -> tuple[Tensor, Tensor]:
    """The two losses of a step as mmdetection's GFLHead has them, foreground picked out."""
    assignment = criterion_of().assigner(anchors, targets)
    logits, codes = predictions.flatten()
    rows, columns = assignment.is_foreground.nonzero(as_tuple=True)
    objects = assignment.target_index[rows, columns]
    wanted = targets.boxes[rows, objects]
    own = anchors.boxes[columns]
    centers = (own[:, :2] + own[:, 2:]) / 2
    stride = (own[:, 2:] - own[:, :2]) / 8
    distributions = codes[rows, columns].view(-1, 4, BINS + 1)
    sides = distributions.softmax(dim=-1) @ torch.arange(BINS + 1.0)
    boxes = torch.cat([centers - sides[:, :2] * stride, centers + sides[:, 2:] * stride], dim=1)
    weights = logits[rows, columns].detach().sigmoid().max(dim=1).values
    giou = (generalized_box_iou_loss(boxes, wanted) * weights).sum() / weights.sum()
    distances = torch.cat([centers - wanted[:, :2], wanted[:, 2:] - centers], dim=1)
    distances /= stride.repeat(1, 2)
    per_side = distribution_focal_loss(distributions, distances)
    dfl = (per_side * weights[:, None]).sum() / 4 / weights.sum()

    low, high = torch.maximum(boxes, wanted)[:, :2], torch.minimum(boxes, wanted)[:, 2:]
    common = (high - low).clamp(min=0).prod(dim=1)
    areas = [(b[:, 2:] - b[:, :2]).prod(dim=1) for b in (boxes, wanted)]
    labels = torch.full(logits.shape[:2], NUM_CLASSES)
    labels[rows, columns] = targets.labels[rows, objects]
    quality = torch.zeros(labels.shape)
    quality[rows, columns] = (common / (areas[0] + areas[1] - common)).detach()
    classes = quality_focal_loss(logits, labels, quality, reduction="sum") / len(rows)
    return classes, giou * 2.0 + dfl * 0.25


def test_losses_and_gradients_equal_the_reference(anchors: Anchors) -> None:
    predictions, targets = make_predictions(4), BatchedTargets.from_targets(IMAGES)
    sums = criterion_of().sums(predictions, anchors, targets).with_mean_box_weight_of_one()
    assert sums.box_weight is None
    ours = sums.classification / sums.divisor, sums.box_regression / sums.divisor
    theirs = reference(predictions, anchors, targets)
    leaves = [*predictions.class_logits, *predictions.box_codes]
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
    mine, other = (torch.autograd.grad(a + b, leaves, retain_graph=True) for a, b in (ours, theirs))
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_weights_do_not_matter_where_all_scores_are_the_same(anchors: Anchors) -> None:
    predictions, targets = make_predictions(4), BatchedTargets.from_targets(IMAGES)
    same = tuple(torch.full_like(level, -4.6) for level in predictions.class_logits)
    predictions = DensePredictions(same, predictions.box_codes)
    weighted = criterion_of().sums(predictions, anchors, targets)
    plain = criterion_of(weighted_by_score=False).sums(predictions, anchors, targets)
    assert weighted.box_weight is not None
    assert weighted.box_weight.item() == pytest.approx(0.00995 * plain.divisor.item(), rel=1e-3)
    weighted = weighted.with_mean_box_weight_of_one()
    torch.testing.assert_close(weighted.box_regression, plain.box_regression)
    assert plain.with_mean_box_weight_of_one() is plain


def test_no_foreground_anywhere_is_zero_and_finite(anchors: Anchors) -> None:
    predictions = make_predictions(2)
    nothing = BatchedTargets.from_targets([Targets.empty(), Targets.empty()])
    sums = criterion_of().sums(predictions, anchors, nothing).with_mean_box_weight_of_one()
    assert sums.box_regression.item() == 0
    sums.total.backward()
    for level in predictions.box_codes:
        assert level.grad is not None
        assert level.grad.abs().max() == 0


def test_scores_of_zero_do_not_divide_by_zero(anchors: Anchors) -> None:
    predictions, targets = make_predictions(4), BatchedTargets.from_targets(IMAGES)
    hopeless = tuple(torch.full_like(level, -500.0) for level in predictions.class_logits)
    predictions = DensePredictions(hopeless, predictions.box_codes)
    sums = criterion_of().sums(predictions, anchors, targets).with_mean_box_weight_of_one()
    assert sums.box_regression.item() == 0


def test_l1_compares_expected_distances(anchors: Anchors) -> None:
    predictions, targets = make_predictions(4), BatchedTargets.from_targets(IMAGES)
    criterion = criterion_of(kind="l1", weight=1.0, weighted_by_score=False, distribution_weight=0)
    sums = criterion.sums(predictions, anchors, targets)
    assignment = criterion.assigner(anchors, targets)
    rows, columns = assignment.is_foreground.nonzero(as_tuple=True)
    coder = criterion.box_coder
    wanted = coder.encode(
        targets.boxes[rows, assignment.target_index[rows, columns]], anchors.boxes[columns]
    )
    codes = predictions.flatten()[1][rows, columns].view(-1, 4, BINS + 1)
    found = codes.softmax(dim=-1) @ torch.arange(BINS + 1.0)
    torch.testing.assert_close(sums.box_regression, (found - wanted).abs().sum())


def test_ranks_share_one_mean_weight(anchors: Anchors, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image by image on a rank each, with the sum over them in the place of the collective."""
    predictions, targets = make_predictions(4), BatchedTargets.from_targets(IMAGES)
    criterion = criterion_of()
    whole = criterion.sums(predictions, anchors, targets)
    parts = [
        criterion.sums(
            DensePredictions(
                tuple(level[row : row + 1] for level in predictions.class_logits),
                tuple(level[row : row + 1] for level in predictions.box_codes),
            ),
            anchors,
            BatchedTargets.from_targets(IMAGES[row : row + 1]),
        )
        for row in range(4)
    ]
    assert whole.box_weight is not None
    together = torch.stack([whole.num_foreground, whole.box_weight])
    monkeypatch.setattr("retina.objective.criterion.sum_over_ranks", lambda _: together)
    of_ranks = [part.with_mean_box_weight_of_one().box_regression for part in parts]
    expected = replace(whole).with_mean_box_weight_of_one().box_regression
    torch.testing.assert_close(torch.stack(of_ranks).sum(), expected)
