"""The page of a report as a file: whole, safe, alone and small enough."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retina.evaluation.report.page import MAX_BYTES, Picture, fit_pictures, html_page
from tests.evaluation.report.synthetic_content import (  # type: ignore[import-not-found]
    content_of,
    pictures_of,
)

CELLS = ("RBC", "WBC", "platelets")
NASTY = (
    "<img src=x onerror=alert(1)>",
    "红细胞",
    "</script><script>alert(2)</script>",
    "a & b \u2028 \"c\" 'd'",
)
VOID = {"meta", "input", "img", "br", "link"}


class Elements(HTMLParser):
    """The elements of a page, each of which must be closed where it was opened."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.names: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, str] = {}
        self.of_script = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        found = {name: value or "" for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in found.items()]
        self.ids += [found["id"]] if "id" in found else []
        self.of_script = found.get("id", tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.texts[self.of_script] = self.texts.get(self.of_script, "") + data


def elements_of(page: str) -> Elements:
    elements = Elements()
    elements.feed(page)
    elements.close()
    assert elements.open == []
    return elements


def unpacked(changes: list[int]) -> list[int]:
    """As the page does it: the first value, then position and value of every change."""
    values = [changes[0]] * 101
    for position, value in zip(changes[1::2], changes[2::2], strict=True):
        values[position:] = [value] * (101 - position)
    return values


def whole(embedded: dict[str, Any]) -> dict[str, Any]:
    for kinds in embedded["counts"].values():
        for kind, rows in kinds.items():
            kinds[kind] = [unpacked(row) for row in rows]
    for matrix in embedded["confusion"].values():
        for cell in matrix["cells"]:
            cell["counts"] = unpacked(cell["counts"])
    return embedded


@pytest.mark.parametrize("names", [CELLS, NASTY, ("one",)], ids=["cells", "nasty", "one"])
def test_the_page_holds_the_content_and_closes_what_it_opens(names: tuple[str, ...]) -> None:
    content = content_of(names)
    page = html_page(content, pictures_of(content))
    elements = elements_of(page)
    assert whole(json.loads(elements.texts["content"])) == content
    assert set(json.loads(elements.texts["pictures"])) == {f"p{number}" for number in range(12)}
    assert len(elements.ids) == len(set(elements.ids))
    assert elements.names.count("script") == 3
    assert "img" not in elements.names
    for tag, name, value in elements.attributes:  # what a label, link or tab points at is there
        if name in ("for", "aria-labelledby", "aria-controls"):
            assert value in elements.ids
        if (tag, name) == ("a", "href"):
            assert value.removeprefix("#") in elements.ids


def test_names_stay_names() -> None:
    content = content_of(NASTY)
    for image in content["images"]:
        image["file_name"] = "\udcff<b>.jpg"  # not UTF-8 on disk
    content["head"]["dataset"] = "<script>x</script>\udcff"
    content["overlap"]["pairs"][0]["train"] = "<i>\udcff"
    page = html_page(content, {})
    assert page.encode("utf-8")
    assert "<img" not in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page  # in the verdict
    assert elements_of(page).names.count("script") == 3
    assert "\u2028" not in page.split('id="content"')[1]


def test_nothing_comes_from_elsewhere() -> None:
    content = content_of(CELLS)
    page = html_page(content, pictures_of(content))
    elements = elements_of(page)
    links = [value for _, name, value in elements.attributes if name in ("href", "src", "action")]
    assert links
    assert all(link.startswith("#") for link in links)
    assert set(re.findall(r"\w+://[^\"'`\s]*", page)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in page
    assert "@import" not in page
    assert not [name for _, name, _ in elements.attributes if name == "style" or name[:2] == "on"]
    (policy,) = [value for _, _, value in elements.attributes if value.startswith("default-src")]
    for name in ("style", "script"):
        digest = hashlib.sha256(elements.texts[name].encode()).digest()
        assert f"{name}-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_the_fixed_numbers_are_there_without_a_script() -> None:
    content = content_of(CELLS)
    page = html_page(content, {})
    for text in (
        "0.514",
        "0.454 – 0.564",
        "0.102",
        "0.131",
        "88.4",
        "AP would be at most",
        "1,000",
    ):
        assert text in page
    for sentence in content["verdict"]:
        assert sentence["text"] in page
    assert page.count("<dt>") > 25  # facts, numbers and the glossary


@pytest.mark.parametrize("absent", ["tide", "calibration", "label_errors", "overlap", "speed"])
def test_what_was_not_computed_is_said(absent: str) -> None:
    content = {**content_of(CELLS), absent: None}
    page = html_page(content, {})
    said = {
        "tide": "Not computed: there are no detections",
        "calibration": "Not computed: there are too few",
        "label_errors": "Confident detections that contradict",
        "overlap": "training set is not known",
        "speed": "Not measured",
    }
    assert said[absent] in page


def test_scores_that_are_no_shares_are_told_at_the_slider() -> None:
    content = content_of(CELLS)
    assert "scores-notice" not in html_page(content, {})
    content["head"]["score_range"] = [0.4, 99.7]
    content["calibration"] = None
    page = html_page(content, {})
    assert "The scores run from 0.4 to 99.7" in page
    assert "divide them by 100" in page
    assert "Not computed: the scores are not from 0 to 1" in page


def test_a_cap_on_the_detections_is_told() -> None:
    content = content_of(CELLS)
    page = html_page(content, {})
    assert "100 detections an image" in page
    assert "cap-note" not in page
    content["head"].update(max_detections=5, num_beyond_cap=20, num_detections=120)
    page = html_page(content, {})
    assert "100 detections an image" not in page
    assert page.count("5 detections an image") == 2  # AR10 and AR100
    assert "with at most 5 detections of a class in an image." in page
    assert "The slider counts all 120 detections; AP and AR count at most 5 of a class" in page
    assert "with at most 1 or 5 detections" in page


def test_no_temperature_is_told() -> None:
    content = content_of(CELLS)
    content["calibration"].update(temperature=None, ece_after=None, bins_after=[])
    assert "no temperature mends the scores" in html_page(content, {})


def test_the_title_is_the_file_and_its_path_stands_below() -> None:
    content = content_of(CELLS)
    page = html_page(content, {})
    assert "<h1>best.safetensors</h1>" in page
    assert '<p class="path">runs/cells/checkpoints/best.safetensors</p>' in page
    content["head"]["detector"] = "coco_v1"
    page = html_page(content, {})
    assert "<h1>coco_v1</h1>" in page
    assert 'class="path"' not in page
    content["head"].update(detector=None, detections="a/one.json, b/two.json")
    assert "<h1>one.json, two.json</h1>" in html_page(content, {})


def test_nothing_at_all_makes_a_page() -> None:
    content = content_of(CELLS, num_objects=0, num_images=0, detects=False)
    for part in content["breakdown"]:
        content["breakdown"][part] = []
    content["recall"] = {"by_objects_per_image": [], "by_cap": []}
    page = html_page(content, {})
    elements_of(page)
    assert "None." in page
    assert "blank canvas" not in page.split("<script")[0]


def noise(number: int, side: int = 640) -> Picture:
    """A picture that JPEG cannot make small."""
    pixels = np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return Picture(stream.getvalue(), side, side)


def test_pictures_that_fit_are_left_as_they_are() -> None:
    pictures = {"a": noise(0, 64), "b": noise(1, 64)}
    fitted = fit_pictures(pictures, 100_000)
    assert fitted.pictures == pictures
    assert fitted.num_left_out == 0


def test_pictures_become_smaller_before_any_is_left_out() -> None:
    pictures = {str(number): noise(number) for number in range(3)}
    size = sum(len(picture.jpeg) for picture in pictures.values()) * 4 // 3
    fitted = fit_pictures(pictures, size // 3)
    assert list(fitted.pictures) == ["0", "1", "2"]
    assert fitted.num_left_out == 0
    for picture in fitted.pictures.values():
        assert Image.open(io.BytesIO(picture.jpeg)).size == (picture.width, picture.height)
        assert 320 <= picture.width < 640


def test_the_last_pictures_are_left_out_and_counted() -> None:
    pictures = {str(number): noise(number) for number in range(6)}
    fitted = fit_pictures(pictures, 150_000)
    assert list(fitted.pictures) == [str(number) for number in range(len(fitted.pictures))]
    assert 0 < len(fitted.pictures) < 6
    assert fitted.num_left_out == 6 - len(fitted.pictures)
    assert sum(len(one.jpeg) for one in fitted.pictures.values()) * 4 / 3 < 150_000
    assert fit_pictures(pictures, 0).num_left_out == 6


def test_the_page_stays_under_its_size_and_says_what_it_left_out() -> None:
    content = content_of(CELLS, num_images=6)
    pictures = {f"p{number}": noise(number, 400) for number in range(6)}
    page = html_page(content, pictures, max_bytes=400_000)
    assert len(page.encode()) < 400_000
    num_kept = len(json.loads(elements_of(page).texts["pictures"]))
    assert 0 < num_kept < 6
    assert f"{6 - num_kept} pictures did not fit into this file" in page
    assert "did not fit" not in html_page(content, pictures)


def test_missing_pictures_are_said() -> None:
    content = content_of(CELLS)
    assert "boxes are drawn on blank canvases" in html_page(content, {})
    content["images"][3]["picture"] = None
    page = html_page(content, pictures_of({"images": content["images"][:3]}))
    assert "9 of 12 images have no picture here" in page
    assert (
        "blank canvas"
        not in html_page(content_of(CELLS), pictures_of(content_of(CELLS))).split("<script")[0]
    )


def test_a_thousand_classes_fit() -> None:
    content = content_of([f"class {n}" for n in range(1203)], num_objects=6000)
    raw = json.dumps({key: content[key] for key in ("counts", "confusion")})
    page = html_page(content, pictures_of(content))
    assert len(raw) > 1_500_000
    assert len(page.encode()) < MAX_BYTES / 3
