"""The page at / as people use it, in a browser, from the service that it belongs to."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retina.structures import Categories
from tests.evaluation.report.chromium import (  # type: ignore[import-not-found]
    Browser,
    find_chromium,
    started,
)
from tests.serving.running import (  # type: ignore[import-not-found]
    GREEN_BOX,
    PATIENCE,
    RED_BOX,
    RectangleRuntime,
    Running,
    encoded,
    running,
    scene,
)

NASTY = "<img src=x onerror=alert(1)>"
SCALE = 10
PICTURE = np.repeat(np.repeat(scene(), SCALE, axis=0), SCALE, axis=1)
PNG = encoded(PICTURE)


class NastyRuntime(RectangleRuntime):
    """Its second class has a name that is no markup, and there are many more."""

    def __init__(self) -> None:
        super().__init__()
        others = [f"class {number}" for number in range(80)]
        self.categories = Categories(("red", NASTY, *others), tuple(range(3, 85)))
        self.thresholds = self.thresholds.new_tensor([0.5, 0.6] + [0.3] * 80)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = find_chromium()
    if executable is None:
        pytest.skip("no Chromium or Chrome is installed here: the page is not opened")
    with started(executable, tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    with running(NastyRuntime()) as service:
        yield service


def open_page(browser: Browser, served: Running, *, width: int = 1440) -> None:
    browser.open(f"{served.address}/", width=width)


def wait_for(browser: Browser, script: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not browser.run(script):
        assert time.monotonic() < deadline, script
        time.sleep(0.02)
    browser.settle()


def drop(browser: Browser, data: bytes, kind: str = "image/png") -> None:
    """Let a file fall on the page, and wait until it is dealt with."""
    browser.run(
        f"""(() => {{
          const text = atob("{base64.b64encode(data).decode()}");
          const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], "photo", {{ type: "{kind}" }}));
          const about = {{ bubbles: true, cancelable: true, dataTransfer }};
          for (const type of ["dragover", "drop"])
            document.body.dispatchEvent(new DragEvent(type, about));
        }})()"""
    )
    wait_for(browser, 'document.getElementById("status").textContent !== "Looking …"')


def text(browser: Browser, selector: str) -> str:
    found: str = browser.run(f"document.querySelector({json.dumps(selector)}).textContent")
    return found


def is_seen(browser: Browser, selector: str) -> bool:
    rectangles = f"document.querySelector({json.dumps(selector)}).getClientRects().length"
    return bool(browser.run(rectangles))


def slide(browser: Browser, selector: str, value: float) -> None:
    browser.run(
        f"""(() => {{
          const slider = document.querySelector({json.dumps(selector)});
          slider.value = {value};
          slider.dispatchEvent(new Event("input"));
        }})()"""
    )
    browser.settle()


def drawn(browser: Browser) -> dict[str, list[float]]:
    """For each box its name, and x, y, width and height in pixels of the picture, but for lines."""
    boxes: dict[str, list[float]] = browser.run(
        """(() => {
          const picture = document.getElementById("picture").getBoundingClientRect();
          const scale = 480 / picture.width;
          return Object.fromEntries([...document.querySelectorAll(".box")].map((box) => {
            const { x, y, width, height } = box.getBoundingClientRect();
            const sides = [x - picture.x, y - picture.y, width, height];
            return [box.textContent, sides.map((side) => side * scale)];
          }));
        })()"""
    )
    return boxes


def result(browser: Browser) -> Any:
    return json.loads(text(browser, "#text"))


STAYS_INSIDE = """(() => {
  const inner = document.querySelector("INNER");
  const outer = inner.closest("section, aside").getBoundingClientRect();
  const { left, right } = inner.getBoundingClientRect();
  return left >= outer.left && right <= outer.right;
})()"""


def times(box: list[float]) -> list[float]:
    return [SCALE * side for side in box]


@pytest.mark.parametrize("width", [1440, 390])
def test_a_picture_is_dropped_and_its_boxes_lie_on_it(
    width: int, browser: Browser, served: Running
) -> None:
    open_page(browser, served, width=width)
    assert "up to 50 MB, 64 megapixels" in text(browser, "#accepted")
    assert not is_seen(browser, "#copy")
    drop(browser, PNG)
    shown = drawn(browser)
    assert shown == {"red 0.75": pytest.approx(times(RED_BOX), abs=1.5)}
    assert text(browser, "#status").startswith("1 of 2 detections shown · 480 × 320 pixels · ")
    slide(browser, "#classes .row:nth-child(2) input", 0.5)
    shown = drawn(browser)
    assert shown[f"{NASTY} 0.50"] == pytest.approx(times(GREEN_BOX), abs=1.5)
    assert len(shown) == 2
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for inner in ("#frame", "#text", "#example", "#copy"):
        assert browser.run(STAYS_INSIDE.replace("INNER", inner)), inner
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.complaints() == []
    assert not [one for one in browser.events if "javascriptDialog" in one.get("method", "")]
    own = {f"{served.address}{path}" for path in ("/", "/v1/model", "/v1/detect?score_threshold=0")}
    asked = {url for url in browser.requests() if not url.startswith("blob:")}
    assert asked - {f"{served.address}/favicon.ico"} == own


def test_thresholds_are_moved_by_class_and_together_and_the_result_is_copied(
    browser: Browser, served: Running
) -> None:
    open_page(browser, served)
    drop(browser, PNG)
    names = browser.run(
        "[...document.querySelectorAll('#classes label')].map((one) => one.textContent)"
    )
    assert names == ["red", NASTY]
    assert text(browser, "#rest-title") == "80 classes without a detection"
    (row,) = result(browser)["detections"]
    assert (row["category_id"], row["bbox"]) == (3, times(RED_BOX))
    assert text(browser, "#all-value") == "each its own"
    assert not is_seen(browser, "#reset")
    slide(browser, "#all", 0.4)
    assert [one["category_id"] for one in result(browser)["detections"]] == [3, 4]
    slide(browser, "#classes .row:nth-child(1) input", 0.76)
    assert [one["category_id"] for one in result(browser)["detections"]] == [4]
    assert text(browser, "#classes .row:nth-child(1) .count") == "0 of 1"
    assert text(browser, "#classes .row:nth-child(1) output") == "0.76"
    browser.send("Browser.grantPermissions", permissions=["clipboardReadWrite"])
    browser.run('document.getElementById("copy").click()')
    wait_for(browser, 'document.getElementById("status").textContent === "Copied."')
    assert json.loads(browser.run("navigator.clipboard.readText()")) == result(browser)
    browser.run('document.getElementById("reset").click()')
    browser.settle()
    assert [one["category_id"] for one in result(browser)["detections"]] == [3]


def test_where_the_page_may_not_copy_the_text_is_selected(
    browser: Browser, served: Running
) -> None:
    open_page(browser, served)
    drop(browser, PNG)
    refused = 'navigator.clipboard.writeText = async () => { throw new Error("no"); }; '
    browser.run(refused + 'document.getElementById("copy").click()')
    browser.settle()
    assert json.loads(browser.run("getSelection().toString()")) == result(browser)


def test_a_picture_that_the_browser_cannot_read_is_shown_by_the_service(
    browser: Browser, served: Running
) -> None:
    open_page(browser, served)
    drop(browser, encoded(PICTURE, "TIFF"), "image/tiff")
    assert drawn(browser) == {"red 0.75": pytest.approx(times(RED_BOX), abs=1.5)}
    assert browser.run("document.getElementById('picture').naturalWidth") == 480


def test_what_cannot_be_read_is_told_and_the_picture_before_stays(
    browser: Browser, served: Running
) -> None:
    open_page(browser, served)
    drop(browser, b"no picture at all")
    assert text(browser, "#problem").startswith("This is no JPEG, PNG, WebP, BMP or TIFF")
    assert is_seen(browser, "#drop")
    drop(browser, PNG)
    assert not is_seen(browser, "#problem")
    drop(browser, PNG[:-40])
    assert "cannot be decoded" in text(browser, "#problem")
    assert len(drawn(browser)) == 1
    assert text(browser, "#status").startswith("1 of 2 detections shown")


def test_the_key_is_asked_for_once(browser: Browser) -> None:
    with running(RectangleRuntime(), api_key="right-key") as service:
        open_page(browser, service)
        assert is_seen(browser, "#key-form")
        assert not is_seen(browser, "main")
        for key in ("wrong-key", "right-key"):
            browser.run(
                f"""document.getElementById("key").value = "{key}";
                document.getElementById("key-form").requestSubmit()"""
            )
            if key == "wrong-key":
                wait_for(browser, 'document.getElementById("key-problem").textContent !== ""')
                assert not is_seen(browser, "main")
        wait_for(browser, 'document.getElementById("main").getClientRects().length > 0')
        assert not is_seen(browser, "#key-form")
        drop(browser, PNG)
        assert list(drawn(browser)) == ["red 0.75"]
        assert "right-key" not in text(browser, "#example")


def test_a_service_that_has_ended_is_told(browser: Browser, tmp_path: Path) -> None:
    with running(RectangleRuntime()) as service:
        open_page(browser, service)
    drop(browser, PNG)
    assert text(browser, "#problem") == "The service does not answer. Is it still running?"
