"""The page of `retina data check`: pictures of the findings, nothing from elsewhere."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retina.datasets.check_page import html_page, section_of_repeats, sections_of
from retina.datasets.checking import check_dataset
from retina.datasets.repeats import Repeat
from tests.reading import read_coco  # type: ignore[import-not-found]

CocoWriter = Callable[..., tuple[Path, Path]]


def pixels_of(url: str) -> Any:
    content = base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def test_boxes_are_drawn_where_they_are_annotated(write_coco: CocoWriter) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["categories"][0]["name"] = "<script>"
        tree["annotations"][0]["bbox"] = [40, 10, 30, 20]  # reaches out by 10
        tree["annotations"][2]["bbox"] = [5, 5, 10, 10]

    images, path = write_coco(change)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (60, 40), (0, 0, 90)).save(images / name)
    dataset = read_coco(images, path)
    (images / "b.png").write_bytes(b"\x89PNG")
    sections = {one.text: one for one in sections_of(dataset, check_dataset(dataset))}
    assert sections["1 images cannot be used"].level == "error"
    assert sections["1 images cannot be used"].rows[0][0].url == ""
    section = next(one for text, one in sections.items() if "reaching out" in text)
    ((picture,),) = section.rows
    assert picture.caption == "a.png: <script> [40, 10, 30, 20]"
    pixels = pixels_of(picture.url)
    assert pixels.shape == (40 + 48, 60 + 48, 3)
    is_yellow = (pixels[:, :, 0] > 180) & (pixels[:, :, 2] < 110)
    rows, columns = np.nonzero(is_yellow)
    edges = [columns.min(), rows.min(), columns.max(), rows.max()]
    assert np.allclose(edges, np.array([40, 10, 70, 30]) + 24, atol=2)
    page = html_page("a & b", "done", {"set": list(sections.values())})
    assert "<script>" not in page
    assert "a &amp; b" in page
    assert set(re.findall(r'(?:src|href)="(.{10})', page)) == {"data:image"}


def test_repeats_stand_side_by_side(write_coco: CocoWriter) -> None:
    splits = {"train": read_coco(*write_coco()), "test": read_coco(*write_coco(name="other"))}
    repeat = Repeat("equal files", (("train", 0), ("test", 1)))
    section = section_of_repeats("shared", [repeat] * 70, splits)
    assert len(section.rows) == 60
    assert section.left_out == 10
    assert section.level == "warning"
    assert [picture.caption for picture in section.rows[0]] == ["train: a.png", "test: b.png"]
    assert "and 10 more" in html_page("x", "y", {"set": [section]})
