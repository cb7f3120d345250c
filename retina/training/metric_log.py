"""Scalars, images and texts of a run: JSON lines always, TensorBoard beside them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina.storage import bring_to_disk
from retina.structures import FloatArray
from retina.wording import writable

_LINES = "metrics.jsonl"
BOARD = "tensorboard"


class RunLog:
    """Where a training is recorded. This one forgets: what every rank but the first has."""

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Record numbers by name, of an optimizer step; ``kind`` as in ``metrics.jsonl``."""

    def per_class(
        self,
        kind: str,
        step: int,
        metrics: Mapping[str, Mapping[str, float]],
        *,
        in_tensorboard: bool = True,
    ) -> None:
        """Record numbers of the classes.

        Args:
            kind: of what.
            step: when.
            metrics: by the metric's name, the number of each class.
            in_tensorboard: whether TensorBoard has them, too; a scalar each may be too many.
        """

    def per_level(self, kind: str, step: int, values: Mapping[str, Mapping[str, float]]) -> None:
        """Record the same scalars of every level."""

    def histograms(
        self, kind: str, step: int, edges: FloatArray, counts: Mapping[str, FloatArray]
    ) -> None:
        """Record counts ``(N,)`` between shared edges ``(N + 1,)``; nothing is binned anew."""

    def record(self, kind: str, step: int, message: str) -> None:
        """Record a sentence for people."""

    def text(self, name: str, text: str, step: int) -> None:
        """Show a text in TensorBoard, as it is."""

    def image(self, name: str, image: npt.NDArray[np.uint8], step: int) -> None:
        """Show an ``(H, W, 3)`` uint8 RGB image in TensorBoard."""

    def position(self) -> dict[str, int]:
        """The bytes of each log file on disk, by its path in the run folder."""
        return {}

    def flush(self) -> None:
        """Bring everything to disk."""

    def close(self) -> None:
        """Bring everything to disk and let the files go."""


class MetricLog(RunLog):
    """Writes ``metrics.jsonl`` and ``tensorboard/`` in a run folder.

    Each line of ``metrics.jsonl`` is an object with ``kind`` (train, validation, …), ``step`` and
    the scalars.

    Args:
        folder: the run folder.
        resume_at: the `position` at the checkpoint that the run goes on from. What was written
            later is taken back, so that no step is there twice. None writes behind what is there.
    """

    def __init__(self, folder: Path, *, resume_at: Mapping[str, int] | None = None) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter  # takes a second to import

        self._folder = folder
        if resume_at is not None:
            _take_back(folder, resume_at)
        self._file = (folder / _LINES).open("a", encoding="utf-8")
        self._board: Any = SummaryWriter(str(folder / BOARD))

    def position(self) -> dict[str, int]:
        """The bytes of each log file on disk, by its path in the run folder."""
        self.flush()
        return {
            str(path.relative_to(self._folder)): _synced_size(path)
            for path in _log_files(self._folder)
        }

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Record scalars; one that is not finite is null in the JSON lines, and in no curve."""
        finite = _finite(values)
        self._write({"kind": kind, "step": step, **finite})
        for name, value in finite.items():
            if value is not None:
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def per_class(
        self,
        kind: str,
        step: int,
        metrics: Mapping[str, Mapping[str, float]],
        *,
        in_tensorboard: bool = True,
    ) -> None:
        """Record numbers of the classes; the JSON line has an object for each metric."""
        objects = {metric: _finite(values) for metric, values in metrics.items()}
        self._write({"kind": f"{kind}_per_class", "step": step, **objects})
        for metric, values in metrics.items() if in_tensorboard else ():
            for name, value in values.items():
                self._board.add_scalar(f"{kind}_{metric}_per_class/{name}", value, step)

    def per_level(self, kind: str, step: int, values: Mapping[str, Mapping[str, float]]) -> None:
        """Record the same scalars of every level; the JSON line has an object for each."""
        levels = {level: _finite(scalars) for level, scalars in values.items()}
        self._write({"kind": f"{kind}_per_level", "step": step, "levels": levels})
        for level, scalars in values.items():
            for name, value in scalars.items():
                self._board.add_scalar(f"{kind}_{level}/{name}", value, step)

    def histograms(
        self, kind: str, step: int, edges: FloatArray, counts: Mapping[str, FloatArray]
    ) -> None:
        """Record counts ``(N,)`` between shared edges ``(N + 1,)``; nothing is binned anew."""
        lists = {name: bars.astype(int).tolist() for name, bars in counts.items()}
        self._write({"kind": kind, "step": step, "edges": edges.tolist(), **lists})
        middles = (edges[:-1] + edges[1:]) / 2
        for name, bars in counts.items():
            filled = np.flatnonzero(bars)
            if not filled.size:
                continue
            self._board.add_histogram_raw(
                f"{kind}/{name}",
                min=edges[filled[0]],
                max=edges[filled[-1] + 1],
                num=bars.sum(),
                sum=(bars * middles).sum(),
                sum_squares=(bars * middles**2).sum(),
                bucket_limits=edges[1:].tolist(),
                bucket_counts=bars.tolist(),
                global_step=step,
            )

    def record(self, kind: str, step: int, message: str) -> None:
        """Record a sentence for people."""
        self._write({"kind": kind, "step": step, "message": message})
        self._board.add_text(kind, writable(message, "utf-8"), step)

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def text(self, name: str, text: str, step: int) -> None:
        """Show a text in TensorBoard, as it is."""
        self._board.add_text(name, "    " + text.replace("\n", "\n    "), step)

    def image(self, name: str, image: npt.NDArray[np.uint8], step: int) -> None:
        """Show an ``(H, W, 3)`` uint8 RGB image in TensorBoard."""
        self._board.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        """Bring everything to disk."""
        self._file.flush()
        self._board.flush()

    def close(self) -> None:
        """Bring everything to disk and let the files go."""
        self._file.close()
        self._board.close()


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _log_files(folder: Path) -> list[Path]:
    events = sorted((folder / BOARD).glob("events.out.tfevents.*"))
    return [path for path in (folder / _LINES, *events) if path.exists()]


def _take_back(folder: Path, position: Mapping[str, int]) -> None:
    """Cut every log file to its length at a checkpoint; later ones go."""
    for path in _log_files(folder):
        length = position.get(str(path.relative_to(folder)))
        if length is None:
            path.unlink()
        elif length < path.stat().st_size:
            os.truncate(path, length)


def _synced_size(path: Path) -> int:
    bring_to_disk(path)
    return path.stat().st_size
