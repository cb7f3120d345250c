"""What a person sees while a training runs: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from retina.wording import writable


@dataclass(frozen=True, slots=True)
class StepReport:
    """The state of a training since the last report.

    Attributes:
        step: optimizer steps done.
        epoch: the epoch under way, from 1.
        loss, classification, box_regression: means since the last report.
        lr: of the last step.
        images_per_second: since the last report.
        data_wait: share of the time spent waiting for data, 0..1.
    """

    step: int
    epoch: int
    loss: float
    classification: float
    box_regression: float
    lr: float
    images_per_second: float
    data_wait: float

    @classmethod
    def of(cls, step: int, epoch: int, lr: float, numbers: Mapping[str, float]) -> Self:
        """The report of what `StepMeter.flush` gives."""
        shown = ("loss", "classification", "box_regression", "images_per_second", "data_wait")
        return cls(step=step, epoch=epoch, lr=lr, **{name: numbers[name] for name in shown})


class TrainingProgress:
    """Shows step reports; use it as a context manager.

    Args:
        total_steps: of the whole training.
        first_step: where it starts; above 0 when it resumes.
        console: where to write.
        quiet: write nothing (all ranks but the first).
        plain_interval: seconds between two plain lines where the output is no terminal.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        first_step: int = 0,
        console: Console | None = None,
        quiet: bool = False,
        plain_interval: float = 10.0,
    ) -> None:
        self._console = console or Console(quiet=quiet, emoji=False)
        self._total, self._first = total_steps, first_step
        self._live = self._console.is_terminal and not quiet
        self._interval, self._last_line = plain_interval, float("-inf")
        self._started = time.monotonic()
        # Two lines, so that nothing is cut off on a terminal of 80 columns.
        self._progress = Progress(
            TextColumn("[bold]epoch {task.fields[epoch]}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            expand=True,
        )
        self._task: TaskID = self._progress.add_task(
            "train", total=total_steps, completed=first_step, epoch="1", pace=""
        )
        self._losses = Text(no_wrap=True, overflow="ellipsis")
        self._display = Live(
            Group(self._progress, self._losses), console=self._console, refresh_per_second=4
        )

    def __enter__(self) -> TrainingProgress:
        if self._live:
            self._display.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live:
            self._display.stop()

    def report(self, report: StepReport) -> None:
        """Show where the training stands."""
        losses = (
            f"loss {report.loss:.4f} (class {report.classification:.4f}, box "
            f"{report.box_regression:.4f})  lr {report.lr:.2e}"
        )
        pace = f"{report.images_per_second:.1f} images/s  ETA {self._eta(report.step)}"
        waited = f"data wait {report.data_wait:.0%}"
        self._progress.update(self._task, completed=report.step, epoch=str(report.epoch), pace=pace)
        self._losses.plain = f"{losses}  {waited}"
        now = time.monotonic()
        is_due = now - self._last_line >= self._interval or report.step == self._total
        if not self._live and is_due:
            self._last_line = now
            where = f"step {report.step}/{self._total}  epoch {report.epoch}"
            self.message(f"{where}  {losses}  {waited}  {pace}")

    def message(self, text: str) -> None:
        """A line that stays, on outputs that do not know every character too."""
        text = writable(text, self._console.encoding)
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _eta(self, step: int) -> str:
        done = step - self._first
        if done <= 0:
            return "?"
        left = (time.monotonic() - self._started) / done * (self._total - step)
        return str(timedelta(seconds=round(left)))
