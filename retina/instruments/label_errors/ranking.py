"""Probable label errors, ranked: missing boxes, wrong classes, badly placed and spurious boxes.

The detector is not asked whether it agrees with a label, but how much its outputs look like those
at labels that are certainly wrong: `hypotheses` makes such labels up, `evidence` describes
them and the real ones alike, and `scoring` tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from retina.datasets.dataset import DetectionDataset, Image
from retina.instruments.label_errors.evidence import (
    DenseEvidence,
    DetectionEvidence,
    ImageEvidence,
    LabelEvidence,
)
from retina.instruments.label_errors.hypotheses import (
    LABEL_KINDS,
    ImageHypotheses,
    LabelledObjects,
    imagine_errors,
)
from retina.instruments.label_errors.scoring import (
    detection_design,
    error_probabilities,
    label_design,
)
from retina.structures import GroundTruth

LabelErrorKind = Literal["missing", "wrong_class", "badly_placed", "spurious"]
KINDS: tuple[LabelErrorKind, ...] = ("missing", "wrong_class", "badly_placed", "spurious")

Corners = tuple[float, float, float, float]

_REMATCHED_IOU = 0.5
_FEWEST_EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What the detector would write instead.

    Attributes:
        box: ``(x1, y1, x2, y2)`` in pixels of the image.
        label: the class.
        score: of the detector, 0 … 1.
    """

    box: Corners
    label: int
    score: float


@dataclass(frozen=True, slots=True)
class LabelError:
    """A label, or the lack of one, that is probably wrong.

    Attributes:
        kind: what is probably wrong with it.
        score: how much it looks like such an error, 0 … 1; it ranks, and is not calibrated.
        image_index: the image, by index.
        annotation: the annotation, as a row of the ground truth; None where one is missing.
        suggestion: what to write instead; None for a spurious box.
    """

    kind: LabelErrorKind
    score: float
    image_index: int
    annotation: int | None
    suggestion: Suggestion | None


class _LabelTable(NamedTuple):
    """What the evidence about the labels of all images is about: S rows, made-up ones included."""

    labels: Tensor
    kinds: Tensor
    image_indices: Tensor
    annotations: Tensor  # -1 where made up


class _DetectionTable(NamedTuple):
    """The evidence about the detections of all images: S rows."""

    features: Tensor
    labels: Tensor
    is_matched: Tensor
    image_indices: Tensor
    boxes: Tensor
    scores: Tensor


