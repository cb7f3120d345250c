"""What becomes of a step that was not finite: it is named, looked into, and judged.

The step itself is masked on the device (see `retina.training.finite_guard`); this is where the host
learns of it, one step later, on all ranks at the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from retina.distributed import gather_objects, rank
from retina.errors import DivergedError
from retina.structures import Batch
from retina.training.finite_guard import PendingVerdict, Verdict
from retina.training.hooks.divergence_config import DivergencePolicy, RewindConfig, SkipConfig
from retina.training.hooks.divergence_report import (
    WEIGHTS_FIX,
    Finding,
    describe_images,
    fix_of_boxes,
    general_fix,
    sentence,
)
from retina.training.run import FailedStep, Hook, StepDiagnosis, TrainingRun
from retina.training.run_folder import kept_checkpoint
from retina.training.step import StepResult, TrainingStep
from retina.wording import counted

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


class DivergenceWatch(Hook):
    """Learns of each step whether it was finite, and decides what is done where it was not.

    Args:
        policy: what is done.
        step: whose results are looked at.
    """

    name: ClassVar[str] = "divergence"

    def __init__(self, policy: DivergencePolicy, step: TrainingStep) -> None:
        self.state = DivergenceState()
        self._policy = policy
        self._step = step
        self._micro_batches: tuple[Batch, ...] = ()
        self._pending: tuple[FailedStep, PendingVerdict] | None = None
        self._num_overflows = 0

    @property
    def needs_checkpoint(self) -> bool:
        """Whether the policy wants one to go back to before the first step."""
        return isinstance(self._policy, RewindConfig)

    def before_step(self, step: int, micro_batches: list[Batch]) -> None:
        """Keep the step's batches until its verdict is known."""
        self._micro_batches = tuple(micro_batches)

    def before_update(self, run: TrainingRun) -> None:
        """Read the verdict on the step before."""
        self.flush(run)

    def after_step(self, run: TrainingRun, result: StepResult) -> None:
        """Keep the verdict, which is on its way."""
        assert self._pending is None, "the verdict on the step before was not read"
        self._pending = (FailedStep(run.step, self._micro_batches, run.lr), result.verdict)

    def flush(self, run: TrainingRun) -> None:
        """Read the verdict on the last step, and act on it.

        Raises:
            DivergedError: the step was not finite, and the policy does not go on without it.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        step, verdict = pending[0], pending[1].read()
        if verdict.is_applied:
            self._num_overflows = 0
        elif not self._is_overflow(verdict):
            self._judge(run, step, verdict)

    def report(self, run: TrainingRun) -> dict[str, float]:
        """How often a step was left out and the training went back; empty until it happens."""
        counts = {"skipped_steps": self.state.num_skips, "rewinds": self.state.num_rewinds}
        return {name: float(count) for name, count in counts.items() if count}

    def rewind(self, error: DivergedError) -> DivergenceState:
        """Decide about going back to the last checkpoint.

        Returns:
            What the state is to be when the checkpoint is loaded.

        Raises:
            DivergedError: the one given, where the policy does not go back, or not any more.
        """
        if not isinstance(self._policy, RewindConfig):
            raise error
        if self.state.num_rewinds >= self._policy.max_rewinds:
            raise DivergedError(
                f"{error}. The training has gone back {counted(self.state.num_rewinds, 'time')} "
                "already (training.on_divergence.max_rewinds)"
            ) from None
        return DivergenceState(
            num_skips=self.state.num_skips,
            num_rewinds=self.state.num_rewinds + 1,
            lr_factor=self.state.lr_factor * self._policy.lr_factor,
        )

    def state_dict(self) -> dict[str, Any]:
        """The counts, and the factor of the learning rate."""
        return asdict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them over; the verdict on a step that was given up is forgotten."""
        self.state = DivergenceState(**state)
        self._pending = None

    def _is_overflow(self, verdict: Verdict) -> bool:
        """Whether only fp16's gradients overflowed: the scaler lowers its scale, all is well."""
        if self._step.forward.precision != "fp16" or not verdict.is_loss_finite:
            return False
        self._num_overflows += 1
        return self._num_overflows < MAX_OVERFLOWS

    def _judge(self, run: TrainingRun, failed: FailedStep, verdict: Verdict) -> None:
        with self._step.running.as_remembered():  # the next step may be under way and have moved it
            findings = self._findings(run, failed, verdict)
        message = sentence(failed.step, verdict, findings)
        can_go_on = not any(finding.has_bad_weights for finding in findings)
        if isinstance(self._policy, SkipConfig) and can_go_on:
            if self.state.num_skips < self._policy.max_skips:
                self.state.num_skips += 1
                number = f"{self.state.num_skips} of {self._policy.max_skips}"
                message = f"{message}. The step is left out (skip {number})"
                run.progress.message(f"warning: {message}")
                run.log.record("divergence", failed.step, message)
                return
            were = "was" if self.state.num_skips == 1 else "were"
            message += (
                f". {counted(self.state.num_skips, 'step')} {were} left out before it "
                "(training.on_divergence.max_skips)"
            )
        fixes = "; ".join(dict.fromkeys(finding.fix for finding in findings))
        raise DivergedError(
            f"{message}. The step was not applied. {fixes} (optimizer.lr was {failed.lr:.2e}). "
            f"{kept_checkpoint(run.folder.last_state)}"
        )

    def _findings(self, run: TrainingRun, failed: FailedStep, verdict: Verdict) -> list[Finding]:
        """What each rank finds in its own images; only the ranks at fault, where some are."""
        diagnoses = [
            diagnosis for hook in run.hooks if (diagnosis := hook.diagnose(run, failed)) is not None
        ]
        is_finite = verdict.is_own_loss_finite and all(one.is_finite for one in diagnoses)
        at_fault = [
            number for number, (is_one,) in enumerate(gather_objects((not is_finite,))) if is_one
        ]
        finding = None
        if rank() in (at_fault or [0]):
            has_bad_weights = not all(
                bool(weight.isfinite().all()) for weight in run.detector.parameters()
            )
            finding = Finding(
                rank=rank(),
                images=describe_images(failed.micro_batches),
                where="; ".join(one.where for one in diagnoses),
                fix=WEIGHTS_FIX if has_bad_weights else self._fix(failed, diagnoses),
                has_bad_weights=has_bad_weights,
                replay="; ".join(one.keep() for one in diagnoses),
            )
        return [found for (found,) in gather_objects((finding,)) if found is not None]

    def _fix(self, failed: FailedStep, diagnoses: Sequence[StepDiagnosis]) -> str:
        """The most certain fix that anyone knows."""
        known = [fix_of_boxes(failed.micro_batches), *(one.fix for one in diagnoses)]
        return next((fix for fix in known if fix), general_fix(self._step.forward.precision))
