"""What was found, as a data set: labels to begin with, in any format that data sets are written in.

Letters: I images, G objects.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from retina.datasets.annotations import AnnotationTable, name_array
from retina.datasets.exports import WRITERS
from retina.datasets.exports.csv import write_csv
from retina.datasets.exports.exported_images import place_image
from retina.datasets.folder import FolderDataset
from retina.datasets.ids import Ids
from retina.prediction.outputs.images import Place
from retina.prediction.outputs.results import Results
from retina.runtime.detection_log import LoggedImage
from retina.structures import FloatArray


def write_set(name: str, results: Results) -> None:
    """Write the folder ``NAME/``: images, linked where that can be, and labels.

    An image of which there is no file is left out.

    Args:
        name: of the format.
        results: what was found.

    Raises:
        UserError: a file may not be written.
    """
    dataset, _ = _as_dataset(results)
    _write_whole(results, name, lambda folder: WRITERS[name]({"": dataset}, folder, lambda _: None))


def write_csv_set(results: Results) -> None:
    """The same as CSV, with a column of the scores."""
    dataset, scores = _as_dataset(results)
    _write_whole(
        results,
        "csv",
        lambda folder: write_csv({"": dataset}, folder, lambda _: None, scores=scores),
    )


def _write_whole(results: Results, name: str, write: Callable[[Path], object]) -> None:
    """Write a folder that is there as a whole, or not at all."""
    target, aside = results.place.folder / name, results.place.work / name
    if target.exists() and not results.has_more:
        return  # this very run has written it, before it was stopped
    shutil.rmtree(aside, ignore_errors=True)  # what was left where the disk was full
    write(aside)
    if target.exists():  # written before it was stopped, and without what has been found since
        target.rename(Path(tempfile.mkdtemp(dir=results.place.work)) / name)
    aside.rename(target)


def _as_dataset(results: Results) -> tuple[FolderDataset, FloatArray]:
    """The images with their objects as annotations, and the ``(G,)`` scores of these."""
    place, pairs = results.place, list(results.images_with_files())
    folder, names = _named_files(place, [one for _, one in pairs])
    ids, _ = Ids.of([image_id for image_id, _ in pairs])
    counts = [len(one.found) for _, one in pairs]
    corners = np.concatenate([np.zeros((0, 4)), *(one.found.boxes.numpy() for _, one in pairs)])
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    labels = [one.found.labels.numpy() for _, one in pairs]
    table = AnnotationTable(
        source=str(place.folder),
        categories=place.categories,
        image_ids=ids.numbers,
        file_names=name_array(names),
        image_sizes=np.array([one.size for _, one in pairs], dtype=np.int64).reshape(-1, 2),
        annotation_ids=np.arange(1, len(boxes) + 1),
        image_indices=np.repeat(np.arange(len(pairs)), counts),
        labels=np.concatenate([np.zeros(0, dtype=np.int64), *labels]),
        boxes_xywh=boxes,
        areas=boxes[:, 2] * boxes[:, 3],
        is_crowd=np.zeros(len(boxes), dtype=bool),
        occluded_fractions=np.full(len(boxes), np.nan),
        original_image_ids=ids.originals,
    )
    scores = np.concatenate([np.zeros(0), *(one.found.scores.double().numpy() for _, one in pairs)])
    return FolderDataset(table, images=folder), scores


def _named_files(place: Place, images: Sequence[LoggedImage]) -> tuple[Path, list[str]]:
    """A folder with the image files, and what each is called below it.

    Image files keep their paths below the folder that holds them all. Frames of videos and images
    of the web are called as they were written, wherever that is: where there are both, all are put
    into one folder.
    """
    # Without "..", which no path below a folder may have.
    paths = [Path(os.path.abspath(place.image_file(one.item, one.frame))) for one in images]  # noqa: PTH100
    own = [place.inputs[one.item].file is not None for one in images]
    if not paths:
        return place.folder, []
    written = Path(os.path.abspath(place.work / "images"))  # noqa: PTH100
    parents = [path.parent for path, is_own in zip(paths, own, strict=True) if is_own]
    folder = Path(os.path.commonpath(parents)) if parents else written
    if all(own) or not any(own):
        return folder, [path.relative_to(folder).as_posix() for path in paths]
    taken = {
        path.relative_to(folder).as_posix().lower()
        for path, is_own in zip(paths, own, strict=True)
        if is_own
    }
    names = [
        path.relative_to(folder).as_posix() if is_own else _free_name(path, taken)
        for path, is_own in zip(paths, own, strict=True)
    ]
    together = place.work / "together"
    shutil.rmtree(together, ignore_errors=True)
    for path, name in zip(paths, names, strict=True):
        if not (together / name).exists():  # a file that was given by two paths
            place_image(path, together / name)
    return together, names


def _free_name(path: Path, taken: set[str]) -> str:
    """The name of a file that was written, with a number where an image has that name."""
    name, number = path.name, 1
    while name.lower() in taken:
        number += 1
        name = f"{path.stem}_{number}{path.suffix}"
    taken.add(name.lower())
    return name
