"""The anatomy of the loss during training: what it adds up, and what it logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retina.datasets.loading import collate
from retina.instruments.anatomy import AnatomyMeter, FocalSetting
from retina.instruments.anatomy.hook import MAX_CLASSES, _write
from retina.instruments.anatomy.measuring import TrainedLoss, level_names, trained_loss
from retina.modeling.config import ModelConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.objective.classification import (
    ClassBalancedFocalConfig,
    ClassificationConfig,
    FocalConfig,
    QualityFocalConfig,
    VarifocalConfig,
)
from retina.objective.criterion import ObjectiveConfig
from retina.structures import (
    Assignment,
    BatchedTargets,
    DensePredictions,
    Sample,
    Targets,
)
from retina.training.config import TrainingConfig
from retina.training.forward import ForwardPass
from retina.training.metric_log import MetricLog
from retina.training.step import TrainingStep
from tests.conftest import Invoke  # type: ignore[import-not-found]

CPU = torch.device("cpu")
GROUPS = ("easy_negatives", "other_negatives", "positives")
MODEL = ModelConfig.model_validate_json(
    """{"backbone": {"kind": "resnet", "name": "resnet18", "norm": "frozen"},
        "pyramid": {"channels": 16},
        "head": {"num_convs": 1, "norm": "group", "num_groups": 4},
        "anchors": {"sizes": [16, 32, 64, 128, 256]}}"""
)


def rows_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def make_sample(number: int) -> Sample:
    generator = torch.Generator().manual_seed(number)
    corner = torch.rand(4, 2, generator=generator) * 40
    return Sample(
        torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=generator),
        Targets(
            boxes=torch.cat([corner, corner + 20], dim=1),
            labels=torch.randint(0, 3, (4,), generator=generator),
            is_crowd=torch.tensor([False, False, False, number == 1]),
        ),
        number,
    )


@pytest.mark.parametrize("loss", [FocalConfig(), FocalConfig(gamma=0.0, alpha=(0.2, 0.3, 0.9))])
def test_the_anatomy_of_a_step_adds_up_to_its_loss(loss: FocalConfig) -> None:
    torch.manual_seed(0)
    detector = MODEL.build(3)
    criterion = ObjectiveConfig(classification=loss).build(detector.box_coder)
    parameters = trained_loss(ObjectiveConfig(classification=loss)).parameters
    meter = AnatomyMeter(level_names(detector), ("a", "b", "c"), parameters, CPU)
    num_anchors = []

    def observe(
        predictions: DensePredictions, assignment: Assignment, targets: BatchedTargets
    ) -> None:
        num_anchors.append(assignment.is_foreground.numel())
        meter.add(predictions, assignment, targets)

    forward = ForwardPass(
        detector=detector,
        preprocess=PreprocessConfig().build(),
        criterion=criterion,
        device=CPU,
        precision="fp32",
    )
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.01, fused=True)
    step = TrainingStep(forward, optimizer, clip_norm=None)
    parts = [collate([make_sample(0)]), collate([make_sample(1), make_sample(2)])]
    losses = step(parts, forward_hook=observe).losses

    anatomy = meter.result()
    divisor = losses.divisor.item()
    assert anatomy.overall().loss / divisor == pytest.approx(losses.classification.item(), rel=1e-5)
    assert anatomy.overall().positives.count == losses.num_foreground.item()
    # Anchors on the crowd region are ignored.
    count = sum(part.count for part in anatomy.overall().parts)
    assert 0.8 * 3 * sum(num_anchors) < count < 3 * sum(num_anchors)
    assert anatomy.num_images == 3


def test_a_training_logs_shares_and_histograms(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    done = invoke("train", tiny_config, f"output_dir={folder}", "training.anatomy_every_steps=3")
    assert done.code == 0, done.err
    rows = rows_of(folder, "anatomy")
    assert [row["step"] for row in rows] == [1, 3, 6]
    for row in rows:
        for what in ("loss", "gradient"):
            assert sum(row[f"{group}_{what}_share"] for group in GROUPS) == pytest.approx(1.0)
    # A prior of 0.01 makes every negative easy at first, and the positives make up nearly all.
    assert rows[0]["other_negatives_loss_share"] == 0.0
    assert rows[0]["positives_loss_share"] > 0.99

    levels = rows_of(folder, "anatomy_per_level")[0]["levels"]
    assert list(levels) == ["P3", "P4", "P5", "P6", "P7"]
    classes = rows_of(folder, "anatomy_per_class")
    assert [row["step"] for row in classes] == [1, 3, 6]
    assert len(classes[0]["positives_gradient_share"]) == 10
    assert len(classes[0]) == 2 + 6
    for name in classes[-1]["positives_loss_share"]:
        shares = [classes[-1][f"{group}_loss_share"][name] for group in GROUPS]
        assert sum(shares) == pytest.approx(1.0)
    (hardest, *_) = rows_of(folder, "anatomy_hardest_percent")
    at_gamma = [hardest[f"background_gamma_{gamma}"] for gamma in ("0", "0.5", "1", "2", "5")]
    assert at_gamma == sorted(at_gamma)  # the larger γ, the more the hardest hold
    assert 0.01 <= at_gamma[0] < at_gamma[-1] <= 1
    assert 0.01 <= hardest["foreground_gamma_2"] <= 1
    (histogram, *_) = rows_of(folder, "anatomy_p_t_logits")
    assert len(histogram["edges"]) == len(histogram["negatives"]) + 1
    assert sum(histogram["negatives"]) > 100 * sum(histogram["positives"]) > 0

    board = EventAccumulator(str(folder / "tensorboard"), size_guidance={"histograms": 0})
    board.Reload()
    tags = board.Tags()
    assert "anatomy/positives_gradient_share" in tags["scalars"]
    assert "anatomy_P3/easy_negatives_loss_share" in tags["scalars"]
    name = next(iter(classes[0]["positives_loss_share"]))
    assert f"anatomy_positives_loss_share_per_class/{name}" in tags["scalars"]
    (first, *_) = board.Scalars("anatomy_hardest_percent/background_gamma_2")
    assert first.value == pytest.approx(hardest["background_gamma_2"], rel=1e-6)
    shown = board.Histograms("anatomy_p_t_logits/negatives")
    assert [event.step for event in shown] == [1, 3, 6]
    assert shown[0].histogram_value.num == sum(histogram["negatives"])


def test_null_turns_it_off(invoke: Invoke, tiny_config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ("training.anatomy_every_steps=null", "training.max_steps=1")
    assert invoke("train", tiny_config, f"output_dir={folder}", *options).code == 0
    assert rows_of(folder, "anatomy") == []
    assert rows_of(folder, "train") != []
    assert TrainingConfig().anatomy_every_steps == 100


def test_a_training_without_focus_or_prior_is_warned_once(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    done = invoke(
        *("train", tiny_config, f"output_dir={folder}", "training.anatomy_every_steps=1"),
        *("objective.classification.gamma=0", "objective.classification.alpha=null"),
        "optimizer.lr=1e-9",
    )
    assert done.code == 0, done.err
    # Nothing is learned: with γ = 0 and a prior of 0.01 easy negatives pull hardest for ever.
    assert done.out.count("easy negatives (p_t > 0.9) dominate") == 1
    (warning,) = rows_of(folder, "warning")
    assert warning["step"] == 3
    assert "Raise objective.classification.gamma (now 0" in warning["message"]


def test_other_losses_are_looked_at_through_their_focus() -> None:
    def look(classification: ClassificationConfig, counts: Any = None) -> TrainedLoss:
        return trained_loss(ObjectiveConfig(classification=classification), counts)

    assert look(FocalConfig(alpha=None, gamma=0.5)).parameters == FocalSetting(0.5, None)
    assert look(FocalConfig()).is_exact
    quality = look(QualityFocalConfig(beta=1.5))
    assert (quality.parameters, quality.is_exact) == (FocalSetting(1.5, None), False)
    assert look(VarifocalConfig()).parameters == FocalSetting(2.0, None)
    balanced = look(ClassBalancedFocalConfig(), (10, 1000))
    assert balanced.is_exact
    assert isinstance(balanced.parameters.alpha, tuple)
    assert balanced.parameters.alpha[0] > 0.25 > balanced.parameters.alpha[1]
    assert not look(ClassBalancedFocalConfig()).is_exact


class BoardNames:
    """Stands for TensorBoard's writer: keeps the names of the scalars."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.names.append(name)

    def add_histogram_raw(self, *arguments: object, **options: object) -> None: ...


