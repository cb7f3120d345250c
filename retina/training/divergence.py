"""What becomes of a step that was not finite: it is named, kept for a replay, and judged.

The step itself is masked on the device (see `retina.training.finite_guard`); this is where the host
learns of it, one step later, on all ranks at the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from retina.devices import Precision
from retina.distributed import gather_objects, rank
from retina.errors import DivergedError, RunError, UserError
from retina.instruments.replay.file import ReplayFile, batch_fields, on_host, save_replay
from retina.instruments.replay.layer_check import Examination, examine
from retina.modeling.detector import RetinaNet
from retina.modeling.preprocess import Preprocess
from retina.objective.criterion import Criterion
from retina.structures import Batch
from retina.training.divergence_config import DivergencePolicy, RewindConfig, SkipConfig
from retina.training.divergence_report import (
    Finding,
    describe_examinations,
    describe_images,
    kept_checkpoint,
    remedy,
    sentence,
)
from retina.training.finite_guard import PendingVerdict, RunningState, Verdict
from retina.training.metric_log import MetricLog
from retina.training.progress import TrainingProgress

MAX_REPLAY_FILES = 5
"""Of a process from its start to its end: each holds the weights of the detector."""

MAX_OVERFLOWS = 20
"""So many steps in a row may overflow in fp16 while the gradient scaler looks for its scale: it
halves it each time, from 2 to the 16th."""


@dataclass(slots=True)
class DivergenceState:
    """What of the policy is part of the state of a training.

    Attributes:
        num_skips: steps that were left out.
        num_rewinds: times that the training went back.
        lr_factor: what the learning rate is multiplied by since then.
    """

    num_skips: int = 0
    num_rewinds: int = 0
    lr_factor: float = 1.0

    def state_dict(self) -> dict[str, Any]:
        """The fields, for a checkpoint."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; an empty one changes nothing."""
        for name, value in state.items():
            setattr(self, name, value)


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step whose verdict is not known yet.

    Attributes:
        step: its number, from 1.
        parts: its batches, in host memory.
        progress: the part of the training that was done, in 0..1.
        lr: its learning rate.
        verdict: on its way from the device.
    """

    step: int
    parts: Sequence[Batch]
    progress: float
    lr: float
    verdict: PendingVerdict


class DivergenceWatch:
    """Learns of each step whether it was finite, and decides what is done where it was not.

    Args:
        policy: what is done.
        detector: the trained one.
        preprocess: of the training.
        criterion: of the training.
        running: what a step moves on its way.
        device: where it trains.
        precision: of the network.
        folder: of the run; replay files go to ``divergence/`` in it.
        checkpoint: what messages name as the last checkpoint.
        run_config: the resolved experiment as YAML.
        class_names: of the labels.
        class_counts: counts the objects of each class in the training set.
    """

    def __init__(
        self,
        *,
        policy: DivergencePolicy,
        detector: RetinaNet,
        preprocess: Preprocess,
        criterion: Criterion,
        running: RunningState,
        device: torch.device,
        precision: Precision,
        folder: Path,
        checkpoint: Path,
        run_config: str,
        class_names: Sequence[str],
        class_counts: Callable[[], Sequence[int]],
    ) -> None:
        self.state = DivergenceState()
        self._policy = policy
        self._detector, self._preprocess, self._criterion = detector, preprocess, criterion
        self._running = running
        self._device = device
        self._precision: Precision = precision
        self._folder, self._checkpoint = folder / "divergence", checkpoint
        self._run_config = run_config
        self._class_names, self._class_counts = tuple(class_names), class_counts
        self._pending: StepRecord | None = None
        self._log: MetricLog | None = None
        self._progress: TrainingProgress | None = None
        self._overflows = self._files = 0

    def tell(self, log: MetricLog | None, progress: TrainingProgress) -> None:
        """Say from now on there what happens."""
        self._log, self._progress = log, progress

    def _say(self, step: int, message: str) -> None:
        if self._progress is not None:
            self._progress.message(f"warning: {message}")
        if self._log is not None:
            self._log.note("divergence", step, message)

    @property
    def needs_checkpoint(self) -> bool:
        """Whether the policy wants one to go back to before the first step."""
        return isinstance(self._policy, RewindConfig)

    @property
    def counts(self) -> dict[str, float]:
        """What a line of the log has to say of it; empty until something happens."""
        counts = {"skipped_steps": self.state.num_skips, "rewinds": self.state.num_rewinds}
        return {name: float(count) for name, count in counts.items() if count}

    def note(self, record: StepRecord) -> None:
        """Keep a step until its verdict is asked for."""
        assert self._pending is None, "the verdict on the step before was not read"
        self._pending = record

    def settle(self) -> None:
        """Read the verdict on the last step, and act on it; every rank must call it.

        Raises:
            DivergedError: the step was not finite, and the policy does not go on without it.
        """
        record, self._pending = self._pending, None
        if record is None:
            return
        verdict = record.verdict.read()
        if verdict.is_applied:
            self._overflows = 0
        elif not self._is_overflow(verdict):
            self._judge(record, verdict)

    def rewind(self, error: DivergedError) -> DivergenceState:
        """Decide about going back to the last checkpoint.

        Returns:
            What the state is to be when the checkpoint is loaded.

        Raises:
            DivergedError: the one given, where the policy does not go back, or not any more.
        """
        self._pending = None
        if not isinstance(self._policy, RewindConfig):
            raise error
        if self.state.num_rewinds >= self._policy.max_rewinds:
            raise DivergedError(
                f"{error}. The training has gone back {self.state.num_rewinds} times already "
                "(training.on_divergence.max_rewinds)"
            ) from None
        return DivergenceState(
            num_skips=self.state.num_skips,
            num_rewinds=self.state.num_rewinds + 1,
            lr_factor=self.state.lr_factor * self._policy.lr_factor,
        )

    def _is_overflow(self, verdict: Verdict) -> bool:
        """Whether only fp16's gradients overflowed: the scaler lowers its scale, all is well."""
        if self._precision != "fp16" or not verdict.is_loss_finite:
            return False
        self._overflows += 1
        return self._overflows < MAX_OVERFLOWS

    def _judge(self, record: StepRecord, verdict: Verdict) -> None:
        with self._running.as_remembered():  # the next step may be under way and have moved it
            findings = self._look_into(record, verdict)
        message = sentence(record.step, verdict, findings)
        can_go_on = not any(finding.has_bad_weights for finding in findings)
        if isinstance(self._policy, SkipConfig) and can_go_on:
            if self.state.num_skips < self._policy.max_skips:
                self.state.num_skips += 1
                number = f"{self.state.num_skips} of {self._policy.max_skips}"
                self._say(record.step, f"{message}. The step is left out (skip {number})")
                return
            message += (
                f". {self.state.num_skips} steps were left out before it "
                "(training.on_divergence.max_skips)"
            )
        remedies = "; ".join(dict.fromkeys(finding.remedy for finding in findings))
        raise DivergedError(
            f"{message}. The step was not applied. {remedies} (optimizer.lr was {record.lr:.2e}). "
            f"{kept_checkpoint(self._checkpoint)}"
        )

    def _look_into(self, record: StepRecord, verdict: Verdict) -> list[Finding]:
        """What each rank finds in its own images; only the ranks at fault, where some are."""
        examinations = self._examine(record)
        is_culprit = not verdict.is_own_loss_finite or not all(e.is_finite for e in examinations)
        culprits = [
            number for number, (is_one,) in enumerate(gather_objects((is_culprit,))) if is_one
        ]
        finding = None
        if rank() in (culprits or [0]):
            finding = Finding(
                rank=rank(),
                images=describe_images(record.parts),
                broken=describe_examinations(examinations),
                remedy=remedy(record.parts, examinations),
                has_bad_weights=any(exam.weights for exam in examinations),
                replay=self._keep(record),
            )
        return [found for (found,) in gather_objects((finding,)) if found is not None]

    def _examine(self, record: StepRecord) -> tuple[Examination, ...]:
        """The step in the training's precision, then in fp32; fewer where memory runs out."""
        examinations: list[Examination] = []
        precisions: tuple[Precision, ...] = (self._precision, "fp32")
        with suppress(MemoryError, RuntimeError):
            for precision in dict.fromkeys(precisions):
                examination = examine(
                    detector=self._detector,
                    preprocess=self._preprocess,
                    criterion=self._criterion,
                    parts=record.parts,
                    device=self._device,
                    precision=precision,
                    progress=record.progress,
                )
                examinations.append(examination)
        return tuple(examinations)

    def _keep(self, record: StepRecord) -> str:
        """Write the replay file; returns what to do with it, or why there is none."""
        if self._files == MAX_REPLAY_FILES:
            return f"no replay file was written, there are {MAX_REPLAY_FILES} already"
        own = f"_rank{rank()}" if rank() else ""
        path = self._folder / f"step_{record.step:06d}{own}.pt"
        replay = ReplayFile(
            config=self._run_config,
            class_names=self._class_names,
            class_counts=tuple(map(int, self._class_counts())),
            step=record.step,
            rank=rank(),
            progress=record.progress,
            precision=self._precision,
            lr=record.lr,
            parts=batch_fields(record.parts),
            detector={name: on_host(v) for name, v in self._detector.state_dict().items()},
            criterion={name: on_host(v) for name, v in self._criterion.state_dict().items()},
        )
        try:
            save_replay(replay, path)
        except (UserError, RunError) as error:  # a full disk is no reason to end the training
            return f"no replay file was written: {error}"
        self._files += 1
        return f"look into it with: retina debug replay {path}"
