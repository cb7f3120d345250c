"""``retina`` on a narrow network, looked at before every so many steps.

``watched_training.py FILE EVERY train …``
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from typing import Any

import torchvision
from torchvision.models.resnet import BasicBlock, ResNet

from retina.__main__ import main
from retina.training.trainer import Trainer
from tests.steady.watching import look, note  # type: ignore[import-not-found]


class Narrow(ResNet):
    """An eighth of the width, one block a stage: what a step makes is the same, but small."""

    def _make_layer(self, block: Any, planes: int, *rest: Any, **options: Any) -> Any:
        return super()._make_layer(block, planes // 8, *rest, **options)


def narrow(name: str, *, weights: None) -> ResNet:
    return Narrow(BasicBlock, [1, 1, 1, 1])


file, every = Path(sys.argv.pop(1)), int(sys.argv.pop(1))
advance = Trainer._advance


def watched(trainer: Trainer, *rest: Any) -> None:
    if trainer.training_run.step and trainer.training_run.step % every == 0:
        workers = sorted(process.pid or 0 for process in multiprocessing.active_children())
        note(file, look(trainer.training_run.step, workers))
    advance(trainer, *rest)


Trainer._advance = watched  # type: ignore[method-assign]
torchvision.models.get_model = narrow
main()
