"""What a data set is made of, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retina.datasets.dataset import DetectionDataset
from retina.structures import BoolArray, FloatArray, IntArray

SMALL_AREA = 32**2
"""Objects of a smaller area, in square pixels, are small."""

LARGE_AREA = 96**2
"""Objects of this area or more are large."""

OVERLAP = 0.05
"""A box that another box of its image covers by this share is counted as overlapped."""

HIDDEN = 0.1
"""An object is counted as partly hidden from this annotated occluded fraction on."""


@dataclass(frozen=True, slots=True)
class SizeShares:
    """Which shares of the boxes are small, medium and large."""

    small: float
    medium: float
    large: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Minimum, quartiles and maximum of a number."""

    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float

    def __str__(self) -> str:
        return " / ".join(
            f"{value:.4g}"
            for value in (
                self.minimum,
                self.lower_quartile,
                self.median,
                self.upper_quartile,
                self.maximum,
            )
        )


@dataclass(frozen=True, slots=True)
class DatasetStatistics:
    """What a data set is made of; crowd regions count only where they are named.

    The boxes are those of the annotations, without the zero-size ones.

    Attributes:
        num_images: images.
        num_empty_images: images without a box or a crowd region.
        num_boxes: boxes of objects.
        num_crowd: crowd regions.
        class_counts: name and boxes of every class, by label.
        imbalance: boxes of the commonest class over those of the rarest that has any; 0 without
            a box.
        by_box: size shares by width × height.
        by_area: size shares by the annotated area, as COCO's APs, APm and APl go.
        overlapped_share: of the boxes that another box of their image covers by `OVERLAP` or more.
        hidden_share: of the objects of which `HIDDEN` or more is annotated as occluded; None where
            no annotation says.
        boxes_per_image: over all images.
        image_heights: in pixels.
        image_widths: in pixels.
        aspect_ratios: height / width of the boxes.
        box_sides: square root of width × height, in pixels.
    """

    num_images: int
    num_empty_images: int
    num_boxes: int
    num_crowd: int
    class_counts: tuple[tuple[str, int], ...]
    imbalance: float
    by_box: SizeShares
    by_area: SizeShares
    overlapped_share: float
    hidden_share: float | None
    boxes_per_image: Spread
    image_heights: Spread
    image_widths: Spread
    aspect_ratios: Spread
    box_sides: Spread

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of every number but the class counts, for a table.

        What would be a number of the boxes is a dash where there are none.
        """
        hidden = "not annotated" if self.hidden_share is None else f"{self.hidden_share:.1%}"

        def of_boxes(value: object) -> str:
            return str(value) if self.num_boxes else "–"

        five = "(min / 25 % / median / 75 % / max)"
        return [
            ("images", str(self.num_images)),
            ("images without objects", str(self.num_empty_images)),
            ("boxes", str(self.num_boxes)),
            ("crowd regions", str(self.num_crowd)),
            ("classes", str(len(self.class_counts))),
            ("classes without a box", str(sum(count == 0 for _, count in self.class_counts))),
            ("commonest : rarest class", of_boxes(f"{self.imbalance:.1f} : 1")),
            (
                "small / medium / large by box (below 32², below 96², above)",
                of_boxes(_shares(self.by_box)),
            ),
            ("small / medium / large by annotated area", of_boxes(_shares(self.by_area))),
            (
                f"boxes covered by another box by at least {OVERLAP:.0%}",
                of_boxes(f"{self.overlapped_share:.1%}"),
            ),
            (f"objects annotated as hidden by at least {HIDDEN:.0%}", hidden),
            (f"boxes per image {five}", str(self.boxes_per_image)),
            (f"image height {five}", str(self.image_heights)),
            (f"image width {five}", str(self.image_widths)),
            (f"height / width of boxes {five}", of_boxes(self.aspect_ratios)),
            (f"√(width × height) of boxes {five}", of_boxes(self.box_sides)),
        ]


def dataset_statistics(dataset: DetectionDataset) -> DatasetStatistics:
    """The statistics of a data set; no image is decoded."""
    truth = dataset.ground_truth()
    width, height = truth.boxes_xywh[:, 2], truth.boxes_xywh[:, 3]
    is_box = ~truth.is_crowd & (width > 0) & (height > 0)
    width, height = width[is_box], height[is_box]
    image_rows = truth.image_indices
    counts = np.bincount(truth.category_labels[is_box], minlength=len(truth.categories))
    present = counts[counts > 0]
    occluded = dataset.occluded_fractions()[is_box]
    is_given = np.isfinite(occluded)
    num_images = len(truth.image_ids)
    return DatasetStatistics(
        num_images=num_images,
        num_empty_images=num_images - len(np.unique(image_rows[is_box | truth.is_crowd])),
        num_boxes=int(is_box.sum()),
        num_crowd=int(truth.is_crowd.sum()),
        class_counts=tuple(zip(truth.categories.distinct_names, counts.tolist(), strict=True)),
        imbalance=float(present.max() / present.min()) if len(present) else 0.0,
        by_box=_size_shares(width * height),
        by_area=_size_shares(truth.areas[is_box]),
        overlapped_share=_share(
            _is_overlapped(truth.boxes_xywh[is_box], image_rows[is_box], num_images)
        ),
        hidden_share=_share(occluded[is_given] >= HIDDEN) if is_given.any() else None,
        boxes_per_image=_spread(np.bincount(image_rows[is_box], minlength=num_images)),
        image_heights=_spread(truth.image_sizes[:, 0]),
        image_widths=_spread(truth.image_sizes[:, 1]),
        aspect_ratios=_spread(height / width),
        box_sides=_spread(np.sqrt(width * height)),
    )


def _is_overlapped(boxes_xywh: FloatArray, image_rows: IntArray, num_images: int) -> BoolArray:
    """``(N,)`` whether another box of the image covers a box by `OVERLAP` of its area."""
    overlapped = np.zeros(len(boxes_xywh), dtype=bool)
    order = np.argsort(image_rows, kind="stable")
    ends = np.cumsum(np.bincount(image_rows, minlength=num_images))
    for rows in np.split(order, ends[:-1]):
        if len(rows) < 2:
            continue
        low, sides = boxes_xywh[rows, :2], boxes_xywh[rows, 2:]
        high = low + sides
        covered = np.zeros(len(rows))
        for other in range(len(rows)):  # in turn: few rows in memory at a time
            overlap = np.minimum(high, high[other]) - np.maximum(low, low[other])
            area = overlap.clip(min=0).prod(axis=1)
            area[other] = 0
            covered = np.maximum(covered, area)
        overlapped[rows] = covered >= OVERLAP * sides.prod(axis=1)
    return overlapped


def _size_shares(areas: FloatArray) -> SizeShares:
    small, large = areas < SMALL_AREA, areas >= LARGE_AREA
    return SizeShares(_share(small), _share(~small & ~large), _share(large))


def _share(which: BoolArray) -> float:
    return float(which.mean()) if len(which) else 0.0


def _spread(values: FloatArray | IntArray) -> Spread:
    if not len(values):
        return Spread(0.0, 0.0, 0.0, 0.0, 0.0)
    return Spread(*np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist())


def _shares(shares: SizeShares) -> str:
    return f"{shares.small:.1%} / {shares.medium:.1%} / {shares.large:.1%}"
