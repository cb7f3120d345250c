"""Finding image files that annotations name by paths of another machine, or without a suffix."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path, PurePosixPath

from retina.datasets.file_listing import IMAGE_SUFFIXES, list_files
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
        except OSError:
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
    taken = Counter(file for file, _ in meant)
    found = [
        file if file and (not how or taken[file] == 1) else _below(name)
        for name, (file, how) in zip(names, meant, strict=True)
    ]
    by_another = [at for at, (file, how) in enumerate(meant) if how and found[at] == file]
    if not by_another:
        return found, ""
    how_often = Counter(meant[at][1] for at in by_another)
    first = by_another[0]
    return found, (
        f"{len(by_another)} of {len(names)} images are found by a part of their name: "
        f"{', '.join(f'{count} {how}' for how, count in how_often.items())} (the first: "
        f"'{names[first]}' is '{found[first]}')"
    )


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
    def _by_stem(self) -> Mapping[str, list[str]]:
        return _grouped((file.rpartition(".")[0], file) for file in self._files)

    @cached_property
    def _by_base(self) -> Mapping[str, list[str]]:
        return _grouped((file.rpartition("/")[2], file) for file in self._files)

    @cached_property
    def _by_base_stem(self) -> Mapping[str, list[str]]:
        return _grouped((PurePosixPath(file).stem, file) for file in self._files)

    def meant_by(self, name: str) -> tuple[str, str]:
        """The file, and which part of the name led to it; both empty where none or several do."""
        plain = plain_path(name)
        if plain in self._files:
            return plain, ""
        parts = path_parts(name)
        tails = ["/".join(parts[count:]) for count in range(len(parts))]
        if not tails:
            return "", ""
        stems = [_without_suffix(tail) for tail in tails]
        for how, found in (
            *(("without its first folders", [tail] * (tail in self._files)) for tail in tails),
            ("in another folder", self._by_base.get(tails[-1], [])),
            *(("without its suffix", self._by_stem.get(stem, [])) for stem in stems),
            ("without its suffix", self._by_base_stem.get(stems[-1], [])),
        ):
            if found:
                return (found[0], how) if len(found) == 1 else ("", "")
        return "", ""


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name


def _grouped(pairs: Iterator[tuple[str, str]]) -> Mapping[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for key, file in pairs:
        groups[key].append(file)
    return dict(groups)
