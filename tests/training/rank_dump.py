"""``retina`` that writes down what each rank ends with: ``rank_dump.py FOLDER train …``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from retina.__main__ import main
from retina.distributed import rank
from retina.training.trainer import Trainer

folder = Path(sys.argv.pop(1))
run = Trainer.run


def dumping(trainer: Trainer) -> Any:
    outcome = run(trainer)
    position, forward = trainer.training_run, trainer._step.forward
    assert position.evaluated is not position.detector
    state = {
        "detector": position.detector.state_dict(),
        "average": position.evaluated.state_dict(),
        "criterion": forward.criterion.state_dict(),
    }
    torch.save(state, folder / f"rank{rank()}.pt")
    return outcome


Trainer.run = dumping  # type: ignore[method-assign]
main()
