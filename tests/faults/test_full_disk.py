"""A full disk or a folder that may not be written costs no checkpoint that was there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from retina.training.checkpoint import load_state
from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.faults.run_folders import (  # type: ignore[import-not-found]
    assert_same_training,
    stop_after,
)

OPTIONS = ["training.checkpoint_every_steps=1", "training.deterministic=true"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that holds a few checkpoints and no more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=700m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take all the space that is left."""
    filler = disk / "filler"
    space = os.statvfs(disk)
    filler.write_bytes(bytes(space.f_bavail * space.f_frsize))
    return filler


@pytest.mark.parametrize("at_step", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_full_disk_leaves_the_last_checkpoint_and_the_run_goes_on(
    at_step: int,
    invoke: Invoke,
    tiny_config: Path,
    small_disk: Path,
    tmp_path: Path,
) -> None:
    whole, run = tmp_path / "whole", small_disk / "run"
    assert invoke("train", tiny_config, f"output_dir={whole}", *OPTIONS).code == 0

    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, at_step, 15)
        done = invoke("train", tiny_config, f"output_dir={run}", *OPTIONS)
    assert done.code == 143, done.err
    filler = fill(small_disk)
    done = invoke("train", tiny_config, f"output_dir={run}", *OPTIONS, "--resume")
    assert done.code == 3
    assert "the disk is full" in done.err
    assert "Traceback" not in done.err
    assert load_state(run / "checkpoints" / "last.pt").step == at_step

    filler.unlink()
    done = invoke("train", tiny_config, f"output_dir={run}", *OPTIONS, "--resume")
    assert done.code == 0, done.err
    assert f"resumed at step {at_step}" in done.out
    assert_same_training(whole, run)


def test_a_folder_that_may_not_be_written_is_named(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    if os.geteuid() == 0:
        pytest.skip("the superuser may write anywhere")
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    done = invoke("train", tiny_config, f"output_dir={folder / 'run'}")
    assert done.code == 2
    assert f"{folder / 'run'}: may not be written" in done.err
