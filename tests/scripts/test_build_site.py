"""The builder of the site: what it copies, and what it refuses."""

from __future__ import annotations

import base64
import importlib
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY  # type: ignore[import-not-found]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    return importlib.import_module("build_site")


def test_every_page_is_in_the_menu_and_a_forgotten_one_is_named(
    site: ModuleType, tmp_path: Path
) -> None:
    pages = tmp_path / "pages"
    site.stage(pages)
    listed = site.menu(REPOSITORY / "mkdocs.yml")
    assert site.forgotten(pages, listed) == []
    (pages / "docs" / "new.md").write_text("# New")
    (problem,) = site.forgotten(pages, listed)
    assert problem == "docs/new.md: is in no menu; add it to nav in mkdocs.yml"
    (pages / "docs" / "new.md").rename(pages / "benchmarks" / "measured.md")
    (pages / "docs" / "faq.md").unlink()
    (problem,) = site.forgotten(pages, listed)
    assert problem == "docs/faq.md: nav in mkdocs.yml names it, and it is not there"


def test_pages_are_copied_with_the_links_and_pipes_of_a_site(
    site: ModuleType, tmp_path: Path
) -> None:
    site.stage(tmp_path)
    assert "coco\\|yolo" in (REPOSITORY / "docs" / "commands.md").read_text()
    assert "coco|yolo" in (tmp_path / "docs" / "commands.md").read_text()
    assert "(notebooks/train-and-look.md)" in (tmp_path / "docs" / "first-detector.md").read_text()
    assert (tmp_path / "docs" / "notebooks" / "train-and-look.ipynb").is_file()


def test_a_notebook_becomes_a_page(site: ModuleType) -> None:
    dot = base64.b64encode(b"picture").decode()
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {
            "cell_type": "code",
            "source": "1 + 1",
            "outputs": [
                {"output_type": "stream", "text": ["two\n", "lines\n"]},
                {"output_type": "execute_result", "data": {"text/plain": ["2"]}},
                {
                    "output_type": "display_data",
                    "data": {"image/png": dot + "\n", "text/plain": ""},
                },
            ],
        },
    ]
    page = site.notebook_page({"cells": cells}, "n.ipynb")
    assert page.startswith(
        "# Title\ntext\n\n```python\n1 + 1\n```\n\n```text\ntwo\nlines\n```\n\n```text\n2\n```"
    )
    assert f"(data:image/png;base64,{dot})" in page
    assert page.endswith("[n.ipynb](n.ipynb).\n")


@pytest.mark.parametrize(
    ("html", "asked"),
    [
        ('<script src="https://cdn.net/a.js"></script>', "https://cdn.net/a.js"),
        ('<script src="//cdn.net/a.js"></script>', "//cdn.net/a.js"),
        ('<img alt="" src="http://cdn.net/a.png">', "http://cdn.net/a.png"),
        ('<link rel="stylesheet" href="https://fonts.net/a.css">', "https://fonts.net/a.css"),
        ("<style>body {background: url(https://cdn.net/a.png)}</style>", "https://cdn.net/a.png"),
        ('<link rel="canonical" href="https://retina.org/">', None),
        ('<a href="https://github.com/">a link is no request</a>', None),
        ('<script src="assets/a.js"></script><img src="data:image/png;base64,//8A">', None),
    ],
)
def test_a_page_that_asks_another_host_is_found(
    site: ModuleType, tmp_path: Path, html: str, asked: str | None
) -> None:
    (tmp_path / "page.html").write_text(html)
    found = site.requests(tmp_path)
    assert found == ([] if asked is None else [f"page.html: asks {asked}"])
