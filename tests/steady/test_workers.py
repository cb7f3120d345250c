"""The same seed gives the same curve, whatever the number of workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.faults.run_folders import (  # type: ignore[import-not-found]
    EVERYTHING_ON,
    assert_same_training,
    log_of,
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_the_number_of_workers_changes_no_bit(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    folders = {}
    for workers in (0, 1, 3):
        folder = folders[workers] = tmp_path / str(workers)
        options = [*EVERYTHING_ON, f"training.num_workers={workers}"]
        done = invoke("train", tiny_config, f"output_dir={folder}", *options)
        assert done.code == 0, done.err
    losses = [row["loss"] for row in log_of(folders[0]) if row["kind"] == "train"]
    assert len(losses) >= 3
    assert len(set(losses)) == len(losses)  # a real curve
    assert_same_training(folders[0], folders[1])
    assert_same_training(folders[0], folders[3])


def test_another_seed_is_another_curve(invoke: Invoke, tiny_config: Path, tmp_path: Path) -> None:
    curves = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        options = [*EVERYTHING_ON, f"seed={seed}", "training.max_steps=2"]
        done = invoke("train", tiny_config, f"output_dir={folder}", *options)
        assert done.code == 0, done.err
        curves.append([row["loss"] for row in log_of(folder) if row["kind"] == "train"])
    assert len(curves[0]) == len(curves[1]) > 0
    assert not set(curves[0]) & set(curves[1])
