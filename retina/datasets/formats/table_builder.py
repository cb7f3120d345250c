"""Putting an annotation table together, image by image and box by box."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from retina.datasets.annotations import AnnotationTable, name_array, path_fault, text_fault
from retina.datasets.ids import numbers_of_names
from retina.datasets.repeated import plain_path
from retina.errors import UserError, all_problems
from retina.structures import Categories, Size

Box = tuple[float, float, float, float]


class TableBuilder:
    """Collects what the files of a format say, and all that is wrong with them.

    For formats that name the image and the class of a box. An image that is named several times is
    one; images and annotations are numbered.

    Args:
        source: the file or folder, for messages.
        in_fractions: whether boxes are given in fractions of their image's width and height.

    Attributes:
        problems: what cannot be read, one sentence each, with its place; `build` refuses with all.
        findings: what was taken in another way than written, one sentence each.
    """

    def __init__(self, source: str, *, in_fractions: bool = False) -> None:
        self.problems: list[str] = []
        self.findings: list[str] = []
        self._source = source
        self._in_fractions = in_fractions
        self._images: dict[str, int] = {}
        self._sizes: list[Size] = []
        self._classes: dict[str, int] = {}
        # Arrays, since a tuple for each of ten million boxes would not fit in the memory.
        self._image_rows, self._class_rows = array("q"), array("q")
        self._boxes, self._crowds = array("d"), array("b")

    def image(self, name: str, size: Size | None = None, *, where: str) -> int:
        """The row of an image, which is new where this is the first time that it is named.

        Args:
            name: of its file, below the image folder.
            size: height and width; None where they are not given.
            where: in the source, for messages.
        """
        if fault := path_fault(name):
            self.problems.append(f"{where}: {fault}")
        index = self._images.setdefault(plain_path(name), len(self._images))
        if index == len(self._sizes):
            self._sizes.append(size or (0, 0))
        elif size is not None and self._sizes[index] not in ((0, 0), size):
            before = "×".join(map(str, self._sizes[index]))
            self.problems.append(
                f"{where}: '{name}' is {size[0]}×{size[1]} (height × width), but before {before}"
            )
        elif size is not None:
            self._sizes[index] = size
        return index

    def box(
        self, image: int, class_name: str, corners: Box, *, where: str, is_crowd: bool = False
    ) -> None:
        """Add an object.

        Args:
            image: the row of its image.
            class_name: of its category.
            corners: ``(x1, y1, x2, y2)``, in pixels, or in fractions of the image.
            where: in the source, for messages.
            is_crowd: whether the region is neither object nor background.
        """
        if not class_name:
            self.problems.append(f"{where}: the box has no class")
        elif fault := text_fault(class_name):
            self.problems.append(f"{where}: {fault}")
        self._image_rows.append(image)
        self._class_rows.append(self._classes.setdefault(class_name, len(self._classes)))
        self._boxes.extend(corners)
        self._crowds.append(is_crowd)

    def build(
        self, class_names: Sequence[str] | None = None, *, first_id: int = 1
    ) -> AnnotationTable:
        """The table.

        Args:
            class_names: of all categories, in the order of their ids; None takes those that occur,
                sorted.
            first_id: of the categories.

        Raises:
            UserError: there are problems, or no image.
        """
        if not self._images and not self.problems:
            self.problems.append("the data set is empty: there is no image")
        if self.problems:
            raise UserError(all_problems(self._source, self.problems))
        names = sorted(self._classes) if class_names is None else class_names
        label_of = {name: label for label, name in enumerate(names)}
        labels_of_rows = np.array([label_of[name] for name in self._classes], dtype=np.int64)
        boxes = np.array(self._boxes, dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] -= boxes[:, :2]
        files = list(self._images)
        return AnnotationTable(
            source=self._source,
            categories=Categories(tuple(names), tuple(range(first_id, first_id + len(names)))),
            image_ids=numbers_of_names([name.rpartition(".")[0] or name for name in files]),
            file_names=name_array(files),
            image_sizes=np.array(self._sizes, dtype=np.int64).reshape(-1, 2),
            annotation_ids=np.arange(1, len(boxes) + 1),
            image_indices=np.array(self._image_rows, dtype=np.int64),
            labels=labels_of_rows[np.array(self._class_rows, dtype=np.int64)],
            boxes_xywh=boxes,
            areas=np.abs(boxes[:, 2] * boxes[:, 3]),
            is_crowd=np.array(self._crowds, dtype=bool),
            occluded_fractions=np.full(len(boxes), np.nan),
            in_fractions=self._in_fractions,
        ).with_findings(*self.findings)
