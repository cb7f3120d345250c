"""An object that the border of a tile cuts is one object.

A box that ends at an inner border of its tile is a **piece**: the object may go on beyond it. All
else is **whole**. Two detections of one class **agree** where they are the same in what both of
their tiles see: cut to the part of the image that is in both tiles, their IoU is above the
threshold. (A side at a border counts as going on beyond it, so that tiles which only touch can
agree along their seam; tiles that meet in a corner alone cannot.) Then

1. pieces of different tiles that agree, and of which one is at least half as sure as the other, are
   pieces of one object: best pairs first, and never two pieces of the same tile;
2. they are dropped where a whole detection agrees that is nearly as sure as the best of them, since
   it shows all of the object. (One that is less sure is often none, and must not hide a sure one.)
3. the other pieces of one object are joined to the box around them, with their best score;
4. a piece that is left alone stays as it is: maybe the object does end there. It is dropped where
   it lies in a better whole detection for the most part.

So two objects at the same seam stay two, since the tiles disagree on what lies between them; an
object at a cross of four tiles is one, and so is one that is larger than a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from retina.geometry.tiles import MARGIN, Window, cut_sides
from retina.structures import BoolArray, Detections, FloatArray, IntArray, Size

AS_SURE = 0.8
"""The score of a whole detection that replaces pieces, at least, as a part of their best one."""

HALF_AS_SURE = 0.5
"""The score of a piece of the same object, at least, as a part of the better one's."""

COVERED = 0.7
"""The part of a lone piece that lies in a better whole detection which replaces it."""

