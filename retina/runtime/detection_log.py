"""What a run over many images has found so far, on disk, so that it goes on where it was stopped.

The images are numbered, and shared over the processes of the run. Each process appends a line to a
file of its own for every image that is done; whoever reads the lines of all has them in the order
of the images, however many processes there were.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import torch

from retina.distributed import done_by_main, rank
from retina.errors import RunError, UserError
from retina.storage import make_folder, write_text
from retina.structures import Detections, Size
from retina.wording import counted

UNFINISHED = "unfinished"
"""The folder within the output that a run keeps its log in, until it has ended."""

_SETTINGS = "run.json"
_LAST = -1


@dataclass(frozen=True, slots=True)
class LoggedImage:
    """What is known of one image, or of one frame of a video, once it is done.

    Attributes:
        item: the number of the image or the video among those of the run, from 0.
        size: height and width of the image; ``(0, 0)`` where it could not be read.
        found: the objects, in pixels of the image; none where it could not be read.
        failure: what could not be done; empty as a rule.
        frame: the number of the frame in its video, from 0; None for an image.
        time: of the frame, in seconds from the start of the video.
        is_last: nothing more comes of the item.
    """

    item: int
    size: Size
    found: Detections
    failure: str = ""
    frame: int | None = None
    time: float | None = None
    is_last: bool = True

    @property
    def is_read(self) -> bool:
        """Whether the image could be read, and so was looked at."""
        return self.size != (0, 0)


class DetectionLog:
    """The log of a run: see the module.

    Args:
        folder: of the log, which is there.
        done: see the attribute.

    Attributes:
        done: the items that were done when the run began, or went on: the same on all processes.
    """

    def __init__(self, folder: Path, done: frozenset[int] = frozenset()) -> None:
        self.folder = folder
        self.done = done
        self._file: IO[str] | None = None

    @classmethod
    def begin(cls, folder: Path, settings: Mapping[str, object], *, resume: bool) -> Self:
        """Begin a log anew, or go on with the one that is there; on all processes together.

        Args:
            folder: of the log, which all processes reach.
            settings: all that decides what is found, by names for people.
            resume: go on; without a log that is there a new one begins.

        Raises:
            UserError: the log that is there is of a run with other settings.
        """

        def prepare() -> frozenset[int]:
            _prepare(folder, settings, resume=resume)
            return cls(folder).items_done()

        return cls(folder, done_by_main(prepare))

    @property
    def is_there(self) -> bool:
        """Whether there is a run to go on with."""
        return (self.folder / _SETTINGS).is_file()

    def items_known(self) -> frozenset[int]:
        """The items that something is known of by now, be it that they cannot be read."""
        return frozenset(item for item, _ in self._places())

    def items_done(self) -> frozenset[int]:
        """The items that are done by now: with all that is to be written about them."""
        return frozenset(item for item, frame in self._places() if frame == _LAST)

    def add(self, image: LoggedImage) -> None:
        """Append what is known of an image; it is with the system when this returns.

        Raises:
            RunError: the disk is full.
        """
        path = self.folder / f"found_{rank()}.jsonl"
        try:
            if self._file is None:
                _cut_half_line(path)
                self._file = path.open("a", encoding="utf-8")
            self._file.write(json.dumps(_as_row(image), separators=(",", ":")) + "\n")
            self._file.flush()
        except OSError as error:
            with suppress(OSError):  # it would be flushed once more
                self.close()
            self._file = None
            raise RunError(
                f"{path}: cannot be written: {error.strerror}; free some space, and go on with "
                "--resume"
            ) from None

    def images(self) -> Iterator[LoggedImage]:
        """What all processes have logged, by item and frame; what was logged twice counts once.

        Of a video that broke off all frames until then are given.
        """
        places = self._places()
        files: dict[Path, IO[bytes]] = {}
        try:
            for key in sorted(key for key in places if key[1] != _LAST):
                path, offset = places[key]
                file = files.get(path) or files.setdefault(path, path.open("rb"))
                file.seek(offset)
                yield _of_row(json.loads(file.readline()))
        finally:
            for file in files.values():
                file.close()

    def close(self) -> None:
        """Close this process's file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Delete the log; its run has come to its end."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _places(self) -> dict[tuple[int, int], tuple[Path, int]]:
        """Where each image stands, and under `_LAST` the end of each item that was done.

        Of what was logged twice the better counts, of equals the later one.
        """
        places: dict[tuple[int, int], tuple[Path, int]] = {}
        grades: dict[tuple[int, int], int] = {}
        for path in sorted(self.folder.glob("found_*.jsonl")):
            offset = 0
            with path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n"):  # else a process was killed while it wrote
                        row = json.loads(line)
                        place, grade = (path, offset), _grade(row)
                        key = (row["item"], row.get("frame") or 0)
                        if grade >= grades.get(key, 0):
                            places[key], grades[key] = place, grade
                        if grade == _COMPLETE and row["is_last"]:
                            places[row["item"], _LAST] = place
                    offset += len(line)
        for item, _ in [key for key, grade in grades.items() if grade == _FAILED]:
            places.pop((item, _LAST), None)  # an earlier frame of a video has failed
        return places


