"""What docs/serve.md shows runs as it stands there, but for the port; its numbers are true."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest

from retina.serving.decoding import MAX_SCANS
from retina.serving.limits import Limits
from retina.serving.server import HEAD_SECONDS
from tests.conftest import REPOSITORY  # type: ignore[import-not-found]
from tests.serving.running import (  # type: ignore[import-not-found]
    RectangleRuntime,
    Running,
    encoded,
    running,
    scene,
)

PAGE = (REPOSITORY / "docs" / "serve.md").read_text()
ADDRESS = "http://127.0.0.1:8000"
KEY = "0123456789abcdef"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


CURLS = [line for block in blocks("bash") for line in block.splitlines()]


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    with running(RectangleRuntime()) as service:
        yield service


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    with running(RectangleRuntime(), api_key=KEY) as service:
        yield service


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photo.jpg").write_bytes(encoded(scene(), "JPEG", quality=100, subsampling=0))
    return tmp_path


@pytest.mark.parametrize("line", CURLS)
def test_the_curl_lines(line: str, served: Running, locked: Running, folder: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on this machine")
    service = locked if "KEY" in line else served
    done = subprocess.run(
        ["bash", "-c", line.replace(ADDRESS, service.address)],
        capture_output=True,
        cwd=folder,
        env={"RETINA_API_KEY": KEY, "PATH": "/usr/local/bin:/usr/bin:/bin"},
        check=True,
    )
    if "--output found.jpg" in line:
        assert PIL.Image.open(folder / "found.jpg").format == "JPEG"
    else:
        answer = json.loads(done.stdout)
        assert [row["category_name"] for row in answer["detections"]][:1] == ["red"]


def test_the_python_lines(served: Running, folder: Path) -> None:
    (block,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", block.replace(ADDRESS, served.address)],
        capture_output=True,
        text=True,
        cwd=folder,
        check=True,
    )
    assert done.stdout == "red 0.75 at 8, 4: 16 × 16\n"


def test_the_answer_has_the_keys_that_are_shown(served: Running) -> None:
    shown = json.loads(PAGE.partition("The answer:")[2].partition("The rows are")[0])
    answer = served.detect(encoded(scene())).json()
    assert answer.keys() == shown.keys()
    assert answer["detections"][0].keys() == shown["detections"][0].keys()
    assert answer["size"].keys() == shown["size"].keys()


def test_the_limits_are_those_of_the_code(served: Running) -> None:
    limits = Limits()
    for row in (
        f"| bytes of a body | {limits.max_bytes / 1e6:.0f} MB",
        f"| pixels of a picture | {limits.max_pixels / 1e6:.0f} million",
        f"| scans of a JPEG | {MAX_SCANS} |",
        f"| bytes of all bodies that are held | {limits.max_held_bytes / 1e6:.0f} MB",
        f"coming in, waiting or running | {limits.queue} | `--queue`",
        f"| seconds for a request | {limits.timeout:.0f} | `--timeout`",
        f"for its body; for its head | {limits.body_timeout:.0f}; {HEAD_SECONDS:.0f} | `--timeout`",
        f"| detections of an answer | {limits.max_detections} |",
    ):
        assert row in PAGE
    description = served.ask("/openapi.json").json()["paths"]
    for path, operations in description.items():
        for method in operations:
            assert f"| `{method.upper()} {path}` |" in PAGE or f"`{path[:8]}" in PAGE
    told = set(re.findall(r"\b[45]\d\d\b", PAGE.partition("| status |")[2].partition("## ")[0]))
    statuses = {s for s in description["/v1/detect"]["post"]["responses"] if s >= "400"}
    assert told == statuses
