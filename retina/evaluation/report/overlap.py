"""Near duplicates between the training images and those that are scored.

An image that was trained on says nothing about new ones. Every image must be decoded to be
compared, so the time is bounded: of a large set only some training images are looked at, drawn at
random.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retina.datasets.dataset import DetectionDataset
from retina.datasets.duplicates import Fingerprint, near_duplicate_pairs
from retina.errors import UserError
from retina.structures import IntArray

SECONDS = 60.0
"""For looking at the images of both sets, as a rule."""

_MOST_IMAGES = 20_000
"""Of both sets; comparing all with all takes seconds then, not minutes."""

_MOST_LISTED = 50


@dataclass(frozen=True, slots=True)
class OverlapPair:
    """A training image and a scored one that show the same.

    Attributes:
        train, validation: the names of their files.
        distance: the bits of 256 by which their hashes differ.
    """

    train: str
    validation: str
    distance: int


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two sets have in common.

    Attributes:
        num_pairs: near duplicates.
        num_images: scored images that have one.
        num_train_compared: training images that were looked at.
        num_validation_compared: scored images that were looked at.
        pairs: the nearest, up to 50.
    """

    num_pairs: int
    num_images: int
    num_train_compared: int
    num_validation_compared: int
    pairs: tuple[OverlapPair, ...]


def find_overlap(
    train: DetectionDataset, validation: DetectionDataset, *, seconds: float = SECONDS
) -> Overlap:
    """Compare the images of two sets.

    Args:
        train: what the detector was trained on.
        validation: what it is scored on.
        seconds: after which no further image is decoded; half of them for each set.
    """
    held_out = _fingerprints(validation, seconds / 2)
    known = _fingerprints(train, seconds / 2)
    pairs = near_duplicate_pairs([one for _, one in known] + [one for _, one in held_out])
    crossing = pairs[(pairs[:, 0] < len(known)) & (pairs[:, 1] >= len(known))]
    distances = np.array(
        [
            _distance(known[first][1], held_out[second - len(known)][1])
            for first, second in crossing.tolist()
        ],
        dtype=np.int64,
    )
    nearest = np.argsort(distances, kind="stable")[:_MOST_LISTED]
    return Overlap(
        num_pairs=len(crossing),
        num_images=len(np.unique(crossing[:, 1])),
        num_train_compared=len(known),
        num_validation_compared=len(held_out),
        pairs=tuple(
            OverlapPair(
                train=Path(train.file_path(known[first][0])).name,
                validation=Path(validation.file_path(held_out[second - len(known)][0])).name,
                distance=int(distances[at]),
            )
            for at, (first, second) in zip(
                nearest.tolist(), crossing[nearest].tolist(), strict=True
            )
        ),
    )


def _fingerprints(dataset: DetectionDataset, seconds: float) -> list[tuple[int, Fingerprint]]:
    """Indices and fingerprints of as many images as there is time for, in no order."""
    until = time.monotonic() + seconds
    order: IntArray = np.random.default_rng(0).permutation(len(dataset))[: _MOST_IMAGES // 2]
    found: list[tuple[int, Fingerprint]] = []
    for index in order.tolist():
        if time.monotonic() > until:
            break
        try:
            one = Fingerprint.of(dataset.load(index).image)
        except UserError:
            continue
        if one is not None:
            found.append((index, one))
    return found


def _distance(first: Fingerprint, second: Fingerprint) -> int:
    """The bits by which one differs from the nearest view of the other."""
    views: Sequence[tuple[Fingerprint, Fingerprint]] = ((first, second), (second, first))
    return min(
        int(np.count_nonzero(one.bits[0] != other.bits, axis=1).min()) for one, other in views
    )
