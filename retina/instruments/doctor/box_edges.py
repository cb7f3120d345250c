"""Whether the boxes lie on what is in the images: their sides should run along edges.

Boxes whose numbers are all possible can still be wrong: x and y exchanged in square images, or the
origin at another corner. Then another reading of the same numbers lies on the edges of the image
more often than the one that is taught.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from retina.datasets.dataset import DetectionDataset, Image
from retina.instruments.doctor.box_format import check_box_format
from retina.instruments.doctor.context import CheckContext
from retina.instruments.doctor.findings import CheckResult, Finding
from retina.instruments.doctor.inputs import spread
from retina.structures import FloatArray
from retina.wording import counted

_FEWEST_BOXES = 30
_CERTAIN = 5.0
"""Standard errors by which another reading must lie on stronger edges."""

_REACH = 2
"""Pixels beside a side of a box in which its edge is looked for."""

Reading = Callable[[FloatArray, int, int], FloatArray]

READINGS: tuple[tuple[str, str, str, Reading], ...] = (
    (
        "boxes_swapped",
        "with x and y exchanged",
        "Write bbox as (x, y, width, height).",
        lambda boxes, height, width: boxes[:, [1, 0, 3, 2]],
    ),
    (
        "boxes_mirrored",
        "mirrored from left to right",
        "Count x from the left: the images were mirrored, or the boxes were.",
        lambda boxes, height, width: _turned(boxes, 0, width),
    ),
    (
        "boxes_upside_down",
        "turned upside down",
        "Count y from the top: the origin of the boxes is at the bottom.",
        lambda boxes, height, width: _turned(boxes, 1, height),
    ),
)
"""Code, name, fix, and the boxes ``(N, 4)`` (x1, y1, x2, y2) by that reading."""


def check_edges(context: CheckContext) -> CheckResult:
    """Compare the readings on a few images of the training set."""
    scores = edge_scores(context.train, spread(context.train))
    if len(scores) < _FEWEST_BOXES:
        return CheckResult(f"too few boxes to say: {len(scores)}")
    means = scores.mean(axis=0)
    findings: tuple[Finding, ...] = ()
    if not any(f.code.startswith("boxes_") for f in check_box_format(context).findings):
        findings = tuple(_better(scores))[:1]
    return CheckResult(
        summary=f"edges along the sides of {counted(len(scores), 'box')}: {means[0]:.2f}, others "
        f"{means[1:].max():.2f}",
        findings=findings,
        numbers={
            "boxes": len(scores),
            "as_read": float(means[0]),
            **{reading[0]: float(mean) for reading, mean in zip(READINGS, means[1:], strict=True)},
        },
    )


def edge_scores(dataset: DetectionDataset, indices: list[int]) -> FloatArray:
    """``(N, 1 + readings)``: how strong an edge runs along each box; 1 is the image's average.

    The first column is the boxes as they are read.
    """
    rows = [np.zeros((0, 1 + len(READINGS)))]
    for index in indices:
        annotated = dataset.load(index)
        boxes = annotated.boxes[~annotated.is_crowd].astype(np.float64)
        height, width = annotated.size
        across, down = _gradients(annotated.image)
        readings = [boxes, *(read(boxes, height, width) for *_, read in READINGS)]
        rows.append(np.stack([_along(across, down, reading) for reading in readings], axis=1))
    return np.concatenate(rows)


def _better(scores: FloatArray) -> Iterator[Finding]:
    gains = scores[:, 1:] - scores[:, :1]
    errors = gains.std(axis=0) / np.sqrt(len(scores)) + 1e-9
    for column in np.argsort(-gains.mean(axis=0)):
        gain, certainty = gains[:, column].mean(), gains[:, column].mean() / errors[column]
        if gain <= 0 or certainty < _CERTAIN:
            return
        code, name, fix, _ = READINGS[column]
        taught, other = scores[:, 0].mean(), scores[:, column + 1].mean()
        yield Finding(
            code=code,
            level="error",
            what=f"the train boxes would lie on the images better {name}: the edges along their "
            f"sides are {other:.2f} times the image's average, {taught:.2f} as they are read "
            f"({certainty:.0f} standard errors apart, {counted(len(scores), 'box')})",
            why="Every box is taught at a wrong place; the AP would be near 0.",
            fix=f"{fix} See batch.png.",
            numbers={"as_read": float(taught), "other": float(other), "sigma": float(certainty)},
        )


def _turned(boxes: FloatArray, axis: int, side: int) -> FloatArray:
    turned = boxes.copy()
    turned[:, axis], turned[:, axis + 2] = side - boxes[:, axis + 2], side - boxes[:, axis]
    return turned


def _gradients(image: Image) -> tuple[FloatArray, FloatArray]:
    """``(H, W)`` each: change across and down, over their means, the strongest within reach."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    window = np.ones(2 * _REACH + 1, np.uint8)
    across = cv2.dilate(np.abs(cv2.Sobel(gray, cv2.CV_32F, 1, 0)), window[None])
    down = cv2.dilate(np.abs(cv2.Sobel(gray, cv2.CV_32F, 0, 1)), window[:, None])
    return (
        np.asarray(across / max(float(across.mean()), 1e-6), dtype=np.float64),
        np.asarray(down / max(float(down.mean()), 1e-6), dtype=np.float64),
    )


def _along(across: FloatArray, down: FloatArray, boxes: FloatArray) -> FloatArray:
    """``(N,)`` the mean edge along the four sides of each box, 1 where it has none inside."""
    height, width = across.shape
    scores = np.ones(len(boxes))
    for row, (x1, y1, x2, y2) in enumerate(boxes.round().astype(int)):
        left, right = (min(max(x, 0), width - 1) for x in (x1, x2))
        top, bottom = (min(max(y, 0), height - 1) for y in (y1, y2))
        if right > left and bottom > top:
            sides = (
                across[top:bottom, left],
                across[top:bottom, right],
                down[top, left:right],
                down[bottom, left:right],
            )
            scores[row] = np.mean([side.mean() for side in sides])
    return scores
