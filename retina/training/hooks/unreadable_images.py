"""The image files that a training has passed over: listed once each, counted, bounded."""

from __future__ import annotations

import json
from pathlib import Path

from retina.distributed import broadcast_object, gather_objects, is_main_process
from retina.errors import UserError
from retina.storage import write_text
from retina.structures import Batch, UnreadableImage
from retina.training.run import Hook, TrainingRun


class UnreadableImages(Hook):
    """What could not be read so far, over all processes and over resumes of the run.

    Args:
        path: the list, one JSON object a line (``step``, ``file``, ``reason``); there is none until
            a file is passed over. A list that is there already is gone on with.
        limit: so many different files at most; 0 where none is ever passed over.
    """

    def __init__(self, path: Path, *, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._new: dict[str, UnreadableImage] = {}
        self._rows: dict[str, str] = {}
        if limit:
            self._rows = broadcast_object(_read(path) if is_main_process() else {})

    def __len__(self) -> int:
        """The number of different files."""
        return len(self._rows)

    def before_step(self, step: int, micro_batches: list[Batch]) -> None:
        """Remember the files that others took the place of."""
        for batch in micro_batches:
            for one in batch.unreadable:
                if one.file not in self._rows:
                    self._new.setdefault(one.file, one)

    def flush(self, run: TrainingRun) -> None:
        """Bring the lists of all processes together, and show a line for every file that is new.

        Raises:
            UserError: there are more files than may be passed over; on every process alike.
        """
        if not self._limit:
            return
        found = {one.file: one for part in gather_objects([*self._new.values()]) for one in part}
        self._new = {}
        for one in found.values():
            row = {"step": run.step, "file": one.file, "reason": one.reason}
            self._rows[one.file] = json.dumps(row)
            run.progress.message(
                f"passed over ({len(self._rows)} of at most {self._limit}): {one.reason}"
            )
        if found and is_main_process():
            write_text(self._path, "".join(f"{row}\n" for row in self._rows.values()))
        if len(self._rows) > self._limit:
            raise UserError(
                f"{len(self._rows)} image files cannot be read, more than "
                f"loader.max_unreadable_images allows ({self._limit}); they are listed in "
                f"{self._path}. Fix them, remove them from the annotations, or raise the limit"
            )


def _read(path: Path) -> dict[str, str]:
    """The rows of a list by their file; those that are no rows are left out."""
    rows: dict[str, str] = {}
    if not path.exists():
        return rows
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows[json.loads(line)["file"]] = line
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return rows
