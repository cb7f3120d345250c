"""Which objects get anchors, by the assigner that trains and at the size that the network sees.

An object that no anchor answers for is never learned; one that has only a low-quality match is
learned by a single badly fitting anchor. Both are the usual reason for a detector that misses its
small objects (keras-retinanet #555 #667, ODTK #158, mmdetection #5430).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retina.datasets.dataset import DetectionDataset
from retina.geometry.anchors import AnchorGenerator
from retina.geometry.boxes import box_areas, pairwise_iou
from retina.geometry.resizing import fit_into, max_size_for
from retina.modeling.preprocess import PreprocessConfig
from retina.objective.assignment import Assigner
from retina.runtime.splits import spread_indices
from retina.structures import Anchors, BatchedTargets, BoolArray, IntArray, Size, Targets

SIDE_EDGES = (8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
"""Sides √(width × height) in pixels of the network's input between which coverage is counted."""


class Outcome(IntEnum):
    """What becomes of an object."""

    MATCHED = 0
    """At least one anchor reaches the assigner's foreground IoU."""
    LOW_QUALITY = 1
    """Only a low-quality match gives it an anchor."""
    UNMATCHED = 2
    """No anchor answers for it: it is background to the loss, or ignored."""


@dataclass(frozen=True, slots=True)
class InputImage:
    """The objects of an image as the network sees them.

    Attributes:
        targets: in pixels of the resized image, without crowd regions and exact repetitions (of two
            equal boxes one never gets an anchor, which is no fault of the anchors).
        size: (height, width) of the resized image, without padding.
        padded_size: (height, width) of the network's input for this image by itself.
    """

    targets: Targets
    size: Size
    padded_size: Size


@dataclass(frozen=True, slots=True)
class Share:
    """Of some objects, how many there are and which fractions (0 … 1) have which outcome."""

    count: int
    matched: float
    low_quality: float
    unmatched: float


@dataclass(frozen=True, slots=True)
class AnchorCoverage:
    """What becomes of every object; N objects.

    Attributes:
        labels: ``(N,)``.
        sides: ``(N,)`` √(width × height) in pixels of the network's input.
        outcomes: ``(N,)`` of `Outcome`.
        num_anchors: ``(N,)`` foreground anchors that answer for the object.
        num_images: that were looked at.
        anchors_per_image: the mean over the images.
    """

    labels: IntArray
    sides: npt.NDArray[np.float64]
    outcomes: IntArray
    num_anchors: IntArray
    num_images: int
    anchors_per_image: float

    def share(self, which: BoolArray | None = None) -> Share:
        """The outcomes of all objects, or of those that are True."""
        outcomes = self.outcomes if which is None else self.outcomes[which]
        if not len(outcomes):
            return Share(0, 0.0, 0.0, 0.0)
        fractions = np.bincount(outcomes, minlength=3) / len(outcomes)
        return Share(len(outcomes), *fractions.tolist())

    def by_class(self, num_classes: int) -> list[Share]:
        """The outcomes by label."""
        return [self.share(self.labels == label) for label in range(num_classes)]

    def by_side(self) -> list[tuple[str, Share]]:
        """The outcomes by `SIDE_EDGES`, smallest first."""
        bins = np.digitize(self.sides, SIDE_EDGES)
        return [(name, self.share(bins == number)) for number, name in enumerate(side_names())]


def side_names() -> list[str]:
    """The size classes in words: ``below 8``, ``8 to 16`` and so on."""
    edges = [f"{edge:g}" for edge in SIDE_EDGES]
    between = [f"{low} to {high}" for low, high in pairwise(edges)]
    return [f"below {edges[0]}", *between, f"{edges[-1]} and more"]


def input_images(
    dataset: DetectionDataset,
    preprocess: PreprocessConfig,
    *,
    sizes: Sequence[tuple[int, int]],
    limit: int | None,
) -> list[InputImage]:
    """Images of a split at the size that training shows them at; none is decoded.

    Args:
        dataset: the split.
        preprocess: how images become the network's input.
        sizes: the ``(min_size, max_size)`` that batches draw from in place of those of
            ``preprocess``, taken in turn.
        limit: at most so many images with objects, evenly spread.
    """
    filled = filled_images(dataset)
    chosen = spread_indices(len(filled), limit)
    return [
        _input_image(dataset, filled[position], sizes[number % len(sizes)], preprocess)
        for number, position in enumerate(chosen)
    ]


def filled_images(dataset: DetectionDataset) -> list[int]:
    """The indices of the images with an object, crowd regions not counted."""
    truth = dataset.ground_truth()
    has_object = np.isin(truth.image_ids, truth.annotation_image_ids[~truth.is_crowd])
    indices: list[int] = np.flatnonzero(has_object).tolist()
    return indices


