"""What every data set is to the rest of the project, whatever its format on disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch

from retina.errors import UnreadableImageError
from retina.geometry.resizing import fit_into
from retina.structures import (
    BoolArray,
    Categories,
    FloatArray,
    GroundTruth,
    IntArray,
    Sample,
    SampleRequest,
    Size,
    Targets,
    UnreadableImage,
)

Image = npt.NDArray[np.uint8]
"""``(H, W, 3)`` uint8 RGB, C-contiguous."""


MAX_ATTEMPTS = 10
"""How many images are tried in the place of one; where none of them can be read, most of the set
cannot, and that is an error."""

_NUM_CANDIDATES = 50


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One decoded image with its objects, as augmentations see it.

    Attributes:
        image: ``(H, W, 3)`` uint8 RGB.
        boxes: ``(N, 4)`` float32 (x1, y1, x2, y2), inside the image, of positive width and height.
        labels: ``(N,)`` int64.
        is_crowd: ``(N,)`` bool.
    """

    image: Image
    boxes: npt.NDArray[np.float32]
    labels: IntArray
    is_crowd: BoolArray

    @property
    def size(self) -> Size:
        """Height and width of the image."""
        return int(self.image.shape[0]), int(self.image.shape[1])


class Augmentation(Protocol):
    """A random change of an annotated image whose only source of randomness is the seed."""

    def __call__(
        self,
        annotated: AnnotatedImage,
        *,
        seed: int,
        load_partner: Callable[[int], AnnotatedImage],
        num_images: int,
    ) -> AnnotatedImage:
        """The changed image; ``load_partner(i)`` reads another image of the same set (mosaic)."""
        ...


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """What reading a split found and did, to be reported once.

    Attributes:
        num_images: images of the split.
        num_boxes: boxes kept for training, crowd regions not counted.
        num_crowd: crowd regions.
        num_empty_images: images without a box (they are kept).
        findings: one plain sentence each, with counts: repaired boxes, dropped boxes, categories
            left out, orientation ignored …
    """

    num_images: int
    num_boxes: int
    num_crowd: int
    num_empty_images: int
    findings: tuple[str, ...] = field(default=())


class DetectionDataset(ABC, torch.utils.data.Dataset[Sample]):
    """A split of annotated images.

    Attributes:
        augmentation: applied to the samples whose request asks for it; None changes nothing.
        antialias: whether images are shrunk with an area filter (else bilinear without antialias).
        max_unreadable: how many files of the set may be unreadable, so that other images take their
            place in training; 0 makes the first one an error. An evaluation never replaces one.
    """

    augmentation: Augmentation | None = None
    antialias: bool = False
    max_unreadable: int = 0

    @property
    @abstractmethod
    def categories(self) -> Categories:
        """Names and original ids of the classes; the labels of the objects index them."""

    @property
    @abstractmethod
    def image_ids(self) -> IntArray:
        """``(I,)`` the original ids, by index."""

    @property
    @abstractmethod
    def image_sizes(self) -> IntArray:
        """``(I, 2)`` annotated height and width, by index; known without decoding an image."""

    @property
    @abstractmethod
    def report(self) -> DatasetReport:
        """What reading the split found."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of images."""

    @abstractmethod
    def file_path(self, index: int) -> str:
        """The path of an image file, for messages."""

    @abstractmethod
    def targets(self, index: int) -> Targets:
        """The repaired objects in pixels of the original image, which is not decoded."""

    @abstractmethod
    def class_counts(self) -> tuple[int, ...]:
        """The number of repaired objects of each class, crowd regions not counted."""

    @abstractmethod
    def load(self, index: int) -> AnnotatedImage:
        """Decode an image, with its objects.

        Raises:
            UnreadableImageError: the file cannot be read as an image; the message names it.
        """

    @abstractmethod
    def ground_truth(self) -> GroundTruth:
        """What the evaluator scores against: untouched by any repair, no image decoded."""

    @property
    def truth_findings(self) -> tuple[str, ...]:
        """What reading the split found of the ground truth, which no repair touches."""
        return self.report.findings

    def occluded_fractions(self) -> FloatArray:
        """``(G,)`` how much of each annotated object something hides; NaN where not annotated."""
        return np.full(len(self.ground_truth().annotation_ids), np.nan)

    def __getitem__(self, request: SampleRequest) -> Sample:
        """The sample that was asked for.

        Raises:
            UnreadableImageError: its file cannot be read, or too few others in its place.
        """
        load, index = self.load, request.index
        substitution = None
        if self.max_unreadable and request.augment:
            substitution = Substitution(self, request.seed)
            load = substitution.load
            annotated, index = substitution.load_with_index(index)
        else:
            annotated = load(index)
        if request.augment and self.augmentation is not None:
            annotated = self.augmentation(
                annotated, seed=request.seed, load_partner=load, num_images=len(self)
            )
        if request.max_size is not None:
            size = (
                request.max_size if request.stretch else fit_into(annotated.size, request.max_size)
            )
            annotated = resize(annotated, size, antialias=self.antialias)
        return Sample(
            # A copy of what may not be written to: torch warns of tensors that share it.
            image=torch.from_numpy(np.require(annotated.image, requirements="W")).permute(2, 0, 1),
            targets=Targets(
                boxes=torch.from_numpy(annotated.boxes),
                labels=torch.from_numpy(annotated.labels),
                is_crowd=torch.from_numpy(annotated.is_crowd),
            ),
            image_id=int(self.image_ids[index]),
            pad_at_least=request.pad_at_least,
            unreadable=() if substitution is None else tuple(substitution.unreadable),
        )


