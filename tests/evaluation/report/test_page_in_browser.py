"""The page of a report as people use it: in a browser, with slider, tables, pictures and keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from retina.evaluation.report.page import html_page
from tests.evaluation.report.chromium import (  # type: ignore[import-not-found]
    Browser,
    find_chromium,
    started,
)
from tests.evaluation.report.synthetic_content import (  # type: ignore[import-not-found]
    content_of,
    pictures_of,
)

CELLS = ("RBC", "WBC", "platelets")
NASTY = (
    "<img src=x onerror=alert(1)>",
    "红细胞",
    "</script><script>alert(2)</script>",
    "a & b",
)
CONTENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "cells": lambda: content_of(CELLS),
    "one": lambda: content_of(["raccoon"], num_objects=40),
    "eighty": lambda: content_of([f"class {n}" for n in range(80)], num_objects=2000),
    "many": lambda: content_of([f"class {n}" for n in range(1203)], num_objects=3000),
    "nothing": lambda: content_of(CELLS, num_objects=20, detects=False),
    "nasty": lambda: content_of(NASTY),
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium or Chrome is installed here: the page is not opened")
    with started(executable, tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture(scope="module")
def written(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[dict[str, Any], Path]]:
    """The content of that name, and its page."""
    made: dict[str, tuple[dict[str, Any], Path]] = {}

    def write(name: str) -> tuple[dict[str, Any], Path]:
        if name not in made:
            content = CONTENTS[name]()
            path = tmp_path_factory.mktemp("pages") / f"{name}.html"
            path.write_text(html_page(content, pictures_of(content)), encoding="utf-8")
            made[name] = content, path
        return made[name]

    return write


def move(browser: Browser, stop: int, iou: str = "0.50") -> None:
    browser.run(
        f"""(() => {{
          const slider = document.getElementById("score");
          slider.value = {stop};
          slider.dispatchEvent(new Event("input"));
          const radio = document.querySelector('input[name=iou][value="{iou}"]');
          radio.checked = true;
          radio.dispatchEvent(new Event("change"));
        }})()"""
    )
    browser.settle()


def texts(browser: Browser, selector: str) -> list[str]:
    found: list[str] = browser.run(
        f"[...document.querySelectorAll({json.dumps(selector)})].map((node) => node.textContent)"
    )
    return found


def text(browser: Browser, selector: str) -> str:
    (found,) = texts(browser, selector)
    return found


def click(browser: Browser, selector: str) -> None:
    browser.run(f"document.querySelector({json.dumps(selector)}).click()")
    browser.settle()


def is_seen(browser: Browser, selector: str) -> bool:
    return bool(
        browser.run(f"document.querySelector({json.dumps(selector)}).getClientRects().length")
    )


def shown(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def rates(tp: int, fp: int, fn: int) -> list[str]:
    precision = tp / (tp + fp) if tp + fp else None
    recall = tp / (tp + fn) if tp + fn else None
    f1 = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None
    return [shown(precision), shown(recall), shown(f1)]


@pytest.mark.parametrize("name", CONTENTS)
def test_the_page_opens_in_peace(
    name: str, browser: Browser, written: Callable[[str], tuple[dict[str, Any], Path]]
) -> None:
    _, path = written(name)
    for width in (1440, 1200, 1000, 390):
        browser.open(path, width=width)
        browser.run("document.querySelectorAll('[role=tab]').forEach((tab) => tab.click())")
        for stop, iou in ((100, "0.75"), (37, "0.50")):
            move(browser, stop, iou)
        assert browser.complaints() == []
        assert browser.requests() == [path.as_uri()]
        assert not [one for one in browser.events if "javascriptDialog" in one.get("method", "")]
        assert browser.run("document.documentElement.scrollWidth") == width
        assert browser.run("document.querySelectorAll('script').length") == 3
        assert browser.run("document.querySelectorAll('img').length") == 0


@pytest.mark.parametrize("name", ["cells", "eighty", "nothing", "nasty"])
def test_every_number_follows_the_slider(
    name: str, browser: Browser, written: Callable[[str], tuple[dict[str, Any], Path]]
) -> None:
    content, path = written(name)
    browser.open(path)
    for stop, iou in ((43, "0.75"), (43, "0.50"), (0, "0.50"), (100, "0.75")):
        move(browser, stop, iou)
        counts = content["counts"][iou]
        tp, fp, fn = (sum(row[stop] for row in counts[kind]) for kind in ("tp", "fp", "fn"))
        if iou == "0.50":
            point = content["operating_points"][stop]
            assert (tp, fp, fn) == (point["tp"], point["fp"], point["fn"])
        expected = [f"{value:,}" for value in (tp, fp, fn)] + rates(tp, fp, fn)
        seen = [text(browser, f"#point-{kind}") for kind in ("tp", "fp", "fn", "precision")]
        seen += [text(browser, f"#point-{kind}") for kind in ("recall", "f1")]
        assert seen == expected
        assert text(browser, "#point-fppi") == shown(fp / content["head"]["num_images"], 2)
        assert text(browser, "#score-value") == f"{stop / 100:.2f}"
        assert set(texts(browser, "[data-point]")) == {f"score ≥ {stop / 100:.2f}, IoU {iou}"}
        assert [text(browser, f"#curve-{rate}") for rate in ("precision", "recall", "f1")] == seen[
            3:
        ]
        check_classes(browser, content, stop, iou)
        check_matrix(browser, content, stop, iou)


def check_classes(browser: Browser, content: dict[str, Any], stop: int, iou: str) -> None:
    """The lines of the table that are there are those of the counts."""
    lines = browser.run(
        """[...document.querySelectorAll("#classes-body tr")].map((line) =>
          [line.dataset.label, ...[...line.children].map((cell) => cell.textContent)])"""
    )
    assert len(lines) == min(50, len(content["categories"]))
    for label, name, num_objects, *numbers in lines:
        category = content["categories"][int(label)]
        tp, fp, fn = (content["counts"][iou][kind][int(label)][stop] for kind in ("tp", "fp", "fn"))
        assert name == category["name"]
        assert num_objects == f"{category['num_objects']:,}"
        assert numbers[:6] == [f"{value:,}" for value in (tp, fp, fn)] + rates(tp, fp, fn)
        kinds = ("AP", "AP50", "AP75", "AR100", "best_f1")
        assert numbers[6:11] == [shown(category[kind]) for kind in kinds]
        assert numbers[11] == shown(category["best_f1_score"], 2)


def check_matrix(browser: Browser, content: dict[str, Any], stop: int, iou: str) -> None:
    """The cells are those of the content, and rows and columns add up to the counts."""
    cells = browser.run(
        """[...document.querySelectorAll("#matrix td[data-truth]")].map((cell) =>
          [cell.dataset.truth, cell.dataset.detected, cell.dataset.count ?? 0].map(Number))"""
    )
    seen = {(truth, detected): count for truth, detected, count in cells if count}
    assert seen == {
        (cell["truth"], cell["detected"]): cell["counts"][stop]
        for cell in content["confusion"][iou]["cells"]
        if cell["counts"][stop]
    }
    for category in content["categories"]:
        label = category["label"]
        tp, fp, fn = (content["counts"][iou][kind][label][stop] for kind in ("tp", "fp", "fn"))
        assert sum(count for (truth, _), count in seen.items() if truth == label) == tp + fn
        assert sum(count for (_, detected), count in seen.items() if detected == label) == tp + fp
        assert seen.get((label, label), 0) == tp
    if len(content["categories"]) > 20:
        return
    sums = browser.run(
        """[...document.querySelectorAll("[data-row-sum]")].map((cell) =>
          [Number(cell.dataset.rowSum), Number(cell.textContent.replace(",", ""))])"""
    )
    assert dict(sums) == {
        label: sum(count for (truth, _), count in seen.items() if truth == label)
        for label in [*range(len(content["categories"])), -1]
    }


def test_numbers_are_rounded_as_python_rounds_them(browser: Browser, tmp_path: Path) -> None:
    values = [0.0625, 0.1875, 0.3125, 0.4375, 0.5625, 0.0005, 0.0015, 0.2005, 0.12345, 1.0, 0.0]
    values += [0.9995, 0.99949999, 1 / 3, 2 / 3, 0.5, 0.8125]
    content = content_of([f"class {n:02}" for n in range(len(values))])
    for category, value in zip(content["categories"], values, strict=True):
        category.update(AP=value, best_f1_score=value)
    path = tmp_path / "page.html"
    path.write_text(html_page(content, {}), encoding="utf-8")
    browser.open(path)
    click(browser, "#classes-head [data-key=name] button")
    assert texts(browser, "#classes-body [data-key=AP]") == [f"{value:.3f}" for value in values]
    seen = texts(browser, "#classes-body [data-key=best_f1_score]")
    assert seen == [f"{value:.2f}" for value in values]


def test_classes_are_sorted_filtered_and_paged(
    browser: Browser, written: Callable[[str], tuple[dict[str, Any], Path]]
) -> None:
    content, path = written("many")
    browser.open(path)
    move(browser, 30)
    for key in ("fp", "num_objects", "AP"):
        for direction in ("descending", "ascending"):
            click(browser, f"#classes-head [data-key={key}] button")
            head = f"document.querySelector('#classes-head [data-key={key}]')"
            direction = browser.run(f"{head}.getAttribute('aria-sort')")
            column = texts(browser, f"#classes-body [data-key={key}]")
            numbers = [float(one.replace(",", "")) for one in column if one != "–"]
            assert numbers == sorted(numbers, reverse=direction == "descending")
            assert len(column) == 50
    best = max(row[30] for row in content["counts"]["0.50"]["fp"])
    click(browser, "#classes-head [data-key=fp] button")
    assert texts(browser, "#classes-body [data-key=fp]")[0] == f"{best:,}"
    assert text(browser, "#classes-range") == "1–50 of 1,203 classes"
    click(browser, "#classes-next")
    assert text(browser, "#classes-range") == "51–100 of 1,203 classes"
    browser.run(
        """(() => { const field = document.getElementById("classes-filter");
        field.value = "CLASS 120"; field.dispatchEvent(new Event("input")); })()"""
    )
    assert sorted(texts(browser, "#classes-body th")) == [
        "class 120",
        "class 1200",
        "class 1201",
        "class 1202",
    ]
    assert not is_seen(browser, "#classes-pager")
    assert not is_seen(browser, "#matrix-part")
    rows = texts(browser, "#confusions [data-key=count]")
    kept = [cell["counts"][30] for cell in content["confusion"]["0.50"]["cells"]]
    assert [int(row) for row in rows] == sorted((one for one in kept if one), reverse=True)
    left_out = content["confusion"]["0.50"]["num_left_out"]
    assert f"{left_out:,} others left out" in text(browser, "#confusions-note")


def test_a_cell_opens_its_examples(
    browser: Browser, written: Callable[[str], tuple[dict[str, Any], Path]]
) -> None:
    content, path = written("cells")
    browser.open(path)
    kept = content["gallery"]["confusions"][0]
    truth, detected = kept["truth"], kept["detected"]
    cell = next(
        one
        for one in content["confusion"]["0.50"]["cells"]
        if (one["truth"], one["detected"]) == (truth, detected)
    )
    click(browser, f'#matrix [data-truth="{truth}"][data-detected="{detected}"]')
    what = f"{CELLS[truth]} taken for {CELLS[detected]}"
    title = f"{what}: {cell['counts'][43]} at score ≥ 0.43, IoU 0.50"
    assert text(browser, "#dialog-title") == title
    figures = "document.querySelectorAll('#dialog figure')"
    assert browser.run(f"{figures}.length") == len(kept["items"])
    said = f"3 of these {cell['counts'][43]}, at score ≥ 0.43, IoU 0.50."
    others = "1 example that the cell counts at other scores."
    paragraphs = texts(browser, "#dialog-body > p")
    assert paragraphs[0] == said
    assert paragraphs[1].startswith(others)
    notes = texts(browser, "#dialog figcaption")
    assert ["counted at scores 0.00 – 0.10" in one for one in notes] == [False] * 3 + [True]
    click(browser, "#dialog figure button")
    assert text(browser, "#dialog-title") == "scene_0001.jpg"
    lines = texts(browser, "#dialog .boxes tbody tr")
    image = content["images"][1]
    assert len(lines) == len(image["truth"]) + len(image["detections"])
    click(browser, "#dialog-back")
    assert text(browser, "#dialog-title") == title
    browser.press("Escape")
    assert not browser.run("document.getElementById('dialog').open")
    click(browser, '#matrix [data-truth="0"][data-detected="0"]')
    assert text(browser, "#dialog-body") == "This page has no room for an example of this cell."
    click(browser, "#dialog-close")
    click(browser, "#confusions button")
    assert browser.run("document.getElementById('dialog').open")


def test_boxes_are_drawn_in_pixels_and_switched(
    browser: Browser, written: Callable[[str], tuple[dict[str, Any], Path]]
) -> None:
    content, path = written("cells")
    browser.open(path)
    image = content["images"][0]
    figure = "#panel-worst_images figure[data-image='0']"
    frames = browser.run(
        f"""[...document.querySelectorAll("{figure} .truth .over")].map((box) =>
          ["x", "y", "width", "height"].map((name) => Number(box.getAttribute(name))))"""
    )
    boxes = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (o["box"] for o in image["truth"])]
    assert frames == [pytest.approx(box) for box in boxes]
    view = browser.run(f"""document.querySelector("{figure} svg").getAttribute("viewBox")""")
    assert view == f"0 0 {image['width']} {image['height']}"
    boxes_in_sight = f"""[...document.querySelectorAll("{figure} .detection")]
        .filter((one) => one.getClientRects().length > 0).length"""
    for stop in (0, 43, 90, 100):
        move(browser, stop)
        expected = sum(one["score"] >= stop / 100 for one in image["detections"])
        assert browser.run(boxes_in_sight) == expected
    click(browser, "#gallery input[data-boxes=faint]")
    assert browser.run(boxes_in_sight) == len(image["detections"])
    click(browser, "#gallery input[data-boxes=detections]")
    assert browser.run(boxes_in_sight) == 0
    assert is_seen(browser, f"{figure} .truth")
    click(browser, "#gallery input[data-boxes=truth]")
    assert not is_seen(browser, f"{figure} .truth")


def test_a_class_has_its_curves(
    browser: Browser, written: Callable[[str], tuple[dict[str, Any], Path]]
) -> None:
    content, path = written("cells")
    browser.open(path)
    paths = "[...document.querySelectorAll('#curves .line')].map((one) => one.getAttribute('d'))"
    before = browser.run(paths)
    assert len(before) == 5  # two of precision over recall, three over the score
    browser.run(
        """(() => { const select = document.getElementById("curve-class"); select.value = "1";
        select.dispatchEvent(new Event("change")); })()"""
    )
    after = browser.run(paths)
    assert all(one != other for one, other in zip(before, after, strict=True))
    tp, fp, fn = (content["counts"]["0.50"][kind][1][43] for kind in ("tp", "fp", "fn"))
    seen = [text(browser, f"#curve-{rate}") for rate in ("precision", "recall", "f1")]
    assert seen == rates(tp, fp, fn)
    position = float(browser.run("document.getElementById('chart-stop').getAttribute('x1')"))
    assert position == pytest.approx(44 + 0.43 * 420)


def test_the_page_is_used_by_keyboard(
    browser: Browser, written: Callable[[str], tuple[dict[str, Any], Path]]
) -> None:
    _, path = written("cells")
    browser.open(path)
    browser.press("Tab")
    assert browser.run("document.activeElement.className") == "skip"
    browser.run("document.getElementById('score').focus()")
    browser.press("ArrowRight")
    assert text(browser, "#score-value") == "0.44"
    assert browser.run("document.activeElement.getAttribute('aria-valuetext')") == "score 0.44"
    browser.press("Home")
    assert text(browser, "#score-value") == "0.00"
    browser.run("document.getElementById('tab-worst_images').focus()")
    browser.press("ArrowRight")
    assert browser.run("document.activeElement.id") == "tab-false_alarms"
    assert is_seen(browser, "#panel-false_alarms")
    assert not is_seen(browser, "#panel-worst_images")
    browser.press("End")
    assert browser.run("document.activeElement.id") == "tab-label_errors"
    browser.run("document.querySelector('#panel-label_errors .open').focus()")
    browser.press("Enter")
    assert browser.run("document.getElementById('dialog').contains(document.activeElement)")
    browser.press("Escape")
    assert browser.run("document.activeElement.className") == "open"
    browser.run("document.querySelector('#matrix td[tabindex=\"0\"]').focus()")
    browser.press("ArrowRight")
    assert browser.run("document.activeElement.dataset.detected") == "1"
    assert "RBC taken for WBC" in text(browser, "#matrix-reading")
    browser.press("Enter")
    assert browser.run("document.getElementById('dialog').open")
    browser.press("Escape")
    assert browser.run("document.activeElement.dataset.detected") == "1"


def test_light_and_dark(
    browser: Browser, written: Callable[[str], tuple[dict[str, Any], Path]]
) -> None:
    _, path = written("cells")
    background = "getComputedStyle(document.body).backgroundColor"
    browser.open(path, color_scheme="light")
    light = browser.run(background)
    click(browser, "#theme")
    dark = browser.run(background)
    assert dark != light
    browser.open(path, color_scheme="dark")
    assert browser.run(background) == dark
    click(browser, "#theme")
    assert browser.run(background) == light


def test_paper_shows_all_and_has_no_controls(
    browser: Browser, written: Callable[[str], tuple[dict[str, Any], Path]]
) -> None:
    content, path = written("cells")
    browser.open(path, color_scheme="dark")
    on_screen = browser.pdf()
    assert on_screen.startswith(b"%PDF")
    browser.send("Emulation.setEmulatedMedia", media="print")
    browser.settle()
    for kind in ("worst_images", "false_alarms", "missed", "badly_placed", "label_errors"):
        assert is_seen(browser, f"#panel-{kind}")
        figures = browser.run(f"document.querySelectorAll('#panel-{kind} figure').length")
        assert figures == len(content["gallery"][kind])
    for selector in ("#theme", "#suggested", "nav", "[role=tablist]", "#classes-filter", ".skip"):
        assert not is_seen(browser, selector)
    assert is_seen(browser, "#point-precision")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.getElementById('point')).position") == "static"


def test_paper_has_every_class(
    browser: Browser, written: Callable[[str], tuple[dict[str, Any], Path]]
) -> None:
    content, path = written("eighty")
    browser.open(path)
    click(browser, "#classes-next")
    for media, rows in (("print", 80), ("screen", 30)):
        browser.send("Emulation.setEmulatedMedia", media=media)
        browser.settle()
        seen = texts(browser, "#classes-body th")
        assert len(seen) == rows
    assert set(texts(browser, "#classes-body th")) < {c["name"] for c in content["categories"]}


def test_the_detectors_thresholds_stand_beside_their_classes(
    browser: Browser, tmp_path: Path
) -> None:
    content = content_of(CELLS)
    path = tmp_path / "page.html"
    for thresholds in ((None,) * 3, (0.25, 0.4, 0.625)):
        for category, threshold in zip(content["categories"], thresholds, strict=True):
            category["threshold"] = threshold
        path.write_text(html_page(content, {}), encoding="utf-8")
        browser.open(path)
        seen = texts(browser, "#classes-body [data-key=threshold]")
        assert sorted(seen) == [f"{one:.2f}" for one in thresholds if one is not None]
    assert "the slider holds one for all" in text(browser, "#classes .basis")


def test_the_bar_stays_in_sight(
    browser: Browser, written: Callable[[str], tuple[dict[str, Any], Path]]
) -> None:
    _, path = written("cells")
    for width in (1440, 390):
        browser.open(path, width=width, height=844)
        browser.run("document.getElementById('glossary').scrollIntoView()")
        browser.settle()
        place = "document.getElementById('point').getBoundingClientRect()"
        top, bottom = browser.run(f"{place}.top"), browser.run(f"{place}.bottom")
        assert top == 0
        assert bottom < 844 / 5
