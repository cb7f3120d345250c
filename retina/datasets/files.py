"""Checking the image files of a split without decoding them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from retina.datasets.annotations import AnnotationTable
from retina.datasets.images import orientation_to_apply, read_header
from retina.errors import UnreadableImageError, UserError

MAX_HEADERS = 2000
"""How many image files are opened, evenly spread, when a split is read; `retina data check` opens
every one."""


_FIX = "retina data fix writes a copy of the annotations without such images"


def require_files(
    table: AnnotationTable, missing: Sequence[str], folder: Path, *, max_missing: int = 0
) -> None:
    """Raise a `UserError` if more images of a split are missing in the folder than may be."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such image folder (of the annotations {table.source})")
    if len(missing) <= max_missing and len(missing) < table.num_images:
        return
    shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
    hint = (
        "correct the path of the images"
        if len(missing) == table.num_images
        else f"add them ({_FIX})"
    )
    raise UserError(
        f"{table.source}: {len(missing)} of {table.num_images} images are not in {folder}: "
        f"{shown}; {hint}"
    )


def read_missing_sizes(
    table: AnnotationTable, folder: Path, *, max_unreadable: int = 0
) -> AnnotationTable:
    """Take the size of an image from its file where the annotations give none.

    Args:
        table: the annotations.
        folder: of the images.
        max_unreadable: so many images may fail, but not all; they lose their boxes, whose place is
            not known, and get the size of a pixel.

    Raises:
        UnreadableImageError: more images than that cannot be opened.
    """
    unknown = np.flatnonzero(table.image_sizes[:, 0] == 0)
    if not len(unknown):
        return table
    sizes = table.image_sizes.copy()
    unreadable: list[int] = []
    for index in unknown.tolist():
        try:
            sizes[index] = read_header(folder / table.file_name(index)).oriented_size
        except UnreadableImageError as error:
            unreadable.append(index)
            if len(unreadable) > max_unreadable or len(unreadable) == len(unknown):
                raise UnreadableImageError(f"{error} ({_FIX})") from None
            sizes[index] = 1
    lost = np.isin(table.image_indices, unreadable)
    images = "image" if len(unreadable) == 1 else "images"
    num_read = len(unknown) - len(unreadable)
    return (
        replace(table, image_sizes=sizes)
        .take_annotations(~lost)
        .with_findings(
            f"{num_read} of {table.num_images} images without an annotated width and height: read "
            "from the files"
            if len(unknown) < table.num_images  # else it is the way of the format
            else "",
            f"{len(unreadable)} {images} of unknown size cannot be read (the first: "
            f"{table.file_name(unreadable[0])}): {int(lost.sum())} boxes left out"
            if unreadable
            else "",
        )
    )


def check_headers(
    table: AnnotationTable, folder: Path, *, max_unreadable: int = 0
) -> AnnotationTable:
    """Compare the annotated sizes with those of the files, for at most `MAX_HEADERS` of them.

    Args:
        table: the annotations.
        folder: of the images.
        max_unreadable: so many images may fail, which then becomes a finding.

    Raises:
        UnreadableImageError: more images than that cannot be opened, or have another size.
    """
    checked = np.unique(
        np.linspace(0, table.num_images - 1, min(MAX_HEADERS, table.num_images)).round()
    ).astype(np.int64)
    turned: list[bool] = []
    refusals: list[str] = []
    for index in checked:
        try:
            turn = is_turned(table, int(index), folder)
        except UnreadableImageError as error:
            refusals.append(str(error))
            if len(refusals) > max_unreadable:
                raise UnreadableImageError(f"{error} ({_FIX})") from None
        else:
            turned += [] if turn is None else [turn]
    finding = (
        f"{len(refusals)} of {len(checked)} images checked cannot be read, and others take "
        f"their place (the first: {refusals[0]})"
        if refusals
        else ""
    )
    return table.with_findings(finding, *orientation_findings(turned, len(checked)))


def is_turned(table: AnnotationTable, index: int, folder: Path) -> bool | None:
    """Whether the EXIF orientation of an image is applied; None if it asks for nothing.

    Raises:
        UnreadableImageError: the image cannot be opened, or has another size than annotated.
    """
    path = folder / table.file_name(index)
    height, width = table.image_sizes[index].tolist()
    header = read_header(path)
    orientation = orientation_to_apply(header, (height, width), path)
    return None if header.orientation == 1 else orientation != 1


def orientation_findings(turned: list[bool], num_checked: int) -> Iterator[str]:
    """Findings about images with an EXIF orientation; ``turned`` as `is_turned` gives it."""
    applied = sum(turned)
    if applied:
        yield (
            f"{applied} of {num_checked} images checked are turned as their EXIF orientation "
            "asks, which agrees with the annotated size"
        )
    if len(turned) > applied:
        yield (
            f"{len(turned) - applied} of {num_checked} images checked have an EXIF orientation "
            "that is not applied, since the annotated size is that of the unturned image"
        )
