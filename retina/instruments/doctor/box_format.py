"""Whether the boxes can mean what they are read as: ``(x, y, width, height)`` in pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from retina.datasets.dataset import DetectionDataset
from retina.instruments.doctor.context import CheckContext
from retina.instruments.doctor.findings import CheckResult, Finding
from retina.structures import BoolArray, FloatArray

_MOST_OUTSIDE = 0.03
"""Share of boxes reaching well out of their image that annotators' haste can explain."""

_NEARLY_ALL = 0.995
"""Share of boxes that another format must put inside their images to be believed."""

_MOST_REPEATED = 0.02
_FEWEST_BOXES = 10
_SORTED_BOXES = 50_000


@dataclass(frozen=True, slots=True)
class _Boxes:
    """Boxes as annotated, and their images.

    Attributes:
        values: ``(G, 4)`` the four numbers.
        limits: ``(G, 2)`` width and height of each box's image.
    """

    values: FloatArray
    limits: FloatArray

    def inside(self, corners: FloatArray) -> BoolArray:
        """Which ``(x1, y1, x2, y2)`` lie in their image, but for rounding and a careless edge."""
        slack = 2 + 0.02 * self.limits
        conditions = (
            corners[:, :2] >= -slack,
            corners[:, 2:] <= self.limits + slack,
            corners[:, 2:] > corners[:, :2],
        )
        is_inside: BoolArray = np.asarray(np.concatenate(conditions, axis=1).all(axis=1))
        return is_inside


def check_box_format(context: CheckContext) -> CheckResult:
    """Boxes outside of their images, other formats, relative and repeated boxes, of each split."""
    findings: list[Finding] = []
    outside = 0.0
    for split, dataset in (("train", context.train), ("validation", context.validation)):
        if dataset is None:
            continue
        boxes = _boxes(dataset)
        if len(boxes.values) >= _FEWEST_BOXES:
            findings += [*_formats(split, boxes), *_repeated(split, dataset)]
            if split == "train":
                outside = float(1 - boxes.inside(_from_xywh(boxes.values)).mean())
    return CheckResult(
        summary=f"{outside:.1%} of the boxes reach out of their image",
        findings=tuple(findings),
        numbers={"outside": outside},
    )


def _boxes(dataset: DetectionDataset) -> _Boxes:
    truth = dataset.ground_truth()
    limits = dataset.image_sizes[truth.image_indices][:, ::-1].astype(np.float64)
    keep = ~truth.is_crowd
    return _Boxes(truth.boxes_xywh[keep], limits[keep])


def _from_xywh(values: FloatArray) -> FloatArray:
    return np.concatenate([values[:, :2], values[:, :2] + values[:, 2:]], axis=1)


def _from_center(values: FloatArray) -> FloatArray:
    half = values[:, 2:] / 2
    return np.concatenate([values[:, :2] - half, values[:, :2] + half], axis=1)


_READINGS: dict[str, tuple[str, Callable[[FloatArray], FloatArray], str]] = {
    "boxes_xyxy": (
        "(x1, y1, x2, y2)",
        lambda values: values,
        "width = x2 - x1 and height = y2 - y1",
    ),
    "boxes_swapped": (
        "(y, x, height, width)",
        lambda values: _from_xywh(values[:, [1, 0, 3, 2]]),
        "x before y, width before height",
    ),
    "boxes_swapped_xyxy": (
        "(y1, x1, y2, x2)",
        lambda values: values[:, [1, 0, 3, 2]],
        "(x, y, w, h)",
    ),
    "boxes_centered": (
        "(center x, center y, width, height)",
        _from_center,
        "x - width / 2 first",
    ),
}
"""Other formats by the code of their finding: their name, the corners in them, and the fix."""


