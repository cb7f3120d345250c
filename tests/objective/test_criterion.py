from dataclasses import replace

import pytest
import torch
from torchvision.models.detection.retinanet import (
    RetinaNetClassificationHead,
    RetinaNetRegressionHead,
)

from retina.geometry.anchors import AnchorConfig
from retina.geometry.box_coders import DeltasConfig
from retina.losses.box import BoxLoss
from retina.objective.classification import FocalConfig
from retina.objective.criterion import (
    BoxLossConfig,
    Criterion,
    LossSums,
    Normalizer,
    ObjectiveConfig,
)
from retina.structures import Anchors, BatchedTargets, DensePredictions, Targets

NUM_CLASSES = 5
SHAPES = ((16, 24), (8, 12), (4, 6))
PADDED = (128, 192)


@pytest.fixture(scope="module")
def anchors() -> Anchors:
    config = AnchorConfig(sizes=(32.0, 64.0, 128.0))
    return config.build((8, 16, 32))(SHAPES, PADDED, "cpu")


def make_predictions(batch: int, seed: int = 0) -> DensePredictions:
    generator = torch.Generator().manual_seed(seed)

    def level(height: int, width: int, last: int, scale: float) -> torch.Tensor:
        values = torch.randn(batch, height, width, 9, last, generator=generator) * scale
        return values.requires_grad_()

    return DensePredictions(
        tuple(level(h, w, NUM_CLASSES, 2.0) for h, w in SHAPES),
        tuple(level(h, w, 4, 0.3) for h, w in SHAPES),
    )


def make_targets(count: int, seed: int) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 100
    side = torch.rand(count, 2, generator=generator) * 60 + 20
    labels = torch.randint(0, NUM_CLASSES, (count,), generator=generator)
    boxes = torch.cat([corner, (corner + side).clamp(max=128)], dim=1)
    return Targets(boxes, labels, torch.zeros(count, dtype=torch.bool))


def criterion_of(box: BoxLoss = "l1", normalizer: Normalizer = "foreground") -> Criterion:
    config = ObjectiveConfig(box=BoxLossConfig(kind=box), normalizer=normalizer)
    return config.build(DeltasConfig().build())


def losses_of(
    criterion: Criterion, predictions: DensePredictions, anchors: Anchors, targets: BatchedTargets
) -> LossSums:
    """The losses of a batch that is a whole optimizer step by itself."""
    sums = criterion.sums(predictions, anchors, targets)
    divisor = sums.divisor.clamp(min=1)
    return replace(
        sums,
        classification=sums.classification / divisor,
        box_regression=sums.box_regression / divisor,
    )


IMAGES = [make_targets(6, 0), Targets.empty(), make_targets(1, 1), make_targets(15, 2)]


@pytest.mark.parametrize(("box", "their_name"), [("l1", "l1"), ("giou", "giou")])
def test_losses_and_gradients_equal_torchvisions(
    anchors: Anchors, box: BoxLoss, their_name: str
) -> None:
    predictions = make_predictions(len(IMAGES))
    targets = BatchedTargets.from_targets(IMAGES)
    criterion = criterion_of(box, "per_image")
    ours = losses_of(criterion, predictions, anchors, targets)
    assignment = criterion.assigner(anchors, targets)
    matches = [
        torch.where(
            assignment.is_foreground[row],
            assignment.target_index[row],
            torch.where(assignment.is_ignored[row], -2, -1),
        )
        for row in range(len(IMAGES))
    ]
    theirs_in = [{"boxes": image.boxes, "labels": image.labels} for image in IMAGES]
    class_head = RetinaNetClassificationHead(8, 9, NUM_CLASSES)
    box_head = RetinaNetRegressionHead(8, 9)
    box_head._loss_type = their_name
    logits, deltas = predictions.flatten()
    their_class = class_head.compute_loss(theirs_in, {"cls_logits": logits}, matches)
    their_box = box_head.compute_loss(
        theirs_in, {"bbox_regression": deltas}, [anchors.boxes] * len(IMAGES), matches
    )
    torch.testing.assert_close(ours.classification, their_class, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.box_regression, their_box, rtol=1e-5, atol=1e-6)

    leaves = [*predictions.class_logits, *predictions.box_codes]
    mine = torch.autograd.grad(ours.total, leaves, retain_graph=True)
    reference = torch.autograd.grad(their_class + their_box, leaves)
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("box", ["l1", "smooth_l1", "giou", "diou", "ciou"])
def test_no_objects_at_all_gives_a_loss_and_finite_gradients(
    anchors: Anchors, box: BoxLoss
) -> None:
    predictions = make_predictions(2)
    targets = BatchedTargets.from_targets([Targets.empty(), Targets.empty()])
    losses = losses_of(criterion_of(box), predictions, anchors, targets)
    assert losses.box_regression.item() == 0
    assert losses.classification.item() > 0
    losses.total.backward()
    for level in (*predictions.class_logits, *predictions.box_codes):
        assert level.grad is not None
        assert torch.isfinite(level.grad).all()


