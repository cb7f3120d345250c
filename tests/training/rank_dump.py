"""``retina`` that writes down what each rank ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from retina.distributed import rank
from retina.training.trainer import Trainer
from tests.processes import small_retina  # type: ignore[import-not-found]


def train(folder: Path, *arguments: str) -> None:
    """Run ``retina`` in this process, and write ``rank0.pt`` or another into the folder."""
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
    small_retina(*arguments)
