"""The page of a comparison: it loads nothing, and no name is taken for HTML."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from retina.datasets import CocoConfig
from retina.evaluation.comparison.differences import Difference
from retina.evaluation.comparison.page import html_page, interval_bar
from retina.evaluation.folder import read_as_scored

Make = Callable[..., Path]
ALL = range(1, 31)
VOID = {"meta", "input", "link", "br", "img"}


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def page(
    write_truth: Make, write_results: Make, compared: Callable[..., Any]
) -> Callable[..., str]:
    def make(change: Callable[[dict[str, Any]], None] | None = None, **found: Any) -> str:
        truth = write_truth(change=change)
        a = write_results("a.json", cats=range(1, 16), dogs=ALL)
        b = write_results("<i>b.json", **(found or {"cats": ALL, "dogs": ALL, "false": (1, 2)}))
        dataset = read_as_scored(CocoConfig(images=truth.parent, annotations=truth), None)
        return html_page(compared(a, b, truth=truth), dataset)

    return make


def test_it_is_whole_and_loads_nothing(page: Callable[..., str]) -> None:
    html = page()
    tags = _Tags()
    tags.feed(html)
    assert tags.open == []
    assert "script" not in tags.seen
    assert not re.search(r"""(href|src)=["'](?!#|data:)""", html)
    assert "B is better than A" in html
    assert "no picture" in html  # the images are not there
    assert html.count('class="box only-second"') == 6  # of the six images that are shown


def test_names_are_never_html(page: Callable[..., str]) -> None:
    def rename(tree: dict[str, Any]) -> None:
        tree["categories"][0]["name"] = "<script>alert(1)</script>"
        tree["categories"][1]["name"] = '狗 & "dog"'
        for image in tree["images"]:
            image["file_name"] = f"<b>{image['id']}.jpg"

    html = page(rename)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "狗 &amp; &#34;dog&#34;" in html
    assert "<b>16.jpg" not in html
    assert "&lt;b&gt;16.jpg" in html
    assert "<i>b.json" not in html


def test_pictures_are_in_it(page: Callable[..., str], tmp_path: Path) -> None:
    for number in ALL:
        PIL.Image.new("RGB", (400, 300), (number, 90, 90)).save(tmp_path / f"{number}.jpg")
    html = page()
    assert html.count('<image href="data:image/jpeg;base64,') == 6
    assert "no picture" not in html


def test_equal_sides_have_a_page(page: Callable[..., str]) -> None:
    html = page(cats=range(1, 16), dogs=ALL)
    assert "AP is the same in every resample" in html
    assert "<figure" not in html


@pytest.mark.slow
def test_many_classes_keep_it_small(page: Callable[..., str]) -> None:
    def many(tree: dict[str, Any]) -> None:
        tree["categories"] += [{"id": i, "name": f"kind {i}"} for i in range(4, 1204)]
        tree["annotations"] += [
            {"id": 9000 + i, "image_id": 1 + i % 30, "category_id": i, "bbox": [1, 1, 9, 9],
             "area": 81, "iscrowd": 0}
            for i in range(4, 1204)
        ]  # fmt: skip

    html = page(many)
    assert len(html) < 500_000
    assert "1152 more, and those without an object, are in comparison.json" in html


@pytest.mark.parametrize(
    ("low", "high", "start", "width"), [(-0.1, 0.1, 0.0, 100.0), (0.0, 0.05, 50.0, 25.0)]
)
def test_an_interval_is_drawn_around_the_middle(
    low: float, high: float, start: float, width: float
) -> None:
    one = Difference("AP", 0.5, 0.5 + (low + high) / 2, low, high, 0.5, 9, 9)
    bar = interval_bar(one, 0.1)
    assert bar is not None
    assert bar.start == pytest.approx(start)
    assert bar.width == pytest.approx(width)
    assert bar.dot == pytest.approx(start + width / 2)