@pytest.mark.parametrize(("num_classes", "kept"), [(MAX_CLASSES, 100), (MAX_CLASSES + 20, 100)])
def test_very_many_classes_do_not_flood_the_log(
    tmp_path: Path, num_classes: int, kept: int
) -> None:
    names = tuple(f"class {number}" for number in range(num_classes))
    meter = AnatomyMeter(["P3"], names, FocalSetting(2.0, 0.25), CPU)
    # The higher the number of a class, the harder its one negative is.
    logits = torch.linspace(-4, 4, num_classes).view(1, 1, 1, 1, -1)
    nothing = torch.zeros(1, 1, dtype=torch.bool)
    objects = Targets(torch.zeros(1, 4), torch.zeros(1, dtype=torch.long), torch.tensor([False]))
    meter.add(
        DensePredictions(class_logits=(logits,), box_codes=()),
        Assignment(torch.zeros(1, 1, dtype=torch.long), nothing, nothing),
        BatchedTargets.from_targets([objects]),
    )
    log = MetricLog(tmp_path)
    board = BoardNames()
    log._board = board
    anatomy = meter.result()
    _write(log, 5, anatomy, anatomy.overall())

    (row,) = rows_of(tmp_path, "anatomy_per_class")
    assert len(row) == 2 + 6
    shown = row["other_negatives_loss_share"]
    assert len(shown) == kept
    assert set(shown) == set(names[-kept:])
    in_board = [name for name in board.names if "_per_class/" in name]
    assert len(in_board) == (6 * kept if num_classes <= MAX_CLASSES else 0)
    (hardest,) = rows_of(tmp_path, "anatomy_hardest_percent")
    assert hardest["foreground_gamma_2"] is None  # there are no positives
