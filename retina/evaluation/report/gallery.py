"""The gallery: images with their boxes, and what in them is worth a look.

An image stands in the gallery once, however many examples it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retina.evaluation.report.confusion import Claims
from retina.evaluation.report.examples import ConfusionExamples, Example, ExampleChoice
from retina.evaluation.report.label_errors import LabelError
from retina.evaluation.report.scored_split import ScoredSplit
from retina.structures import GroundTruth, OriginalId

MOST_IMAGES = 120
"""Images of a gallery, so that a page with all their pictures stays small."""

_MOST = 18
_MOST_LABEL_ERRORS = 30
_MOST_CELLS = 60
_OF_A_CELL = 6
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
class ConfusionItems:
    """Examples of one cell of the confusion matrix; the labels are -1 for background."""

    truth: int
    detected: int
    items: tuple[GalleryItem, ...]


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
    claims: Claims,
    score: float,
) -> Gallery:
    """Choose what is shown.

    Args:
        split: the detections and objects.
        truth: the ground truth that they were scored against.
        file_names: by the image ids of ``truth``.
        errors: probable label errors.
        claims: at IoU 0.5.
        score: from which on a detection counts.
    """
    names = truth.categories.names
    choice = ExampleChoice(split, split.matchings[0], names, score)
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
    cells = _within_album(
        album, list(choice.confusions(claims, most=_MOST_CELLS, of_each=_OF_A_CELL))
    )
    shown = [example for examples in lists for example in examples]
    shown += [example for cell in cells for example in cell.items]
    images, places = _images(split, truth, file_names, album, shown)

    def items(examples: tuple[Example, ...]) -> tuple[GalleryItem, ...]:
        return tuple(places.item(album[example.image], example) for example in examples)

    return Gallery(
        images=images,
        worst_images=items(lists[0]),
        false_alarms=items(lists[1]),
        missed=items(lists[2]),
        badly_placed=items(lists[3]),
        label_errors=tuple(map(LabelErrorItem, items(lists[4]), shown_errors)),
        confusions=tuple(
            ConfusionItems(cell.truth, cell.detected, items(cell.items)) for cell in cells
        ),
    )


def _within_album(album: dict[int, int], cells: list[ConfusionExamples]) -> list[ConfusionExamples]:
    """The examples whose images are there or still have room, the first of every cell first."""
    kept: dict[int, list[Example]] = {at: [] for at in range(len(cells))}
    for place in range(_OF_A_CELL):
        for at, cell in enumerate(cells):
            for example in cell.items[place : place + 1]:
                if example.image in album or len(album) < MOST_IMAGES:
                    album.setdefault(example.image, len(album))
                    kept[at].append(example)
    return [
        ConfusionExamples(cell.truth, cell.detected, tuple(kept[at]))
        for at, cell in enumerate(cells)
        if kept[at]
    ]


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
