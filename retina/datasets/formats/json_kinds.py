"""Telling the JSON files of the formats apart by their first keys, without reading them whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from retina.text_files import read_beginning

JsonKind = Literal["coco", "labelme", "via", "via3", ""]

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?(\s*:)?|[{}\[\]]')


def json_kind(path: Path) -> JsonKind:
    """Whose annotations a JSON file holds; empty where its beginning does not say.

    A file that cannot be read, or is no JSON, has no kind; reading it says why.
    """
    outer, inner, is_whole = _first_keys(read_beginning(path))
    if outer & {"shapes", "imageData", "imagePath"}:
        return "labelme"
    if outer & {"_via_img_metadata", "_via_settings"} or (
        "filename" in inner and inner & {"regions", "fileref", "file_attributes", "size"}
    ):
        return "via"
    if outer >= {"project", "config", "attribute", "file"}:
        return "via3"
    if outer & {"images", "annotations"}:
        return "coco"
    if outer >= {"info", "licenses"} or ("categories" in outer and not is_whole):
        return "coco"
    return ""


def _first_keys(text: str) -> tuple[set[str], set[str], bool]:
    """The keys of an object, those of the objects that are its values, and whether it ends."""
    open_brackets = ""
    outer: set[str] = set()
    inner: set[str] = set()
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        if first in "{[":
            open_brackets += first
        elif first in "}]":
            open_brackets = open_brackets[:-1]
        elif token[1] and open_brackets in ("{", "{{"):
            keys = outer if open_brackets == "{" else inner
            keys.add(token[0].removesuffix(token[1])[1:-1])
    return outer, inner, not open_brackets