def boxes_as_meant(dataset: DetectionDataset) -> tuple[FloatArray, str] | None:
    """The boxes of a split in the format that they must have been written in.

    Returns:
        ``(G, 4)`` (x, y, width, height) in pixels, as for `GroundTruth`, and what they look like;
        None where nothing speaks for another format than that.
    """
    boxes = _boxes(dataset)
    if len(boxes.values) < _FEWEST_BOXES:
        return None
    finding = next(_formats("annotated", boxes), None)
    truth = dataset.ground_truth()
    if finding is not None and finding.code == "boxes_relative":
        sides = dataset.image_sizes[truth.image_indices][:, [1, 0, 1, 0]]
        return truth.boxes_xywh * sides, finding.what
    if finding is None or finding.code not in _READINGS:
        return None
    corners = _READINGS[finding.code][1](truth.boxes_xywh)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1), finding.what


def _formats(split: str, boxes: _Boxes) -> Iterator[Finding]:
    values = boxes.values
    if np.quantile(np.abs(values), 0.999) <= 1.5 and np.median(boxes.limits) > 8:
        yield _relative(split, float(np.abs(values).max()))
        return
    is_inside = boxes.inside(_from_xywh(values))
    outside = float(1 - is_inside.mean())
    if outside <= _MOST_OUTSIDE:
        return
    for code, (name, corners_of, fix) in _READINGS.items():
        share = float(boxes.inside(corners_of(values)).mean())
        if share >= _NEARLY_ALL and (share > 1 - outside):
            yield _other_format(split, code, name, fix, outside, share)
            return
    yield _outside(split, outside)


def _relative(split: str, largest: float) -> Finding:
    return Finding(
        code="boxes_relative",
        level="error",
        what=f"the {split} boxes are fractions of the image: their largest number is {largest:.3g}",
        why="COCO's boxes are in pixels; read so, every object is smaller than a pixel.",
        fix="Multiply x and width by the image's width, y and height by its height; retina data "
        "fix does so.",
        numbers={"largest": largest},
    )


def _other_format(
    split: str, code: str, name: str, fix: str, outside: float, share: float
) -> Finding:
    return Finding(
        code=code,
        level="error",
        what=f"the {split} boxes look like {name}: read as (x, y, width, height) {outside:.0%} "
        f"reach out of their image, read like that {1 - share:.1%}",
        why="Every box is taught at a wrong place and size; the AP would be near 0.",
        fix=f"Write bbox as (x, y, width, height) in pixels: {fix}; retina data fix does so.",
        numbers={"outside": outside, "outside_in_that_format": 1 - share},
    )


def _outside(split: str, outside: float) -> Finding:
    return Finding(
        code="boxes_outside",
        level="error" if outside > 0.2 else "warning",
        what=f"{outside:.0%} of the {split} boxes reach well out of their image",
        why="They are cut off at its edge, so what is left is no longer the object. Other image "
        "files than the annotated ones, or resized ones, look like this.",
        fix="Check that images and annotations belong together (retina data check).",
        numbers={"outside": outside},
    )


def _repeated(split: str, dataset: DetectionDataset) -> Iterator[Finding]:
    truth = dataset.ground_truth()
    # Every n-th image is enough of a large set: sorting all of COCO would take seconds.
    few = truth.image_ids[:: len(truth.annotation_ids) // _SORTED_BOXES + 1]
    keep = ~truth.is_crowd & np.isin(truth.annotation_image_ids, few)
    rows = np.column_stack(
        [
            truth.annotation_image_ids[keep].astype(np.float64),
            truth.category_labels[keep].astype(np.float64),
            truth.boxes_xywh[keep].round(1),
        ]
    )
    if len(rows) < _FEWEST_BOXES:
        return
    repeats = len(rows) - len(np.unique(rows, axis=0))
    share = repeats / len(rows)
    if share <= _MOST_REPEATED:
        return
    yield Finding(
        code="boxes_repeated",
        level="error" if share >= 0.2 else "warning",
        what=f"{repeats} of {len(rows)} {split} boxes repeat another one of the same class "
        f"({share:.0%})",
        why="Of two equal boxes one detection can only match one: the other counts as missed, and "
        "in training it takes half of the anchors.",
        fix="Remove the repetitions; files that were merged twice are a common reason.",
        numbers={"repeated": repeats, "share": share},
    )
