"""Images on which a network breaks: what the tests of divergence share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from retina.distributed import rank
from retina.modeling.detector import RetinaNet
from retina.structures import Batch
from retina.training.trainer import Trainer
from tests.processes import small_retina  # type: ignore[import-not-found]

MAGIC = (255, 0, 255)
"""The first pixel of a poisoned image."""


def poisoned(batch: Batch) -> Batch:
    """The batch, with the mark that `break_on_poison` looks for on its first image."""
    images = batch.images.clone()
    images[0, :, 0, 0] = torch.tensor(MAGIC, dtype=torch.uint8)
    return replace(batch, images=images)


def break_on_poison(detector: RetinaNet) -> None:
    """Let the first convolution put out NaN for a poisoned image."""

    def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        red, green, blue = inputs[0][:, :, 0, 0].unbind(1)
        is_poisoned = (red > 2) & (green < -2) & (blue > 2)
        return torch.where(is_poisoned[:, None, None, None], torch.nan, output)

    detector.backbone.conv1.register_forward_hook(hook)


def poison_trainings(patch: Any, steps: dict[int, int], *, on_rank: int = 0) -> None:
    """Poison batches of every training that begins from now on.

    Args:
        patch: sets an attribute, as `pytest.MonkeyPatch.setattr` does.
        steps: how many times the batch of a step (from 1) is poisoned; then it is itself.
        on_rank: the process whose share is poisoned.
    """
    make, batches = RetinaNet.__init__, Trainer._load

    def breakable(detector: RetinaNet, **parts: Any) -> None:
        make(detector, **parts)
        break_on_poison(detector)

    def spoiled(trainer: Trainer, *arguments: Any) -> Iterator[list[Batch]]:
        for step, parts in enumerate(
            batches(trainer, *arguments), start=trainer.training_run.step + 1
        ):
            if steps.get(step, 0) and rank() == on_rank:
                steps[step] -= 1
                yield [*parts[:-1], poisoned(parts[-1])]
            else:
                yield parts

    patch(RetinaNet, "__init__", breakable)
    patch(Trainer, "_load", spoiled)


def poisoned_retina(step: int, *arguments: str) -> None:
    """Run ``retina``, with the batch of this step of rank 1 poisoned."""
    poison_trainings(setattr, {step: 1}, on_rank=1)
    small_retina(*arguments)
