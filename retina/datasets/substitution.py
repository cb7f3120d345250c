"""Other images in the place of those whose files cannot be read.

A batch keeps its size and the ranks stay in step when a file is damaged or gone: another image of
the same set takes its place. Which one follows from the request alone, so it is the same in every
worker, on every rank and after a resume, as long as the same files cannot be read.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import numpy as np

from retina.errors import UnreadableImageError
from retina.structures import IntArray, UnreadableImage

T_co = TypeVar("T_co", covariant=True)

MAX_ATTEMPTS = 10
"""How many images are tried in the place of one; where none of them can be read, most of the set
cannot, and that is an error."""

_NUM_CANDIDATES = 50


class ImageSet(Protocol[T_co]):
    """What images are read from, a `DetectionDataset`."""

    @property
    def image_sizes(self) -> IntArray:
        """``(I, 2)`` height and width."""
        ...

    def load(self, index: int) -> T_co:
        """An image, or an `UnreadableImageError`."""
        ...

    def file_path(self, index: int) -> str:
        """Its file, for messages."""
        ...


class Substitution(Generic[T_co]):
    """Reads the images of one sample, and notes which of them others took the place of.

    Args:
        dataset: what the images are from.
        seed: of the sample's request.

    Attributes:
        unreadable: the files that could not be read so far.
    """

    def __init__(self, dataset: ImageSet[T_co], seed: int) -> None:
        self._dataset = dataset
        self._seed = seed
        self.unreadable: list[UnreadableImage] = []

    def load(self, index: int) -> T_co:
        """An image of the set, or the one in its place."""
        return self.load_with_index(index)[0]

    def load_with_index(self, index: int) -> tuple[T_co, int]:
        """The same, and the index of the image that was read.

        Raises:
            UnreadableImageError: neither it nor any image tried in its place can be read.
        """
        try:
            return self._dataset.load(index), index
        except UnreadableImageError as error:
            self._note(index, error)
            refusal = error
        for other in self._candidates(index):
            try:
                return self._dataset.load(other), other
            except UnreadableImageError as error:
                self._note(other, error)
        raise refusal

    def _note(self, index: int, error: UnreadableImageError) -> None:
        self.unreadable.append(UnreadableImage(self._dataset.file_path(index), str(error)))

    def _candidates(self, index: int) -> list[int]:
        """Images to try: drawn at random, those of the same orientation first.

        The canvas was planned for the missing image; an upright one would waste half of a wide one.
        """
        sizes = self._dataset.image_sizes
        drawn = np.random.default_rng((self._seed, index)).integers(
            len(sizes), size=_NUM_CANDIDATES
        )
        is_wide = sizes[:, 1] >= sizes[:, 0]
        order = np.argsort(is_wide[drawn] != is_wide[index], kind="stable")
        others = dict.fromkeys(drawn[order].tolist())
        return [other for other in others if other != index][:MAX_ATTEMPTS]
