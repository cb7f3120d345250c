"""When a training's state is written, what is in it, and when it is refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from retina.errors import DivergedError, UserError
from retina.training.checkpoint import TrainingState, load_state
from retina.training.checkpointing import Checkpoints, weights_are_finite
from retina.training.config import TrainingConfig
from retina.training.optimization import AdamWConfig, SGDConfig
from retina.training.run import Hook
from retina.training.run_folder import LAST_STATE
from tests.small_detector import small_detector  # type: ignore[import-not-found]
from tests.training.small_training import SmallTraining  # type: ignore[import-not-found]


class Counter(Hook):
    name: ClassVar[str] = "counter"

    def __init__(self, count: int = 0) -> None:
        self.count = count

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, TrainingState]:
    """A run folder after two steps, and the state in it."""
    SmallTraining(tmp_path, hooks=[Counter(3), Hook()], total_steps=2).trainer().run()
    return tmp_path, load_state(tmp_path / LAST_STATE)


def fresh(folder: Path, **changed: Any) -> SmallTraining:
    """The same training before its first step, but for what is changed."""
    training = SmallTraining(folder, total_steps=2, **changed)
    training.trainer()
    return training


def test_everything_that_changes_comes_back(saved: tuple[Path, TrainingState]) -> None:
    folder, state = saved
    assert (state.step, state.steps_per_epoch, state.is_evaluated) == (2, 2, True)
    assert (state.config, state.dataset, state.best_metric) == ("seed: 0\n", "f00d", None)
    assert state.hooks["counter"] == {"count": 3}
    assert set(state.hooks) == {"divergence", "counter"}  # a hook without a name has no state
    assert set(state.log) >= {"metrics.jsonl"}
    wanted = torch.rand(3)
    counter = Counter()
    training = fresh(folder, hooks=[counter])
    before = training.weights()
    torch.manual_seed(99)
    training.checkpoints.restore(training.run, state, folder / LAST_STATE)
    assert (training.run.step, training.run.is_evaluated) == (2, True)
    assert counter.count == 3
    assert torch.equal(torch.rand(3), wanted)  # the generators are where they were
    after = training.weights()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    for name, value in state.detector.items():
        assert torch.equal(after[name], value), name
    momenta = training.checkpoints.step.optimizer.state_dict()["state"]
    assert momenta
    for key, value in state.optimizer["state"].items():
        assert torch.equal(momenta[key]["momentum_buffer"], value["momentum_buffer"])


def test_the_settings_of_the_optimizer_are_those_of_the_config(
    saved: tuple[Path, TrainingState],
) -> None:
    folder, state = saved
    training = fresh(folder, optimizer=SGDConfig(lr=0.5, momentum=0.25))
    training.checkpoints.restore(training.run, state, folder / LAST_STATE)
    groups = training.checkpoints.step.optimizer.param_groups
    assert {(group["lr"], group["momentum"]) for group in groups} == {(0.5, 0.25)}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"dataset": "beef"}, "or the images or boxes have changed. Resume with the data and"),
        ({"steps_per_epoch": 1}, "an epoch of that run had 2 steps, here it has 1, or"),
        ({"optimizer": AdamWConfig()}, r"does not fit this config .*optimizer is of another kind"),
        ({"num_classes": 3}, r"does not fit this config .*size mismatch .*initialize_from="),
    ],
)
def test_another_training_is_refused_in_one_line(
    saved: tuple[Path, TrainingState], changed: dict[str, Any], words: str
) -> None:
    folder, state = saved
    training = fresh(folder, **changed)
    with pytest.raises(UserError, match=words) as caught:
        training.checkpoints.restore(training.run, state, folder / LAST_STATE)
    message = str(caught.value)
    assert message.startswith(f"{folder / LAST_STATE}: ")
    assert "give another output_dir" in message
    assert "\n" not in message
    assert training.run.step == 0


def test_a_hook_whose_state_is_another_is_refused(saved: tuple[Path, TrainingState]) -> None:
    folder, state = saved
    state.hooks["counter"] = {}
    training = fresh(folder, hooks=[Counter()])
    with pytest.raises(UserError, match="does not fit this config"):
        training.checkpoints.restore(training.run, state, folder / LAST_STATE)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nothing_is_saved_where_a_weight_is_not_finite(
    saved: tuple[Path, TrainingState], value: float
) -> None:
    folder, _ = saved
    content = (folder / LAST_STATE).read_bytes()
    training = fresh(folder)
    assert weights_are_finite(training.run.detector)
    with torch.no_grad():
        training.run.detector.head.box_regression.output.weight[0, 0, 0, 0] = value
    training.run.step = 7
    with pytest.raises(DivergedError, match="not finite after step 7; lower") as told:
        training.checkpoints.save(training.run)
    assert f"The last checkpoint is intact: {folder / LAST_STATE}" in str(told.value)
    assert (folder / LAST_STATE).read_bytes() == content


def test_frozen_weights_count_too() -> None:
    detector = small_detector()
    detector.backbone.freeze(1)
    assert weights_are_finite(detector)
    with torch.no_grad():
        next(detector.backbone.parameters()).fill_(torch.nan)
    assert not weights_are_finite(detector)


def checkpoints(folder: Path, **config: Any) -> Checkpoints:
    return fresh(folder, config=TrainingConfig(**config)).checkpoints


def test_a_checkpoint_is_due_after_so_many_steps(tmp_path: Path) -> None:
    every = checkpoints(tmp_path, checkpoint_every_steps=3)
    assert [step for step in range(1, 8) if every.is_due(step)] == [3, 6]
    never = checkpoints(tmp_path)
    assert not any(never.is_due(step) for step in range(1, 8))


def test_a_checkpoint_is_due_after_so_many_minutes_since_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    training = fresh(tmp_path, config=TrainingConfig(checkpoint_every_minutes=2))
    for step in (1, 2):
        training.checkpoints.save(training.run)
        now += 119
        assert not training.checkpoints.is_due(step)
        now += 1
        assert training.checkpoints.is_due(step)
