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
"""The nearest of many neighbours, which alone are compared in full."""

_MOST_LOCAL = 0.22
"""How far two images of one scene may differ in the place where they differ most, in standard
deviations of their grey values."""

_FLAT = 3.0
"""Grey values that spread by less show nothing that could be compared."""

_MARGIN = 0.05
_LARGEST = 512
_SIDE = 32
_HASH_SIDE = 16
_MOST_NEAR = 500
_ROWS = 64
_PAIRS = 4096

_row, _column = np.divmod(np.arange(_HASH_SIDE**2), _HASH_SIDE)
_COARSE_FIRST = np.argsort(np.maximum(_row, _column), kind="stable")
"""The bits by their frequency: the first 64 are what a hash of 8 × 8 looks at."""

_MOST_COARSE_BITS = 16
"""By which the first 64 bits of near duplicates may differ: 14 for the copies that were planted."""

Codes = npt.NDArray[np.uint64]
"""``(I, 3, 4)`` hashes, 64 bits to a number."""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What an image is compared by.

    Attributes:
        bits: ``(3, 256)`` bool, the hashes of the image, of its middle, and of its mirror image;
            the coarsest bits come first.
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
        return cls(np.array(hashes, dtype=np.bool_)[:, _COARSE_FIRST], small.copy())


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
    if not fingerprints:
        return []
    pairs = near_duplicate_pairs(fingerprints)
    count = len(fingerprints)
    graph = coo_array((np.ones(len(pairs), np.int8), pairs.T), shape=(count, count))
    number, group_of = connected_components(graph, directed=False)
    groups: list[list[int]] = [[] for _ in range(number)]
    for index, group in enumerate(group_of.tolist()):
        groups[group].append(index)
    return [tuple(group) for group in groups if len(group) > 1]


def near_duplicate_pairs(fingerprints: Sequence[Fingerprint | None]) -> IntArray:
    """``(P, 2)`` the positions of two images that show the same, the smaller one first.

    Args:
        fingerprints: I of them; one that is None has no duplicate.
    """
    known = [(index, one) for index, one in enumerate(fingerprints) if one is not None]
    if len(known) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    pairs = _pairs(
        np.array([one.bits for _, one in known]), np.array([one.thumbnail for _, one in known])
    )
    positions: IntArray = np.array([index for index, _ in known])[pairs]
    return positions


def _pairs(bits: BoolArray, thumbnails: npt.NDArray[np.uint8]) -> IntArray:
    """``(P, 2)`` near duplicates, each pair once.

    Args:
        bits: ``(I, 3, 256)``.
        thumbnails: ``(I, 32, 32)``.
    """
    codes: Codes = np.packbits(bits, axis=2).view(np.uint64)  # (I, 3, 4)
    found = [np.zeros((0, 2), dtype=np.int64)]
    is_crowded = np.zeros(len(codes), dtype=np.bool_)
    for start in range(0, len(codes), _ROWS):
        rows, columns, distances = _neighbours(codes, start)
        order = np.lexsort((distances, rows))
        rows, columns = rows[order], columns[order]
        counts = np.bincount(rows, minlength=_ROWS)
        rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        is_crowded[start : start + _ROWS] = counts[: len(codes) - start] > _MANY
        pairs = np.stack([rows + start, columns], axis=1)
        found.append(np.sort(pairs[rank < _MOST_COMPARED], axis=1))
    unique = np.unique(np.concatenate(found), axis=0)
    is_sure: BoolArray = np.asarray(~is_crowded[unique].any(axis=1))
    for start in range(0, len(unique), _PAIRS):
        some = slice(start, start + _PAIRS)
        is_sure[some] |= _agree(thumbnails, unique[some])
    sure: IntArray = unique[is_sure]
    return sure


def _neighbours(codes: Codes, start: int) -> tuple[IntArray, IntArray, IntArray]:
    """Row (from ``start``), column and distance of all that is near to some images."""
    whole = codes[start : start + _ROWS, 0]
    parts = []
    for view in range(codes.shape[1]):
        # Most are told apart by the coarsest quarter of the bits.
        coarse = np.bitwise_count(whole[:, None, 0] ^ codes[None, :, view, 0])
        limit = _MOST_COARSE_BITS
        while limit and np.count_nonzero(coarse <= limit) > _MOST_NEAR * len(whole):
            limit -= 1  # thousands of images of one scene: the nearest are enough
        rows, columns = np.nonzero(coarse <= limit)
        distances = np.bitwise_count(whole[rows] ^ codes[columns, view]).sum(axis=1, dtype=np.int64)
        is_near = (distances <= MOST_BITS) & (rows + start != columns)
        parts.append((rows[is_near], columns[is_near], distances[is_near]))
    rows, columns, distances = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((distances, columns, rows))
    _, first = np.unique(rows[order] * len(codes) + columns[order], return_index=True)
    nearest = order[first]  # of the views
    return rows[nearest], columns[nearest], distances[nearest]


def _agree(thumbnails: npt.NDArray[np.uint8], pairs: IntArray) -> BoolArray:
    """``(P,)`` whether two images, or one and the mirror image of the other, agree everywhere."""
    first, second = (_standardized(thumbnails[column]) for column in pairs.T)
    half = _SIDE // 2
    worst = []
    for other in (second, second[:, :, ::-1]):
        difference = np.abs(first - other).reshape(-1, half, 2, half, 2)
        worst.append(difference.mean(axis=(2, 4)).max(axis=(1, 2)))
    return np.asarray(np.minimum(*worst) <= _MOST_LOCAL)


def _standardized(thumbnails: npt.NDArray[np.uint8]) -> FloatArray:
    values = thumbnails.astype(np.float64)
    values -= values.mean(axis=(1, 2), keepdims=True)
    return np.asarray(values / values.std(axis=(1, 2), keepdims=True))
