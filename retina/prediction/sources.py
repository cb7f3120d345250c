"""Which images the sources of a prediction mean, and the ids under which their results stand."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retina.datasets import FORMATS, FoundSource, find_source
from retina.datasets.file_listing import IMAGE_SUFFIXES, list_files
from retina.datasets.file_names import find_files
from retina.errors import UserError
from retina.structures import OriginalId


@dataclass(frozen=True, slots=True)
class FoundImages:
    """The image files that sources mean.

    Attributes:
        paths: each once, in order.
        ids: of each: those of the annotations where every source is a data set, else 1, 2, …
        passed_over: what folders hold besides, by paths below them.
        notes: what sources were taken for, one line each.
    """

    paths: tuple[Path, ...]
    ids: tuple[OriginalId, ...]
    passed_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Images:
    """What one source means; ``ids`` is empty where it has none."""

    paths: Sequence[Path]
    ids: Sequence[OriginalId] = ()
    passed_over: Sequence[str] = ()
    note: str = ""


def find_images(
    sources: Sequence[str], *, images: Path | None = None, split: str | None = None
) -> FoundImages:
    """The image files that files, folders (searched in depth), globs and data sets mean.

    A folder is a data set where it is laid out as one and lists all of its images; else its image
    files are meant, whatever lies beside them.

    Args:
        sources: of any of these kinds.
        images: the folder of the images of an annotation file; None looks for it.
        split: of a data folder; None takes test, else validation.

    Raises:
        UserError: a source is missing, is no data set although ``images`` or ``split`` is given, or
            nothing is an image.
    """
    every = [_images_of(source, images, split) for source in sources]
    found: dict[Path, OriginalId | None] = {}
    for one in every:
        ids: Sequence[OriginalId | None] = one.ids or [None] * len(one.paths)
        for path, image_id in zip(one.paths, ids, strict=True):
            found.setdefault(path, image_id)
    if not found:
        raise UserError(f"{', '.join(sources)}: matches no image file")
    notes = [one.note for one in every if one.note]
    given = [image_id for image_id in found.values() if image_id is not None]
    if len(set(given)) < len(found):
        if given:
            notes.append("the image ids count from 1: those of the sources do not tell all apart")
        given = [*range(1, len(found) + 1)]
    passed_over = tuple(name for one in every for name in one.passed_over)
    return FoundImages(tuple(found), tuple(given), passed_over, tuple(notes))


def _images_of(source: str, images: Path | None, split: str | None) -> _Images:
    path = Path(source)
    if images is not None or split is not None:
        return _listed_by(find_source(path, images=images), split)
    if path.is_dir():
        return _in_data_folder(path) or _in_folder(path)
    if path.is_file():
        is_image = path.suffix.lower() in IMAGE_SUFFIXES
        if not is_image and any(format_.recognises(path) for format_ in FORMATS):
            return _listed_by(find_source(path), None)
        return _Images([path])
    matches = sorted(glob.glob(source, recursive=True))  # noqa: PTH207 - absolute globs too
    if not matches:
        raise UserError(f"{source}: no such file, folder or pattern that matches anything")
    return _Images([Path(match) for match in matches if Path(match).is_file()])


def _listed_by(source: FoundSource, split: str | None) -> _Images:
    """The images that annotations list, under their ids."""
    default = "train" if set(source.splits) == {"train"} else "validation"
    part, name = source.split(split, default)
    table, _ = find_files(part.read(), part.images)  # one that is missing fails when it is opened
    ids = [table.original_image_ids.get(number, number) for number in table.image_ids.tolist()]
    paths = [part.images / table.file_name(index) for index in range(table.num_images)]
    chosen = f"; {name.rpartition(', ')[2]} is predicted on" if source.splits else ""
    return _Images(paths, ids, note=f"{source.describe()}{chosen}, with its image ids")


def _in_data_folder(folder: Path) -> _Images | None:
    """The images of a data set that a folder itself is; None where these are not what is meant."""
    try:
        source = find_source(folder)
        if source.path != folder:  # among other things below it
            return None
        listed = _listed_by(source, None)
    except UserError:  # a prediction needs no annotations
        return None
    if not source.splits and not _resolved(list_files(folder, IMAGE_SUFFIXES).files) <= _resolved(
        listed.paths
    ):
        return None
    return listed


def _resolved(paths: Sequence[Path]) -> set[Path]:
    return {path.resolve() for path in paths}


def _in_folder(folder: Path) -> _Images:
    inside = list_files(folder, IMAGE_SUFFIXES)
    if not inside.files:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UserError(f"{folder}: the folder has no image ({suffixes})")
    return _Images(inside.files, passed_over=inside.passed_over)
