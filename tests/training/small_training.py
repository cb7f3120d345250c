"""A training of a few thousand weights on batches in memory, put together by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from retina.datasets.dataset import DetectionDataset
from retina.datasets.loading import collate
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.evaluator import EvaluationResult, Evaluator
from retina.modeling.detector import RetinaNet
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.objective.criterion import ObjectiveConfig
from retina.runtime import TorchRuntime
from retina.structures import Batch, Categories, SampleRequest
from retina.training.batches import TrainingBatches
from retina.training.checkpointing import Checkpoints, RunIdentity
from retina.training.config import TrainingConfig
from retina.training.forward import ForwardPass
from retina.training.hooks.divergence import DivergenceWatch
from retina.training.meter import StepMeter
from retina.training.optimization import OptimizerConfig, SGDConfig
from retina.training.resuming import ResumePoint
from retina.training.run import Hook, TrainingRun
from retina.training.run_folder import LAST_STATE, MakeArtifact, RunFolder
from retina.training.step import TrainingStep
from retina.training.trainer import Trainer
from retina.training.validation import Validation
from tests.memory_dataset import MemoryDataset  # type: ignore[import-not-found]
from tests.small_detector import small_detector  # type: ignore[import-not-found]

DATA = MemoryDataset([[(number % 2, 8, 4, 40 + number, 50)] for number in range(8)])
CPU = torch.device("cpu")


def batch(*indices: int) -> Batch:
    requests = [SampleRequest(index=i, seed=0, max_size=None) for i in indices]
    return collate([DATA[request] for request in requests])


@dataclass
class MemoryBatches:
    """Step n takes images 2n and 2n + 1, over and over; in the place of `TrainingBatches`."""

    num_micro_batches: int = 1

    def between(self, first_step: int, stop_step: int) -> Iterator[Batch]:
        for step in range(first_step, stop_step):
            first = 2 * step % len(DATA)
            if self.num_micro_batches == 1:
                yield batch(first, first + 1)
            else:
                yield from (batch(first), batch(first + 1))


class ListedScores:
    """Gives the validation APs of a list, one after the other; in the place of `Evaluator`."""

    dataset: DetectionDataset = DATA

    def __init__(self, aps: Sequence[float]) -> None:
        self._aps = iter(aps)

    def run_with_losses(self, *_: object) -> EvaluationResult:
        metrics = replace(CocoMetrics(DATA.ground_truth()).compute(), AP=next(self._aps))
        losses = {"loss": 1.5, "classification": 1.0, "box_regression": 0.5}
        return EvaluationResult(metrics, losses, (), ())


class NoArtifact:
    """A detector file that holds its step, for tests that do not read it."""

    def __init__(self, _: RetinaNet, facts: dict[str, float | int], threshold: object) -> None:
        self._step = facts["step"]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(self._step))


class NaNSwitch(nn.Module):
    """Turns features into NaN while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.is_on = False

    def forward(self, features: Tensor) -> Tensor:
        return features * torch.nan if self.is_on else features


@dataclass
class SmallTraining:
    """What a trainer is made of; anything may be changed before `trainer` is called.

    Attributes:
        folder: of the run.
        config: of the training.
        hooks: besides the watch over divergence, which is the first.
        steps_per_epoch, total_steps: how long it is.
        num_micro_batches: of each step.
        aps: the validation AP of each evaluation; None trains without a validation set.
        optimizer, num_classes, dataset: what a checkpoint must agree with.
    """

    folder: Path
    config: TrainingConfig = field(default_factory=TrainingConfig)
    hooks: Sequence[Hook] = ()
    steps_per_epoch: int = 2
    total_steps: int = 4
    num_micro_batches: int = 1
    aps: Sequence[float] | None = None
    optimizer: OptimizerConfig = field(default_factory=lambda: SGDConfig(lr=0.01))
    num_classes: int = 2
    dataset: str = "f00d"

    def trainer(self, resume_from: ResumePoint | None = None) -> Trainer:
        detector = small_detector(self.num_classes)
        self.switch = NaNSwitch()
        detector.backbone.register_forward_hook(
            lambda _, __, maps: tuple(self.switch(one) for one in maps)
        )
        preprocess = PreprocessConfig(min_size=64, max_size=96).build()
        criterion = ObjectiveConfig().build(detector.box_coder)
        forward = ForwardPass(detector, preprocess, criterion, CPU, "fp32")
        step = TrainingStep(forward, self.optimizer.build(detector), clip_norm=None)
        divergence = DivergenceWatch(self.config.on_divergence, step)
        self.run = TrainingRun(
            folder=RunFolder(self.folder, cast(MakeArtifact, NoArtifact)),
            detector=detector,
            evaluated=detector,
            total_steps=self.total_steps,
            steps_per_epoch=self.steps_per_epoch,
            hooks=[divergence, *self.hooks],
        )
        runtime = TorchRuntime(
            detector,
            categories=Categories.from_names(["cat", "dog"]),
            preprocess=preprocess,
            postprocess=PostprocessConfig().build(detector.box_coder),
            device=CPU,
            precision="fp32",
            memory_fix="",
        )
        evaluator = None if self.aps is None else cast(Evaluator, ListedScores(self.aps))
        self.checkpoints = Checkpoints(
            path=self.folder / LAST_STATE,
            identity=RunIdentity("seed: 0\n", self.dataset, self.steps_per_epoch, None),
            config=self.config,
            step=step,
            meter=StepMeter(CPU),
            validation=Validation(evaluator, runtime, criterion),
        )
        self.folder.mkdir(exist_ok=True)
        return Trainer(
            run=self.run,
            batches=cast(TrainingBatches, MemoryBatches(self.num_micro_batches)),
            learning_rate=lambda number: 0.01 / (1 + number),
            step=self.checkpoints.step,
            meter=self.checkpoints.meter,
            validation=self.checkpoints.validation,
            checkpoints=self.checkpoints,
            divergence=divergence,
            config=self.config,
            resume=resume_from is not None,
            resume_from=resume_from,
            quiet=True,
        )

    def weights(self) -> dict[str, Any]:
        return {name: value.clone() for name, value in self.run.detector.state_dict().items()}
