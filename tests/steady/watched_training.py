"""``retina``, looked at before every so many steps.

``watched_training.py FILE EVERY train …``
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from typing import Any

from retina.__main__ import main
from retina.training.trainer import Trainer
from tests.small_detector import small_backbone_listed  # type: ignore[import-not-found]
from tests.steady.watching import look, note  # type: ignore[import-not-found]

file, every = Path(sys.argv.pop(1)), int(sys.argv.pop(1))
advance = Trainer._advance


def watched(trainer: Trainer, *rest: Any) -> None:
    if trainer.training_run.step and trainer.training_run.step % every == 0:
        workers = sorted(process.pid or 0 for process in multiprocessing.active_children())
        note(file, look(trainer.training_run.step, workers))
    advance(trainer, *rest)


Trainer._advance = watched  # type: ignore[method-assign]
with small_backbone_listed():
    main()