@pytest.mark.parametrize("box", ["l1", "smooth_l1", "giou", "diou", "ciou"])
def test_perfect_boxes_have_no_box_loss(anchors: Anchors, box: BoxLoss) -> None:
    criterion = criterion_of(box)
    targets = BatchedTargets.from_targets(IMAGES[:1])
    assignment = criterion.assigner(anchors, targets)
    matched = targets.boxes[0][assignment.target_index[0]]
    deltas = criterion.box_coder.encode(matched, anchors.boxes)
    deltas[~assignment.is_foreground[0]] = 7.0  # background predictions must not count
    levels, start = [], 0
    for (height, width), count in zip(SHAPES, anchors.num_per_level, strict=True):
        levels.append(deltas[start : start + count].reshape(1, height, width, 9, 4))
        start += count
    predictions = DensePredictions(make_predictions(1).class_logits, tuple(levels))
    losses = losses_of(criterion, predictions, anchors, targets)
    assert losses.box_regression.item() == pytest.approx(0, abs=2e-5)


def test_parts_of_a_step_add_up_to_the_whole_batch(anchors: Anchors) -> None:
    criterion = criterion_of()
    whole = make_predictions(4)
    targets = BatchedTargets.from_targets(IMAGES)
    expected = losses_of(criterion, whole, anchors, targets)
    sums = []
    for row in range(4):
        part = DensePredictions(
            tuple(level[row : row + 1] for level in whole.class_logits),
            tuple(level[row : row + 1] for level in whole.box_codes),
        )
        one = BatchedTargets.from_targets([IMAGES[row]])
        sums.append(criterion.sums(part, anchors, one).detach_stack())
    total = LossSums.unstack(torch.stack(sums).sum(dim=0))
    divisor = criterion.step_divisor(total.divisor)
    assert divisor.item() == total.num_foreground.item() > 22
    torch.testing.assert_close(total.classification / divisor, expected.classification)
    torch.testing.assert_close(total.box_regression / divisor, expected.box_regression)


def test_the_moving_average_follows_detectron2s_rule(anchors: Anchors) -> None:
    criterion = criterion_of(normalizer="moving_average")
    assert criterion.step_divisor(torch.tensor(200.0)).item() == pytest.approx(110.0)
    assert criterion.step_divisor(torch.tensor(0.0)).item() == pytest.approx(99.1)
    assert criterion.state_dict()["moving_average"].item() == pytest.approx(99.1)


def test_the_foreground_share_is_the_loss_of_foreground_anchors(anchors: Anchors) -> None:
    criterion = criterion_of()
    targets = BatchedTargets.from_targets(IMAGES)
    predictions = make_predictions(4)
    sums = criterion.sums(predictions, anchors, targets)
    assert 0 < sums.foreground_classification < sums.classification
    nothing = BatchedTargets.from_targets([Targets.empty()] * 4)
    assert criterion.sums(predictions, anchors, nothing).foreground_classification.item() == 0


def test_bf16_predictions_give_float32_losses_close_to_the_exact_ones(anchors: Anchors) -> None:
    targets = BatchedTargets.from_targets(IMAGES)
    exact = make_predictions(4)
    rounded = DensePredictions(
        tuple(level.bfloat16() for level in exact.class_logits),
        tuple(level.bfloat16() for level in exact.box_codes),
    )
    criterion = criterion_of("giou")
    a = losses_of(criterion, exact, anchors, targets)
    b = losses_of(criterion, rounded, anchors, targets)
    assert b.total.dtype == torch.float32
    torch.testing.assert_close(a.total, b.total, rtol=5e-3, atol=0)


def test_crowd_regions_take_their_anchors_out_of_the_loss(anchors: Anchors) -> None:
    everywhere = Targets(
        boxes=torch.tensor([[-500.0, -500.0, 900.0, 900.0]]),
        labels=torch.tensor([0]),
        is_crowd=torch.tensor([True]),
    )
    targets = BatchedTargets.from_targets([everywhere])
    sums = criterion_of().sums(make_predictions(1), anchors, targets)
    assert sums.total.item() == 0


def test_a_senseless_alpha_in_a_config_names_none() -> None:
    with pytest.raises(ValueError, match="None for no class weighting"):
        FocalConfig(alpha=0.0)