_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True)
class _Seen:
    """All detections of an image, view by view, best first in each."""

    boxes: FloatArray  # (N, 4)
    scores: FloatArray  # (N,)
    labels: IntArray  # (N,)
    view: IntArray  # (N,)
    windows: FloatArray  # (V, 4), of the views
    cut: BoolArray  # (N, 4), the sides at an inner border

    @property
    def is_piece(self) -> BoolArray:
        """``(N,)``."""
        return np.asarray(self.cut.any(axis=1))


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Pieces and the detections that agree with them, the surest pairs first."""

    piece: IntArray  # (M,)
    partner: IntArray  # (M,)


def join_pieces(
    found: list[Detections], windows: list[Window], size: Size, *, iou_threshold: float
) -> Detections:
    """The detections of all views, with the pieces of each object joined as this file says.

    Args:
        found: in each view, in pixels of the image and in host memory.
        windows: what each view shows: tiles, and maybe the whole image.
        size: of the image.
        iou_threshold: from which overlap on two detections agree.

    Returns:
        In no order; whole detections of one object are still several.
    """
    seen = _seen(found, windows, size)
    if not seen.is_piece.any():
        return _as_detections(seen.boxes, seen.scores, seen.labels)
    pairs = _agreeing(seen, iou_threshold)
    object_of = _objects(seen, pairs)
    shown_at = _whole_scores(seen, pairs, object_of)
    boxes, stays = seen.boxes.copy(), ~seen.is_piece
    is_alone = np.zeros_like(stays)
    for number, members in _members(object_of):
        best = members[np.argmax(seen.scores[members])]
        if shown_at[number] >= AS_SURE * seen.scores[best]:
            continue
        stays[best], is_alone[best] = True, len(members) == 1
        boxes[best, :2] = seen.boxes[members, :2].min(axis=0)
        boxes[best, 2:] = seen.boxes[members, 2:].max(axis=0)
    stays &= ~_covered(seen, boxes, is_alone, stays & ~is_alone)
    return _as_detections(boxes[stays], seen.scores[stays], seen.labels[stays])


def _seen(found: list[Detections], windows: list[Window], size: Size) -> _Seen:
    view = np.repeat(np.arange(len(found)), [len(one) for one in found])
    boxes = torch.cat([one.boxes for one in found]).double().numpy()
    edges = np.array([window.box for window in windows], dtype=np.float64).reshape(-1, 4)
    return _Seen(
        boxes=boxes,
        scores=torch.cat([one.scores for one in found]).double().numpy(),
        labels=torch.cat([one.labels for one in found]).numpy(),
        view=view,
        windows=edges,
        cut=cut_sides(boxes, edges[view], size),
    )


def _as_detections(boxes: FloatArray, scores: FloatArray, labels: IntArray) -> Detections:
    return Detections(
        torch.from_numpy(boxes).float(), torch.from_numpy(scores).float(), torch.from_numpy(labels)
    )


def _agreeing(seen: _Seen, iou_threshold: float) -> _Pairs:
    """All pairs of a piece and a detection of another view that agree, view by view."""
    pieces, partners, weights = [], [], []
    rows = np.flatnonzero(seen.is_piece)
    for view in np.unique(seen.view[rows]):
        own = rows[seen.view[rows] == view]
        near = _meet(seen.windows[view], seen.windows)
        near[view] = False
        others = np.flatnonzero(near[seen.view])
        others = others[np.isin(seen.labels[others], seen.labels[own])]
        agreement = _agreement(seen, own, others)
        agreement[seen.labels[own][:, None] != seen.labels[others]] = 0
        left, right = np.nonzero(agreement > iou_threshold)
        pieces.append(own[left])
        partners.append(others[right])
        lower = np.minimum(seen.scores[own[left]], seen.scores[others[right]])
        weights.append(agreement[left, right] * lower)
    order = np.argsort(-np.concatenate(weights), kind="stable")
    return _Pairs(np.concatenate(pieces)[order], np.concatenate(partners)[order])


def _meet(window: FloatArray, windows: FloatArray) -> BoolArray:
    """Which windows overlap one or share a part of a side with it, more than a corner."""
    low = np.maximum(window[:2], windows[:, :2])
    shared = np.minimum(window[2:], windows[:, 2:]) - low
    return np.asarray((shared >= 0).all(axis=1) & (shared > 0).any(axis=1))


def _agreement(seen: _Seen, rows: IntArray, others: IntArray) -> FloatArray:
    """``(P, N)``, the IoU of pieces with detections of other views in what both views show."""
    grow = np.array([-MARGIN, -MARGIN, MARGIN, MARGIN])
    ours, theirs = (
        seen.windows[seen.view[chosen]] + grow for chosen in (rows, others)
    )  # (P, 4), (N, 4)
    a, b = (seen.boxes[chosen] + 2 * grow * seen.cut[chosen] for chosen in (rows, others))
    view = _intersection(ours[:, None], theirs[None])  # (P, N, 4)
    a, b = _intersection(a[:, None], view), _intersection(b[None], view)
    shared = _areas(_intersection(a, b))
    overlap: FloatArray = shared / np.maximum(_areas(a) + _areas(b) - shared, _TINY)
    return overlap


def _intersection(a: FloatArray, b: FloatArray) -> FloatArray:
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    return np.concatenate([low, high], axis=-1)


def _areas(boxes: FloatArray) -> FloatArray:
    """0 where a box is none."""
    areas: FloatArray = np.maximum(boxes[..., 2:] - boxes[..., :2], 0).prod(axis=-1)
    return areas


def _objects(seen: _Seen, pairs: _Pairs) -> IntArray:
    """``(N,)``, the object that each piece belongs to; -1 for what is whole."""
    object_of = np.where(seen.is_piece, np.arange(len(seen.scores)), -1)
    views = {int(row): {int(seen.view[row])} for row in np.flatnonzero(seen.is_piece)}
    members = {row: [row] for row in views}
    scores = np.sort([seen.scores[pairs.piece], seen.scores[pairs.partner]], axis=0)
    is_join = seen.is_piece[pairs.partner] & (scores[0] >= HALF_AS_SURE * scores[1])
    for a, b in zip(pairs.piece[is_join], pairs.partner[is_join], strict=True):
        first, second = int(object_of[a]), int(object_of[b])
        if first == second or views[first] & views[second]:
            continue
        object_of[members[second]] = first
        members[first] += members.pop(second)
        views[first] |= views.pop(second)
    return object_of


def _whole_scores(seen: _Seen, pairs: _Pairs, object_of: IntArray) -> FloatArray:
    """``(N,)``, of each object of pieces the best score of a whole detection that agrees."""
    best = np.full(len(seen.scores), -1.0)
    is_whole = ~seen.is_piece[pairs.partner]
    objects, scores = object_of[pairs.piece[is_whole]], seen.scores[pairs.partner[is_whole]]
    np.maximum.at(best, objects, scores)
    return best


def _members(object_of: IntArray) -> Iterator[tuple[int, IntArray]]:
    """Each object of pieces, and the rows of these."""
    rows = np.flatnonzero(object_of >= 0)
    rows = rows[np.argsort(object_of[rows], kind="stable")]
    numbers, starts = np.unique(object_of[rows], return_index=True)
    for number, members in zip(numbers, np.split(rows, starts[1:]), strict=True):
        yield int(number), members


def _covered(seen: _Seen, boxes: FloatArray, is_alone: BoolArray, is_whole: BoolArray) -> BoolArray:
    """``(N,)``, which lone pieces lie in a better whole detection of their class."""
    covered = np.zeros(len(boxes), dtype=np.bool_)
    whole, alone = np.flatnonzero(is_whole), np.flatnonzero(is_alone)
    for view in np.unique(seen.view[alone]):
        rows = alone[seen.view[alone] == view]
        near = whole[_areas(_intersection(seen.windows[view], boxes[whole])) > 0]
        is_better = seen.scores[near] >= seen.scores[rows][:, None]
        is_better &= seen.labels[near] == seen.labels[rows][:, None]
        inside = _areas(_intersection(boxes[rows][:, None], boxes[near]))  # (P, N)
        is_inside = inside >= COVERED * _areas(boxes[rows])[:, None]
        covered[rows] = (is_better & is_inside).any(axis=1)
    return covered
