import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from retina.configuration import ConfigError, validate
from retina.geometry.anchors import AnchorConfig
from retina.geometry.box_coders import DeltasConfig
from retina.losses import (
    class_balanced_alpha,
    quality_focal_loss,
    sigmoid_focal_loss,
    varifocal_loss,
)
from retina.objective.classification import (
    IGNORED,
    ClassBalancedFocalConfig,
    EqualizedFocalConfig,
    FocalConfig,
    QualityFocalConfig,
    VarifocalConfig,
)
from retina.objective.criterion import Criterion, ObjectiveConfig
from retina.structures import Anchors, BatchedTargets, DensePredictions, Targets
from tests.conftest import Invoke  # type: ignore[import-not-found]

K = 3
COUNTS = (100, 10, 1)
KINDS = ["focal", "quality_focal", "varifocal", "class_balanced_focal", "equalized_focal"]


def random_rows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits (2, 30, K), labels with background and ignored rows, row weights, quality."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 30, K, generator=generator) * 2
    labels = torch.randint(IGNORED, K + 1, (2, 30), generator=generator)
    weights, quality = torch.rand(2, 2, 30, generator=generator).unbind()
    return logits, labels, weights, quality


def build(kind: str, class_counts: Sequence[int] | None = COUNTS) -> Criterion:
    config = validate({"classification": {"kind": kind}}, ObjectiveConfig, source="test")
    return config.build(DeltasConfig().build(), class_counts=class_counts)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_sums_of_its_function(kind: str) -> None:
    logits, labels, weights, quality = random_rows()
    loss = build(kind).classification_loss
    assert loss.needs_quality == (kind in ("quality_focal", "varifocal"))
    options = {"ignore_index": IGNORED}
    match kind:
        case "quality_focal":
            each = quality_focal_loss(logits, labels, quality, **options)
        case "varifocal":
            each = varifocal_loss(logits, labels, quality, **options)
        case "class_balanced_focal":
            alpha = class_balanced_alpha(COUNTS).float()
            each = sigmoid_focal_loss(logits, labels, alpha=alpha, **options)
        case _:  # an equalized focal loss that has seen nothing is a focal loss
            each = sigmoid_focal_loss(logits, labels, **options)
    rows = each.sum(-1) * weights
    is_class = (labels >= 0) & (labels < K)
    sums = loss(logits, labels, row_weights=weights, quality=quality)
    torch.testing.assert_close(sums.total, rows.sum(), rtol=1e-5, atol=0)
    torch.testing.assert_close(sums.foreground, rows[is_class].sum(), rtol=1e-5, atol=0)
    unweighted = loss(logits, labels, quality=quality)
    torch.testing.assert_close(unweighted.total, each.sum(), rtol=1e-5, atol=0)


@pytest.fixture(scope="module")
def anchors() -> Anchors:
    return AnchorConfig(sizes=(32.0, 64.0)).build((8, 16))(((8, 8), (4, 4)), (64, 64), "cpu")


def one_object() -> BatchedTargets:
    boxes = torch.tensor([[10.0, 12.0, 44.0, 40.0]])
    return BatchedTargets.from_targets([Targets(boxes, torch.tensor([1]), torch.tensor([False]))])


def make_predictions(deltas: Tensor) -> DensePredictions:
    generator = torch.Generator().manual_seed(0)
    logits = tuple(
        torch.randn(1, side, side, 9, K, generator=generator).requires_grad_() for side in (8, 4)
    )
    first = 8 * 8 * 9
    return DensePredictions(
        logits, (deltas[:first].reshape(1, 8, 8, 9, 4), deltas[first:].reshape(1, 4, 4, 9, 4))
    )


@pytest.mark.parametrize("kind", ["quality_focal", "varifocal"])
def test_the_quality_is_the_overlap_of_the_decoded_box(kind: str, anchors: Anchors) -> None:
    criterion = build(kind)
    targets = one_object()
    labels = torch.where(criterion.assigner(anchors, targets).is_foreground, 1, K)
    ignored = criterion.assigner(anchors, targets).is_ignored
    labels = torch.where(ignored, IGNORED, labels)
    num_anchors = sum(anchors.num_per_level)
    perfect = criterion.box_coder.encode(targets.boxes[0, :1].expand(num_anchors, 4), anchors.boxes)
    # Boxes of the same centre and half the height: IoU 1/2 everywhere.
    half = perfect.clone()
    half[:, 3] -= torch.log(torch.tensor(2.0))
    for deltas, overlap in ((perfect, 1.0), (half, 0.5)):
        predictions = make_predictions(deltas.clone().requires_grad_())
        function = quality_focal_loss if kind == "quality_focal" else varifocal_loss
        flat = torch.cat([level.flatten(1, 3) for level in predictions.class_logits], dim=1)
        expected = function(
            flat, labels, torch.full(labels.shape, overlap), ignore_index=IGNORED, reduction="sum"
        )
        sums = criterion.sums(predictions, anchors, targets)
        torch.testing.assert_close(sums.classification, expected, rtol=1e-4, atol=0)
        assert 0 < sums.foreground_classification < sums.classification
        # the classification loss teaches the boxes nothing
        gradients = torch.autograd.grad(
            sums.classification, predictions.box_codes, allow_unused=True
        )
        assert gradients == (None, None)


