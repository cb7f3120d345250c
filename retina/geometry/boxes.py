"""Arithmetic on boxes ``(x1, y1, x2, y2)``: areas, overlaps, clipping, conversions.

Areas and overlaps are computed in float32 at least, since the area of 256 × 256 pixels is beyond
float16. Integers are computed in float64, which holds their areas; their ratios are float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retina.structures import Size


def box_areas(boxes: Tensor) -> Tensor:
    """The area of each box: ``(..., 4)`` to ``(...)``."""
    boxes = _computable(boxes)
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_intersection(a: Tensor, b: Tensor) -> Tensor:
    """The shared area of every pair: ``(..., N, 4)`` and ``(..., M, 4)`` to ``(..., N, M)``.

    The largest thing in memory is a few matrices of the result's size, never one with a trailing
    axis of 2 or 4; who has many rows calls it in parts.
    """
    a, b = _computable(a)[..., :, None, :], _computable(b)[..., None, :, :]
    width = torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])
    height = torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])
    return width.clamp_(min=0).mul_(height.clamp_(min=0))


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union: ``(..., N, 4)`` and ``(..., M, 4)`` to ``(..., N, M)``.

    Two boxes without any area have an overlap of 0.
    """
    intersection = pairwise_intersection(a, b)
    union = (box_areas(a)[..., :, None] + box_areas(b)[..., None, :]).sub_(intersection)
    return _divide(intersection, union).to(_ratio_type(a, b))


def pairwise_iof(boxes: Tensor, regions: Tensor) -> Tensor:
    """How much of each box lies in each region: N boxes and M regions to ``(..., N, M)``.

    A box without any area has no part anywhere: 0.
    """
    intersection = pairwise_intersection(boxes, regions)
    whole = box_areas(boxes)[..., :, None]
    return _divide(intersection, whole).to(_ratio_type(boxes, regions))


def _computable(boxes: Tensor) -> Tensor:
    if not boxes.is_floating_point():
        return boxes.double()
    return boxes.to(torch.promote_types(boxes.dtype, torch.float32))


def _ratio_type(a: Tensor, b: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)


def _divide(part: Tensor, whole: Tensor) -> Tensor:
    # Where the whole is zero, so is the part: 0 / tiny = 0 instead of 0 / 0 = nan.
    return part.div_(whole.clamp(min=torch.finfo(part.dtype).tiny))


def clip_boxes(boxes: Tensor, sizes: Tensor | Size) -> Tensor:
    """The boxes cut off at the borders of their image.

    Args:
        boxes: ``(..., N, 4)``.
        sizes: (height, width) for all, or a tensor ``(..., 2)`` with one size per leading index.

    Returns:
        ``(..., N, 4)``: a box outside its image becomes one of zero width or height at the border.
    """
    limits = torch.as_tensor(sizes, dtype=boxes.dtype, device=boxes.device).flip(-1).unsqueeze(-2)
    return torch.cat(
        [
            torch.minimum(boxes[..., :2].clamp(min=0), limits),
            torch.minimum(boxes[..., 2:].clamp(min=0), limits),
        ],
        dim=-1,
    )


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """``(x1, y1, width, height)``, COCO's form, to ``(x1, y1, x2, y2)``."""
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], dim=-1)
