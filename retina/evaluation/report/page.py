"""The report as one page, ``report.html``: its content, pictures, style and scripts in one file.

The page loads nothing from anywhere: a policy in its head allows only its own script and style, by
their hashes, and pictures that are in the file.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import jinja2

from retina.datasets.coco_results import scores_fix
from retina.evaluation.report.page_pictures import Picture, fit_pictures

__all__ = ["MAX_BYTES", "Picture", "fit_pictures", "html_page"]

MAX_BYTES = 5_000_000
"""The size that a page stays under: mail servers take it, and phones open it at once."""

SCRIPTS = (
    "numbers",
    "elements",
    "content",
    "state",
    "charts",
    "point",
    "classes",
    "confusion",
    "curves",
    "pictures",
    "gallery",
    "page",
)
"""The scripts of the page, each using only those before it; together they are one script."""


def html_page(
    content: Mapping[str, Any], pictures: Mapping[str, Picture], *, max_bytes: int = MAX_BYTES
) -> str:
    """The page.

    Args:
        content: what ``report.json`` holds.
        pictures: those that the images of the content name, the most important ones first.
        max_bytes: the size to stay under. Pictures are made smaller for it, and the last ones left
            out, which the page says. Nothing else is: what has no room beside it has no picture.

    Returns:
        HTML that loads nothing, with every name escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retina.evaluation.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        decimals=decimals, count=count, interval=interval, file_names=file_names
    )
    style = _source(environment, "report.css")
    script = "\n".join(_source(environment, f"scripts/{name}.js") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{script}}})();\n'
    embedded = _embedded(_packed(content))
    room = max_bytes - len(embedded) - len(style) - len(script) - _ROOM_FOR_MARKUP
    fitted = fit_pictures(pictures, max(0, room))
    page = environment.get_template("report.html").render(
        content=content,
        embedded=embedded,
        pictures=_embedded({key: _url(picture) for key, picture in fitted.pictures.items()}),
        scores_fix=scores_fix(*(content["head"]["score_range"] or (0.0, 1.0))),
        num_left_out=fitted.num_left_out,
        num_blank=sum(one["picture"] not in fitted.pictures for one in content["images"]),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    # A file name that is not UTF-8 has lone surrogates, which no file can be written with.
    return page.encode("utf-8", "replace").decode("utf-8")


def decimals(value: float | None, digits: int = 3) -> str:
    """A number as it stands on the page; a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}"


def count(value: int | None) -> str:
    """A count with its thousands apart; a dash for none."""
    return "–" if value is None else f"{value:,}"


def interval(metric: Mapping[str, float | None]) -> str:
    """The interval of one of the twelve numbers; empty where there is none."""
    if metric["low"] is None or metric["high"] is None:
        return ""
    return f"{decimals(metric['low'])} – {decimals(metric['high'])}"


def file_names(paths: str) -> str:
    """The names of files, without their folders; what is no path stays as it is."""
    return ", ".join(PurePath(path).name or path for path in paths.split(", "))


_ROOM_FOR_MARKUP = 150_000
"""Bytes for the tables that the template writes."""


def _packed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with every list of 101 counts as its changes, which are few in a large set."""
    counts = {
        iou: {kind: [_changes(row) for row in rows] for kind, rows in kinds.items()}
        for iou, kinds in content["counts"].items()
    }
    confusion = {
        iou: {
            **matrix,
            "cells": [{**cell, "counts": _changes(cell["counts"])} for cell in matrix["cells"]],
        }
        for iou, matrix in content["confusion"].items()
    }
    return {**content, "counts": counts, "confusion": confusion}


def _changes(values: Sequence[int]) -> list[int]:
    """The first value, then the position and the value of every change."""
    changes = [values[0]]
    for position in range(1, len(values)):
        if values[position] != values[position - 1]:
            changes += [position, values[position]]
    return changes


def _embedded(value: object) -> str:
    """JSON that cannot end the element that it stands in, whatever names it holds; ASCII only."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _url(picture: Picture) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(picture.jpeg).decode("ascii")


def _source(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0].replace("\r\n", "\n")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")