_FAILED, _COMPLETE = 1, 2


def _grade(row: Mapping[str, Any]) -> int:
    """What is worth more where an image was tried again: an unread one 0."""
    if row["size"] == [0, 0]:
        return 0
    return _FAILED if row.get("failure") else _COMPLETE


def _prepare(folder: Path, settings: Mapping[str, object], *, resume: bool) -> None:
    file, wanted = folder / _SETTINGS, json.loads(json.dumps(settings))
    if resume and file.is_file():
        before = _settings_in(file)
        differ = [name for name in wanted if before.get(name) != wanted[name]]
        if differ:
            raise UserError(
                f"{folder}: is of a run that differs in {' and '.join(differ)}; repeat its command "
                "to go on, or leave --resume away to begin anew"
            )
        return
    if folder.is_dir() and any(folder.iterdir()) and not file.is_file():
        raise UserError(
            f"{folder}: is where a run keeps what it has found, and something else is in it; "
            "choose another --output"
        )
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    write_text(file, json.dumps(wanted, indent=2) + "\n")


def _settings_in(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = None
    return settings if isinstance(settings, dict) else {}


def stopped_run(folder: Path, *, resume: bool) -> list[str]:
    """A line on the log that is in a folder before a run begins there; none without one.

    All processes together: the next that comes may begin anew.
    """
    log = DetectionLog(folder)
    done = done_by_main(lambda: len(log.items_done()) if log.is_there else 0)
    if not done:
        return []
    what = "going on" if resume else "beginning anew (--resume would go on)"
    return [f"{folder.parent} holds a run that was stopped, {counted(done, 'image')} done: {what}"]


def file_sha256(path: Path) -> str:
    """What tells a detector's file from any other, wherever it lies: a setting of a run."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cut_half_line(path: Path) -> None:
    """Take away what a killed process has left of its last line."""
    if path.is_file():
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def _as_row(image: LoggedImage) -> dict[str, object]:
    found = image.found
    row: dict[str, object] = {
        "item": image.item,
        "size": image.size,
        "is_last": image.is_last,
        # A float32 written as the double that it equals is read again as the same float32.
        "boxes": found.boxes.tolist(),
        "scores": found.scores.tolist(),
        "labels": found.labels.tolist(),
    }
    if image.frame is not None:
        row |= {"frame": image.frame, "time": image.time}
    return row | ({"failure": image.failure} if image.failure else {})


def _of_row(row: Mapping[str, Any]) -> LoggedImage:
    height, width = row["size"]
    return LoggedImage(
        item=row["item"],
        size=(height, width),
        found=Detections(
            torch.tensor(row["boxes"], dtype=torch.float32).reshape(-1, 4),
            torch.tensor(row["scores"], dtype=torch.float32),
            torch.tensor(row["labels"], dtype=torch.int64),
        ),
        failure=row.get("failure", ""),
        frame=row.get("frame"),
        time=row.get("time"),
        is_last=row["is_last"],
    )


def no_detections() -> Detections:
    """Those of an image that could not be read."""
    return Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
