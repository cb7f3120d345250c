"""What a detector's dense outputs say about labels: the evidence for label errors.

A label is described by a few numbers that can be taken of a label that does not exist as well
(another class, a moved box, a box on the background), and a detection by numbers that can be taken
as if a label were not there. So the errors that `hypotheses` makes up are described exactly as the
labels that are judged.

Letters: R anchors, K classes, P predictions looked at, N labels, H hypotheses, D detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor
from torchvision.ops import nms

from retina.geometry.boxes import box_areas, pairwise_intersection, pairwise_iof, pairwise_iou

NUM_PREDICTIONS = 2000
"""How many of an image's most confident predictions are looked at."""

LOWEST_SCORE = 0.02
"""Detections below this are no evidence of an object without a label."""

_SAME_OBJECT_IOU = 0.5
_MISPLACED_IOU = 0.25
_AGREEING_IOU = 0.6
_NUM_ANCHORS = 6
_MATCHING_ANCHOR_IOU = 0.4
_IN_CROWD = 0.5
_FLOOR = 1e-4
_LARGEST_MATRIX = 2**23  # of hypotheses × anchors: 32 MiB, of which a few are alive at a time


@dataclass(frozen=True, slots=True)
class DenseEvidence:
    """What the dense outputs say about one image, in its pixels.

    Attributes:
        anchors: ``(R, 4)``.
        probabilities: ``(R, K)``.
        boxes: ``(R, 4)`` predicted.
    """

    anchors: Tensor
    probabilities: Tensor
    boxes: Tensor


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """Labels of one image, as they are or as they might be.

    Attributes:
        boxes: ``(H, 4)``.
        labels: ``(H,)`` int64.
        stands_for: ``(H,)`` int64, the row of the label in whose place each stands; -1 for none.
    """

    boxes: Tensor
    labels: Tensor
    stands_for: Tensor

    def part(self, start: int, stop: int) -> Hypotheses:
        """Rows ``start`` to ``stop``, the latter not included; views."""
        rows = slice(start, stop)
        return Hypotheses(self.boxes[rows], self.labels[rows], self.stands_for[rows])


