"""Finding image files that annotations name by paths of another machine, or without a suffix."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path

from retina.datasets.file_listing import IMAGE_SUFFIXES, list_files
from retina.datasets.file_names import in_lower_case
from retina.datasets.repeated import plain_path

_ANCHOR = re.compile(r"^(?:[A-Za-z][\w+.-]*:)?/*")


class FolderListings:
    """What lies in folders, each listed once: asking for every file is slow over a network."""

    def __init__(self) -> None:
        self.names_in = cache(self._names_in)

    @staticmethod
    def _names_in(folder: Path) -> frozenset[str]:
        try:
            return frozenset(os.listdir(folder))  # noqa: PTH208  # bare names, no Path for each
        except (OSError, ValueError):  # a NUL in the name
            return frozenset()

    def has(self, path: Path) -> bool:
        """Whether there is such a file or folder."""
        return path.name in self.names_in(path.parent)


def path_parts(name: str) -> list[str]:
    """The folders and the file of a path of any system, without drive, root, ``.`` and ``..``."""
    plain = _ANCHOR.sub("", name.replace("\\", "/"))
    return [part for part in plain.split("/") if part not in ("", ".", "..")]


def find_images(names: Sequence[str], folder: Path) -> tuple[list[str], str]:
    """The files below a folder that names mean, in their order; and a finding, or nothing.

    Where there is no file of a name as it is written, its first folders are left away, then all of
    them, then its suffix: where that leaves exactly one file, and no other name means it. What is
    not found keeps its name, as a path below the folder.

    Args:
        names: different ones.
        folder: of the images.
    """
    files = _ImagesBelow(folder)
    meant = [files.meant_by(name) for name in names]
    taken = Counter(meant)
    found, by_part = [], []
    for name, file in zip(names, meant, strict=True):
        is_exact = file == plain_path(name)
        is_found = bool(file) and (is_exact or taken[file] == 1)
        found.append(file if is_found else _below(name))
        by_part += [] if is_exact or not is_found else [(name, file)]
    if not by_part:
        return found, ""
    name, file = by_part[0]
    return found, (
        f"{len(by_part)} of {len(names)} images are found by a part of their name (the first: "
        f"'{name}' is '{file}')"
    )


def holds_images(folder: Path, names: Sequence[str]) -> bool:
    """Whether names mean images below a folder, each alone or together with others."""
    files = _ImagesBelow(folder)
    return all(map(files.meant_by, names))


def _below(name: str) -> str:
    """A name that is not found, for the message that says so: as it is, or below the folder."""
    slashed, parts = name.replace("\\", "/"), path_parts(name)
    leads_out = _ANCHOR.sub("", slashed) != slashed or ".." in slashed.split("/")
    return "/".join(parts) if leads_out and parts else name


class _ImagesBelow:
    """The image files below a folder, to be found by parts of their names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def _files(self) -> frozenset[str]:
        listed = list_files(self._folder, IMAGE_SUFFIXES).files
        return frozenset(path.relative_to(self._folder).as_posix() for path in listed)

    @cached_property
    def _by_tail(self) -> Mapping[str, list[str]]:
        """The files by their names with and without folders and suffix, spelling aside."""
        groups: dict[str, list[str]] = defaultdict(list)
        for file in self._files:
            base = file.rpartition("/")[2]
            for key in {file, base, _without_suffix(file), _without_suffix(base)}:
                groups[in_lower_case(key)].append(file)
        return dict(groups)

    def meant_by(self, name: str) -> str:
        """The file; empty where there is none, or several."""
        plain = plain_path(name)
        if plain in self._files:
            return plain
        parts = path_parts(name)
        tails = ["/".join(parts[count:]) for count in range(len(parts))]
        exact = next((tail for tail in tails if tail in self._files), "")
        keys = map(in_lower_case, (*tails, *map(_without_suffix, tails)))
        found = next((self._by_tail[key] for key in keys if key in self._by_tail), [])
        return exact or (found[0] if len(found) == 1 else "")


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name
