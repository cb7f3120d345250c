"""Three operators that an exported network holds as one step each.

Which of equal values is the best one, and what a suppression keeps, are decisions that no traced
arithmetic makes as `Postprocess` does. As operators they stay one step, of which every format makes
its own (ONNX: ``TopK``, ``NonMaxSuppression``). Importing this module makes them known to torch,
which a saved program needs before it is loaded.

Letters: B images, C candidates of each.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from retina.geometry.suppression import suppress
from retina.modeling.postprocess import best_pairs, first_of_best

NO_CHANCE = torch.finfo(torch.float32).min
"""The logit of a candidate that is none: its score is 0."""


@torch.library.custom_op("retina::best", mutates_args=())
def best(values: Tensor, count: int) -> Tensor:
    """Where the highest ``count`` of each row are, highest first, of equal ones the first in it.

    Args:
        values: ``(B, n)``, n being at least ``count``.
        count: how many.

    Returns:
        ``(B, count)`` int64.
    """
    return first_of_best(values, count)


@best.register_fake
def _(values: Tensor, count: int) -> Tensor:
    return values.new_empty((values.shape[0], count), dtype=torch.int64)


@torch.library.custom_op("retina::pairs", mutates_args=())
def pairs(logits: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs of a level, as `best_pairs`; where it has fewer, `NO_CHANCE` fills up.

    Args:
        logits: ``(B, R, K)``.
        count: how many.

    Returns:
        Logit, anchor and class of each: ``(B, count)`` float32, int64 and int64.
    """
    values, rows, labels = best_pairs(logits, logits.amax(dim=2), count)
    missing = (0, count - values.shape[1])
    return pad(values, missing, value=NO_CHANCE), pad(rows, missing), pad(labels, missing)


@pairs.register_fake
def _(logits: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = (logits.shape[0], count)
    rows, labels = (logits.new_empty(shape, dtype=torch.int64) for _ in range(2))
    return logits.new_empty(shape), rows, labels


@torch.library.custom_op("retina::stays", mutates_args=())
def stays(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    num_classes: int,
    iou_threshold: float,
    score_threshold: float,
    limit: int,
) -> Tensor:
    """Which candidates non-maximum suppression leaves, class by class: ``(B, C)`` bool.

    Args:
        boxes: ``(B, C, 4)``, finite.
        scores: ``(B, C)``.
        labels: ``(B, C)`` int64.
        num_classes: K, which labels stay below.
        iou_threshold: a box that overlaps a better one of its class by more is suppressed.
        score_threshold: only candidates with a score above it take part.
        limit: at most so many of an image are wanted, the best; a format may leave more.
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for image in range(boxes.shape[0]):
        rows = (scores[image] > score_threshold).nonzero().flatten()
        some_boxes, some_scores, some_labels = (
            values[image, rows].cpu() for values in (boxes, scores, labels)
        )
        best_rows = suppress(some_boxes, some_scores, some_labels, iou_threshold, limit=limit)
        kept[image, rows[best_rows.to(rows.device)]] = True
    return kept


@stays.register_fake
def _(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    num_classes: int,
    iou_threshold: float,
    score_threshold: float,
    limit: int,
) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)
