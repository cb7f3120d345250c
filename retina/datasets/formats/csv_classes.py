"""Lists of classes beside a CSV file of boxes: keras-retinanet's ids, Open Images' descriptions."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from retina.datasets.file_listing import IMAGE_SUFFIXES, list_files
from retina.datasets.formats.csv_columns import columns_of
from retina.errors import UserError
from retina.text_files import read_text


@dataclass(frozen=True, slots=True)
class ClassFile:
    """A list of classes.

    Attributes:
        path: the file.
        ids: of the classes, by name; empty where the file gives none.
        names: for people, by the code that stands in the place of a name; empty likewise.
    """

    path: Path
    ids: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


def classes_beside(path: Path) -> ClassFile | None:
    """The list of classes of a file of boxes: a CSV file of two columns that is named so.

    ``classes.csv`` with ``name,id`` beside it, or ``class-descriptions….csv`` with ``code,name``,
    beside it or one folder up.

    Raises:
        UserError: two classes of the list have one id.
    """
    for folder in (path.parent, path.absolute().parent.parent):
        for file in list_files(folder, (".csv",), deep=False).files:
            is_beside = folder == path.parent
            name = file.stem.lower()
            if file != path and ("description" in name or (is_beside and "class" in name)):
                found = _read(file)
                if found is not None:
                    return found
    return None


def _is_class(name: str, number: str) -> bool:
    return number.isdecimal() and len(number) < 10 and not name.lower().endswith(IMAGE_SUFFIXES)


def _read(path: Path) -> ClassFile | None:
    try:
        rows = list(csv.reader(io.StringIO(read_text(path, "CSV file"), newline="")))
    except (UserError, csv.Error):
        return None
    rows = [[cell.strip() for cell in row] for row in rows if any(map(str.strip, row))]
    if not rows or not all(len(row) == 2 and row[0] for row in rows) or columns_of(rows[0]):
        return None
    if "description" in path.stem.lower():
        return ClassFile(path, names={row[0]: row[1] for row in rows})
    listed = rows if any(map(str.isdecimal, rows[0])) else rows[1:]  # below a header
    if listed and all(row[0].isdecimal() and not row[1].isdecimal() for row in listed):
        listed = [[name, number] for number, name in listed]
    if not listed or not all(_is_class(*row) for row in listed):
        return None
    ids = {name: int(number) for name, number in listed}
    if len(set(ids.values())) < len(ids):
        raise UserError(f"{path}: several classes have one id; give each class an id of its own")
    return ClassFile(path, ids=dict(sorted(ids.items(), key=lambda pair: pair[1])))
