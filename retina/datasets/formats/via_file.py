"""What the files of the VGG Image Annotator hold: projects, JSON and CSV exports of VIA 1 and 2."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from retina.datasets.annotations import path_fault
from retina.datasets.formats.json_kinds import json_kind
from retina.errors import UserError
from retina.text_files import read_json, read_text

_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")


@dataclass(frozen=True, slots=True)
class ViaRegion:
    """A region as VIA writes it.

    Attributes:
        image: the file of its image.
        where: it stands, for messages.
        shape: ``shape_attributes``.
        attributes: ``region_attributes``.
    """

    image: str
    where: str
    shape: Mapping[str, Any]
    attributes: Mapping[str, Any]

    @property
    def shape_name(self) -> str:
        """The kind of its shape."""
        return str(self.shape.get("name"))

    def value(self, attribute: str) -> str:
        """What an attribute says: a text, or the one box of several that is ticked; else empty."""
        given = self.attributes.get(attribute)
        if isinstance(given, dict):
            ticked = [key for key, is_ticked in given.items() if is_ticked in (True, "true", 1)]
            given = ticked[0] if len(ticked) == 1 else ""
        text = str(given).strip() if isinstance(given, str | int | float) else ""
        return "" if text == "undefined" else text


@dataclass(frozen=True, slots=True)
class ViaProject:
    """What a file of VIA's holds.

    Attributes:
        images: the files of all images.
        regions: of all images.
        problems: what is wrong with it.
        attributes: what ``_via_attributes`` says of those of regions, by name.
    """

    images: Sequence[str]
    regions: Sequence[ViaRegion]
    problems: Sequence[str]
    attributes: Mapping[str, Any]

    def options(self, attribute: str) -> dict[str, str]:
        """The values that an attribute may have, and the class that each means.

        That is the value itself, unless it is a number, as in projects made from COCO files, whose
        description is the name.
        """
        about = self.attributes.get(attribute)
        options = about.get("options") if isinstance(about, dict) else None
        if not isinstance(options, dict):
            return {}
        are_numbers = all(str(key).isdigit() for key in options)
        return {
            str(key): str(text) if are_numbers and isinstance(text, str) and text else str(key)
            for key, text in options.items()
        }


def read_via_file(path: Path) -> ViaProject:
    """A project or an export.

    Raises:
        UserError: it is none.
    """
    return _read_csv(path) if path.suffix.lower() == ".csv" else _read_project(path)


def is_via_csv(beginning: str) -> bool:
    """Whether the first line of a CSV file has VIA's columns."""
    return set(_COLUMNS) <= set(_header(beginning.lstrip("\ufeff"))[0])


def _read_project(path: Path) -> ViaProject:
    """A project or a JSON export."""
    if json_kind(path) == "via3":
        raise UserError(
            f"{path}: is a project of VIA 3, which is not read; export it in COCO's format"
        )
    tree = read_json(path, "annotation file", _without_pixels)
    images = tree.get("_via_img_metadata", tree) if isinstance(tree, dict) else None
    if not isinstance(images, dict):
        raise UserError(f"{path}: is no file of the VGG Image Annotator")
    problems: list[str] = []
    regions: list[ViaRegion] = []
    names: list[str] = []
    for key, record in images.items():
        if not isinstance(record, dict) or not isinstance(record.get("filename"), str):
            problems.append(f"'{key}': needs a 'filename'")
            continue
        names.append(_file_name(record["filename"]))
        for number, region in _numbered(record.get("regions")):
            where = f"'{names[-1]}', region {number}"
            shape = region.get("shape_attributes") if isinstance(region, dict) else None
            if not isinstance(shape, dict):
                problems.append(f"{where}: needs 'shape_attributes'")
                continue
            regions.append(
                ViaRegion(names[-1], where, shape, _mapping(region, "region_attributes"))
            )
    about = _mapping(tree, "_via_attributes")
    return ViaProject(names, regions, problems, _mapping(about, "region"))


def _numbered(regions: object) -> Iterator[tuple[str, Any]]:
    """The regions of an image: VIA 1 writes a mapping, VIA 2 a list."""
    if isinstance(regions, dict):
        yield from ((str(key), region) for key, region in regions.items())
    elif isinstance(regions, list):
        yield from ((str(number), region) for number, region in enumerate(regions))


def _mapping(record: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = record.get(key)
    return value if isinstance(value, dict) else {}


def _without_pixels(record: dict[str, Any]) -> dict[str, Any]:
    record.pop("base64_img_data", None)  # a whole image as text
    return record


def _header(text: str) -> tuple[list[str], str]:
    """The columns that the first line of a text names, and what stands between them."""
    line = next(iter(text.splitlines()), "")
    delimiter = ";" if line.count(";") > line.count(",") else ","
    row = next(csv.reader([line], delimiter=delimiter), [])
    return [name.strip().lstrip("#").strip() for name in row], delimiter


def _read_csv(path: Path) -> ViaProject:
    """A CSV export: a row for each region, and one for each image without any."""
    text = read_text(path, "annotation file")
    try:
        return _rows_of_csv(text, path)
    except csv.Error as error:
        raise UserError(f"{path}: not readable as CSV: {error}") from None


def _rows_of_csv(text: str, path: Path) -> ViaProject:
    columns, delimiter = _header(text)
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise UserError(f"{path}: lacks VIA's column {' and '.join(missing)}")
    problems: list[str] = []
    regions: list[ViaRegion] = []
    names: list[str] = []
    rows = csv.reader(io.StringIO(text, newline=None), delimiter=delimiter)
    for values in rows:
        if rows.line_num == 1 or not any(values):
            continue
        where = f"line {rows.line_num}"
        row = dict(zip(columns, values, strict=False))
        try:
            shape, attributes = (json.loads(row.get(name) or "{}") for name in _COLUMNS[1:])
        except (ValueError, RecursionError):
            problems.append(f"{where}: a region's attributes are not readable as JSON")
            continue
        if not isinstance(shape, dict) or not isinstance(attributes, dict):
            problems.append(f"{where}: a region's attributes are no JSON objects")
            continue
        names.append(_file_name(row.get("filename", "")))
        if shape:
            regions.append(ViaRegion(names[-1], where, shape, attributes))
    return ViaProject(names, regions, problems, {})


def _file_name(told: str) -> str:
    """The file below the image folder: the last part of an address, or of a path elsewhere."""
    name = told.replace("\\", "/")
    return PurePosixPath(name).name if "://" in name or path_fault(name) else told
