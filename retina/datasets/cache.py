"""Decoded images kept in memory that all worker processes share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from retina.datasets.dataset import Image
from retina.structures import IntArray

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps shared memory; a container may give it little room."""

SHARE_OF_FREE_MEMORY = 0.7
"""How much of the free shared memory the cache may take; workers hand batches over through it."""


class ImageCache:
    """Decoded images, each kept from its first use on.

    Every image has its own place in one block of shared memory, so workers find what another one
    has decoded, whether they are forked or spawned, and the block fills only as images are used.
    The images that do not fit below the limit (the last ones) are decoded every time. Each rank of
    a run holds its own block.

    Args:
        image_sizes: ``(I, 2)`` height and width of all images.
        limit_bytes: of the block; less where the machine has less shared memory to give.
    """

    def __init__(self, image_sizes: IntArray, *, limit_bytes: int) -> None:
        limit = min(limit_bytes, _free_shared_memory())
        # Annotated sizes may be anything below 2³¹; their products would not fit into integers.
        ends = np.cumsum(image_sizes.astype(np.float64).prod(axis=1) * 3)
        self._sizes = image_sizes
        self._ends = ends[ends <= min(limit, 2**53)].astype(np.int64)
        self._pixels = _shared(int(self._ends[-1]) if len(self._ends) else 0)
        self._is_filled = _shared(len(self._ends))

    def __len__(self) -> int:
        """How many images there is room for."""
        return len(self._ends)

    @property
    def num_bytes(self) -> int:
        """The size of the shared memory that holds the images, in bytes."""
        return int(self._pixels.nbytes)

    def get(self, index: int, decode: Callable[[], Image]) -> Image:
        """An image, decoded if need be; the caller may write to it."""
        if index >= len(self):
            return decode()
        height, width = self._sizes[index].tolist()
        end = int(self._ends[index])
        place = self._pixels.numpy()[end - height * width * 3 : end].reshape(height, width, 3)
        if self._is_filled[index]:
            return place.copy()
        image = decode()
        place[:] = image
        # Only after the pixels. Two workers may do this at once: they write the same bytes.
        self._is_filled[index] = 1
        return image


def _shared(num_bytes: int) -> Tensor:
    # A tensor, since these are handed to spawned workers by reference; an array would be copied.
    return torch.zeros(num_bytes, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call,no-any-return]


def _free_shared_memory() -> int:
    if not SHARED_MEMORY.is_dir():
        return 1 << 62  # not Linux: the limit of the user is the only one
    return int(shutil.disk_usage(SHARED_MEMORY).free * SHARE_OF_FREE_MEMORY)
