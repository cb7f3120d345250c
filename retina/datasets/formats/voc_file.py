"""Pascal VOC annotations, one XML file an image, as arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from retina.datasets.formats.xml_files import parse_xml
from retina.datasets.optional_values import flag_of, number_of
from retina.errors import UserError
from retina.structures import Size


@dataclass(frozen=True, slots=True)
class VocObject:
    """One object of an XML file.

    Attributes:
        name: of its category.
        box: ``(xmin, ymin, xmax, ymax)`` as written.
        is_difficult: marked as hard to recognise.
    """

    name: str
    box: tuple[float, float, float, float]
    is_difficult: bool


@dataclass(frozen=True, slots=True)
class VocImage:
    """One XML file.

    Attributes:
        file_name: what it says the image file is called; empty if it says nothing.
        size: height and width; ``(0, 0)`` if it does not say.
        objects: in the order of the file.
        senseless: the values of optional fields that make no sense and were passed over, in words.
    """

    file_name: str
    size: Size
    objects: tuple[VocObject, ...]
    senseless: tuple[str, ...] = ()


def read_voc_file(path: Path) -> VocImage:
    """The content of one annotation file.

    What decides neither a class nor a box may be missing or senseless.

    Raises:
        UserError: the file is missing, no XML or no annotation, or an object lacks a name or a box.
    """
    root = parse_xml(path)
    if root.tag != "annotation":
        raise UserError(f"{path}: is no Pascal VOC annotation: its root is <{root.tag}>")
    senseless: list[str] = []
    sides = [_side(root, side, senseless) for side in ("height", "width")]
    objects = [
        _object(element, number, path, senseless)
        for number, element in enumerate(root.findall("object"), start=1)
    ]
    return VocImage(
        file_name=(root.findtext("filename") or "").strip(),
        size=(sides[0], sides[1]) if min(sides) > 0 else (0, 0),
        objects=tuple(objects),
        senseless=tuple(senseless),
    )


def _object(
    element: ElementTree.Element, number: int, path: Path, senseless: list[str]
) -> VocObject:
    where = f"{path}: object {number}"
    name = (element.findtext("name") or "").strip()
    if not name:
        raise UserError(f"{where}: has no <name>")
    sides = [_coordinate(element, side, path) for side in ("xmin", "ymin", "xmax", "ymax")]
    xmin, ymin, xmax, ymax = sides
    if xmin is None or ymin is None or xmax is None or ymax is None:
        raise UserError(f"{where} ('{name}'): needs a <bndbox> with <xmin> <ymin> <xmax> <ymax>")
    difficult = element.findtext("difficult")
    is_difficult = flag_of(difficult)
    if is_difficult is None:
        senseless.append(f"<difficult> of object {number} is '{(difficult or '')[:60]}'")
    return VocObject(name=name, box=(xmin, ymin, xmax, ymax), is_difficult=bool(is_difficult))


def _coordinate(element: ElementTree.Element, side: str, path: Path) -> float | None:
    text = (element.findtext(f"bndbox/{side}") or "").strip()
    if not text:
        return None
    number = number_of(text)
    if number is None or not math.isfinite(number) or abs(number) >= 2**31:
        raise UserError(f"{path}: <bndbox><{side}> must be a number, is '{text[:60]}'")
    return number


def _side(root: ElementTree.Element, side: str, senseless: list[str]) -> int:
    """The height or width of the image; 0 where it is not known."""
    text = (root.findtext(f"size/{side}") or "").strip()
    number = number_of(text or 0)
    if number is None or not -1 <= number < 2**31 or number != int(number):
        senseless.append(f"<size><{side}> is '{text[:60]}'")
        return 0
    return int(number)  # 0 and -1 are how tools write that they do not know it
