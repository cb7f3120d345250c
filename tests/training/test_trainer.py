"""The loop: what happens when, and what its hooks are told."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from retina.errors import DivergedError
from retina.evaluation.evaluator import EvaluationResult
from retina.structures import Assignment, Batch, BatchedTargets, DensePredictions
from retina.training.checkpoint import load_state
from retina.training.config import TrainingConfig
from retina.training.forward import ForwardHook
from retina.training.hooks.divergence_config import RewindConfig
from retina.training.hooks.early_stopping import EarlyStopping
from retina.training.resuming import find_resume_point
from retina.training.run import Hook, TrainingRun
from retina.training.run_folder import LAST_STATE
from retina.training.step import StepResult
from tests.training.small_training import SmallTraining  # type: ignore[import-not-found]


class Recorder(Hook):
    """Writes down every call with the step that it is about."""

    name: ClassVar[str] = "recorder"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.rates: list[float] = []
        self.results: list[float | None] = []
        self.num_batches_seen = 0
        self.sees_predictions = False

    def begin(self, run: TrainingRun) -> None:
        self.calls.append(f"begin {run.step}")

    def before_step(self, step: int, micro_batches: list[Batch]) -> ForwardHook | None:
        self.calls.append(f"before_step {step}")
        return self._see if self.sees_predictions else None

    def _see(
        self, predictions: DensePredictions, assignment: Assignment, targets: BatchedTargets
    ) -> None:
        assert len(predictions.class_logits[0]) == len(assignment.is_foreground) == len(targets)
        self.num_batches_seen += 1

    def before_update(self, run: TrainingRun) -> None:
        self.calls.append(f"before_update {run.step + 1}")

    def after_step(self, run: TrainingRun, result: StepResult) -> None:
        assert result.losses.total.isfinite()
        self.calls.append(f"after_step {run.step}")
        self.rates.append(run.lr)

    def flush(self, run: TrainingRun) -> None:
        self.calls.append("flush")

    def report(self, run: TrainingRun) -> dict[str, float]:
        self.calls.append("report")
        return {"calls": float(len(self.calls))}

    def end_epoch(self, run: TrainingRun, result: EvaluationResult | None) -> None:
        self.calls.append(f"end_epoch {run.epoch}")
        self.results.append(None if result is None else result.metrics.AP)

    def state_dict(self) -> dict[str, Any]:
        self.calls.append("state_dict")
        return {"num_rates": len(self.rates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls.append(f"load_state_dict {state['num_rates']}")

    def calls_of(self, name: str) -> list[int]:
        return [int(call.split()[1]) for call in self.calls if call.split()[0] == name]


def step_calls(step: int) -> list[str]:
    return [f"{call} {step}" for call in ("before_step", "before_update", "after_step")]


SAVE = ["flush", "state_dict"]
REPORT = ["flush", "report"]


def log_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def test_a_hook_is_called_at_every_moment_in_order(tmp_path: Path) -> None:
    recorder = Recorder()
    training = SmallTraining(tmp_path, hooks=[recorder], total_steps=3)
    outcome = training.trainer().run()
    assert recorder.calls == [
        "begin 0",
        *step_calls(1),
        *[*step_calls(2), *REPORT, *SAVE, "end_epoch 1", *SAVE],
        *[*step_calls(3), *REPORT, *SAVE, "end_epoch 2", *SAVE],  # the last epoch is cut short
    ]
    assert (outcome.step, outcome.signal, outcome.best_ap) == (3, None, None)
    assert outcome.seconds > 0
    assert recorder.rates == [0.01, 0.01 / 2, 0.01 / 3]
    assert training.checkpoints.step.optimizer.param_groups[0]["lr"] == 0.01 / 3


def test_hooks_are_called_one_after_the_other(tmp_path: Path) -> None:
    first, second = Recorder(), Recorder()
    second.calls = first.calls
    second.name = "second"  # type: ignore[misc]
    SmallTraining(tmp_path, hooks=[first, second], total_steps=1).trainer().run()
    assert first.calls[:8] == [call for call in ["begin 0", *step_calls(1)] for _ in range(2)]


@pytest.mark.parametrize(("num_micro_batches", "seen"), [(1, 3), (2, 6)])
def test_every_micro_batch_is_shown_to_who_asks(
    tmp_path: Path, num_micro_batches: int, seen: int
) -> None:
    curious, other = Recorder(), Recorder()
    curious.sees_predictions = True
    curious.name = "curious"  # type: ignore[misc]
    training = SmallTraining(tmp_path, hooks=[other, curious], total_steps=3)
    training.num_micro_batches = num_micro_batches
    training.trainer().run()
    assert (curious.num_batches_seen, other.num_batches_seen) == (seen, 0)


def test_the_log_has_a_line_at_every_so_many_steps_and_at_each_epoch(tmp_path: Path) -> None:
    training = SmallTraining(tmp_path, TrainingConfig(log_every_steps=2), [Recorder()])
    training.steps_per_epoch, training.total_steps = 5, 8
    training.trainer().run()
    lines = log_of(tmp_path, "train")
    assert [line["step"] for line in lines] == [2, 4, 5, 6, 8]
    assert [line["epoch"] for line in lines] == [1, 1, 1, 2, 2]
    assert [line["lr"] for line in lines] == [0.01 / step for step in (2, 4, 5, 6, 8)]
    assert [line["calls"] for line in lines] == sorted({line["calls"] for line in lines})
    for line in lines:
        assert line["loss"] == pytest.approx(line["classification"] + line["box_regression"])


def saves_of(training: SmallTraining, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Train; the step of each checkpoint, and whether no evaluation was due any more."""
    saved, trainer = [], training.trainer()
    save = type(training.checkpoints).save

    def recorded(checkpoints: Any, run: TrainingRun) -> None:
        save(checkpoints, run)
        saved.append((run.step, run.is_evaluated))

    monkeypatch.setattr(type(training.checkpoints), "save", recorded)
    trainer.run()
    return saved


