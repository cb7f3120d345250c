"""Finding out what a folder or a file of data is: its format, and its splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retina.datasets import formats
from retina.datasets.file_listing import is_litter
from retina.datasets.folder import SPLIT_NAMES, FolderConfig
from retina.errors import UserError, one_of

SPLITS = tuple(SPLIT_NAMES)
_MOST_LEVELS = 2
_MOST_FOLDERS = 50


@dataclass(frozen=True, slots=True)
class FoundSource:
    """What a folder or a file of data was taken for.

    Attributes:
        path: the folder or file.
        format: its format.
        splits: by name; empty where it is a single data set.
        whole: the single data set, or None.
        others: the titles of other formats that it could have been.
    """

    path: Path
    format: type[FolderConfig]
    splits: Mapping[str, FolderConfig] = field(default_factory=dict)
    whole: FolderConfig | None = None
    others: tuple[str, ...] = ()

    def split(
        self, name: str | None, default: str = "validation", *, key: str = "--split"
    ) -> tuple[FolderConfig, str]:
        """A split, and what messages call it.

        Args:
            name: of the split, in any of the ways of `SPLIT_NAMES`; None for the default.
            default: the split that is meant where none is named; where it is ``validation``,
                ``test`` comes before it.
            key: where the name was given, or is to be, for messages.

        Raises:
            UserError: there is no such split.
        """
        if not self.splits:
            assert self.whole is not None
            if name is not None:
                raise UserError(f"{key} {name}: {self.path} holds a single data set; leave it away")
            return self.whole, str(self.path)
        if name is not None:
            meant = split_called(name, list(self.splits), f"{key} (of {self.path})")
            return self.splits[meant], f"{self.path}, {meant}"
        for split in ("test", "validation") if default == "validation" else (default,):
            if split in self.splits:
                return self.splits[split], f"{self.path}, {split}"
        raise UserError(f"{self.path}: say which split of it: {key} {' or '.join(self.splits)}")

    def describe(self) -> str:
        """One line for people: what was taken for what."""
        parts = f": {', '.join(self.splits)}" if self.splits else ""
        others = f" (it could be {' or '.join(self.others)}, too)" if self.others else ""
        return f"{self.path} is taken for {self.format.title}{parts}{others}"


class NoDataSetError(UserError):
    """A folder has the layout of no format."""


def find_source(path: Path, *, images: Path | None = None, kind: str | None = None) -> FoundSource:
    """What a folder or file of data is, by looking at it.

    Args:
        path: the folder or file.
        images: the folder of the images of an annotation file; None looks for it.
        kind: the format to take it for; None finds out.

    Raises:
        NoDataSetError: the folder has the layout of no format.
        UserError: it does not exist, or cannot be read otherwise.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_file():
        return _find_file(
            path, images, formats.format_called(kind) if kind else formats.format_of(path)
        )
    if images is not None:
        raise UserError(f"--images {images}: {path} is a folder that holds its own images")
    tried = formats.FORMATS if kind is None else (formats.format_called(kind),)
    found = _find_folder(path, tried) or _find_below(path, tried)
    if not found:
        wanted = [config.layout for config in tried if config.layout]
        raise NoDataSetError(
            f"{path}: holds no data set that can be read: {'; '.join(wanted)}; or train/, "
            "validation/ and test/ with these"
        )
    first, *rest = found
    others = tuple(one.format.title for one in rest)
    return FoundSource(first.path, first.format, first.splits, first.whole, others)


def _find_file(path: Path, images: Path | None, format_: type[FolderConfig]) -> FoundSource:
    splits = format_.splits_of(path) if images is None else {}
    if splits:
        return FoundSource(path, format_, splits)
    folder = images or format_.images_of(path)
    if folder is None:
        raise UserError(f"{path}: say where its images are with --images FOLDER")
    return FoundSource(path, format_, whole=format_(images=folder, annotations=path))


def _find_folder(path: Path, tried: Sequence[type[FolderConfig]]) -> list[FoundSource]:
    """What a folder may be, by every format that finds its layout there."""
    found = []
    for format_ in tried:
        splits = format_.splits_in(path)
        whole = None if splits else format_.find_in(path)
        if splits or whole is not None:
            found.append(FoundSource(path, format_, splits, whole))
    return found


def _find_below(path: Path, tried: Sequence[type[FolderConfig]]) -> list[FoundSource]:
    """The one data set in the folders below, as archives unpack to; nothing where there is none.

    Raises:
        UserError: there are several.
    """
    level = [path]
    for _ in range(_MOST_LEVELS):
        level = [inside for folder in level for inside in _folders_in(folder)][:_MOST_FOLDERS]
        found = [one for one in (_find_folder(folder, tried) for folder in level) if one]
        if len(found) > 1:
            names = ", ".join(str(one[0].path) for one in found)
            raise UserError(f"{path}: holds several data sets: {names}; name one of them")
        if found:
            return found[0]
    return []


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(one for one in folder.iterdir() if one.is_dir() and not is_litter(one.name))
    except OSError:  # a folder that nobody may list cannot be the one that is meant
        return []


def split_called(name: str, splits: Sequence[str], where: str) -> str:
    """The split among these that a name of `SPLIT_NAMES` means.

    Raises:
        UserError: there is none; names those there are, and ``where`` the name was given.
    """
    meant = (split for split, names in SPLIT_NAMES.items() if name in names)
    split: str = one_of(next(meant, name), splits, where)
    return split
