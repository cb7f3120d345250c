"""What other versions wrote is refused in one sentence that says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from retina.errors import UserError
from retina.experiment import load_experiment
from retina.instruments.replay.file import load_replay
from retina.training.checkpoint import load_state

# As they were before there were hooks.
STATE = {
    **{name: {} for name in ("detector", "criterion", "optimizer", "scaler", "divergence")},
    "meter": {},
    **{"config": "seed: 0", "dataset": "0", "step": 3, "steps_per_epoch": 5, "is_evaluated": True},
    **{"average": None, "best_metric": 0.5, "epochs_without_gain": 1, "anatomy": {}, "log": {}},
    **{"generators": [], "format_version": 2},
}
REPLAY = {
    **{"config": "seed: 0", "class_names": ("cat",), "class_counts": (1,), "step": 1, "rank": 0},
    **{"progress": 0.0, "precision": "fp32", "lr": 0.1, "parts": (), "detector": {}},
    **{"criterion": {}, "format_version": 1},
}


def test_a_training_state(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save(STATE, path)
    with pytest.raises(UserError, match=r"another version of retina \(format 2, .*start anew"):
        load_state(path)


def test_a_replay_file(tmp_path: Path) -> None:
    path = tmp_path / "step_000001.pt"
    torch.save(REPLAY, path)
    with pytest.raises(UserError, match=r"another version of retina \(format 1, this one reads 2"):
        load_replay(path)


def test_the_config_of_a_run(tiny_config: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"extends: {tiny_config}\noutput_dir: run\nobjective: {{label_noise: null}}\n")
    with pytest.raises(UserError) as caught:
        load_experiment(path)
    assert "objective.label_noise: was removed, so that this file is of another" in str(
        caught.value
    )
    assert "delete the key" in str(caught.value)
