"""A CSV file with a row per box as arrays, or one clear error that says all that is wrong in it."""

from __future__ import annotations

import csv
import io
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from retina.datasets.folder import SPLIT_NAMES
from retina.datasets.formats.csv_columns import EMPTY, BoxShape, Columns, columns_of
from retina.datasets.optional_values import flag_of, number_of
from retina.errors import UserError, all_problems
from retina.structures import FloatArray, Size
from retina.text_files import read_text

Unit = Literal["pixels", "fractions"]

FARTHEST = 1.5
"""A box with a number above it is in pixels; one in fractions may reach out of its image a bit."""

_LONGEST_HEADER = 100_000
_SEPARATORS = (",", ";", "\t", "|")
_NUMBERS = re.compile(r"[^\s,;\[\]()]+")


@dataclass(frozen=True, slots=True)
class CsvRows:
    """The rows of a file, column by column; N rows that name an image, I images, G boxes.

    Attributes:
        columns: what was taken for what.
        names: I different names of images, as written.
        sizes: height and width that rows give to images, with the line of the first of each.
        image_lines: the line that names each image first.
        image_rows: ``(G,)`` the image of each box.
        class_names: the different ones.
        class_rows: ``(G,)`` the class of each box.
        corners: ``(G, 4)`` float64, in the unit of the file.
        crowds: ``(G,)`` whether the box is around a group.
        lines: ``(G,)`` where each stands.
    """

    columns: Columns
    names: tuple[str, ...]
    sizes: dict[tuple[int, Size], int]
    image_lines: tuple[int, ...]
    image_rows: Sequence[int]
    class_names: tuple[str, ...]
    class_rows: Sequence[int]
    corners: FloatArray
    crowds: Sequence[int]
    lines: Sequence[int]


def csv_columns(path: Path, shape: BoxShape | None = None) -> Columns | None:
    """What the columns of a file mean; None where it is no CSV file of boxes."""
    try:
        found = _opened(path, shape)
    except UserError:
        return None
    return None if found is None else found[0]


def is_via_table(path: Path) -> bool:
    """Whether a file is a table of the VGG Image Annotator, whose cells hold JSON."""
    try:
        return "region_shape_attributes" in _first_line(read_text(path, "CSV file"))
    except UserError:
        return False


def splits_named_in(path: Path) -> list[str]:
    """The splits of `SPLIT_NAMES` that a column of the file names; none without one."""
    opened = _opened(path)
    at = None if opened is None else opened[0].split
    if opened is None or at is None:
        return []
    values = {row[at].strip().lower() for _, row in opened[1] if len(row) > at}
    return [split for split, names in SPLIT_NAMES.items() if values & set(names)]


def names_in_csv(path: Path, *, most: int) -> list[str]:
    """The first different names of images."""
    opened = _opened(path)
    names: dict[str, bool] = {}
    for _, row in () if opened is None else opened[1]:
        assert opened is not None
        if len(names) == most:
            break
        at = opened[0].file
        names.update({row[at].strip(): True} if len(row) > at and row[at].strip() else {})
    return list(names)


def read_csv_rows(path: Path, shape: BoxShape | None, split: str | None) -> CsvRows:
    """The content of a file.

    Args:
        path: the file.
        shape: what the four numbers of a box are; None takes it from the names of the columns.
        split: only rows that the split column says to be of it; None takes all.

    Raises:
        UserError: the file is missing, or no CSV file of boxes, or a row lacks an image or a
            number; the message names all of it.
    """
    opened = _opened(path, shape)
    if opened is None:
        first = _first_line(read_text(path, "CSV file"))
        raise UserError(
            f"{path}: is no CSV file of boxes: no columns are known for the image (filename, "
            "image_id …) and the box (xmin, ymin, xmax, ymax; x, y, width, height; or bbox); name "
            f"them so in the first line, which is {first[:100]!r}"
        )
    columns, rows = opened
    reading, problems = _Reading(columns), []
    for line, row in rows:
        if split is not None and not _is_in_split(row, columns, split):
            continue
        try:
            reading.add(row, line)
        except ValueError as error:
            problems.append(f"line {line}: {error}")
    if problems:
        raise UserError(all_problems(str(path), problems))
    return reading.rows()


def _is_in_split(row: Sequence[str], columns: Columns, split: str) -> bool:
    at = columns.split
    names = SPLIT_NAMES.get(split, (split,))
    return at is not None and len(row) > at and row[at].strip().lower() in names


def _opened(
    path: Path, shape: BoxShape | None = None
) -> tuple[Columns, Iterator[tuple[int, list[str]]]] | None:
    """The columns of a file, and its rows with their lines; None where it holds no boxes."""
    text = read_text(path, "CSV file")
    first = _first_line(text)
    candidates = {
        separator: columns_of(_cells(first, separator), shape) for separator in _SEPARATORS
    }
    found = {separator: columns for separator, columns in candidates.items() if columns}
    if not found:
        return None
    separator = max(found, key=lambda one: found[one].count)
    return found[separator], _rows(text, separator, found[separator], path)


