"""Box regression losses, one value per box."""

from __future__ import annotations

import math
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

BoxLoss = Literal["l1", "smooth_l1", "giou", "diou", "ciou"]

COMPARES_BOXES: frozenset[BoxLoss] = frozenset({"giou", "diou", "ciou"})
"""The losses that compare boxes; the others compare coordinates as they are coded."""

DEFAULT_BETA = 1 / 9
"""Where smooth-L1 turns linear, in units of coded coordinates."""

_EPSILON = 1e-7
"""Keeps the quotients of boxes without any area finite."""

_FAR = 1e15
"""In pixels; the square of what is much farther away overflows float32."""


def box_loss(
    predicted: Tensor, wanted: Tensor, kind: BoxLoss, *, beta: float = DEFAULT_BETA
) -> Tensor:
    """The loss of every box, in float32 at least; never waits for the device.

    Finite boxes have a finite loss with a finite gradient, also without width or height.

    Args:
        predicted: ``(..., 4)`` boxes (x1, y1, x2, y2) for the IoU losses, else as they are coded.
        wanted: the same for the truth.
        kind: ``l1``; ``smooth_l1`` (Huber, quadratic below ``beta``); ``giou`` (Rezatofighi et al.
            2019); ``diou`` and ``ciou`` (Zheng et al. 2020).
        beta: where smooth-L1 turns linear, in units of coded coordinates.

    Returns:
        ``(...)``, the sum over the four coordinates for l1 and smooth_l1.
    """
    predicted, wanted = _at_least_float32(predicted), _at_least_float32(wanted)
    if kind in COMPARES_BOXES:
        predicted, wanted = _within_reach(predicted), _within_reach(wanted)
    match kind:
        case "l1":
            return F.l1_loss(predicted, wanted, reduction="none").sum(dim=-1)
        case "smooth_l1":
            return F.smooth_l1_loss(predicted, wanted, reduction="none", beta=beta).sum(dim=-1)
        case "giou":
            return _giou_loss(predicted, wanted)
        case "diou":
            return _diou_loss(predicted, wanted)[0]
        case "ciou":
            return _ciou_loss(predicted, wanted)
        case _:
            assert_never(kind)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _within_reach(boxes: Tensor) -> Tensor:
    """Finite coordinates cut off at `_FAR`; others stay, since a divergence is to be seen."""
    return torch.where(boxes.isfinite(), boxes.clamp(-_FAR, _FAR), boxes)


# The three below are torchvision's to the last bit, gradients too, for boxes with width and height.
# Torchvision's own pick the pairs that overlap by a boolean index, so that the host waits for a GPU
# to count them, and its CIoU is not finite for a box without height.


def _giou_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    intersection, union = _intersection_and_union(predicted, wanted)
    width, height = _enclosing_sides(predicted.unbind(dim=-1), wanted.unbind(dim=-1))
    enclosing = width * height
    iou = intersection / (union + _EPSILON)
    return 1 - (iou - (enclosing - union) / (enclosing + _EPSILON))


def _diou_loss(predicted: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and the IoU."""
    intersection, union = _intersection_and_union(predicted, wanted)
    iou = intersection / (union + _EPSILON)
    # Both terms use the same views, so that their gradients are added before they join the others.
    corners, wanted_corners = predicted.unbind(dim=-1), wanted.unbind(dim=-1)
    width, height = _enclosing_sides(corners, wanted_corners)
    diagonal = width**2 + height**2 + _EPSILON  # squared, as is the distance of the centres
    x1, y1, x2, y2 = corners
    wanted_x1, wanted_y1, wanted_x2, wanted_y2 = wanted_corners
    dx = (x2 + x1) / 2 - (wanted_x1 + wanted_x2) / 2
    dy = (y2 + y1) / 2 - (wanted_y1 + wanted_y2) / 2
    return 1 - iou + (dx**2 + dy**2) / diagonal, iou


def _ciou_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    diou_loss, iou = _diou_loss(predicted, wanted)
    x1, y1, x2, y2 = predicted.unbind(dim=-1)
    wanted_x1, wanted_y1, wanted_x2, wanted_y2 = wanted.unbind(dim=-1)
    angle = _aspect_angle(x2 - x1, y2 - y1)
    wanted_angle = _aspect_angle(wanted_x2 - wanted_x1, wanted_y2 - wanted_y1)
    aspect = (4 / math.pi**2) * torch.pow(wanted_angle - angle, 2)
    with torch.no_grad():
        weight = aspect / (1 - iou + aspect + _EPSILON)
    return diou_loss + weight * aspect


def _aspect_angle(width: Tensor, height: Tensor) -> Tensor:
    """The angle of the diagonal, ``(...)``; without any height a constant, 0 for a point.

    The quotient's gradient is infinite there and the arctangent's 0, which gives NaN.
    """
    is_high = height.abs() > _EPSILON
    quotient = width / torch.where(is_high, height, 1.0)
    constant = (width / height).detach().nan_to_num()
    return torch.atan(torch.where(is_high, quotient, constant))


def _intersection_and_union(predicted: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The areas of each pair, ``(...)``."""
    x1, y1, x2, y2 = predicted.unbind(dim=-1)
    wanted_x1, wanted_y1, wanted_x2, wanted_y2 = wanted.unbind(dim=-1)
    left, top = torch.max(x1, wanted_x1), torch.max(y1, wanted_y1)
    right, bottom = torch.min(x2, wanted_x2), torch.min(y2, wanted_y2)
    overlaps = (bottom > top) & (right > left)
    intersection = torch.where(overlaps, (right - left) * (bottom - top), 0.0)
    wanted_area = (wanted_x2 - wanted_x1) * (wanted_y2 - wanted_y1)
    return intersection, (x2 - x1) * (y2 - y1) + wanted_area - intersection


def _enclosing_sides(
    corners: tuple[Tensor, ...], wanted_corners: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Width and height of the smallest box around both, ``(...)``."""
    x1, y1, x2, y2 = corners
    wanted_x1, wanted_y1, wanted_x2, wanted_y2 = wanted_corners
    left, top = torch.min(x1, wanted_x1), torch.min(y1, wanted_y1)
    right, bottom = torch.max(x2, wanted_x2), torch.max(y2, wanted_y2)
    return right - left, bottom - top