def test_every_image_has_its_own_divisor_in_every_kind(anchors: Anchors) -> None:
    deltas = torch.zeros(sum(anchors.num_per_level), 4)
    for kind in KINDS:
        config = validate(
            {"classification": {"kind": kind}, "normalizer": "per_image"},
            ObjectiveConfig,
            source="test",
        )
        per_image = config.build(DeltasConfig().build(), class_counts=COUNTS)
        plain = build(kind)
        a = per_image.sums(make_predictions(deltas), anchors, one_object())
        b = plain.sums(make_predictions(deltas), anchors, one_object())
        torch.testing.assert_close(a.classification, b.classification / b.num_foreground)
        torch.testing.assert_close(a.box_regression, b.box_regression / b.num_foreground)


def test_the_balance_of_equalized_focal_moves_with_each_step_and_is_saved(
    anchors: Anchors,
) -> None:
    criterion = build("equalized_focal")
    deltas = torch.zeros(sum(anchors.num_per_level), 4)
    sums = criterion.sums(make_predictions(deltas), anchors, one_object())
    sums.total.backward()
    before = criterion.state_dict()
    name = "classification_loss.loss.negative_gradient"
    assert before[name].tolist() == [0, 0, 0]
    criterion.step_divisor(sums.divisor)
    assert criterion.state_dict()[name].min() > 0
    assert criterion.state_dict()["classification_loss.loss.positive_gradient"].tolist()[0] == 0
    other = build("equalized_focal")
    other.load_state_dict(criterion.state_dict())
    again = other.sums(make_predictions(deltas), anchors, one_object())
    assert again.classification.item() != pytest.approx(sums.classification.item())
    same = criterion.sums(make_predictions(deltas), anchors, one_object())
    assert torch.equal(again.classification, same.classification)


def test_configs_without_a_kind_are_focal_and_all_kinds_are_known() -> None:
    config = validate({"classification": {"gamma": 1.0}}, ObjectiveConfig, source="test")
    assert config.classification == FocalConfig(gamma=1.0)
    with pytest.raises(ConfigError, match="classification"):
        validate({"classification": {"kind": "fokal"}}, ObjectiveConfig, source="test")
    with pytest.raises(ConfigError, match="unknown key"):
        validate(
            {"classification": {"kind": "varifocal", "beta": 1.0}}, ObjectiveConfig, source="test"
        )
    assert QualityFocalConfig().beta == 2.0
    assert VarifocalConfig().alpha == 0.75


def test_counts_come_from_the_config_or_from_the_training_set() -> None:
    from_data = ClassBalancedFocalConfig().build(COUNTS)
    written = ClassBalancedFocalConfig(class_counts=COUNTS).build((1, 1, 1))
    assert isinstance(from_data.alpha, Tensor)
    assert isinstance(written.alpha, Tensor)
    assert torch.equal(from_data.alpha, written.alpha)
    assert from_data.alpha.tolist() == pytest.approx(class_balanced_alpha(COUNTS).tolist())
    with pytest.raises(ValueError, match="class_balanced_focal needs the number of objects"):
        ClassBalancedFocalConfig().build()
    with pytest.raises(ValueError, match="pass class_counts to build"):
        EqualizedFocalConfig().build()


SLOW_KINDS = ("class_balanced_focal", "quality_focal", "equalized_focal")


def losses_of(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["classification"] for row in rows if row["kind"] == "train"]


@pytest.mark.parametrize(
    "kind",
    [  # focal is what others train with; the slow ones differ from a quick one in a formula
        pytest.param(kind, marks=[pytest.mark.slow] if kind in SLOW_KINDS else [])
        for kind in KINDS[1:]
    ],
)
def test_training_with_every_kind_lowers_the_loss(
    kind: str, tiny_config: Path, tmp_path: Path, invoke: Invoke
) -> None:
    run = tmp_path / "run"
    done = invoke(
        "train",
        tiny_config,
        f"output_dir={run}",
        f"objective.classification={{kind: {kind}}}",
        "model.backbone={kind: resnet, name: resnet18}",  # the small one learns too slowly here
        "training.batch_size=4",
        "training.epochs=5",
        "training.evaluate_every_epochs=5",
    )
    assert done.code == 0, done.err
    losses = losses_of(run)
    assert len(losses) == 30
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    learned = {name for name in state["criterion"] if name != "moving_average"}
    assert bool(learned) == (kind == "equalized_focal")
    for name in learned:
        assert state["criterion"][name].shape == (10,)
        assert state["criterion"][name].sum() > 0


def test_counts_of_another_number_of_classes_are_refused(
    tiny_config: Path, tmp_path: Path, invoke: Invoke
) -> None:
    done = invoke(
        "train",
        tiny_config,
        f"output_dir={tmp_path / 'run'}",
        "objective.classification={kind: class_balanced_focal, class_counts: [3, 4]}",
    )
    assert done.code == 2
    assert "objective.classification.class_counts: 2 counts for 10 classes" in done.err
