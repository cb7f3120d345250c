"""A new assigner and a new loss, each a config with its class, go through every command."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from retina.experiment.config import ExperimentConfig
from retina.losses import FocalSums
from retina.objective.assignment import Assigner, AssignerConfig
from retina.objective.classification import IGNORED, ClassificationConfig, ClassificationLoss
from retina.objective.criterion import ObjectiveConfig
from retina.structures import Anchors, Assignment, BatchedTargets
from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.extending import one_more_kind  # type: ignore[import-not-found]


class CenterAssigner(Assigner):
    """An anchor is foreground where its centre lies in an object, the first of several."""

    def __call__(self, anchors: Anchors, targets: BatchedTargets) -> Assignment:
        """See `Assigner`."""
        centers = (anchors.boxes[:, :2] + anchors.boxes[:, 2:]) / 2  # (R, 2)
        low, high = targets.boxes.unsqueeze(1).split(2, dim=-1)  # (B, 1, M, 2)
        inside = ((centers[:, None] > low) & (centers[:, None] < high)).all(-1)  # (B, R, M)
        inside &= (targets.is_object & ~targets.is_crowd).unsqueeze(1)
        is_foreground = inside.any(-1)
        return Assignment(inside.int().argmax(-1), is_foreground, torch.zeros_like(is_foreground))


class CenterConfig(AssignerConfig):
    kind: Literal["center"] = "center"

    def build(self) -> CenterAssigner:
        return CenterAssigner()


class CrossEntropy(ClassificationLoss):
    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        row_weights: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> FocalSums:
        num_classes = logits.shape[-1]
        wanted = F.one_hot(labels.clamp(min=0), num_classes + 1)[..., :-1].float()
        each = F.binary_cross_entropy_with_logits(logits.float(), wanted, reduction="none").sum(-1)
        each = torch.where(labels == IGNORED, 0.0, each)
        each = each if row_weights is None else each * row_weights
        is_class = (labels >= 0) & (labels < num_classes)
        return FocalSums(each.sum(), torch.where(is_class, each.detach(), 0.0).sum())


class CrossEntropyConfig(ClassificationConfig):
    kind: Literal["cross_entropy"] = "cross_entropy"

    def build(self, class_counts: Sequence[int] | None = None) -> CrossEntropy:
        return CrossEntropy()


@pytest.fixture
def _registered() -> Iterator[None]:
    above = (ExperimentConfig,)
    with (
        one_more_kind(ObjectiveConfig, "assigner", CenterConfig, above=above),
        one_more_kind(ObjectiveConfig, "classification", CrossEntropyConfig, above=above),
    ):
        yield


@pytest.mark.parametrize(
    "kind", ["assigner={kind: center}", "classification={kind: cross_entropy}"]
)
@pytest.mark.usefixtures("_registered")
def test_a_new_kind_trains_and_is_evaluated_and_examined(
    kind: str, tiny_config: Path, tmp_path: Path, invoke: Invoke
) -> None:
    run = tmp_path / "run"
    budget = ("training.batch_size=4", "training.epochs=2", "training.evaluate_every_epochs=2")
    options = (f"objective.{kind}", "training.pictures=0", *budget)
    done = invoke("train", tiny_config, f"output_dir={run}", *options)
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert 0 < sum(losses[-3:]) < sum(losses[:3])
    model = run / "checkpoints" / "last.safetensors"
    config = run / "config.yaml"
    done = invoke("evaluate", model, "--config", config, "--split", "validation")
    assert done.code == 0, done.err
    done = invoke("doctor", tiny_config, f"output_dir={tmp_path / 'b'}", *options, "--quick")
    assert done.code in (0, 1), done.err  # 1 where something is wrong with the tiny set
    assert "anchor coverage" in done.out
    done = invoke("loss", "anatomy", model, "--images-limit", 1, "--num-workers", 0)
    assert done.code == 0, done.err
    is_exact = "assigner" in kind
    assert ("as in the training" in done.out) == is_exact
    assert ("since it is cross_entropy, which weighs them otherwise" in done.out) != is_exact


def test_a_new_kind_is_unknown_where_it_has_no_line(tiny_config: Path, invoke: Invoke) -> None:
    done = invoke("train", tiny_config, "objective.assigner={kind: center}")
    assert done.code == 2
    assert "objective.assigner.kind: 'center' is none of 'max_iou', 'atss'" in done.err
