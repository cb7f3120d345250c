"""Which folder holds the images of an annotation file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from retina.datasets.file_listing import IMAGE_SUFFIXES, is_litter

IMAGE_FOLDERS = ("images", "JPEGImages", "Images", "imgs", "img")
"""What folders of images are called; the first wins."""

_MOST_NAMES = 20


def folder_of_images(candidates: Iterable[Path], names: Sequence[str]) -> Path | None:
    """The folder that holds most of some images, or else any image; None where none does.

    Args:
        candidates: the folders that it may be, the likeliest first; they need not exist.
        names: of some of the images, as annotations give them.
    """
    folders = [folder for folder in dict.fromkeys(candidates) if folder.is_dir()]
    some = names[:_MOST_NAMES]
    counts = [sum(_holds(folder, name) for name in some) for folder in folders]
    if any(counts):
        return folders[counts.index(max(counts))]
    return next(filter(holds_images, folders), None)


def _holds(folder: Path, name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    tails = ("/".join(parts[start:]) for start in range(len(parts)))
    return any(tail and is_there(folder / tail) for tail in tails)


def is_there(path: Path) -> bool:
    """Whether a file is there; it is not where no system could have one of its name."""
    return os.path.isfile(path)  # noqa: PTH113  # Path.is_file raises for names that are too long


def holds_images(folder: Path) -> bool:
    """Whether an image file lies in a folder, not in one below it."""
    try:
        with os.scandir(folder) as entries:
            return any(
                entry.name.lower().endswith(IMAGE_SUFFIXES) and not is_litter(entry.name)
                for entry in entries
            )
    except (OSError, ValueError):
        return False
