"""How far an export moves the scores of what is shown, where it may change them a little."""

from __future__ import annotations

import torch
from torch import Tensor

from retina.geometry.boxes import pairwise_iou
from retina.structures import Detections

_SAME_OBJECT = 0.5
"""The overlap from which on two detections of a class are of one object."""


def score_shift(ours: Detections, theirs: Detections, shown_from: Tensor) -> tuple[float, int]:
    """The sum of the changes of score of what either side shows in an image, and how many.

    The other side's detection of the same object is its best overlapping one; none is a score of 0.
    So an object that is no longer found counts with all of its score, and so does a new one. What
    the export shows counts unless it was the other of something that the source shows.

    Args:
        ours: of the source.
        theirs: of the export.
        shown_from: ``(K,)``, of each class.
    """
    shown = ours.at_least(shown_from)
    scores, partners = _best_overlapping(shown, theirs)
    is_new = theirs.scores.double() >= shown_from[theirs.labels]  # as `Detections.at_least`
    is_new[partners[scores > 0]] = False
    new = Detections(theirs.boxes[is_new], theirs.scores[is_new], theirs.labels[is_new])
    new_scores, _ = _best_overlapping(new, ours)
    change = (scores - shown.scores).abs().sum() + (new_scores - new.scores).abs().sum()
    return float(change), len(shown) + len(new)


def _best_overlapping(some: Detections, others: Detections) -> tuple[Tensor, Tensor]:
    """Of each the score of the others' best of the same object, 0 without one, and its row."""
    if not len(others):
        return torch.zeros(len(some)), torch.zeros(len(some), dtype=torch.int64)
    overlaps = pairwise_iou(some.boxes, others.boxes)
    fits = (overlaps >= _SAME_OBJECT) & (some.labels[:, None] == others.labels[None])
    best = torch.where(fits, others.scores[None], 0.0).max(dim=1)
    return best.values, best.indices
