"""What lies in a folder, without what machines leave lying around."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from retina.errors import UserError

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff"),
    *(".webp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c"),
    ".jpc",
    *(".avif", ".avifs"),
)
"""What an image file that is found in a folder, or by its stem, may end with; the first wins."""

_LITTER = frozenset(
    {
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir"),
        *("#recycle", "icon\r", "system volume information", "lost+found", "__pycache__"),
    }
)
"""Files and folders that systems make by themselves, beside those whose names begin with a dot."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a folder.

    Attributes:
        files: those that were asked for, sorted.
        passed_over: the others, by their paths below the folder.
    """

    files: tuple[Path, ...]
    passed_over: tuple[str, ...]


def list_files(
    folder: Path, suffixes: Collection[str] | None = None, *, deep: bool = True
) -> Listing:
    """The files of a folder and of those below it, links followed, each folder once.

    What systems leave lying around is passed over: hidden files, ``Thumbs.db``, ``__MACOSX/`` …

    Args:
        folder: to look into; none below one that does not exist.
        suffixes: in lower case, of the files that are asked for; None takes all.
        deep: whether folders below are looked into as well.

    Raises:
        UserError: a folder may not be listed.
    """
    files: list[Path] = []
    passed_over: list[str] = []
    for path, is_litter in _walk(str(folder), deep, set()):
        wanted = suffixes is None or os.path.splitext(path)[1].lower() in suffixes  # noqa: PTH122
        if wanted and not is_litter:
            files.append(Path(path))
        else:
            passed_over.append(os.path.relpath(path, folder))
    return Listing(tuple(sorted(files)), tuple(sorted(passed_over)))


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is one that systems leave lying around."""
    return name.startswith(".") or name.lower() in _LITTER


def _walk(folder: str, deep: bool, seen: set[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    """The paths below a folder, and whether each is litter (of a folder of it only its own)."""
    try:
        about = os.stat(folder)  # noqa: PTH116  # plain text: a Path for each file is slow
        if (about.st_dev, about.st_ino) in seen:  # a link that leads back, or twice to one place
            return
        seen.add((about.st_dev, about.st_ino))
        with os.scandir(folder) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed: {error.strerror}") from None
    for entry in inside:
        litter = is_litter(entry.name)
        if litter or not _is_folder(entry):
            yield entry.path, litter
        elif deep:
            yield from _walk(entry.path, deep, seen)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
