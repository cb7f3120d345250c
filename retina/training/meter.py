"""Losses and times between two reports."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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
        self._losses = torch.zeros(6, device=self._device)  # the last counts the steps
        self._images = 0
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
        """Note a step, without its losses where they are not finite; does not wait."""
        values = torch.cat([losses.detach_stack(), torch.ones_like(self._losses[:1])])
        self._losses += torch.where(values.isfinite().all(), values, 0.0)
        self._images += num_images * world_size()

    def flush(self) -> dict[str, float]:
        """The means since the last call, NaN where there were no finite losses; waits."""
        num_finite = self._losses[5].item()
        classification, box, foreground, num_foreground, *_ = (
            self._losses / num_finite if num_finite else torch.full_like(self._losses, math.nan)
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
        paused = time.monotonic()
        yield
        self._started += time.monotonic() - paused

    def state_dict(self) -> dict[str, Any]:
        """The sums since the last `flush`, for a checkpoint between two lines of the log."""
        return {
            "losses": self._losses.cpu(),
            "images": self._images,
            "seconds": time.monotonic() - self._started,
            "waited": self._waited,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with these sums."""
        self._losses = state["losses"].to(self._device, copy=True)
        self._images, self._waited = state["images"], state["waited"]
        self._started = time.monotonic() - state["seconds"]
