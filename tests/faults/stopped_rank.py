"""``retina`` whose second process gets SIGTERM in a step: ``stopped_rank.py STEP train …``."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from retina.__main__ import main
from tests.faults.run_folders import stop_after  # type: ignore[import-not-found]

step = int(sys.argv.pop(1))
with pytest.MonkeyPatch.context() as patch:
    if step and os.environ["RANK"] == "1":
        stop_after(patch, step, signal.SIGTERM)
    main()
