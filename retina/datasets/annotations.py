"""The annotations of a split as arrays, the same for every format on disk.

Letters: I images, G annotations.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import Self

import numpy as np
import numpy.typing as npt

from retina.errors import UserError
from retina.structures import (
    BoolArray,
    Categories,
    Federation,
    FloatArray,
    GroundTruth,
    IntArray,
    OriginalId,
)
from retina.wording import counted

NameArray = npt.NDArray[np.bytes_]
"""UTF-8 names; an array instead of Python strings, since worker processes share its memory."""


_LONGEST_NAME = 4096
"""Of a file name, with its folders: no system takes more."""


def name_array(names: Sequence[str]) -> NameArray:
    """``(N,)`` the names, encoded."""
    return np.array([name.encode() for name in names], dtype=np.bytes_)


def path_fault(name: str) -> str:
    """What is wrong with a file name that would lead out of its folder, or nothing."""
    if len(name) > _LONGEST_NAME:
        return f"{name[:60]!r}… is longer than {_LONGEST_NAME} characters"
    if name.isascii() and name[:1].isalnum() and not {":", "\0"} & set(name) and ".." not in name:
        return ""  # the usual name; parsing it twice for a hundred thousand images takes seconds
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if not name or "\0" in name or path.anchor or ".." in path.parts:
            return (
                f"{name!r} does not name a file below the image folder; only relative paths "
                "without '..' are read"
            )
    return text_fault(name)


def refuse_outside_path(name: str, where: str) -> None:
    """Raise a `UserError` for a file name that would lead out of its folder."""
    if fault := path_fault(name):
        raise UserError(f"{where}: {fault}")


def text_fault(text: str) -> str:
    """What is wrong with a name that no terminal and no file should be given, or nothing.

    Control characters can give a terminal orders, and lone halves of surrogate pairs, which JSON
    can spell, can be neither printed nor written.
    """
    if not text.isprintable() and any(
        unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\t\n\r" for letter in text
    ):
        return f"{text[:60]!r} is no valid text"
    return ""


@dataclass(frozen=True, slots=True)
class AnnotationTable:
    """Everything that the annotations of a split say, unrepaired.

    Attributes:
        source: the annotation file or folder, for messages.
        categories: all that the format lists; ``labels`` index them.
        image_ids: ``(I,)`` int64, unique.
        file_names: ``(I,)`` paths below the image folder.
        image_sizes: ``(I, 2)`` int64 height and width, ``(0, 0)`` where not given.
        annotation_ids: ``(G,)`` int64, unique.
        image_indices: ``(G,)`` int64, the row of each annotation's image.
        labels: ``(G,)`` int64.
        boxes_xywh: ``(G, 4)`` float64.
        areas: ``(G,)`` float64, NaN where not given.
        is_crowd: ``(G,)`` bool.
        occluded_fractions: ``(G,)`` float64, how much of each object something hides; NaN where not
            given.
        findings: what reading them found, one sentence each.
        original_image_ids: what stands in the files in the place of a number of ``image_ids``,
            where that is another thing.
        image_aliases: further ids that the files give an image, and its id here.
        in_fractions: whether the boxes are in fractions of the image's width and height, until the
            sizes of the images are known: see `in_pixels`.
        is_difficult: as in `GroundTruth`.
        federation: as in `GroundTruth`.
    """

    source: str
    categories: Categories
    image_ids: IntArray
    file_names: NameArray
    image_sizes: IntArray
    annotation_ids: IntArray
    image_indices: IntArray
    labels: IntArray
    boxes_xywh: FloatArray
    areas: FloatArray
    is_crowd: BoolArray
    occluded_fractions: FloatArray
    findings: tuple[str, ...] = ()
    original_image_ids: Mapping[int, OriginalId] = field(default_factory=dict)
    image_aliases: Mapping[int, int] = field(default_factory=dict)
    in_fractions: bool = False
    is_difficult: BoolArray | None = None
    federation: Federation | None = None

    @property
    def num_images(self) -> int:
        """I: how many images the table lists, those without an annotation included."""
        return len(self.image_ids)

    def file_name(self, image_index: int) -> str:
        """The path of an image below the image folder."""
        return bytes(self.file_names[image_index]).decode()

    def with_findings(self, *findings: str) -> Self:
        """The same with more findings; empty ones are left out."""
        return replace(self, findings=(*self.findings, *filter(None, findings)))

    def take_annotations(self, keep: BoolArray | IntArray) -> Self:
        """Only some annotations; every image stays."""
        return replace(
            self,
            annotation_ids=self.annotation_ids[keep],
            image_indices=self.image_indices[keep],
            labels=self.labels[keep],
            boxes_xywh=self.boxes_xywh[keep],
            areas=self.areas[keep],
            is_crowd=self.is_crowd[keep],
            occluded_fractions=self.occluded_fractions[keep],
            is_difficult=None if self.is_difficult is None else self.is_difficult[keep],
        )

    def take_images(self, indices: IntArray) -> Self:
        """Only some images, in the given order, with their annotations."""
        new_index = np.full(self.num_images, -1, dtype=np.int64)
        new_index[indices] = np.arange(len(indices))
        images = replace(
            self,
            image_ids=self.image_ids[indices],
            file_names=self.file_names[indices],
            image_sizes=self.image_sizes[indices],
            image_indices=new_index[self.image_indices],
            federation=self.federation and self.federation.take_images(indices, self.num_images),
        )
        return images.take_annotations(images.image_indices >= 0)

    def relabelled(self, categories: Categories, new_labels: IntArray) -> Self:
        """The same with other categories.

        Args:
            categories: the new ones.
            new_labels: the new label of every old one; annotations of -1 are left out.
        """
        table = replace(
            self,
            categories=categories,
            labels=new_labels[self.labels],
            federation=self.federation and self.federation.relabelled(new_labels, len(categories)),
        )
        return table.take_annotations(table.labels >= 0)

    def ground_truth(self) -> GroundTruth:
        """The annotations for scoring, as they stand: nothing is clipped or dropped."""
        return GroundTruth(
            categories=self.categories,
            image_ids=self.image_ids,
            image_sizes=self.image_sizes,
            annotation_ids=self.annotation_ids,
            annotation_image_ids=self.image_ids[self.image_indices],
            category_labels=self.labels,
            boxes_xywh=self.boxes_xywh,
            areas=self.areas,
            is_crowd=self.is_crowd,
            original_image_ids=self.original_image_ids,
            is_difficult=self.is_difficult,
            federation=self.federation,
        )

    def describe(self, annotation: int) -> str:
        """An annotation in words, for messages."""
        name = self.file_name(int(self.image_indices[annotation]))
        return f"annotation {self.annotation_ids[annotation]} of '{name}'"


def random_subset(
    table: AnnotationTable,
    *,
    fraction: float | None,
    leave_out_fraction: float | None,
    max_images: int | None,
    seed: int,
) -> AnnotationTable:
    """A random part of the images, in their old order.

    Parts with the same seed are nested: a smaller one lies within a larger one.

    Args:
        table: the whole.
        fraction: of the images, rounded, at least one image.
        leave_out_fraction: choose among the images that this fraction does not choose.
        max_images: at most so many; together with a fraction the smaller part is taken.
        seed: of the choice.

    Raises:
        UserError: no image is left.
    """
    left_out = _part(leave_out_fraction, table.num_images) if leave_out_fraction else 0
    rest = table.num_images - left_out
    if not rest:
        raise UserError(
            f"{table.source}: leave_out_fraction {leave_out_fraction:g} of "
            f"{counted(table.num_images, 'image')} leaves none"
        )
    wanted = min(rest, *([] if max_images is None else [max_images]), _part(fraction, rest))
    if wanted == table.num_images:
        return table
    order = np.random.default_rng(seed).permutation(table.num_images)[left_out:]
    return table.take_images(np.sort(order[:wanted])).with_findings(
        f"{wanted} of {table.num_images} images are used, chosen by the subset seed {seed}"
    )


def _part(fraction: float | None, count: int) -> int:
    return count if fraction is None else max(1, round(fraction * count))


def in_pixels(table: AnnotationTable) -> AnnotationTable:
    """The table with its boxes in pixels.

    Args:
        table: with known image sizes.
    """
    if not table.in_fractions:
        return table
    sides = table.image_sizes[table.image_indices][:, [1, 0, 1, 0]]
    boxes = (table.boxes_xywh * sides).round(6)  # without the last bits, which are but noise
    areas = np.abs(boxes[:, 2] * boxes[:, 3])
    return replace(table, boxes_xywh=boxes, areas=areas, in_fractions=False)


def without_a_box(table: AnnotationTable) -> tuple[tuple[str, BoolArray], ...]:
    """Why some annotations have no box that anyone could find, and which, ``(G,)`` bool."""
    finite = np.asarray(np.isfinite(table.boxes_xywh).all(axis=1), dtype=np.bool_)
    # -1 is how tools write that they do not know it.
    is_unknown = np.asarray((table.boxes_xywh[:, 2:] == -1).any(axis=1), dtype=np.bool_)
    return (
        ("with a coordinate that is not finite", ~finite),
        ("of a width or height of -1 (unknown)", finite & is_unknown),
    )


def complete_areas(table: AnnotationTable) -> AnnotationTable:
    """Fill in width × height where no area is given, and leave out what has no box.

    A box that is no number, or unknown, is none for the evaluator either, so this is the one repair
    that the ground truth sees too.
    """
    findings = []
    unusable = np.zeros(len(table.labels), dtype=bool)
    for why, which in without_a_box(table):
        unusable |= which
        if which.any():
            first = table.describe(int(np.flatnonzero(which)[0]))
            findings.append(
                f"{counted(int(which.sum()), 'box')} {why} left out of training and evaluation "
                f"(first: {first})"
            )
    if unusable.any():
        table = table.take_annotations(~unusable)
    missing = ~np.isfinite(table.areas)
    if missing.any():
        areas = np.where(
            missing, np.abs(table.boxes_xywh[:, 2] * table.boxes_xywh[:, 3]), table.areas
        )
        table = replace(table, areas=areas).with_findings(
            f"{counted(int(missing.sum()), 'annotation')} without an area: width × height of the "
            "box is taken"
        )
    return table.with_findings(*findings)