def resize(annotated: AnnotatedImage, size: Size, *, antialias: bool) -> AnnotatedImage:
    """The image and its boxes at another size."""
    height, width = annotated.size
    if size == (height, width):
        return annotated
    shrinks = antialias and (size[0] < height or size[1] < width)
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    image = cv2.resize(annotated.image, (size[1], size[0]), interpolation=interpolation)
    factors = np.array([size[1] / width, size[0] / height] * 2, dtype=np.float32)
    return AnnotatedImage(
        image=np.ascontiguousarray(image, dtype=np.uint8),
        boxes=annotated.boxes * factors,
        labels=annotated.labels,
        is_crowd=annotated.is_crowd,
    )


class Substitution:
    """Reads the images of one sample, with others in the place of those that cannot be read.

    A batch keeps its size and the ranks stay in step when a file is damaged or gone. Which image
    takes its place follows from the request alone, so it is the same in every worker, on every
    rank and after a resume, as long as the same files cannot be read.

    Args:
        dataset: what the images are from.
        seed: of the sample's request.

    Attributes:
        unreadable: the files that could not be read so far.
    """

    def __init__(self, dataset: DetectionDataset, seed: int) -> None:
        self._dataset = dataset
        self._seed = seed
        self.unreadable: list[UnreadableImage] = []

    def load(self, index: int) -> AnnotatedImage:
        """An image of the set, or the one in its place."""
        return self.load_with_index(index)[0]

    def load_with_index(self, index: int) -> tuple[AnnotatedImage, int]:
        """The same, and the index of the image that was read.

        Raises:
            UnreadableImageError: neither it nor any image tried in its place can be read.
        """
        try:
            return self._dataset.load(index), index
        except UnreadableImageError as error:
            self._record(index, error)
            refusal = error
        for other in self._candidates(index):
            try:
                return self._dataset.load(other), other
            except UnreadableImageError as error:
                self._record(other, error)
        raise refusal

    def _record(self, index: int, error: UnreadableImageError) -> None:
        self.unreadable.append(UnreadableImage(self._dataset.file_path(index), str(error)))

    def _candidates(self, index: int) -> list[int]:
        """Images to try: drawn at random, those of the same orientation first.

        The batch was made for the shape of the missing image: an upright one would waste half of a
        wide one.
        """
        sizes = self._dataset.image_sizes
        drawn = np.random.default_rng((self._seed, index)).integers(
            len(sizes), size=_NUM_CANDIDATES
        )
        is_wide = sizes[:, 1] >= sizes[:, 0]
        order = np.argsort(is_wide[drawn] != is_wide[index], kind="stable")
        others = dict.fromkeys(drawn[order].tolist())
        return [other for other in others if other != index][:MAX_ATTEMPTS]
