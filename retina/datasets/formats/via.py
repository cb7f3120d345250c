"""Data sets of the VGG Image Annotator: a folder of images and one file.

VIA knows no classes, only attributes of regions that the user names; one of them is the class.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from retina.datasets.annotations import AnnotationTable
from retina.datasets.file_listing import list_files
from retina.datasets.folder import FolderConfig
from retina.datasets.formats.image_folders import IMAGE_FOLDERS, folder_of_images
from retina.datasets.formats.json_kinds import json_kind
from retina.datasets.formats.shapes import (
    box_around,
    box_of_ellipse,
    boxless_finding,
    finite_numbers,
)
from retina.datasets.formats.table_builder import Box, TableBuilder
from retina.datasets.formats.via_file import ViaProject, ViaRegion, is_via_csv, read_via_file
from retina.errors import UserError
from retina.text_files import read_beginning

_MOST_FILES = 20
_BOXLESS = frozenset({"point", "polyline"})
_USUAL_NAMES = ("class", "label", "category", "classes", "labels", "class_name", "classname")
_LIKELY_NAMES = ("object", "type", "name", "object_type", "object_name")
_ONLY_CLASS = "object"


class ViaConfig(FolderConfig):
    """A data set of the VGG Image Annotator."""

    kind: Literal["via"] = "via"
    """A folder of images and one JSON or CSV file of the VGG Image Annotator."""

    class_attribute: str | None = None
    """The attribute of the regions that holds their class; unset: found out."""

    title: ClassVar[str] = "VGG Image Annotator"
    layout: ClassVar[str] = "a JSON or CSV file of the VGG Image Annotator with its images"

    @classmethod
    def recognises(cls, annotations: Path) -> bool:
        """Whether it is a JSON file with VIA's keys, or a CSV file with VIA's columns."""
        suffix = annotations.suffix.lower()
        if suffix == ".csv":
            return is_via_csv(read_beginning(annotations, 4096))
        return suffix == ".json" and json_kind(annotations) in ("via", "via3")

    @classmethod
    def find_in(cls, folder: Path) -> Self | None:
        """The only JSON file that is VIA's, or the only CSV file, with its images."""
        for suffix in (".json", ".csv"):
            files = list_files(folder, [suffix], deep=False).files
            files = tuple(filter(cls.recognises, files[:_MOST_FILES]))
            images = cls.images_of(files[0]) if len(files) == 1 else None
            if images is not None:
                return cls(images=images, annotations=files[0])
        return None

    @classmethod
    def images_of(cls, annotations: Path) -> Path | None:
        """The folder beside the file, or its own, that holds images."""
        folder = annotations.parent
        return folder_of_images([*(folder / name for name in IMAGE_FOLDERS), folder], [])

    def read(self) -> AnnotationTable:
        """The regions of the file.

        The categories are the options of the attribute that is the class, and others that occur;
        where no region has any attribute, all are of one class.
        """
        source = str(self.annotations)
        project = read_via_file(self.annotations)
        builder = TableBuilder(source)
        builder.problems += project.problems
        with_box = [one for one in project.regions if one.shape_name not in _BOXLESS]
        named = _class_attribute(project, with_box, self.class_attribute, source)
        options = {} if named is None else project.options(named)
        rows = {name: builder.image(name, where=f"'{name}'") for name in project.images}
        names: set[str] = set()
        for region in with_box:
            box = _box_of(region.shape)
            if box is None:
                shown = json.dumps(region.shape, ensure_ascii=False)[:100]
                builder.problems.append(f"{region.where}: no shape that can be read: {shown}")
                continue
            value = _ONLY_CLASS if named is None else region.value(named)
            names.add(options.get(value, value))
            builder.box(rows[region.image], options.get(value, value), box, where=region.where)
        boxless = Counter(one.shape_name for one in project.regions if one.shape_name in _BOXLESS)
        only = f"no region has an attribute: all are of one class, '{_ONLY_CLASS}'"
        builder.findings += filter(
            None, (boxless_finding(boxless), only if with_box and named is None else "")
        )
        listed = list(dict.fromkeys(options.values()))
        return builder.build([*listed, *sorted(names.difference(listed))])


def _class_attribute(
    project: ViaProject, regions: Sequence[ViaRegion], chosen: str | None, source: str
) -> str | None:
    """The attribute that is the class; None where no region has any.

    Raises:
        UserError: it is not clear which it is, or none is called as was chosen.
    """
    used = sorted({key for one in regions for key in one.attributes if one.value(key)})
    known = sorted({*used, *project.attributes})
    if chosen is not None:
        if chosen not in known:
            raise UserError(
                f"{source}: class_attribute: no region has '{chosen}'; there is "
                f"{', '.join(known) or 'no attribute'}"
            )
        return chosen
    if len(used) <= 1:
        return used[0] if used else None
    choices = [
        key
        for key in used
        if project.options(key) and project.attributes[key].get("type") != "checkbox"
    ]
    usual = [key for name in _USUAL_NAMES for key in used if key.lower() == name]
    likely = [key for name in _LIKELY_NAMES for key in used if key.lower() == name]
    for found in (usual[:1], choices if len(choices) == 1 else [], likely[:1]):
        if found:
            return found[0]
    raise UserError(
        f"{source}: which attribute of the regions is their class: {', '.join(used)}? Say so in a "
        "config, beside images and annotations: kind: via, class_attribute: NAME"
    )


def _box_of(shape: Mapping[str, Any]) -> Box | None:
    """The box around a shape; None where it is of no known kind, or its numbers are none."""
    kind = shape.get("name")
    if kind in _NUMBERS:
        numbers = finite_numbers([shape.get(key, default) for key, default in _NUMBERS[kind]])
        if numbers is None:
            return None
        x, y, a, b, *angle = numbers
        if kind == "rect":
            return x, y, x + a, y + b
        return box_of_ellipse((x, y), (a, b), *angle)
    points = [shape.get(key) for key in ("all_points_x", "all_points_y")]
    if not all(isinstance(side, list) and side for side in points):
        return None
    xs, ys = (finite_numbers(side) for side in points if isinstance(side, list))
    return None if xs is None or ys is None or len(xs) != len(ys) else box_around(xs, ys)


_NUMBERS: dict[object, tuple[tuple[str, float | None], ...]] = {
    "rect": (("x", None), ("y", None), ("width", None), ("height", None)),
    "circle": (("cx", None), ("cy", None), ("r", None), ("r", None)),
    "ellipse": (("cx", None), ("cy", None), ("rx", None), ("ry", None), ("theta", 0.0)),
}
"""What the shapes are given by; and what is taken where it is not given."""
