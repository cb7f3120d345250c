"""Images that show the same: copies saved, resized, cropped a little, mirrored, or lit anew.

An image is known by a perceptual hash of 256 bits, and by those of its middle (without 5 % at each
side) and of its mirror image. Pictures of different things differ in about half of the bits, and in
90 at least on the sets that this was measured on; a copy that was compressed, resized, brightened,
made grey or cropped by 2 % at each side differs in up to 52.

One camera that looks at one scene makes images that are all alike by that measure. So where an
image has many neighbours, only those count that agree with it everywhere: a chess piece that
moved makes another image.

Letters: I images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import imagehash
import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retina.datasets.dataset import DetectionDataset, Image
from retina.errors import UserError
from retina.structures import BoolArray, FloatArray, IntArray

MOST_BITS = 60
"""By which the hashes of two near duplicates may differ, of 256."""

_MANY = 10
"""Neighbours that an image has only where one camera looks at one scene."""

_MOST_COMPARED = 32
"""The nearest of many neighbours, which are compared in full."""

_MOST_LOCAL = 0.22
"""How far two images of one scene may differ in the place where they differ most, in standard
deviations of their grey values."""

_FLAT = 3.0
"""Grey values that spread by less show nothing that could be compared."""

_MARGIN = 0.05
_LARGEST = 512
_SIDE = 32
_HASH_SIDE = 16
_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What an image is compared by.

    Attributes:
        bits: ``(3, 256)`` bool, the hashes of the image, of its middle, and of its mirror image.
        thumbnail: ``(32, 32)`` uint8, its grey values.
    """

    bits: BoolArray
    thumbnail: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, image: Image) -> Fingerprint | None:
        """That of an image; None for one of a single colour, which looks like any other."""
        grey = PIL.Image.fromarray(image).convert("L")
        small = np.asarray(grey.resize((_SIDE, _SIDE), PIL.Image.Resampling.BOX))
        if small.std() < _FLAT:
            return None
        # The hash starts from 64 × 64 pixels: large images are shrunk once, not three times.
        grey.thumbnail((_LARGEST, _LARGEST), PIL.Image.Resampling.BOX)
        width, height = grey.size
        inner = (
            _MARGIN * width,
            _MARGIN * height,
            width - _MARGIN * width,
            height - _MARGIN * height,
        )
        mirrored = PIL.ImageOps.mirror(grey)
        views = (grey, grey.resize(grey.size, PIL.Image.Resampling.BILINEAR, box=inner), mirrored)
        hashes = [imagehash.phash(view, hash_size=_HASH_SIDE).hash.ravel() for view in views]
        return cls(np.array(hashes, dtype=np.bool_), small.copy())


def fingerprints_of(
    dataset: DetectionDataset,
    *,
    num_threads: int = 4,
    on_image: Callable[[int], None] = lambda count: None,
) -> list[Fingerprint | None]:
    """The fingerprints of all images; None for one that cannot be read.

    Args:
        dataset: of any format.
        num_threads: images decoded at a time.
        on_image: called with 1 after every image.
    """
    found: list[Fingerprint | None] = []
    indices = iter(range(len(dataset)))
    with ThreadPoolExecutor(num_threads) as pool:
        # In slices, so that an interrupt does not wait for the whole set.
        while chunk := list(islice(indices, 8 * num_threads)):
            for one in pool.map(lambda index: _fingerprint(dataset, index), chunk):
                found.append(one)
                on_image(1)
    return found


def _fingerprint(dataset: DetectionDataset, index: int) -> Fingerprint | None:
    try:
        return Fingerprint.of(dataset.load(index).image)
    except UserError:
        return None


def near_duplicates(fingerprints: Sequence[Fingerprint | None]) -> list[tuple[int, ...]]:
    """Groups of images that show the same, by position; those of one image only are left out.

    All images are compared with all others.

    Args:
        fingerprints: I of them; one that is None has no duplicate.
    """
    known = [(index, one) for index, one in enumerate(fingerprints) if one is not None]
    if len(known) < 2:
        return []
    pairs = _pairs(
        np.array([one.bits for _, one in known]), np.array([one.thumbnail for _, one in known])
    )
    graph = coo_array((np.ones(len(pairs), np.int8), pairs.T), shape=(len(known), len(known)))
    number, group_of = connected_components(graph, directed=False)
    groups: list[list[int]] = [[] for _ in range(number)]
    for (index, _), group in zip(known, group_of.tolist(), strict=True):
        groups[group].append(index)
    return [tuple(group) for group in groups if len(group) > 1]


def _pairs(bits: BoolArray, thumbnails: npt.NDArray[np.uint8]) -> IntArray:
    """``(P, 2)`` near duplicates, each pair once; both of the two must take the other for one.

    Args:
        bits: ``(I, 3, 256)``.
        thumbnails: ``(I, 32, 32)``.
    """
    signs = bits.astype(np.float32) * 2 - 1
    found = []
    for start in range(0, len(signs), _ROWS):
        distances = _distances(signs, start)
        is_near = distances <= MOST_BITS
        is_crowded = is_near.sum(axis=1) > _MANY
        found.append(np.argwhere(is_near & ~is_crowded[:, None]) + np.array([start, 0]))
        for row in np.flatnonzero(is_crowded).tolist():
            alike = _alike(distances[row], thumbnails, start + row)
            found.append(np.stack([np.full_like(alike, start + row), alike], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    both: IntArray = unique[counts == 2]
    return both


def _distances(signs: npt.NDArray[np.float32], start: int) -> npt.NDArray[np.float32]:
    """``(R, I)`` in how many bits some images differ from all, in their nearest views."""
    num_bits = signs.shape[2]
    rows = signs[start : start + _ROWS]
    # Of signs, the product is the number of equal bits less that of the others.
    equal = rows[:, 0] @ signs[:, 0].T
    for view in range(1, signs.shape[1]):  # from both sides: what is cropped may be either
        np.maximum(equal, rows[:, 0] @ signs[:, view].T, out=equal)
        np.maximum(equal, rows[:, view] @ signs[:, 0].T, out=equal)
    distances: npt.NDArray[np.float32] = (num_bits - equal) / 2
    one = np.arange(len(rows))
    distances[one, start + one] = np.inf
    return distances


def _alike(
    distances: npt.NDArray[np.float32], thumbnails: npt.NDArray[np.uint8], row: int
) -> IntArray:
    """``(N,)`` those of an image's nearest neighbours that agree with it everywhere."""
    count = min(_MOST_COMPARED, len(distances) - 1)
    nearest = np.argpartition(distances, count - 1)[:count]
    nearest = nearest[distances[nearest] <= MOST_BITS]
    own = thumbnails[row]
    differ = np.minimum(
        _largest_difference(own, thumbnails[nearest]),
        _largest_difference(own[:, ::-1], thumbnails[nearest]),
    )
    return np.asarray(nearest[differ <= _MOST_LOCAL], dtype=np.int64)


def _largest_difference(first: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8]) -> FloatArray:
    """``(N,)`` the difference in the worst 2 × 2 pixels, of images of one mean and spread."""
    difference = np.abs(_standardized(first[None]) - _standardized(others))
    half = _SIDE // 2
    blocks = difference.reshape(-1, half, 2, half, 2).mean(axis=(2, 4))
    worst: FloatArray = blocks.max(axis=(1, 2))
    return worst


def _standardized(thumbnails: npt.NDArray[np.uint8]) -> FloatArray:
    values = thumbnails.astype(np.float64)
    values -= values.mean(axis=(1, 2), keepdims=True)
    return np.asarray(values / values.std(axis=(1, 2), keepdims=True))
