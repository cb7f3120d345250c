"""The image files of a data set that is written anew: their names, and how they get there."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from retina.datasets.categories import joined_categories
from retina.datasets.dataset import DetectionDataset
from retina.datasets.file_names import in_lower_case
from retina.datasets.folder import FolderDataset
from retina.errors import UserError
from retina.storage import make_folder
from retina.structures import Categories, GroundTruth

Splits = Mapping[str, DetectionDataset]
"""Data sets by the names of their splits; a single one stands under an empty name."""

OnImage = Callable[[int], None]
"""Called with 1 after every image."""


def place_image(source: Path, target: Path) -> None:
    """Make an image file appear at another place: as a hard link, or as a copy where none can be.

    Raises:
        UserError: the source is not there, or the target may not be written.
    """
    try:
        real = source.resolve(strict=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(real, target)
        except FileExistsError:
            raise
        except OSError:  # another disk, or one without links
            shutil.copyfile(real, target)
    except OSError as error:
        raise UserError(f"{source}: cannot be put at {target}: {error.strerror}") from None


def require_images(splits: Splits) -> None:
    """Refuse data sets of which image files are missing, with one message for all."""
    paths = [
        path
        for dataset in splits.values()
        for path in (dataset.file_path(index) for index in range(len(dataset)))
    ]
    gone = [path for path in paths if not os.path.isfile(path)]  # noqa: PTH113  # many of them
    if gone:
        shown = ", ".join(gone[:3]) + (" …" if len(gone) > 3 else "")
        raise UserError(
            f"{len(gone)} of {len(paths)} image files are not there: {shown}; add them (retina "
            "data fix writes a copy of the annotations without such images)"
        )


def start_folder(folder: Path, entries: Iterable[str]) -> None:
    """Make the folder that a data set is written into.

    Args:
        folder: may be there already, and hold other things.
        entries: what will be written into it.

    Raises:
        UserError: one of them is there already, so that two data sets would be mixed.
    """
    there = [entry for entry in entries if os.path.lexists(folder / entry)]
    if there:
        raise UserError(
            f"{folder}: holds {', '.join(there)} already, and data sets are not mixed; choose "
            "another --output, or remove what is there"
        )
    make_folder(folder)


def image_folder(dataset: DetectionDataset) -> Path:
    """The folder that the image files lie in, or below."""
    return dataset.images if isinstance(dataset, FolderDataset) else common_folder(dataset)


def common_folder(dataset: DetectionDataset) -> Path:
    """The innermost folder that holds all images."""
    folders = {str(Path(dataset.file_path(index)).parent) for index in range(len(dataset))}
    return Path(os.path.commonpath([os.path.abspath(folder) for folder in folders]))  # noqa: PTH100


def names_below(dataset: DetectionDataset) -> list[str]:
    """The paths of the image files below `image_folder`."""
    folder = os.path.abspath(image_folder(dataset))  # noqa: PTH100 - without "..", links stay
    paths = (Path(os.path.abspath(dataset.file_path(row))) for row in range(len(dataset)))  # noqa: PTH100
    return [path.relative_to(folder).as_posix() for path in paths]


def flat_names(splits: Splits) -> dict[str, list[str]]:
    """Names for the image files of all splits in a single folder, none like another.

    They differ in more than their suffix and in more than upper and lower case, since formats name
    an image's annotations by its stem. A name that is the only one of its kind stays as it is; to
    others that of their folder is added, and a number where that is not enough.
    """
    whole = {split: names_below(dataset) for split, dataset in splits.items()}
    stems = Counter(_stem(name) for names in whole.values() for name in names)
    # These keep their names whatever the others become.
    taken = {stem for stem, count in stems.items() if count == 1}
    return {
        split: [
            PurePosixPath(name).name if stems[_stem(name)] == 1 else _free_name(name, taken)
            for name in names
        ]
        for split, names in whole.items()
    }


def _stem(name: str) -> str:
    return in_lower_case(PurePosixPath(name).stem)


def _free_name(name: str, taken: set[str]) -> str:
    flat = PurePosixPath("_".join(name.split("/")))
    number, free = 1, flat.name
    while _stem(free) in taken:
        number += 1
        free = f"{flat.stem}_{number}{flat.suffix}"
    taken.add(_stem(free))
    return free


def place_images(
    dataset: DetectionDataset, names: Sequence[str], folder: Path, on_image: OnImage
) -> None:
    """Put the images of a data set into a folder, under these names: see `place_image`."""
    for index, name in enumerate(names):
        place_image(Path(dataset.file_path(index)), folder / name)
        on_image(1)


def joined_truths(splits: Splits) -> tuple[Categories, dict[str, GroundTruth]]:
    """The annotations of all splits with the same categories: see `joined_categories`."""
    truths = {split: dataset.ground_truth() for split, dataset in splits.items()}
    joined, new_labels = joined_categories([truth.categories for truth in truths.values()])
    return joined, {
        split: replace(truth, categories=joined, category_labels=labels[truth.category_labels])
        for (split, truth), labels in zip(truths.items(), new_labels, strict=True)
    }
