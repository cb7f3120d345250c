"""The folder that the embedded data set is written into: whole or not at all."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retina.datasets.synthetic.planning import SPLITS
from retina.errors import RunError, UserError

DESCRIPTION = "Retina's embedded synthetic data set"
"""By this text in ``info`` an annotation file is known as one of ours."""

_STAGING_PREFIX = ".retina-synth-"


def held_parameters(folder: Path) -> Mapping[str, Any] | None:
    """The parameters of the data set in a folder: empty if they are lost, None if there is none.

    Raises:
        UserError: the folder holds anything else, which must not be overwritten.
    """
    try:
        if not folder.exists():
            return None
        if not folder.is_dir():
            raise UserError(f"{folder} is a file; give a folder to write the data set into")
        names = {path.name for path in folder.iterdir()}
    except PermissionError as error:
        raise UserError(f"no permission to read {folder}; choose another folder") from error
    leftovers = {name for name in names if name.startswith(_STAGING_PREFIX)}
    foreign = sorted(names - leftovers - set(SPLITS))
    held = [_read_parameters(folder / split) for split in SPLITS if split in names]
    foreign += [split for split in SPLITS if split in names and not _is_ours(folder / split)]
    if foreign:
        raise UserError(
            f"{folder} already holds something else ({', '.join(foreign[:3])}"
            f"{' …' if len(foreign) > 3 else ''}); nothing was written. "
            "Choose a new or empty folder"
        )
    if not held:
        return None
    return held[0] if len(held) == len(SPLITS) and held[0] == held[1] else {}


def is_complete(folder: Path) -> bool:
    """Whether every image that a data set of ours lists is there and not empty."""
    for split in SPLITS:
        listed = read_annotations(folder, split)["images"]
        paths = [folder / split / "images" / image["file_name"] for image in listed]
        if not all(path.is_file() and path.stat().st_size > 0 for path in paths):
            return False
    return True


def read_annotations(folder: Path, split: str) -> dict[str, Any]:
    """The annotation file of a split."""
    text = (folder / split / "annotations.json").read_text(encoding="utf-8")
    annotations: dict[str, Any] = json.loads(text)
    return annotations


def _read_parameters(split_folder: Path) -> Mapping[str, Any] | None:
    """The parameters in an annotation file of ours; None where it is none."""
    try:
        info = read_annotations(split_folder.parent, split_folder.name)["info"]
        if info["description"] == DESCRIPTION:
            parameters: Mapping[str, Any] = info["parameters"]
            return parameters
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _is_ours(split_folder: Path) -> bool:
    """Whether a split folder holds what we write there and nothing besides."""
    if _read_parameters(split_folder) is None:
        return False
    if {path.name for path in split_folder.iterdir()} - {"images", "annotations.json"}:
        return False
    images = split_folder / "images"
    return not images.exists() or all(path.suffix == ".jpg" for path in images.iterdir())


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A folder to write into; its splits move into ``folder`` when the block ends well.

    It lies inside ``folder``, so that moving is renaming, and is gone afterwards in every case.

    Raises:
        UserError: no permission to write.
        RunError: the disk is full or failing.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    aside: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"{_STAGING_PREFIX}*"):
            shutil.rmtree(leftover)
        aside = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=folder))
        yield aside
        _move_in(aside, folder)
        missing = []
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise UserError(
                f"cannot write to {folder}: {error.strerror}; choose a folder that you may write to"
            ) from error
        raise RunError(
            f"writing the data set to {folder} failed: {error.strerror}; nothing was left there"
        ) from error
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        for path in missing:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _move_in(aside: Path, folder: Path) -> None:
    """Put the new splits in the place of the old ones, which go with the staging folder."""
    (aside / "old").mkdir()
    for split in SPLITS:
        if (folder / split).exists():
            (folder / split).rename(aside / "old" / split)
        (aside / split).rename(folder / split)
