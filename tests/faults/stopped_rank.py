"""``retina`` whose second process gets SIGTERM in a step."""

from __future__ import annotations

import os
import signal

import pytest

from tests.faults.run_folders import stop_after  # type: ignore[import-not-found]
from tests.processes import small_retina  # type: ignore[import-not-found]


def stop_second_rank(step: int, *arguments: str) -> None:
    """Run ``retina``; the signal comes in this step."""
    with pytest.MonkeyPatch.context() as patch:
        if os.environ["RANK"] == "1":
            stop_after(patch, step, signal.SIGTERM)
        small_retina(*arguments)
