"""Reading XML files from anywhere, and telling whose they are."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from retina.errors import UserError
from retina.text_files import read_beginning, read_text

_ROOT = re.compile(  # possessive, so that no text makes it try again and again
    r"(?>\s|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>\[]*(?:\[.*?\])?\s*>)*+<([\w.:-]+)", re.DOTALL
)


class _PlainTreeBuilder(ElementTree.TreeBuilder):
    """Builds a tree, but refuses a document type: its entities can swell to any size."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise UserError("holds a DOCTYPE, which annotations do not need and which can be harmful")


def parse_xml(path: Path) -> ElementTree.Element:
    """The root of an annotation file; no entity is expanded.

    Raises:
        UserError: the file is missing, or no XML.
    """
    text = read_text(path, "annotation file")
    try:
        parser = ElementTree.XMLParser(target=_PlainTreeBuilder())
        return ElementTree.fromstring(text, parser=parser)
    except ElementTree.ParseError as error:
        raise UserError(
            f"{path}: not readable as XML: {error}; the file may be incomplete: copy it again"
        ) from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (LookupError, ValueError) as error:
        raise UserError(f"{path}: not readable as XML: {error}") from None


def root_tag(path: Path) -> str:
    """The name of the first element of a file; empty where it is no XML."""
    found = _ROOT.match(read_beginning(path, 4096).lstrip("\ufeff"))
    return found[1] if found else ""
