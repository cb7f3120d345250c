"""The data types that cross the borders between packages.

Conventions, for the whole project:

- Boxes are float32 ``(x1, y1, x2, y2)`` in absolute pixels; the area of a box is
  ``(x2 - x1) * (y2 - y1)``.
- Sizes are ``(height, width)``.
- Labels are contiguous ``0 .. K-1``; there is no background class.
- Letters in shapes: B images, N objects of one image, M objects of the fullest image of a batch,
  R anchors over all levels, K classes, A anchors per cell, H × W cells of a level.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retina.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    import supervision as sv

Size = tuple[int, int]
"""``(height, width)`` in pixels."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

OriginalId = int | str
"""An id as a file gives it; inside, ids are numbers."""


def _check(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


@dataclass(frozen=True)
class Categories:
    """The classes of a data set: the name and the original id of every contiguous label.

    The label of a category is its position. ``len(categories)`` is K.

    Attributes:
        names: for people.
        dataset_ids: the ids of the file, as numbers.
        original_ids: what stands in the file in the place of a number, where that is another thing.
    """

    names: tuple[str, ...]
    dataset_ids: tuple[int, ...]
    original_ids: Mapping[int, OriginalId] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        _check(
            len(self.names) == len(self.dataset_ids),
            f"{len(self.names)} category names, but {len(self.dataset_ids)} category ids",
        )
        _check(
            len(set(self.dataset_ids)) == len(self.dataset_ids),
            f"category ids are not unique: {self.dataset_ids}",
        )

    @classmethod
    def from_names(cls, names: Sequence[str]) -> Self:
        """Categories that have no ids of their own: ids 1 .. K, as COCO counts."""
        return cls(tuple(names), tuple(range(1, len(names) + 1)))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _label_of(self) -> dict[int, int]:
        return {dataset_id: label for label, dataset_id in enumerate(self.dataset_ids)}

    def label_of(self, dataset_id: int) -> int:
        """The label of an original category id.

        Raises:
            KeyError: no category has this id.
        """
        return self._label_of[dataset_id]

    @cached_property
    def distinct_names(self) -> tuple[str, ...]:
        """The names for tables: with the original id behind each that several categories share."""
        counts = Counter(self.names)
        return tuple(
            name if counts[name] == 1 else f"{name} (id {self.original_id(label)})"
            for label, name in enumerate(self.names)
        )

    def original_id(self, label: int) -> OriginalId:
        """The id of a category as its file has it."""
        number = self.dataset_ids[label]
        return self.original_ids.get(number, number)


@dataclass(frozen=True, slots=True)
class Targets:
    """The annotated objects of one image.

    Attributes:
        boxes: ``(N, 4)`` float32, finite.
        labels: ``(N,)`` int64.
        is_crowd: ``(N,)`` bool; the region of a crowd is neither object nor background.
    """

    boxes: Tensor
    labels: Tensor
    is_crowd: Tensor

    def __post_init__(self) -> None:
        num_objects = self.labels.shape[0]
        _check(
            tuple(self.boxes.shape) == (num_objects, 4)
            and tuple(self.is_crowd.shape) == (num_objects,),
            f"targets disagree: boxes {tuple(self.boxes.shape)}, labels "
            f"{tuple(self.labels.shape)}, is_crowd {tuple(self.is_crowd.shape)}",
        )
        is_finite = self.boxes.isfinite().all(dim=1)
        if not bool(is_finite.all()):
            row = int(is_finite.int().argmin())
            raise ValueError(
                f"object {row} (from 0) has the box {self.boxes[row].tolist()}, which is not "
                "finite: leave such objects out"
            )

    @classmethod
    def empty(cls) -> Self:
        """The targets of an image without objects."""
        return cls(
            boxes=torch.zeros(0, 4),
            labels=torch.zeros(0, dtype=torch.int64),
            is_crowd=torch.zeros(0, dtype=torch.bool),
        )

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def rescaled(self, from_size: Size, to_size: Size) -> Self:
        """The same objects on an image of another size."""
        return replace(self, boxes=_rescaled(self.boxes, from_size, to_size))


@dataclass(frozen=True, slots=True)
class Federation:
    """Which classes were looked for in which images, where not all were in all of them (LVIS).

    A class of which an image has an annotation was looked for there. Of any other, nothing is known
    unless it is listed here as absent.

    Attributes:
        absent: ``(P, 2)`` int64 (row of the image, label): looked for, and not there.
        not_exhaustive: ``(P, 2)`` int64 (row of the image, label): there, but not every object of
            it is annotated.
        frequencies: for each label ``r`` (rare), ``c`` (common) or ``f`` (frequent) in the training
            set.
    """

    absent: IntArray
    not_exhaustive: IntArray
    frequencies: tuple[str, ...]

    def take_images(self, rows: IntArray, num_images: int) -> Self:
        """Only some images, which are the rows 0, 1, … then."""
        new_row = np.full(num_images, -1, dtype=np.int64)
        new_row[rows] = np.arange(len(rows))
        return self._renumbered(0, new_row)

    def relabelled(self, new_labels: IntArray, num_categories: int) -> Self:
        """The same with other labels; what becomes -1 is left out."""
        frequencies = [""] * num_categories
        for old, new in enumerate(new_labels.tolist()):
            if new >= 0:
                frequencies[new] = frequencies[new] or self.frequencies[old]
        return replace(self._renumbered(1, new_labels), frequencies=tuple(frequencies))

    def _renumbered(self, column: int, new_numbers: IntArray) -> Self:
        tables = []
        for table in (self.absent, self.not_exhaustive):
            moved = table.copy()
            moved[:, column] = new_numbers[table[:, column]]
            tables.append(moved[moved[:, column] >= 0])
        return replace(self, absent=tables[0], not_exhaustive=tables[1])


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """What a whole split is scored against: the annotation file's numbers, untouched.

    I images, G annotations.

    Attributes:
        categories: the classes; ``category_labels`` index them.
        image_ids: ``(I,)`` int64, the original ids.
        image_sizes: ``(I, 2)`` int64 (height, width).
        annotation_ids: ``(G,)`` int64, the original ids.
        annotation_image_ids: ``(G,)`` int64, an entry of ``image_ids`` each.
        category_labels: ``(G,)`` int64 contiguous labels.
        boxes_xywh: ``(G, 4)`` float64 ``(x, y, width, height)``.
        areas: ``(G,)`` float64 as annotated (COCO's small/medium/large split uses the mask's area).
        is_crowd: ``(G,)`` bool.
        original_image_ids: what stands in the file in the place of a number of ``image_ids``, where
            that is another thing.
        is_difficult: ``(G,)`` bool, marked so in Pascal VOC's files; None where the format knows no
            such mark. Only VOC's own metric reads it.
        federation: None where every class was looked for in every image.
    """

    categories: Categories
    image_ids: IntArray
    image_sizes: IntArray
    annotation_ids: IntArray
    annotation_image_ids: IntArray
    category_labels: IntArray
    boxes_xywh: FloatArray
    areas: FloatArray
    is_crowd: BoolArray
    original_image_ids: Mapping[int, OriginalId] = field(default_factory=dict)
    is_difficult: BoolArray | None = None
    federation: Federation | None = None

    def __post_init__(self) -> None:
        num_images, num_annotations = len(self.image_ids), len(self.annotation_ids)
        _check(self.image_sizes.shape == (num_images, 2), "image_sizes must be (I, 2)")
        _check(self.boxes_xywh.shape == (num_annotations, 4), "boxes_xywh must be (G, 4)")
        for name in ("annotation_image_ids", "category_labels", "areas", "is_crowd"):
            shape = getattr(self, name).shape
            _check(shape == (num_annotations,), f"{name} must be ({num_annotations},), is {shape}")

    @property
    def ids_in_file(self) -> list[OriginalId]:
        """The id of each image as its file has it, in the order of ``image_ids``."""
        return [self.original_image_ids.get(one, one) for one in self.image_ids.tolist()]

    @property
    def image_indices(self) -> IntArray:
        """``(G,)`` int64, the position of each annotation's image in ``image_ids``."""
        order = np.argsort(self.image_ids)
        found = order[np.searchsorted(self.image_ids, self.annotation_image_ids, sorter=order)]
        return np.asarray(found, dtype=np.int64)

    def take_images(self, rows: IntArray) -> Self:
        """Only some images, in the given order, with their annotations.

        Args:
            rows: positions in ``image_ids``, all different.
        """
        is_taken = np.zeros(len(self.image_ids), dtype=np.bool_)
        is_taken[rows] = True
        keep = is_taken[self.image_indices]
        return replace(
            self,
            image_ids=self.image_ids[rows],
            image_sizes=self.image_sizes[rows],
            annotation_ids=self.annotation_ids[keep],
            annotation_image_ids=self.annotation_image_ids[keep],
            category_labels=self.category_labels[keep],
            boxes_xywh=self.boxes_xywh[keep],
            areas=self.areas[keep],
            is_crowd=self.is_crowd[keep],
            is_difficult=None if self.is_difficult is None else self.is_difficult[keep],
            federation=self.federation and self.federation.take_images(rows, len(self.image_ids)),
        )

    def class_counts(self) -> tuple[int, ...]:
        """The annotated objects of each class, by label; crowd regions not counted."""
        labels = self.category_labels[~self.is_crowd]
        return tuple(np.bincount(labels, minlength=len(self.categories)).tolist())


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One sample that the batch sampler asks a data set for.

    It belongs to the global batch, so a sample is the same whichever worker or rank makes it.

    Attributes:
        index: which image, ``0 .. len(dataset) - 1``.
        seed: the only source of randomness for this sample's augmentation.
        max_size: the largest (height, width) for the augmented image, which is scaled to reach one
            of the two and keeps its aspect ratio; None leaves its size alone.
        stretch: scale both sides to exactly ``max_size`` instead of keeping the aspect ratio.
        augment: whether to apply the augmentations.
        pad_at_least: the height and width that hold every resized image of its global batch, so
            that every rank and every micro-batch pads to the same size; None leaves it to the
            images that come together.
    """

    index: int
    seed: int
    max_size: Size | None
    stretch: bool = False
    augment: bool = True
    pad_at_least: Size | None = None


@dataclass(frozen=True, slots=True)
class UnreadableImage:
    """An image file that could not be read, and in whose place another image was taken.

    Attributes:
        file: its path.
        reason: the message that it would have been refused with, which names the file.
    """

    file: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its objects, after augmentation and resizing.

    Attributes:
        image: ``(3, H, W)`` uint8 RGB; memory may be channels-last.
        targets: the objects, in pixels of ``image``.
        image_id: the original id.
        unreadable: the files that others took the place of.
        pad_at_least: as in its `SampleRequest`.
    """

    image: Tensor
    targets: Targets
    image_id: int
    unreadable: tuple[UnreadableImage, ...] = ()
    pad_at_least: Size | None = None

    def __post_init__(self) -> None:
        _check(
            self.image.ndim == 3 and self.image.shape[0] == 3 and self.image.dtype == torch.uint8,
            f"a sample's image must be (3, H, W) uint8, is {tuple(self.image.shape)} "
            f"{self.image.dtype}",
        )

    @property
    def size(self) -> Size:
        """The size of ``image``."""
        return int(self.image.shape[1]), int(self.image.shape[2])


@dataclass(frozen=True, slots=True)
class BatchedTargets:
    """The objects of a batch, padded to the M of the fullest image.

    Attributes:
        boxes: ``(B, M, 4)`` float32, zero where there is no object.
        labels: ``(B, M)`` int64, zero where there is no object.
        is_crowd: ``(B, M)`` bool.
        is_object: ``(B, M)`` bool, False where the row is padding.
        crowd_rows: the rows of M in which any image has a crowd region, known on the host as well.
    """

    boxes: Tensor
    labels: Tensor
    is_crowd: Tensor
    is_object: Tensor
    crowd_rows: tuple[int, ...]

    def __post_init__(self) -> None:
        rows = tuple(self.labels.shape)
        _check(tuple(self.boxes.shape) == (*rows, 4), "boxes must be (B, M, 4)")
        _check(tuple(self.is_crowd.shape) == rows, "is_crowd must be (B, M)")
        _check(tuple(self.is_object.shape) == rows, "is_object must be (B, M)")

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    @property
    def is_matchable(self) -> Tensor:
        """``(B, M)`` bool, the objects that anchors may answer for: no crowd, and a finite box."""
        return self.is_object & ~self.is_crowd & self.boxes.isfinite().all(dim=-1)

    @classmethod
    def from_targets(cls, targets: Sequence[Targets]) -> Self:
        """Pad the objects of several images to the fullest one (at least one row)."""
        num_rows = max([1, *(len(target) for target in targets)])
        batch = len(targets)
        boxes = torch.zeros(batch, num_rows, 4)
        labels = torch.zeros(batch, num_rows, dtype=torch.int64)
        is_crowd = torch.zeros(batch, num_rows, dtype=torch.bool)
        is_object = torch.zeros(batch, num_rows, dtype=torch.bool)
        for row, target in enumerate(targets):
            count = len(target)
            boxes[row, :count] = target.boxes
            labels[row, :count] = target.labels
            is_crowd[row, :count] = target.is_crowd
            is_object[row, :count] = True
        crowd_rows = tuple(is_crowd.any(dim=0).nonzero().flatten().tolist())
        return cls(boxes, labels, is_crowd, is_object, crowd_rows)

    def rescaled(self, from_sizes: Sequence[Size], to_sizes: Sequence[Size]) -> Self:
        """The same objects where each image is resized between these (height, width)."""
        factors = torch.tensor(
            [
                [to[1] / of[1], to[0] / of[0]] * 2
                for of, to in zip(from_sizes, to_sizes, strict=True)
            ],
            device=self.boxes.device,
        )
        return replace(self, boxes=self.boxes * factors.unsqueeze(1))

    def map_tensors(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same objects with a function applied to every tensor."""
        return type(self)(
            boxes=function(self.boxes),
            labels=function(self.labels),
            is_crowd=function(self.is_crowd),
            is_object=function(self.is_object),
            crowd_rows=self.crowd_rows,
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = True) -> Self:
        """The same objects on a device."""
        return self.map_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples stacked for the device; images and objects are padded to common sizes.

    Attributes:
        images: ``(B, 3, H, W)`` uint8, channels-last in memory, zero outside the valid sizes.
        valid_sizes: ``(B, 2)`` int64 (height, width) of each image without the padding.
        targets: the objects, in pixels of ``images``.
        image_ids: the original ids.
        image_sizes: ``valid_sizes`` as host integers, so that no one has to wait for the device.
        unreadable: the files that others took the place of.
    """

    images: Tensor
    valid_sizes: Tensor
    targets: BatchedTargets
    image_ids: tuple[int, ...]
    image_sizes: tuple[Size, ...]
    unreadable: tuple[UnreadableImage, ...] = ()

    def __post_init__(self) -> None:
        batch = len(self.targets)
        _check(self.images.ndim == 4 and self.images.shape[1] == 3, "images must be (B, 3, H, W)")
        _check(len(self.images) == batch, f"{len(self.images)} images, but targets of {batch}")
        _check(tuple(self.valid_sizes.shape) == (batch, 2), "valid_sizes must be (B, 2)")
        _check(len(self.image_ids) == batch, f"{len(self.image_ids)} image ids for {batch} images")

    def __len__(self) -> int:
        return int(self.images.shape[0])

    @property
    def padded_size(self) -> Size:
        """The size of ``images``, padding included."""
        return int(self.images.shape[2]), int(self.images.shape[3])

    def _map_tensors(self, function: Callable[[Tensor], Tensor]) -> Self:
        return replace(
            self,
            images=function(self.images),
            valid_sizes=function(self.valid_sizes),
            targets=self.targets.map_tensors(function),
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = True) -> Self:
        """This batch with every tensor on ``device``."""
        return self._map_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """This batch in page-locked memory; a DataLoader with ``pin_memory=True`` calls it."""
        return self._map_tensors(Tensor.pin_memory)

    def share_memory(self) -> Self:
        """This batch in memory that another process can be handed."""
        return self._map_tensors(Tensor.share_memory_)


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Samples one after the other, each image of its own size: what an evaluation takes.

    Attributes:
        pixels: ``(P,)`` uint8, the rows of RGB pixels of all images in one piece, so that a worker
            process hands over few tensors, however many images there are.
        image_sizes: (height, width) of each image.
        targets: the objects, in pixels of their image.
        image_ids: the original ids.
    """

    pixels: Tensor
    image_sizes: tuple[Size, ...]
    targets: BatchedTargets
    image_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.image_sizes)

    @property
    def images(self) -> list[Tensor]:
        """Each image ``(3, height, width)``, views of ``pixels``."""
        counts = [height * width * 3 for height, width in self.image_sizes]
        pieces = torch.split(self.pixels, counts)
        return [
            piece.view(*size, 3).permute(2, 0, 1)
            for piece, size in zip(pieces, self.image_sizes, strict=True)
        ]

    def _map_tensors(self, function: Callable[[Tensor], Tensor]) -> Self:
        targets = self.targets.map_tensors(function)
        return replace(self, pixels=function(self.pixels), targets=targets)

    def pin_memory(self) -> Self:
        """This batch in page-locked memory; a DataLoader with ``pin_memory=True`` calls it."""
        return self._map_tensors(Tensor.pin_memory)

    def share_memory(self) -> Self:
        """This batch in memory that another process can be handed."""
        return self._map_tensors(Tensor.share_memory_)


@dataclass(frozen=True, slots=True)
class Anchors:
    """The anchors of one padded image size, over all levels, finest level first.

    Attributes:
        boxes: ``(R, 4)``, float32 always, also when the network computes in bf16.
        num_per_level: how many of the R rows belong to each level.
        num_per_cell: A of each level.
    """

    boxes: Tensor
    num_per_level: tuple[int, ...]
    num_per_cell: tuple[int, ...]

    def __post_init__(self) -> None:
        _check(self.boxes.dtype == torch.float32, f"anchors must be float32: {self.boxes.dtype}")
        _check(
            tuple(self.boxes.shape) == (sum(self.num_per_level), 4),
            f"{tuple(self.boxes.shape)} anchors for levels of {self.num_per_level}",
        )

    def __len__(self) -> int:
        return int(self.boxes.shape[0])


@dataclass(frozen=True, slots=True)
class DensePredictions:
    """What the heads say at every anchor, level by level, finest first.

    Attributes:
        class_logits: per level ``(B, H, W, A, K)``, views of channels-last convolution outputs.
        box_codes: per level ``(B, H, W, A, C)``, what the detector's box coder makes boxes of: 4
            deltas, or the logits of four distributions.
    """

    class_logits: tuple[Tensor, ...]
    box_codes: tuple[Tensor, ...]

    @property
    def feature_shapes(self) -> tuple[Size, ...]:
        """(H, W) of every level."""
        return tuple((int(level.shape[1]), int(level.shape[2])) for level in self.class_logits)

    def flatten(self) -> tuple[Tensor, Tensor]:
        """All levels in one: class logits ``(B, R, K)`` and box codes ``(B, R, C)`` (copies)."""
        return (
            torch.cat([level.flatten(1, 3) for level in self.class_logits], dim=1),
            torch.cat([level.flatten(1, 3) for level in self.box_codes], dim=1),
        )


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which object each anchor of each image answers for.

    An anchor that is neither foreground nor ignored is background.

    Attributes:
        target_index: ``(B, R)`` int64, the row of the object in its image; meaningful where
            ``is_foreground``, zero elsewhere.
        is_foreground: ``(B, R)`` bool.
        is_ignored: ``(B, R)`` bool; such an anchor takes no part in any loss.
    """

    target_index: Tensor
    is_foreground: Tensor
    is_ignored: Tensor


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found in one image, highest score first.

    Attributes:
        boxes: ``(N, 4)`` float32, in pixels.
        scores: ``(N,)`` float32 in 0..1.
        labels: ``(N,)`` int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        num_detections = self.scores.shape[0]
        _check(
            tuple(self.boxes.shape) == (num_detections, 4)
            and tuple(self.labels.shape) == (num_detections,),
            f"detections disagree: boxes {tuple(self.boxes.shape)}, scores "
            f"{tuple(self.scores.shape)}, labels {tuple(self.labels.shape)}",
        )

    def __len__(self) -> int:
        return int(self.scores.shape[0])

    def rescaled(self, from_size: Size, to_size: Size) -> Self:
        """The same detections on an image of another size.

        The factors are float32 quotients, as in torchvision's ``resize_boxes``.
        """
        if from_size == to_size:
            return self
        return replace(self, boxes=_rescaled(self.boxes, from_size, to_size))

    def at_least(self, threshold: float | Tensor) -> Self:
        """Only the detections whose score is at least the threshold.

        Args:
            threshold: of all classes, or ``(K,)`` float64 with that of each.
        """
        least = threshold[self.labels] if isinstance(threshold, Tensor) else threshold
        # In float64, so that a threshold between two scores stays between them.
        keep = self.scores.double() >= least
        return type(self)(self.boxes[keep], self.scores[keep], self.labels[keep])

    def cpu(self) -> Self:
        """The same detections in host memory."""
        return type(self)(self.boxes.cpu(), self.scores.cpu(), self.labels.cpu())

    def to_supervision(self, categories: Categories) -> sv.Detections:
        """The same as an object of the library supervision, for its annotators and trackers.

        Args:
            categories: give the names, ``data["class_name"]``; ``class_id`` is the label.

        Raises:
            UserError: supervision is not installed, or these are not the categories of what was
                found.
        """
        from retina.interchange import supervision_detections

        found = self._of_categories(categories)
        return supervision_detections(
            found.boxes.numpy(), found.scores.numpy(), found.labels.numpy(), categories.names
        )

    def to_pandas(self, categories: Categories) -> pd.DataFrame:
        """The same as a table with a row for each.

        Args:
            categories: give the ids and names.

        Returns:
            The columns ``x1``, ``y1``, ``x2``, ``y2`` (pixels), ``score``, ``label``,
            ``category_id`` (of the data set), ``category_name``; of the same types where nothing
            was found.

        Raises:
            UserError: as for `to_supervision`, with pandas.
        """
        from retina.interchange import data_frame

        found = self._of_categories(categories)
        if not len(self) and len(categories):  # pandas takes the types from the rows
            row = type(self)(torch.zeros(1, 4), torch.zeros(1), torch.zeros(1, dtype=torch.int64))
            return row.to_pandas(categories).iloc[:0]
        labels = found.labels.tolist()
        ids = [categories.original_id(label) for label in range(len(categories))]
        are_numbers = all(isinstance(one, int) for one in ids)
        return data_frame(
            {
                **dict(zip(("x1", "y1", "x2", "y2"), found.boxes.numpy().T, strict=True)),
                "score": found.scores.numpy(),
                "label": found.labels.numpy(),
                "category_id": np.array(ids, dtype=np.int64 if are_numbers else object)[labels],
                "category_name": [categories.names[label] for label in labels],
            }
        )

    def _of_categories(self, categories: Categories) -> Self:
        """These in host memory, of categories that they can be of."""
        if not isinstance(categories, Categories):
            raise UserError(
                f"categories: a {type(categories).__name__} is given; give those of the detector, "
                "detector.categories"
            )
        found = self.cpu()
        most = max(found.labels.tolist(), default=-1)
        if most >= len(categories):
            raise UserError(
                f"categories: has {len(categories)}, and something of number {most} (from 0) was "
                "found; give those of the detector, detector.categories"
            )
        return found


def _rescaled(boxes: Tensor, from_size: Size, to_size: Size) -> Tensor:
    ratio_y, ratio_x = (
        torch.tensor(to, dtype=torch.float32) / torch.tensor(of, dtype=torch.float32)
        for to, of in zip(to_size, from_size, strict=True)
    )
    return boxes * torch.stack([ratio_x, ratio_y, ratio_x, ratio_y]).to(boxes.device)
