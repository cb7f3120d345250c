"""Pascal VOC annotations, one XML file an image, as arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

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
    """

    file_name: str
    size: Size
    objects: tuple[VocObject, ...]


class _PlainTreeBuilder(ElementTree.TreeBuilder):
    """Builds a tree, but refuses a document type: its entities can swell to any size."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise UserError("holds a DOCTYPE, which annotations do not need and which can be harmful")


def read_voc_file(path: Path) -> VocImage:
    """The content of one annotation file.

    Raises:
        UserError: the file is missing, no XML or no annotation, or an object lacks a name or a box.
    """
    root = _parse(path)
    if root.tag != "annotation":
        raise UserError(f"{path}: is no Pascal VOC annotation: its root is <{root.tag}>")
    sides = [_number(root, f"size/{side}", path) for side in ("height", "width")]
    known = all(side is not None and side > 0 for side in sides)
    height, width = (int(side or 0) if known else 0 for side in sides)
    return VocImage(
        file_name=(root.findtext("filename") or "").strip(),
        size=(height, width),
        objects=tuple(
            _object(element, number, path)
            for number, element in enumerate(root.findall("object"), start=1)
        ),
    )


def _parse(path: Path) -> ElementTree.Element:
    try:
        parser = ElementTree.XMLParser(target=_PlainTreeBuilder())
        return ElementTree.fromstring(path.read_bytes(), parser=parser)
    except ElementTree.ParseError as error:
        raise UserError(
            f"{path}: not readable as XML: {error}; the file may be incomplete: copy it again"
        ) from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such annotation file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be opened: {error.strerror}") from None
    except (LookupError, ValueError) as error:
        raise UserError(f"{path}: not readable as XML: {error}") from None


def _object(element: ElementTree.Element, number: int, path: Path) -> VocObject:
    where = f"{path}: object {number}"
    name = (element.findtext("name") or "").strip()
    if not name:
        raise UserError(f"{where}: has no <name>")
    sides = [_number(element, f"bndbox/{side}", path) for side in ("xmin", "ymin", "xmax", "ymax")]
    xmin, ymin, xmax, ymax = sides
    if xmin is None or ymin is None or xmax is None or ymax is None:
        raise UserError(f"{where} ('{name}'): needs a <bndbox> with <xmin> <ymin> <xmax> <ymax>")
    return VocObject(
        name=name,
        box=(xmin, ymin, xmax, ymax),
        is_difficult=bool(_number(element, "difficult", path)),
    )


def _number(element: ElementTree.Element, tag: str, path: Path) -> float | None:
    text = (element.findtext(tag) or "").strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or abs(number) >= 2**31:
        raise UserError(f"{path}: <{tag.replace('/', '><')}> must be a number, is '{text[:60]}'")
    return number