def _input_image(
    dataset: DetectionDataset, index: int, size: tuple[int, int], preprocess: PreprocessConfig
) -> InputImage:
    height, width = dataset.image_sizes[index].tolist()
    target = size
    if not preprocess.stretch:
        target = fit_into((height, width), max_size_for((height, width), *size))
    objects = dataset.targets(index)
    keep = ~objects.is_crowd & ~_repeats(objects)
    factors = torch.tensor([target[1] / width, target[0] / height] * 2)
    return InputImage(
        targets=Targets(
            boxes=objects.boxes[keep] * factors,
            labels=objects.labels[keep],
            is_crowd=objects.is_crowd[keep],
        ),
        size=target,
        padded_size=padded(target, preprocess.size_divisor, preprocess.pad_to),
    )


def _repeats(objects: Targets) -> Tensor:
    """``(N,)`` whether an earlier object has the same class and box."""
    rows = torch.cat([objects.boxes, objects.labels[:, None].float()], dim=1)
    same = (rows[:, None] == rows).all(dim=2)  # (N, N)
    return same.tril(-1).any(dim=1)


def within_budget(images: Sequence[InputImage], strides: Sequence[int], budget: int) -> int:
    """How many of the images, evenly spread, stay below ``budget`` overlaps of anchors and objects.

    Nine anchors a cell are taken for granted. At least one image.
    """
    costs = [
        9 * max(1, len(image.targets)) * sum(_cells(image.size, stride) for stride in strides)
        for image in images
    ]
    mean = sum(costs) / max(1, len(costs))
    return max(1, min(len(images), int(budget / max(1.0, mean))))


def _cells(size: Size, stride: int) -> int:
    return -(-size[0] // stride) * -(-size[1] // stride)


def padded(size: Size, size_divisor: int, pad_to: Size | None) -> Size:
    """The size of the network's input for an image by itself."""
    if pad_to is not None:
        return pad_to
    height, width = (-(-side // size_divisor) * size_divisor for side in size)
    return height, width


def measure_coverage(
    images: Sequence[InputImage],
    *,
    anchors: AnchorGenerator,
    assigner: Assigner,
) -> AnchorCoverage:
    """Let the assigner say which anchors answer for which object.

    Each image is laid by itself into its padding, on the CPU, and no random number is drawn.
    """
    parts = [
        _outcomes(image.targets, _lay(anchors, image.padded_size), assigner) for image in images
    ]
    counts = [part[2] for part in parts]
    return AnchorCoverage(
        labels=_joined(image.targets.labels for image in images),
        sides=_joined(box_areas(image.targets.boxes).sqrt() for image in images).astype(np.float64),
        outcomes=_joined(part[0] for part in parts),
        num_anchors=_joined(part[1] for part in parts),
        num_images=len(images),
        anchors_per_image=sum(counts) / max(1, len(counts)),
    )


def _joined(parts: Iterator[Tensor]) -> npt.NDArray[np.int64]:
    arrays = [part.numpy() for part in parts]
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int64)


def _lay(generator: AnchorGenerator, size: Size) -> Anchors:
    # Every convolution of stride 2 here rounds up, so a level has ⌈side / stride⌉ cells.
    shapes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in generator.strides]
    anchors: Anchors = generator(shapes, size, "cpu")
    return anchors


def _outcomes(targets: Targets, anchors: Anchors, assigner: Assigner) -> tuple[Tensor, Tensor, int]:
    """Outcome and number of anchors of each object ``(N,)``, and the number of anchors R."""
    count = len(targets)
    assignment = assigner(anchors, BatchedTargets.from_targets([targets]))
    rows = assignment.is_foreground[0].nonzero().flatten()
    owners = assignment.target_index[0, rows]
    outcome = torch.full((count,), int(Outcome.UNMATCHED))
    outcome[owners] = int(Outcome.LOW_QUALITY)
    outcome[owners[_is_good(targets, anchors, rows, owners, assigner)]] = int(Outcome.MATCHED)
    return outcome, torch.bincount(owners, minlength=count), len(anchors)


def _is_good(
    targets: Targets, anchors: Anchors, rows: Tensor, owners: Tensor, assigner: Assigner
) -> Tensor:
    """Which foreground anchors reach the IoU that the assigner asks for."""
    if assigner.foreground_iou is None:  # the rule adapts: nothing is a low-quality match
        return torch.ones_like(rows, dtype=torch.bool)
    pairs = pairwise_iou(anchors.boxes[rows, None], targets.boxes[owners, None])  # (F, 1, 1)
    return pairs.flatten() >= assigner.foreground_iou