@dataclass(frozen=True, slots=True)
class LabelEvidence:
    """How labels look to the detector.

    Attributes:
        features: ``(H, 7)``: the logits of the best prediction at the label of its own class, of
            the best one of another class, and of the best one of any class, its score multiplied by
            its overlap; the overlap of the label with what is seen there, and the logit of that;
            the logits of the own and the best other class at the label's anchors.
        seen_boxes: ``(H, 4)`` the box that the detector sees there.
        seen_scores: ``(H,)`` its score; 0 where nothing is seen.
        seen_labels: ``(H,)`` its class; the label's own where nothing is seen.
        other_labels: ``(H,)`` the class of the best prediction there of another class,
            by score and overlap.
        other_scores: ``(H,)`` its score; 0 where there is none.
    """

    features: Tensor
    seen_boxes: Tensor
    seen_scores: Tensor
    seen_labels: Tensor
    other_labels: Tensor
    other_scores: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """One after the other."""
        return cls(
            **{
                field.name: torch.cat([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            }
        )


@dataclass(frozen=True, slots=True)
class DetectionEvidence:
    """What the detector sees, best first, and how much of it the labels explain.

    What lies in a crowd region and is matched with no label is left out: the region explains it.

    Attributes:
        features: ``(D, 6)``, as if the label that a detection is matched with were not there: the
            logit of its score; the logarithm of the summed score of the predictions that agree with
            it; its highest overlap with a label, and with a label that no detection is matched
            with; how much of it lies in a label, and how much of a label in it.
        boxes: ``(D, 4)``.
        scores: ``(D,)``.
        labels: ``(D,)`` int64.
        matched: ``(D,)`` int64, the row of the label that each is matched with; -1 for none.
    """

    features: Tensor
    boxes: Tensor
    scores: Tensor
    labels: Tensor
    matched: Tensor


class ImageEvidence:
    """The evidence about one image and its labels.

    Args:
        dense: what the detector says.
        label_boxes: ``(N, 4)``.
        crowd_boxes: ``(C, 4)`` the crowd regions.
    """

    def __init__(self, dense: DenseEvidence, label_boxes: Tensor, *, crowd_boxes: Tensor) -> None:
        rows = dense.probabilities.amax(dim=1).topk(min(NUM_PREDICTIONS, len(dense.boxes))).indices
        self._dense = dense
        self._label_boxes = label_boxes
        self._crowd_boxes = crowd_boxes
        self._boxes = dense.boxes[rows]  # (P, 4)
        self._probabilities = dense.probabilities[rows]  # (P, K)
        scores, labels = _two_best(self._probabilities, dim=1)
        self._best, self._second = scores.unbind(dim=1)  # (P,)
        self._best_label, self._second_label = labels.unbind(dim=1)
        overlaps, nearest = _two_best(pairwise_iou(label_boxes, self._boxes), dim=0)
        self._nearest, self._next_nearest = overlaps.unbind(dim=0)  # (P,) overlap with labels
        self._nearest_label = nearest[0]

    def of_labels(self, hypotheses: Hypotheses) -> LabelEvidence:
        """Describe labels, each beside the other labels of the image."""
        # Each by itself, so in parts: hundreds of labels at 200,000 anchors would fill the memory.
        size = max(1, _LARGEST_MATRIX // max(len(self._dense.anchors), 1))
        starts = range(0, max(len(hypotheses.labels), 1), size)
        parts = [hypotheses.part(start, start + size) for start in starts]
        return LabelEvidence.joined([self._of_labels(part) for part in parts])

    def _of_labels(self, hypotheses: Hypotheses) -> LabelEvidence:
        labels = hypotheses.labels
        overlap = self._unexplained_overlap(hypotheses)  # (H, P)
        at = overlap >= _SAME_OBJECT_IOU
        own = (self._probabilities.T[labels] * at).amax(dim=1)  # (H,)
        is_own = self._best_label == labels.unsqueeze(1)  # (H, P)
        others = torch.where(is_own, self._second, self._best)
        other = (others * at).amax(dim=1)
        other_support, other_row = (others * overlap).max(dim=1, keepdim=True)  # (H, 1)
        other_label = torch.where(is_own, self._second_label, self._best_label)
        support, row = (self._best * overlap).max(dim=1)
        is_seen = support > 0
        seen_boxes = self._consensus(row)
        placed = pairwise_iou(seen_boxes.unsqueeze(1), hypotheses.boxes.unsqueeze(1))[:, 0, 0]
        seen_scores = self._best[row] * is_seen
        own_anchors, other_anchors = self._at_anchors(hypotheses)
        return LabelEvidence(
            features=torch.stack(
                [
                    logit(own),
                    logit(other),
                    logit(support),
                    placed * is_seen,
                    logit(seen_scores),
                    logit(own_anchors),
                    logit(other_anchors),
                ],
                dim=1,
            ),
            seen_boxes=seen_boxes,
            seen_scores=seen_scores,
            seen_labels=torch.where(is_seen, self._best_label[row], labels),
            other_labels=other_label.gather(1, other_row)[:, 0],
            other_scores=(others.gather(1, other_row) * (other_support > 0))[:, 0],
        )

    def of_detections(self) -> DetectionEvidence:
        """Describe the objects that the detector sees."""
        seen = self._best > LOWEST_SCORE
        boxes, scores, labels = self._boxes[seen], self._best[seen], self._best_label[seen]
        # Whatever its class, an object is there once.
        kept = nms(boxes, scores, _SAME_OBJECT_IOU)
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        overlap = pairwise_iou(boxes, self._label_boxes)  # (D, N)
        matched, is_misplaced = _match(overlap, scores)
        is_in_crowd = _highest(pairwise_iof(boxes, self._crowd_boxes)) >= _IN_CROWD
        kept = ~is_misplaced & ~(is_in_crowd & (matched < 0))
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        overlap, matched = overlap[kept], matched[kept]
        is_unseen = torch.ones(len(self._label_boxes), dtype=torch.bool)
        is_unseen[matched[matched >= 0]] = False
        shared = pairwise_intersection(boxes, self._label_boxes)
        rows = (matched >= 0).nonzero()[:, 0]
        for values in (overlap, shared):
            values[rows, matched[rows]] = 0
        tiny = torch.finfo(shared.dtype).tiny
        agree = pairwise_iou(boxes, self._boxes) >= _AGREEING_IOU
        features = [
            logit(scores),
            (agree * self._best).sum(dim=1).clamp(min=_FLOOR).log(),
            _highest(overlap),
            _highest(overlap * is_unseen),
            _highest(shared / box_areas(boxes).clamp(min=tiny).unsqueeze(1)),
            _highest(shared / box_areas(self._label_boxes).clamp(min=tiny)),
        ]
        return DetectionEvidence(torch.stack(features, dim=1), boxes, scores, labels, matched)

    def _unexplained_overlap(self, hypotheses: Hypotheses) -> Tensor:
        """``(H, P)`` overlaps with predictions; 0 where another label overlaps one more."""
        overlap = pairwise_iou(hypotheses.boxes, self._boxes)
        is_replaced = self._nearest_label == hypotheses.stands_for.unsqueeze(1)
        of_others = torch.where(is_replaced, self._next_nearest, self._nearest)
        return torch.where(of_others > overlap, 0.0, overlap)

    def _consensus(self, rows: Tensor) -> Tensor:
        """``(H, 4)`` the mean of the predictions that agree with these, weighted by score²."""
        agree = pairwise_iou(self._boxes[rows], self._boxes) >= _AGREEING_IOU  # (H, P)
        weight = agree * self._best**2
        weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-12)
        return weight @ self._boxes

    def _at_anchors(self, hypotheses: Hypotheses) -> tuple[Tensor, Tensor]:
        """``(H,)`` the mean probability of the class, and of the best other, at the best anchors.

        Unlike the predicted boxes, the anchors of a label are where training says that it is.
        """
        overlap = pairwise_iou(hypotheses.boxes, self._dense.anchors)  # (H, R)
        top = overlap.topk(min(_NUM_ANCHORS, overlap.shape[1]), dim=1)
        weight = torch.where(top.values >= _MATCHING_ANCHOR_IOU, top.values, 0.0)
        weight[:, 0] = top.values[:, 0].clamp(min=1e-6)  # the best one counts in any case
        weight = weight / weight.sum(dim=1, keepdim=True)
        mean = torch.einsum("ha,hak->hk", weight, self._dense.probabilities[top.indices])
        label = hypotheses.labels.unsqueeze(1)
        return mean.gather(1, label)[:, 0], mean.scatter(1, label, 0.0).amax(dim=1)


def logit(probability: Tensor) -> Tensor:
    """The logit, finite everywhere."""
    probability = probability.clamp(_FLOOR, 1 - _FLOOR)
    return torch.log(probability) - torch.log1p(-probability)


def _match(overlap: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Pair detections with labels, each once, the highest score × overlap first.

    Returns:
        ``(D,)`` the label that is each detection's object, -1 for none; and ``(D,)`` bool, whether
        its label only lies beside it: badly placed, but not missing.
    """
    matched = torch.full((len(overlap),), -1, dtype=torch.int64)
    is_misplaced = torch.zeros(len(overlap), dtype=torch.bool)
    agreement = torch.where(overlap >= _MISPLACED_IOU, overlap * scores.unsqueeze(1), 0.0)
    num_labels = overlap.shape[1]
    for _ in range(min(overlap.shape)):
        best = int(agreement.argmax())
        row, label = best // num_labels, best % num_labels
        if agreement[row, label] == 0:
            break
        if overlap[row, label] >= _SAME_OBJECT_IOU:
            matched[row] = label
        else:
            is_misplaced[row] = True
        agreement[row], agreement[:, label] = 0, 0
    return matched, is_misplaced


def _two_best(values: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The two highest values along a dimension and where they are; zeros where there are fewer."""
    shape = list(values.shape)
    shape[dim] = max(0, 2 - shape[dim])
    values, indices = torch.cat([values, values.new_zeros(shape)], dim=dim).topk(2, dim=dim)
    return values, indices


def _highest(values: Tensor) -> Tensor:
    """The highest of each row; 0 where there is none."""
    return values.amax(dim=1) if values.shape[1] else values.new_zeros(len(values))