def find_label_errors(
    detector: Callable[[Image], DenseEvidence],
    dataset: DetectionDataset,
    *,
    minimum_score: float = 0.0,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[LabelError, ...]:
    """Every label as an error of each kind it can be, and every unexplained detection.

    Args:
        detector: gives the dense outputs for an image, such as an
            `AveragedDetector`; trained on this split or not.
        dataset: the split, with the detector's labels.
        minimum_score: errors below it are left out.
        seed: of the errors that are made up.
        on_progress: called with the number of images done since the last call.

    Returns:
        The highest score first.

    Raises:
        UserError: an image cannot be read.
    """
    truth = dataset.ground_truth()
    objects = LabelledObjects.of(truth)
    label_evidence: list[LabelEvidence] = []
    label_rows: list[_LabelTable] = []
    detection_rows: list[_DetectionTable] = []
    for index in range(len(dataset)):
        rows = objects.in_image(index)
        evidence = ImageEvidence(
            detector(dataset.load(index).image),
            objects.boxes(rows),
            crowd_boxes=objects.boxes(objects.crowds_in_image(index)),
        )
        imagined = imagine_errors(objects, index, seed=seed)
        if len(imagined.kinds):
            label_evidence.append(evidence.of_labels(imagined.hypotheses))
            label_rows.append(_label_rows(index, torch.from_numpy(rows), imagined))
        detection_rows.append(_detection_rows(index, evidence.of_detections()))
        if on_progress is not None:
            on_progress(1)
    errors = [
        *_wrong_labels(label_evidence, label_rows, truth),
        *_missing_labels(detection_rows, len(objects.rows)),
    ]
    kept = [one for one in errors if one.score >= minimum_score]
    return tuple(sorted(kept, key=lambda one: -one.score))


def _label_rows(index: int, annotations: Tensor, imagined: ImageHypotheses) -> _LabelTable:
    of_row = torch.full_like(imagined.kinds, -1)
    of_row[: len(annotations)] = annotations
    return _LabelTable(
        labels=imagined.hypotheses.labels,
        kinds=imagined.kinds,
        image_indices=torch.full_like(imagined.kinds, index),
        annotations=of_row,
    )


def _detection_rows(index: int, found: DetectionEvidence) -> _DetectionTable:
    is_matched = found.matched >= 0
    # Without its label, such a detection would be matched with another one: nothing is missing.
    overlap_with_others = found.features[:, 2]
    kept = ~(is_matched & (overlap_with_others >= _REMATCHED_IOU))
    return _DetectionTable(
        features=found.features[kept],
        labels=found.labels[kept],
        is_matched=is_matched[kept],
        image_indices=torch.full_like(found.labels[kept], index),
        boxes=found.boxes[kept],
        scores=found.scores[kept],
    )


def _wrong_labels(
    parts: Sequence[LabelEvidence], rows: Sequence[_LabelTable], truth: GroundTruth
) -> Iterator[LabelError]:
    if not rows:
        return
    found = LabelEvidence.joined(parts)
    table = _LabelTable(*map(torch.cat, zip(*rows, strict=True)))
    is_real = table.annotations >= 0
    probabilities = error_probabilities(
        label_design(found.features, table.labels, is_real),
        table.kinds,
        num_outcomes=len(LABEL_KINDS),
        num_labels=int(is_real.sum()),
    )
    # A kind that could not be made up, such as another class where there is one, cannot be told.
    known = set(table.kinds.tolist())
    for row in is_real.nonzero()[:, 0].tolist():
        annotation, image_index = int(table.annotations[row]), int(table.image_indices[row])
        seen = Suggestion(
            _corners(found.seen_boxes[row]),
            int(found.seen_labels[row]),
            float(found.seen_scores[row]),
        )
        x, y, width, height = truth.boxes_xywh[annotation].tolist()
        other = Suggestion(
            (x, y, x + width, y + height),
            int(found.other_labels[row]),
            float(found.other_scores[row]),
        )
        suggestions: tuple[tuple[LabelErrorKind, Suggestion | None], ...] = (
            ("wrong_class", other),
            ("badly_placed", seen),
            ("spurious", None),
        )
        for kind, suggestion in suggestions:
            column = LABEL_KINDS.index(kind)
            if column in known:
                score = float(probabilities[row, column])
                yield LabelError(kind, score, image_index, annotation, suggestion)


def _missing_labels(rows: Sequence[_DetectionTable], num_labels: int) -> Iterator[LabelError]:
    table = _DetectionTable(*map(torch.cat, zip(*rows, strict=True)))
    if min(int(table.is_matched.sum()), int((~table.is_matched).sum())) < _FEWEST_EXAMPLES:
        # Too few to learn from, as in a set that has hardly any labels.
        probabilities = table.scores * (1 - table.features[:, 2])
    else:
        probabilities = error_probabilities(
            detection_design(table.features, table.labels, table.is_matched),
            table.is_matched.long(),
            num_outcomes=2,
            num_labels=num_labels,
        )[:, 1]
    for row in (~table.is_matched).nonzero()[:, 0].tolist():
        seen = Suggestion(
            _corners(table.boxes[row]), int(table.labels[row]), float(table.scores[row])
        )
        yield LabelError(
            "missing", float(probabilities[row]), int(table.image_indices[row]), None, seen
        )


def _corners(box: Tensor) -> Corners:
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2
