"""Finding the image files that annotations name, however the names are spelled."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from retina.datasets.annotations import AnnotationTable, name_array
from retina.datasets.file_listing import list_files
from retina.datasets.repeated import plain_path
from retina.errors import UserError


def find_files(table: AnnotationTable, folder: Path) -> tuple[AnnotationTable, tuple[str, ...]]:
    """The table with the names that its files have on the disk, and the images that are missing.

    Where there is no file of a name as it is written, the one is taken that differs from it in
    separators, composition of accents, URL encoding, or upper and lower case, or in the name of the
    image folder before it: if there is exactly one such, and no other image means it. A finding
    says so.

    Returns:
        The table, and for every missing image its name, with what it may mean.
    """
    names = [table.file_name(index) for index in range(table.num_images)]
    gone = _not_there(names, folder)
    if not gone:
        return table, ()
    files = _FilesBySpelling(folder)
    meant = {index: files.meant_by(names[index]) for index in gone}
    taken = Counter(set(names))  # by those that are there; the others are in no folder
    taken.update(found[0] for found, _ in meant.values() if len(found) == 1)
    spelled, missing = {}, []
    for index, (found, _) in meant.items():
        if len(found) == 1 and taken[found[0]] == 1:
            spelled[index] = found[0]
        else:
            missing.append(names[index] + (f" (is it {' or '.join(found)}?)" if found else ""))
    if not spelled:
        return table, tuple(missing)
    how = Counter(meant[index][1] for index in spelled)
    first = min(spelled)
    finding = (
        f"{len(spelled)} of {len(names)} images are found under another spelling: "
        f"{', '.join(f'{count} by {what}' for what, count in how.items())} (the first: "
        f"'{names[first]}' is '{spelled[first]}')"
    )
    table = replace(
        table, file_names=name_array([spelled.get(i, name) for i, name in enumerate(names)])
    )
    return table.with_findings(finding), tuple(missing)


def _not_there(names: Sequence[str], folder: Path) -> list[int]:
    """Which files are not in the folder.

    Folders are listed instead of asking for each file, which is slow over a network.
    """
    listings: dict[str, set[str]] = {}
    gone = []
    for index, name in enumerate(names):
        parent, _, base = name.rpartition("/")
        if parent not in listings:
            listings[parent] = set(_list(folder / parent))
        if base not in listings[parent]:
            gone.append(index)
    return gone


def _list(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208  # bare names, and no Path object for each
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed: {error.strerror}") from None


def composed(name: str) -> str:
    """A name with accents as one character each, and plain separators."""
    return unicodedata.normalize("NFC", plain_path(name))


def _decoded(name: str) -> str:
    return composed(unquote(name))


def in_lower_case(name: str) -> str:
    """A name without anything in which spellings of it differ."""
    return composed(_decoded(name).casefold())


_SPELLINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("separators", plain_path),
    ("the composition of accents", composed),
    ("URL encoding", _decoded),
    ("upper and lower case", in_lower_case),
)
"""In what names differ, and what makes them equal: each ignores what those before it ignore."""


class _FilesBySpelling:
    """The files of a folder, to be found under other spellings of their names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _indexes(self) -> list[dict[str, list[str]]]:
        names = [
            path.relative_to(self._folder).as_posix() for path in list_files(self._folder).files
        ]
        indexes = []
        for _, plain in _SPELLINGS:
            index: dict[str, list[str]] = defaultdict(list)
            for name in names:
                index[plain(name)].append(name)
            indexes.append(dict(index))
        return indexes

    def meant_by(self, name: str) -> tuple[list[str], str]:
        """The files that a name may mean, all by the same difference, and that difference."""
        whole = plain_path(name)
        for tail in self._tails(whole):
            for (what, plain), index in zip(_SPELLINGS, self._indexes, strict=True):
                if found := index.get(plain(tail)):
                    return found, what if tail == whole else "the name of the folder before them"
        return [], ""

    def _tails(self, name: str) -> Iterator[str]:
        """The name, and what of it follows the names of the folder itself."""
        yield name
        parts = name.split("/")
        alike = list(map(in_lower_case, parts))
        above = list(map(in_lower_case, self._folder.absolute().parts))
        for count in range(1, len(parts)):
            if alike[:count] == above[-count:]:
                yield "/".join(parts[count:])
