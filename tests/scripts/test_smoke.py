"""The smoke test of Windows and macOS, as far as it can be run on this platform."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY  # type: ignore[import-not-found]


@pytest.mark.slow
def test_every_command_runs_with_spawned_workers() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / "smoke.py", "--start-method", "spawn"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("every command has run\n")
