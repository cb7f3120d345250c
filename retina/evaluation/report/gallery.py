"""The gallery: images with their boxes, and what in them is worth a look.

An image stands in the gallery once, however many examples it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retina.evaluation.report.cell_members import CellMembers, CellRows
from retina.evaluation.report.confusion import Claims, Confusion
from retina.evaluation.report.examples import Example, ExampleChoice
from retina.evaluation.report.label_errors import LabelError
from retina.evaluation.report.scored_split import ScoredSplit
from retina.structures import GroundTruth, OriginalId

LARGE_IMAGES = 120
"""The first images of a gallery, whose pictures a page has room to show large."""

MOST_IMAGES = 180
"""Images of a gallery, so that a page with all their pictures stays small."""

_MOST = 18
_MOST_LABEL_ERRORS = 30
_OF_A_CELL = 6
_MOST_OF_CELLS = 4000
_LEAST_SCORE = 0.05
_MOST_DETECTIONS = 100

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class ShownObject:
    """An annotation, (x1, y1, x2, y2) in pixels of the original image."""

    box: Box
    label: int
    is_crowd: bool
    annotation_id: int


@dataclass(frozen=True, slots=True)
class ShownDetection:
    """A detection, (x1, y1, x2, y2) in pixels of the original image."""

    box: Box
    label: int
    score: float


@dataclass(frozen=True, slots=True)
class ShownImage:
    """An image of the gallery.

    Attributes:
        id: the original id.
        file_name: as the data set has it; the id where that is not known.
        width, height: in pixels.
        picture: the key of its picture.
        truth: all annotations.
        detections: highest score first; those below 0.05 and beyond a hundred only where an
            example is about them.
    """

    id: OriginalId
    file_name: str
    width: int
    height: int
    picture: str
    truth: tuple[ShownObject, ...]
    detections: tuple[ShownDetection, ...]


@dataclass(frozen=True, slots=True)
class GalleryItem:
    """An example: positions in the images, and in the detections and truth of its image."""

    image: int
    detection: int | None
    truth: int | None
    example: Example


@dataclass(frozen=True, slots=True)
class LabelErrorItem:
    """A probable label error."""

    item: GalleryItem
    error: LabelError


@dataclass(frozen=True, slots=True)
class CellItem:
    """An example of a cell, and where the cell counts it: first and last stop of each run."""

    item: GalleryItem
    stops: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ConfusionItems:
    """Examples of one cell of the confusion matrix at one IoU; the labels are -1 for background."""

    iou: float
    truth: int
    detected: int
    items: tuple[CellItem, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """What is shown, the most telling first in each list."""

    images: tuple[ShownImage, ...]
    worst_images: tuple[GalleryItem, ...]
    false_alarms: tuple[GalleryItem, ...]
    missed: tuple[GalleryItem, ...]
    badly_placed: tuple[GalleryItem, ...]
    label_errors: tuple[LabelErrorItem, ...]
    confusions: tuple[ConfusionItems, ...]


def make_gallery(
    split: ScoredSplit,
    truth: GroundTruth,
    file_names: Mapping[int, str],
    *,
    errors: tuple[LabelError, ...],
    claims: Sequence[Claims],
    confusions: Sequence[Confusion],
    score: float,
) -> Gallery:
    """Choose what is shown.

    Args:
        split: the detections and objects.
        truth: the ground truth that they were scored against.
        file_names: by the image ids of ``truth``.
        errors: probable label errors.
        claims: at each IoU of the split.
        confusions: the matrices that are shown, likewise.
        score: from which on a detection counts.
    """
    names = truth.categories.distinct_names
    choices = [ExampleChoice(split, matching, names, score) for matching in split.matchings]
    choice = choices[0]
    shown_errors = errors[:_MOST_LABEL_ERRORS]
    lists = [
        choice.worst_images(_MOST),
        choice.false_alarms(_MOST),
        choice.missed(_MOST),
        choice.badly_placed(_MOST),
        tuple(choice.label_error(error) for error in shown_errors),
    ]
    album: dict[int, int] = {}
    for place in range(max(map(len, lists))):  # the first of each kind are the most important
        for examples in lists:
            for example in examples[place : place + 1]:
                album.setdefault(example.image, len(album))
    members = [
        CellMembers(split, matching, one)
        for matching, one in zip(split.matchings, claims, strict=True)
    ]
    cells = _largest_first(confusions)
    kept = _within_album(split, album, [members[cell.row].of(*cell.labels) for cell in cells])
    of_cells = [
        [choices[cell.row].of_cell(*pair) for pair in pairs]
        for cell, pairs in zip(cells, kept, strict=True)
    ]
    shown = [example for examples in (*lists, *of_cells) for example in examples]
    images, places = _images(split, truth, file_names, album, shown)

    def items(examples: Sequence[Example]) -> tuple[GalleryItem, ...]:
        return tuple(places.item(album[example.image], example) for example in examples)

    return Gallery(
        images=images,
        worst_images=items(lists[0]),
        false_alarms=items(lists[1]),
        missed=items(lists[2]),
        badly_placed=items(lists[3]),
        label_errors=tuple(map(LabelErrorItem, items(lists[4]), shown_errors)),
        confusions=tuple(
            ConfusionItems(
                split.matchings[cell.row].iou,
                *cell.labels,
                tuple(
                    CellItem(item, members[cell.row].stops(*pair))
                    for item, pair in zip(items(examples), pairs, strict=True)
                ),
            )
            for cell, pairs, examples in zip(cells, kept, of_cells, strict=True)
            if pairs
        ),
    )


@dataclass(frozen=True, slots=True)
class _ShownCell:
    """A cell of the matrix at the IoU of that row, and the sum of its counts."""

    row: int
    labels: tuple[int, int]
    total: int


def _largest_first(confusions: Sequence[Confusion]) -> list[_ShownCell]:
    cells = [
        _ShownCell(row, (cell.truth, cell.detected), sum(cell.counts))
        for row, confusion in enumerate(confusions)
        for cell in confusion.cells
    ]
    return sorted(cells, key=lambda cell: -cell.total)


def _within_album(
    split: ScoredSplit, album: dict[int, int], members: Sequence[CellRows]
) -> list[list[tuple[int, int]]]:
    """The members of each cell that are shown: one of every cell, before a second of any.

    They are the first ones, as long as their images have room in the album. Where it has not room
    for all images of the split, those that are in it come first.
    """
    is_scarce = split.problem.num_images > MOST_IMAGES
    is_in = np.zeros(split.problem.num_images + 1, dtype=np.bool_)
    is_in[list(album)] = True
    is_left = [np.ones(len(one.images), dtype=np.bool_) for one in members]
    kept: list[list[tuple[int, int]]] = [[] for _ in members]
    num_kept = 0
    for _ in range(_OF_A_CELL):
        for one, left, pairs in zip(members, is_left, kept, strict=True):
            there = np.flatnonzero(left & is_in[one.images])
            if len(album) < MOST_IMAGES and not (is_scarce and len(there)):
                there = np.flatnonzero(left)
            if len(there) == 0 or num_kept == _MOST_OF_CELLS:
                continue
            row, image = there[0], int(one.images[there[0]])
            album.setdefault(image, len(album))
            is_in[image], left[row] = True, False
            pairs.append((int(one.detections[row]), int(one.annotations[row])))
            num_kept += 1
    return kept


@dataclass(frozen=True, slots=True)
class _Places:
    """Where each detection and annotation stands in its image."""

    detections: dict[int, int]
    annotations: dict[int, int]

    def item(self, image: int, example: Example) -> GalleryItem:
        detection, annotation = example.detection, example.annotation
        return GalleryItem(
            image,
            None if detection is None else self.detections[detection],
            None if annotation is None else self.annotations[annotation],
            example,
        )


def _images(
    split: ScoredSplit,
    truth: GroundTruth,
    file_names: Mapping[int, str],
    album: Mapping[int, int],
    shown: list[Example],
) -> tuple[tuple[ShownImage, ...], _Places]:
    problem = split.problem
    numbers = np.fromiter(album, dtype=np.int64, count=len(album))
    by_id = np.argsort(truth.image_ids)
    rows = np.flatnonzero(np.isin(problem.images, numbers))
    rows = rows[np.lexsort((-problem.scores[rows], problem.images[rows]))]
    truth_rows = np.flatnonzero(np.isin(problem.truth_images, numbers))
    needed = {one.detection for one in shown}
    places = _Places({}, {})
    images = []
    for number in numbers.tolist():
        own = rows[problem.images[rows] == number].tolist()
        kept = [
            row
            for rank, row in enumerate(own)
            if row in needed or (problem.scores[row] >= _LEAST_SCORE and rank < _MOST_DETECTIONS)
        ]
        objects = truth_rows[problem.truth_images[truth_rows] == number].tolist()
        places.detections.update({row: place for place, row in enumerate(kept)})
        places.annotations.update({row: place for place, row in enumerate(objects)})
        at = int(by_id[number - 1])
        image_id = int(truth.image_ids[at])
        original = truth.original_image_ids.get(image_id, image_id)
        height, width = truth.image_sizes[at].tolist()
        if not (height and width):  # a file may leave them away
            width, height = _extent(split, kept, objects)
        images.append(
            ShownImage(
                id=original,
                file_name=file_names.get(image_id, str(original)),
                width=width,
                height=height,
                picture=str(image_id),
                truth=tuple(_object(split, truth, row) for row in objects),
                detections=tuple(_detection(split, row) for row in kept),
            )
        )
    return tuple(images), places


def _extent(split: ScoredSplit, found: list[int], objects: list[int]) -> tuple[int, int]:
    """The width and height that hold all boxes of an image."""
    problem = split.problem
    boxes = np.concatenate([problem.boxes[found], problem.truth_boxes[objects], [[0, 0, 1, 1]]])
    width, height = np.ceil((boxes[:, :2] + boxes[:, 2:]).max(axis=0)).astype(int).tolist()
    return width, height


def _object(split: ScoredSplit, truth: GroundTruth, row: int) -> ShownObject:
    return ShownObject(
        box=_corners(split.problem.truth_boxes[row].tolist()),
        label=int(split.truth_labels[row]),
        is_crowd=bool(split.problem.truth_is_crowd[row]),
        annotation_id=int(truth.annotation_ids[row]),
    )


def _detection(split: ScoredSplit, row: int) -> ShownDetection:
    return ShownDetection(
        box=_corners(split.problem.boxes[row].tolist()),
        label=int(split.labels[row]),
        score=float(split.problem.scores[row]),
    )


def _corners(box: list[float]) -> Box:
    x, y, width, height = box
    return (round(x, 2), round(y, 2), round(x + width, 2), round(y + height, 2))