@pytest.mark.parametrize(
    ("config", "saved"),
    [
        ({}, [(3, False), (3, True), (5, False), (5, True)]),
        (
            {"checkpoint_every_steps": 2},
            [(2, True), (3, False), (3, True), (4, True), (5, False), (5, True)],
        ),
        (
            {"on_divergence": RewindConfig()},  # needs one to go back to
            [(0, True), (3, False), (3, True), (5, False), (5, True)],
        ),
    ],
)
def test_a_checkpoint_is_written_when_it_is_due_and_around_each_evaluation(
    config: Any, saved: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = SmallTraining(tmp_path, TrainingConfig(**config), total_steps=5, steps_per_epoch=3)
    assert saves_of(training, monkeypatch) == saved
    assert load_state(tmp_path / LAST_STATE).step == 5


def test_the_validation_set_is_scored_when_it_is_due_and_always_at_the_end(tmp_path: Path) -> None:
    recorder = Recorder()
    config = TrainingConfig(evaluate_every_epochs=2)
    training = SmallTraining(tmp_path, config, [recorder], aps=[0.5, 0.25], total_steps=6)
    outcome = training.trainer().run()
    assert recorder.results == [None, 0.5, 0.25]
    assert outcome.best_ap == 0.5
    files = tmp_path / "checkpoints"
    assert (files / "best.safetensors").read_text() == "4"
    assert (files / "last.safetensors").read_text() == "6"
    assert [line["AP"] for line in log_of(tmp_path, "validation")] == [0.5, 0.25]


def test_counted_evaluations_are_spread_and_only_they_are_followed_by_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    training = SmallTraining(
        tmp_path,
        TrainingConfig(evaluations=3),
        [recorder],
        aps=[0.1, 0.3, 0.2],
        total_steps=19,  # ten epochs, the last of one step
    )
    assert saves_of(training, monkeypatch) == [
        (step, is_evaluated) for step in (8, 14, 19) for is_evaluated in (False, True)
    ]
    assert recorder.results == [0.1, 0.3, 0.2]
    assert [line["step"] for line in log_of(tmp_path, "train")] == [8, 14, 19]
    assert [line["epoch"] for line in log_of(tmp_path, "train")] == [4, 7, 10]


@pytest.mark.parametrize(
    "stop_at",  # before an evaluation, with it and after it; at the end
    [*(pytest.param(step, marks=pytest.mark.slow) for step in (1, 2, 6)), 3, 4, 5, 7],
)
def test_counted_evaluations_are_the_same_after_a_resume(tmp_path: Path, stop_at: int) -> None:
    results = []
    for part in ("whole", "parts"):
        recorder = Recorder()
        training = SmallTraining(
            tmp_path / part, TrainingConfig(evaluations=2), [recorder], aps=[0.1] * 2
        )
        training.total_steps = 7
        if part == "parts":
            training.hooks = [recorder, Signal(stop_at)]
            training.trainer().run()
            training.hooks = [recorder]
            training.trainer(find_resume_point(tmp_path / part / LAST_STATE)).run()
        else:
            training.trainer().run()
        results.append(
            (recorder.results, [one["step"] for one in log_of(tmp_path / part, "train")])
        )
    assert results[0] == results[1] == ([0.1, 0.1], [4, 7])


def test_it_ends_where_a_hook_wants_it_and_does_not_begin_again(tmp_path: Path) -> None:
    recorder = Recorder()
    training = SmallTraining(tmp_path, aps=[0.5, 0.4, 0.3, 0.2], total_steps=8)
    training.hooks = [EarlyStopping(2), recorder]
    outcome = training.trainer().run()
    assert (outcome.step, outcome.signal, outcome.best_ap) == (6, None, 0.5)
    assert recorder.results == [0.5, 0.4, 0.3]
    again = Recorder()
    training.hooks = [EarlyStopping(2), again]
    outcome = training.trainer(find_resume_point(tmp_path / LAST_STATE)).run()
    assert (outcome.step, outcome.best_ap) == (6, 0.5)
    assert again.calls == ["load_state_dict 6", "begin 6"]


def test_an_early_stop_waits_until_the_learning_rate_has_come_down(tmp_path: Path) -> None:
    aps = [0.5, 0.4, 0.4, 0.4, 0.4, 0.4]
    training = SmallTraining(tmp_path, aps=aps, total_steps=12)
    training.hooks = [EarlyStopping(2, counts_from=6)]  # the first whose rate is low is step 7
    assert training.trainer().run().step == 10
    # Where a longer schedule has the rate high again, nothing is over.
    training.hooks, training.total_steps = [EarlyStopping(2, counts_from=12)], 16
    training.aps = [0.4] * 3
    outcome = training.trainer(find_resume_point(tmp_path / LAST_STATE)).run()
    assert outcome.step == 16


class Signal(Hook):
    """Sends this process a signal after a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def after_step(self, run: TrainingRun, result: StepResult) -> None:
        if run.step == self._step:
            signal.raise_signal(signal.SIGTERM)


def run_in_parts(folder: Path, stop_at: int) -> tuple[SmallTraining, Recorder]:
    """A training that a signal stops, and that goes on."""
    training = SmallTraining(folder, hooks=[Recorder(), Signal(stop_at)], aps=[0.1] * 3)
    training.steps_per_epoch, training.total_steps = 3, 7
    outcome = training.trainer().run()
    assert (outcome.step, outcome.signal) == (stop_at, signal.SIGTERM)
    assert load_state(folder / LAST_STATE).is_evaluated == (stop_at % 3 != 0)
    recorder = Recorder()
    training.hooks = [recorder]
    outcome = training.trainer(find_resume_point(folder / LAST_STATE)).run()
    assert (outcome.step, outcome.signal) == (7, None)
    return training, recorder


def test_a_signal_stops_after_the_step_and_nothing_differs_after_it_went_on(
    tmp_path: Path,
) -> None:
    whole = SmallTraining(tmp_path / "whole", aps=[0.1] * 3, total_steps=7, steps_per_epoch=3)
    whole.trainer().run()
    parts, recorder = run_in_parts(tmp_path / "parts", stop_at=4)
    assert recorder.calls[:5] == ["load_state_dict 4", "begin 4", *step_calls(5)]
    for name, value in whole.weights().items():
        assert torch.equal(parts.weights()[name], value), name
    steps = [line["step"] for line in log_of(tmp_path / "parts", "train")]
    assert steps == [line["step"] for line in log_of(tmp_path / "whole", "train")] == [3, 6, 7]
    losses = [
        [line["loss"] for line in log_of(tmp_path / name, "train")] for name in ("whole", "parts")
    ]
    assert losses[0] == losses[1]


def test_an_evaluation_that_a_signal_prevented_is_made_before_the_next_step(
    tmp_path: Path,
) -> None:
    _, recorder = run_in_parts(tmp_path, stop_at=3)
    assert recorder.calls[:4] == ["load_state_dict 3", "begin 3", "end_epoch 1", *SAVE[:1]]
    assert recorder.results == [0.1, 0.1, 0.1]


def test_a_hook_that_was_not_there_begins_anew(tmp_path: Path) -> None:
    training = SmallTraining(tmp_path, total_steps=2)
    training.trainer().run()
    recorder = Recorder()
    training.hooks, training.total_steps = [recorder], 4
    training.trainer(find_resume_point(tmp_path / LAST_STATE)).run()
    assert recorder.calls[:4] == ["begin 2", *step_calls(3)]


class Breaker(Hook):
    """Lets the network put out NaN in a step, so many times."""

    def __init__(self, training: SmallTraining, step: int, times: int) -> None:
        self._training, self._step, self._times = training, step, times

    def before_step(self, step: int, micro_batches: list[Batch]) -> None:
        self._training.switch.is_on = step == self._step and self._times > 0
        self._times -= self._training.switch.is_on


class Quiet(Recorder):
    def after_step(self, run: TrainingRun, result: StepResult) -> None:
        self.calls.append(f"after_step {run.step}")
        self.rates.append(run.lr)


def rewinding(folder: Path, times: int) -> tuple[SmallTraining, Recorder]:
    recorder = Quiet()
    policy = RewindConfig(lr_factor=0.5, max_rewinds=2)
    training = SmallTraining(folder, TrainingConfig(on_divergence=policy), total_steps=6)
    training.steps_per_epoch = 3
    training.hooks = [Breaker(training, 5, times), recorder]
    return training, recorder


def test_it_goes_back_to_the_last_checkpoint_with_a_lower_learning_rate(tmp_path: Path) -> None:
    training, recorder = rewinding(tmp_path, times=1)
    outcome = training.trainer().run()
    assert outcome.step == 6
    # The verdict on step 5 comes while step 6 is under way; the checkpoint is that of step 3.
    assert recorder.calls_of("before_step") == [1, 2, 3, 4, 5, 6, 4, 5, 6]
    assert recorder.calls_of("after_step") == [1, 2, 3, 4, 5, 4, 5, 6]
    assert recorder.calls_of("begin") == [0, 3]
    assert recorder.calls_of("load_state_dict") == [3]
    halved = [0.5 * 0.01 / step for step in (4, 5, 6)]
    assert recorder.rates[-3:] == pytest.approx(halved)
    lines = log_of(tmp_path, "train")
    assert [line["step"] for line in lines] == [3, 6]
    assert lines[-1]["rewinds"] == 1
    assert all(value.isfinite().all() for value in training.weights().values())


def test_it_gives_up_after_so_many_times(tmp_path: Path) -> None:
    training, recorder = rewinding(tmp_path, times=9)
    with pytest.raises(DivergedError, match="gone back 2 times already"):
        training.trainer().run()
    assert recorder.calls_of("before_step").count(5) == 3
    state = load_state(tmp_path / LAST_STATE)
    assert state.step == 3
    assert all(value.isfinite().all() for value in state.detector.values())


def test_two_states_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    training = SmallTraining(tmp_path, hooks=[Recorder(), Recorder()], total_steps=1)
    with pytest.raises(AssertionError, match="two hooks have the same name"):
        training.trainer().run()