def _first_line(text: str) -> str:
    """The first that is neither blank nor Excel's hint."""
    lines = iter(text[:_LONGEST_HEADER].splitlines())
    return next((line for line in lines if line.strip() and not line.startswith("sep=")), "")


def _cells(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # a cell of more than a hundred thousand letters
        return []


def _rows(
    text: str, separator: str, columns: Columns, path: Path
) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header, blank ones left out, each with the number of its last line."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    has_header = bool(columns.names)
    try:
        for row in reader:
            if not any(map(str.strip, row)) or (len(row) < 3 and row[0].startswith("sep=")):
                continue  # Excel writes which character separates the columns
            if has_header:
                has_header = False
                continue
            yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not readable as CSV: {error}") from None


class _Reading:
    """Collects rows; names and classes are kept once, since there may be millions of boxes."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._images: dict[str, int] = {}
        self._image_lines: list[int] = []
        self._sizes: dict[tuple[int, Size], int] = {}
        self._classes: dict[str, int] = {}
        self._image_rows, self._class_rows, self._lines = array("q"), array("q"), array("q")
        self._corners, self._crowds = array("d"), array("b")

    def add(self, row: Sequence[str], line: int) -> None:
        """Take a row in.

        Raises:
            ValueError: it lacks an image, a class or a number.
        """
        columns = self._columns
        needed = 1 + max(columns.file, *columns.box, columns.label or 0)
        if len(row) < needed and not any(map(str.strip, row[columns.file + 1 :])):
            row = [*row, *[""] * (needed - len(row))]
        if len(row) < needed:
            raise ValueError(f"has {len(row)} of {columns.count} columns: {','.join(row)[:60]!r}")
        name = row[columns.file].strip()
        if not name:
            raise ValueError("names no image")
        box = _box_of([row[column] for column in columns.box], columns.shape)
        label = "object" if columns.label is None else row[columns.label].strip()
        if box is not None and label.lower() in ("", "nan"):
            raise ValueError("the box has no class")
        image = self._images.setdefault(name, len(self._images))
        if image == len(self._image_lines):
            self._image_lines.append(line)
        if size := _size_of(row, columns):
            self._sizes.setdefault((image, size), line)
        if box is None:
            return
        self._image_rows.append(image)
        self._class_rows.append(self._classes.setdefault(label, len(self._classes)))
        self._corners.extend(box)
        self._crowds.append(_is_crowd(row, columns))
        self._lines.append(line)

    def rows(self) -> CsvRows:
        """All that were taken in."""
        return CsvRows(
            columns=self._columns,
            names=tuple(self._images),
            sizes=self._sizes,
            image_lines=tuple(self._image_lines),
            image_rows=self._image_rows,
            class_names=tuple(self._classes),
            class_rows=self._class_rows,
            corners=np.array(self._corners, dtype=np.float64).reshape(-1, 4),
            crowds=self._crowds,
            lines=self._lines,
        )


def _box_of(cells: Sequence[str], shape: BoxShape) -> tuple[float, float, float, float] | None:
    """The corners of a box; None where nothing is given."""
    if len(cells) == 1:
        cells = _NUMBERS.findall(cells[0])
    if all(cell.strip().lower() in EMPTY for cell in cells):
        return None
    numbers = [_number(cell) for cell in cells]
    if len(numbers) != 4:
        raise ValueError(f"{' '.join(cells)[:60]!r} is no box of four numbers")
    first, second, third, fourth = numbers
    if shape == "xyxy":
        return first, second, third, fourth
    if shape == "xywh":
        return first, second, first + third, second + fourth
    return first - third / 2, second - fourth / 2, first + third / 2, second + fourth / 2


def _number(text: str) -> float:
    number = number_of(text)
    if number is None:  # a decimal comma, where another character separates the columns
        number = number_of(text.replace(",", ".")) if text.count(",") == 1 else None
    if number is None or not math.isfinite(number) or abs(number) >= 2**31:
        raise ValueError(f"{text.strip()[:60]!r} is no number")
    return number


def _size_of(row: Sequence[str], columns: Columns) -> Size | None:
    if columns.size is None or len(row) <= max(columns.size):
        return None
    height, width = (number_of(row[column]) or 0 for column in columns.size)
    is_size = min(height, width) >= 1 and height == height // 1 and width == width // 1
    return (int(height), int(width)) if is_size and max(height, width) < 2**31 else None


def _is_crowd(row: Sequence[str], columns: Columns) -> bool:
    is_given = columns.crowd is not None and len(row) > columns.crowd
    return bool(is_given and flag_of(row[columns.crowd or 0]))


def unit_of(corners: FloatArray) -> Unit:
    """Whether most of the boxes are in pixels or in fractions of their image.

    Args:
        corners: ``(G, 4)``.
    """
    if not len(corners):
        return "pixels"
    return "fractions" if np.median(np.abs(corners).max(axis=1)) <= FARTHEST else "pixels"
