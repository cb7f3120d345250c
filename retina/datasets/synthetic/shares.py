"""How an annotated split is made up: classes, sizes, hidden objects, crowds, empty images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SMALL_AREA = 32**2
"""COCO's border between small and medium, in square pixels; here of the box."""

PARTLY_HIDDEN = 0.1
"""An object counts as partly hidden when at least this share of it is hidden by others."""


@dataclass(frozen=True, slots=True)
class SplitShares:
    """The make-up of a split; crowd regions count as crowds only, not as boxes.

    Attributes:
        num_images: all images.
        num_empty_images: images without any annotation.
        num_boxes: objects annotated one by one.
        num_crowds: crowd regions.
        boxes_per_category: by name, in the order of the file; 0 for a category without boxes.
        small_share: the share of the boxes under 32² pixels.
        hidden_share: the share of the boxes partly hidden by something in front; None where the
            file does not say (`occluded_fraction` is no part of COCO's own format).
    """

    num_images: int
    num_empty_images: int
    num_boxes: int
    num_crowds: int
    boxes_per_category: Mapping[str, int]
    small_share: float
    hidden_share: float | None

    @property
    def imbalance(self) -> float:
        """The boxes of the commonest category for one of the rarest; infinite if that has none."""
        counts = self.boxes_per_category.values()
        if not counts or min(counts) == 0:
            return float("inf")
        return max(counts) / min(counts)

    @classmethod
    def of(cls, annotations: Mapping[str, Any]) -> SplitShares:
        """Count a COCO annotation file that has been read."""
        boxes = [entry for entry in annotations["annotations"] if not entry.get("iscrowd", 0)]
        used = {entry["image_id"] for entry in annotations["annotations"]}
        counts = Counter(entry["category_id"] for entry in boxes)
        num_small = sum(entry["bbox"][2] * entry["bbox"][3] < SMALL_AREA for entry in boxes)
        is_told = bool(boxes) and all("occluded_fraction" in entry for entry in boxes)
        num_hidden = (
            sum(entry["occluded_fraction"] >= PARTLY_HIDDEN for entry in boxes) if is_told else 0
        )
        return cls(
            num_images=len(annotations["images"]),
            num_empty_images=sum(image["id"] not in used for image in annotations["images"]),
            num_boxes=len(boxes),
            num_crowds=len(annotations["annotations"]) - len(boxes),
            boxes_per_category={
                category["name"]: counts[category["id"]] for category in annotations["categories"]
            },
            small_share=num_small / max(1, len(boxes)),
            hidden_share=num_hidden / len(boxes) if is_told else None,
        )
