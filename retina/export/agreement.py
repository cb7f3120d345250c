"""Whether two lists of detections in one image are the same, and what explains it if not.

Two computations of the same network differ in the last digits. So a detection may be missing on one
side where a last digit decides: at the score threshold, at the last place of the list, at the last
of the candidates that are considered of a level, at the overlap that suppresses, or between two
boxes of equal score that suppress each other. Such a detection is a tie; one that nothing explains
is a fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from retina.geometry.boxes import pairwise_iou
from retina.modeling.postprocess import PostprocessConfig
from retina.structures import Detections

BOX_TOLERANCE = 1e-2
"""Pixels of the image by which a coordinate of the same detection may differ."""
SCORE_TOLERANCE = 1e-4
"""By which its score may differ."""
_IOU_TOLERANCE = 1e-3
_SAME_BOX = 0.5
"""Pixels: nearer boxes of equal score are one that has moved, not two that suppress each other."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What comparing the detections of one image gave.

    Attributes:
        num_same: detections that both sides have.
        box_difference: the largest of a coordinate among them.
        score_difference: the largest of a score among them.
        ties: detections of one side that hung on the last digits, a sentence each.
        faults: those that nothing explains, a sentence each.
    """

    num_same: int
    box_difference: float
    score_difference: float
    ties: tuple[str, ...]
    faults: tuple[str, ...]


def compare_detections(
    source: Detections,
    exported: Detections,
    rule: PostprocessConfig,
    last_candidates: Sequence[float] = (),
) -> Agreement:
    """Compare what two computations of the same detector found in an image.

    Args:
        source: by the detector.
        exported: by the export.
        rule: of the postprocessing.
        last_candidates: the score of the last candidate of each level that has more of them than
            are considered; with none the candidates are no place where a last digit decides.
    """
    pairs = _same(source, exported)
    rows, columns = (
        torch.tensor([pair[side] for pair in pairs], dtype=torch.int64) for side in (0, 1)
    )
    boxes = (source.boxes[rows] - exported.boxes[columns]).abs()
    scores = (source.scores[rows] - exported.scores[columns]).abs()
    left = _Side("the detector", source, _others(len(source), rows))
    right = _Side("the export", exported, _others(len(exported), columns))
    ties = _find_ties(left, right, _Limits(rule, last_candidates))
    every = [(side, row) for side in (left, right) for row in side.alone]
    return Agreement(
        num_same=len(pairs),
        box_difference=float(boxes.max()) if len(pairs) else 0.0,
        score_difference=float(scores.max()) if len(pairs) else 0.0,
        ties=tuple(side.tell(row) for side, row in every if (side.name, row) in ties),
        faults=tuple(side.tell(row) for side, row in every if (side.name, row) not in ties),
    )


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two lists."""

    name: str
    found: Detections
    alone: list[int]  # rows that the other side has not

    def tell(self, row: int) -> str:
        box = ", ".join(f"{value:.2f}" for value in self.found.boxes[row].tolist())
        score, label = float(self.found.scores[row]), int(self.found.labels[row])
        return f"only {self.name} has class {label} with score {score:.5f} at ({box})"


@dataclass(frozen=True, slots=True)
class _Limits:
    """The scores and the overlap at which last digits decide."""

    rule: PostprocessConfig
    last_candidates: Sequence[float]

    def is_at_one(self, score: float, other: Detections) -> bool:
        """Whether a detection with this score may be missing among others for its score alone."""
        if score <= self.rule.score_threshold + SCORE_TOLERANCE:
            return True
        if any(abs(score - last) <= SCORE_TOLERANCE for last in self.last_candidates):
            return True
        is_full = len(other) == self.rule.max_detections
        return is_full and score <= float(other.scores.min()) + SCORE_TOLERANCE


def _same(source: Detections, exported: Detections) -> list[tuple[int, int]]:
    """The rows of the same detection on both sides, nearest first."""
    apart = (source.boxes[:, None] - exported.boxes[None]).abs().amax(dim=2)  # (N, M)
    off = (source.scores[:, None] - exported.scores[None]).abs()
    fits = (apart <= BOX_TOLERANCE) & (off <= SCORE_TOLERANCE)
    fits &= source.labels[:, None] == exported.labels[None]
    candidates = fits.nonzero()
    order = apart[fits].argsort(stable=True)
    pairs: list[tuple[int, int]] = []
    rows: set[int] = set()
    columns: set[int] = set()
    for row, column in candidates[order].tolist():
        if row not in rows and column not in columns:
            pairs.append((row, column))
            rows.add(row)
            columns.add(column)
    return pairs


def _others(count: int, rows: Tensor) -> list[int]:
    return sorted(set(range(count)) - set(rows.tolist()))


def _find_ties(left: _Side, right: _Side, limits: _Limits) -> set[tuple[str, int]]:
    """Which of the detections that one side alone has hung on the last digits."""
    ties: set[tuple[str, int]] = set()
    before = -1
    while before < len(ties):  # what a tie has suppressed, or not, is one as well
        before = len(ties)
        for side, other in ((left, right), (right, left)):
            for row in side.alone:
                if _is_tie(side, other, row, limits, ties):
                    ties.add((side.name, row))
    return ties


def _is_tie(
    side: _Side, other: _Side, row: int, limits: _Limits, ties: set[tuple[str, int]]
) -> bool:
    score = float(side.found.scores[row])
    if limits.is_at_one(score, other.found):
        return True
    iou_threshold = limits.rule.nms_iou_threshold
    same_class = other.found.labels == side.found.labels[row]
    overlaps = pairwise_iou(side.found.boxes[row : row + 1], other.found.boxes)[0]
    over = (overlaps > iou_threshold - _IOU_TOLERANCE) & same_class
    apart = (other.found.boxes - side.found.boxes[row]).abs().amax(dim=1)
    equal = ((other.found.scores - score).abs() <= SCORE_TOLERANCE) & (apart > _SAME_BOX)
    at_limit = (overlaps - iou_threshold).abs() <= _IOU_TOLERANCE
    better = other.found.scores >= score - SCORE_TOLERANCE
    by_tie = torch.tensor([(other.name, one) in ties for one in range(len(other.found))])
    return bool((over & (equal | (better & (at_limit | by_tie.bool())))).any())
