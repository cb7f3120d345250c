"""A data set format: a text file with a line per box, ``file x1 y1 x2 y2 class``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np

from retina.datasets.annotations import AnnotationTable, name_array, refuse_outside_path
from retina.datasets.folder import FolderConfig
from retina.errors import UserError
from retina.structures import Categories


class LinesConfig(FolderConfig):
    """A line per box; the line of an image without objects holds its file name alone."""

    kind: Literal["lines"] = "lines"
    """A folder of images and one text file."""

    layout: ClassVar[str] = "boxes.lines with images/"

    @classmethod
    def recognises(cls, annotations: Path) -> bool:
        """Whether it is a file of this suffix."""
        return annotations.suffix == ".lines"

    @classmethod
    def find_in(cls, folder: Path) -> Self | None:
        """``boxes.lines`` with ``images/`` beside it."""
        images, annotations = folder / "images", folder / "boxes.lines"
        is_there = images.is_dir() and annotations.is_file()
        return cls(images=images, annotations=annotations) if is_there else None

    def read(self) -> AnnotationTable:
        """The lines of the file."""
        files: dict[str, int] = {}
        objects: list[tuple[int, str]] = []
        corners: list[list[float]] = []
        for number, line in enumerate(self._lines(), start=1):
            where = f"{self.annotations}, line {number}"
            file, *box = line.split(maxsplit=5)
            refuse_outside_path(file, where)
            image = files.setdefault(file, len(files))
            if not box:
                continue
            try:
                x1, y1, x2, y2, name = box
                corners.append([float(x1), float(y1), float(x2), float(y2)])
            except ValueError:
                raise UserError(f"{where}: {line!r} is not 'file x1 y1 x2 y2 class'") from None
            objects.append((image, name))
        names = sorted({name for _, name in objects})
        boxes = np.array(corners, dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] -= boxes[:, :2]
        return AnnotationTable(
            source=str(self.annotations),
            categories=Categories.from_names(names),
            image_ids=np.arange(1, len(files) + 1),
            file_names=name_array(list(files)),
            image_sizes=np.zeros((len(files), 2), dtype=np.int64),  # read from the images
            annotation_ids=np.arange(1, len(objects) + 1),
            image_indices=np.array([image for image, _ in objects], dtype=np.int64),
            labels=np.array([names.index(name) for _, name in objects], dtype=np.int64),
            boxes_xywh=boxes,
            areas=boxes[:, 2] * boxes[:, 3],
            is_crowd=np.zeros(len(objects), dtype=bool),
            occluded_fractions=np.full(len(objects), np.nan),
        )

    def _lines(self) -> list[str]:
        try:
            return self.annotations.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.annotations}: cannot be read: {error}") from None
