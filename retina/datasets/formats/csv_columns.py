"""What the columns of a CSV file of boxes mean, by their names or by what stands in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from retina.datasets.file_listing import IMAGE_SUFFIXES

BoxShape = Literal["xyxy", "xywh", "centre"]
"""Two corners; the upper left corner and the sides; the centre and the sides."""

_FILE = (
    *("filename", "filepath", "imagefilename", "imagefile", "imagepath", "imgpath", "path", "file"),
    *("fname", "imagename", "imgname", "image", "img", "imageid", "imgid", "frame", "patientid"),
    "id",
)
_CLASS = (
    *("classname", "labelname", "categoryname", "class", "label", "category", "objectclass"),
    *("classlabel", "name", "classid", "categoryid", "labelid", "object", "type", "target"),
)
_SPLIT = ("split", "set", "subset")
_CROWD = ("isgroupof", "iscrowd")
_WHOLE_BOX = ("bbox", "box", "boundingbox", "bboxes")
_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
    ("xtl", "ytl", "xbr", "ybr"),
    ("xleft", "ytop", "xright", "ybottom"),
    ("startx", "starty", "endx", "endy"),
)
_ORIGINS = (("x", "y"), ("xmin", "ymin"), ("left", "top"), ("x1", "y1"), ("xtl", "ytl"))
_CENTRES = (
    *(("xc", "yc"), ("cx", "cy"), ("xcenter", "ycenter"), ("centerx", "centery")),
    *(("xcentre", "ycentre"), ("centrex", "centrey"), ("xcentroid", "ycentroid")),
)
_SIDES = (("w", "h"), ("width", "height"), ("bw", "bh"))
_IMAGE_SIDES = (
    *(("imagewidth", "imageheight"), ("imgwidth", "imgheight"), ("imagew", "imageh")),
    *(("imgw", "imgh"), ("originalwidth", "originalheight"), ("framewidth", "frameheight")),
)

_AUTOML = ("train", "validation", "test", "unassigned")
_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?")

EMPTY = frozenset({"", "nan", "none", "null", "na", "n/a"})
"""What stands in a cell for nothing, in lower case."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Where in a row everything stands.

    Attributes:
        file: the name of the image.
        box: four columns; or one that holds all four numbers.
        shape: what the four numbers are.
        label: the name of the class; None where all boxes are of one class.
        size: height and width of the image, or None.
        split: the split that the image belongs to, or None.
        crowd: whether the box is around a group, or None.
        names: of the columns; empty where the file has no header.
    """

    file: int
    box: tuple[int, ...]
    shape: BoxShape
    label: int | None = None
    size: tuple[int, int] | None = None
    split: int | None = None
    crowd: int | None = None
    names: tuple[str, ...] = ()
    count: int = field(default=0)

    def describe(self, unit: str) -> str:
        """What was taken for what, for people."""
        kinds = {"xyxy": "two corners", "xywh": "corner and sides", "centre": "centre and sides"}
        parts = [f"image {self._name(self.file)}"]
        if self.label is not None:
            parts.append(f"class {self._name(self.label)}")
        parts.append(f"box {', '.join(map(self._name, self.box))} ({kinds[self.shape]}, in {unit})")
        if self.size is not None:
            parts.append(f"image size {self._name(self.size[1])}, {self._name(self.size[0])}")
        if self.label is None:
            parts.append("no class: all are called 'object'")
        return "; ".join(parts)

    def _name(self, column: int) -> str:
        return f"'{self.names[column]}'" if self.names else f"column {column + 1}"


def columns_of(row: Sequence[str], shape: BoxShape | None = None) -> Columns | None:
    """The meaning of the columns of a file, by its first row; None where it holds no boxes.

    Args:
        row: the first of the file: the names of the columns, or an object.
        shape: what the four numbers of a box are; None takes it from the names.
    """
    return _by_names(row, shape) or _by_content(row, shape)


def _by_names(row: Sequence[str], shape: BoxShape | None) -> Columns | None:
    at: dict[str, int] = {}
    of_box: dict[str, int] = {}
    for column, name in enumerate(row):
        plain = re.sub(r"[\W_]", "", name).lower()
        at.setdefault(plain, column)
        inner = re.fullmatch(r"(?:bbox|box|boundingbox)(.+)|(.+?)(?:px|pixels?|rel|norm)", plain)
        if inner:
            of_box.setdefault(inner[1] or inner[2], column)
    found = _box(of_box) or _box({**at, **of_box})
    file = _first(_FILE, at)
    if found is None or file is None:
        return None
    box, own_shape = found
    label = _first(_CLASS, {name: column for name, column in at.items() if column != file})
    size = _group(_IMAGE_SIDES, at) or _group(_SIDES[1:2], at)
    return Columns(
        file=file,
        box=box,
        shape=shape or own_shape,
        label=label,
        size=(size[1], size[0]) if size and not set(size) & set(box) else None,
        split=_first(_SPLIT, at),
        crowd=_first(_CROWD, at),
        names=tuple(name.strip() for name in row),
        count=len(row),
    )


def _box(at: Mapping[str, int]) -> tuple[tuple[int, ...], BoxShape] | None:
    """The columns of the box, and what they are by their names."""
    sides = _group(_SIDES, at)
    if corners := _group(_CORNERS, at):
        return corners, "xyxy"
    if (whole := _first(_WHOLE_BOX, at)) is not None:
        return (whole,), "xywh"
    if sides and (centre := _group(_CENTRES, at)):
        return (*centre, *sides), "centre"
    if sides and (origin := _group(_ORIGINS, at)):
        return (*origin, *sides), "xywh"
    return None


def _first(names: Sequence[str], at: Mapping[str, int]) -> int | None:
    return next((at[name] for name in names if name in at), None)


def _group(groups: Sequence[tuple[str, ...]], at: Mapping[str, int]) -> tuple[int, ...] | None:
    found = (group for group in groups if all(name in at for name in group))
    group = next(found, None)
    return None if group is None else tuple(at[name] for name in group)


def _by_content(row: Sequence[str], shape: BoxShape | None) -> Columns | None:
    """The columns of a file without a header, by how they follow each other.

    So write keras-retinanet (SKU-110K adds the image's size), makesense.ai and AutoML Vision.
    """
    cells = [cell.strip() for cell in row]
    if len(cells) == 11 and cells[0].lower() in _AUTOML and _are_numbers(cells[3:5]):
        return Columns(1, (3, 4, 7, 8), shape or "xyxy", label=2, split=0, count=11)
    if len(cells) not in (6, 8) or not _are_numbers(cells[6:]):
        return None
    size = (7, 6) if len(cells) == 8 else None
    is_empty = all(cell.lower() in EMPTY for cell in cells[1:6])
    file, label, box = 0, 5, (1, 2, 3, 4)
    own_shape: BoxShape = "xyxy"
    if _is_image(cells[5]):
        file, label, own_shape = 5, 0, "xywh"
    elif _is_image(cells[0]) and not _are_numbers(cells[1:2]) and _are_numbers(cells[2:6]):
        label, box = 1, (2, 3, 4, 5)
    is_named = _is_image(cells[file]) or not any(map(_NUMBER.fullmatch, (cells[0], cells[5])))
    if not (is_named and (is_empty or _are_numbers([cells[column] for column in box]))):
        return None  # any other table
    return Columns(file, box, shape or own_shape, label=label, size=size, count=len(cells))


def _are_numbers(texts: Sequence[str]) -> bool:
    return all(_NUMBER.fullmatch(text) for text in texts)


def _is_image(text: str) -> bool:
    return text.lower().endswith(IMAGE_SUFFIXES)
