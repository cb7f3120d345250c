"""Scalars, pictures and texts of a run: JSON lines always, TensorBoard beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retina.storage import write_text
from retina.structures import FloatArray


class MetricLog:
    """Writes ``metrics.jsonl`` and ``tensorboard/`` in a run folder.

    Each line of ``metrics.jsonl`` is an object with ``kind`` (train, validation, …), ``step`` and
    the scalars. When a run resumes at a step, what was written beyond it is taken back.
    """

    def __init__(self, folder: Path, *, resume_step: int | None = None) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter  # takes a second to import

        self._path = folder / "metrics.jsonl"
        if resume_step is not None and self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) <= resume_step]
            write_text(self._path, "".join(f"{line}\n" for line in kept))
        self._file = self._path.open("a", encoding="utf-8")
        purge = None if resume_step is None else resume_step + 1
        self._board: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Log scalars; a value that is not finite becomes null in the JSON lines."""
        self._write({"kind": kind, "step": step, **_finite(values)})
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def per_class(
        self,
        kind: str,
        step: int,
        metrics: Mapping[str, Mapping[str, float]],
        *,
        in_tensorboard: bool = True,
    ) -> None:
        """Log numbers of the classes; the JSON line has an object for each metric.

        Args:
            kind: of what.
            step: when.
            metrics: by the metric's name, the number of each class.
            in_tensorboard: whether TensorBoard has them, too; a scalar each may be too many.
        """
        objects = {metric: _finite(values) for metric, values in metrics.items()}
        self._write({"kind": f"{kind}_per_class", "step": step, **objects})
        for metric, values in metrics.items() if in_tensorboard else ():
            for name, value in values.items():
                self._board.add_scalar(f"{kind}_{metric}_per_class/{name}", value, step)

    def per_level(self, kind: str, step: int, values: Mapping[str, Mapping[str, float]]) -> None:
        """Log the same scalars of every level; the JSON line has an object for each."""
        levels = {level: _finite(scalars) for level, scalars in values.items()}
        self._write({"kind": f"{kind}_per_level", "step": step, "levels": levels})
        for level, scalars in values.items():
            for name, value in scalars.items():
                self._board.add_scalar(f"{kind}_{level}/{name}", value, step)

    def histograms(
        self, kind: str, step: int, edges: FloatArray, counts: Mapping[str, FloatArray]
    ) -> None:
        """Log counts ``(N,)`` between shared edges ``(N + 1,)``; nothing is binned anew."""
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

    def note(self, kind: str, step: int, message: str) -> None:
        """Log a sentence for people."""
        self._write({"kind": kind, "step": step, "message": message})
        self._board.add_text(kind, message, step)

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def text(self, name: str, text: str, step: int) -> None:
        """Show a text in TensorBoard, as it is."""
        self._board.add_text(name, "    " + text.replace("\n", "\n    "), step)

    def picture(self, name: str, image: npt.NDArray[np.uint8], step: int) -> None:
        """Show an ``(H, W, 3)`` uint8 RGB picture in TensorBoard."""
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


def _step_of(line: str) -> float:
    """The step of a JSON line; a torn last line counts as beyond everything."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
