"""Losses and times between two reports."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from retina.distributed import world_size
from retina.objective.criterion import LossSums
from retina.structures import Batch


class StepMeter:
    """Adds up losses on the device and times on the host between two reports."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.training_seconds = 0.0
        self._reset()

    def _reset(self) -> None:
        self._losses = torch.zeros(5, device=self._device)
        self._steps = self._images = 0
        self._waited = 0.0
        self._started = time.monotonic()

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the time spent waiting for them is noted."""
        while True:
            started = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited += time.monotonic() - started
            yield batch

    def add(self, losses: LossSums, num_images: int) -> None:
        """Note a step; does not wait for the device."""
        self._losses += losses.detach_stack()
        self._steps += 1
        self._images += num_images * world_size()

    def flush(self) -> dict[str, float]:
        """The means since the last call; waits for the device."""
        classification, box, foreground, num_foreground, _ = (
            self._losses / max(1, self._steps)
        ).tolist()
        elapsed = max(time.monotonic() - self._started, 1e-9)
        values = {
            "loss": classification + box,
            "classification": classification,
            "box_regression": box,
            "foreground_loss_share": foreground / classification if classification else 0.0,
            "background_loss_share": 1 - foreground / classification if classification else 0.0,
            "num_foreground": num_foreground,
            "images_per_second": self._images / elapsed,
            "data_wait": self._waited / elapsed,
        }
        self.training_seconds += elapsed
        self._reset()
        return values

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time inside is no training time."""
        self.training_seconds += time.monotonic() - self._started if self._steps else 0.0
        yield
        self._reset()
