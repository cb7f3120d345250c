"""Build the documentation as a site, strictly: a broken link or a page in no menu ends it.

    python scripts/build_site.py [--output build/site]

The pages lie where they are read on a code host, too: docs/, benchmarks/ and the files beside
them. They are copied to build/pages as they lie, so that every link between them holds, and
Zensical makes the site of mkdocs.yml. The pages open from a folder or any web server (which the
search needs), and ask no other host for anything.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
STAGED = REPOSITORY / "build" / "pages"
BUILT = REPOSITORY / "build" / "site"
FOLDERS = ("docs", "benchmarks", "configs")
FILES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CITATION.cff", "LICENSE")
NOT_IN_THE_MENU = "benchmarks/"
"""Measurements: their index is in the menu, and pages lead to each."""

_REQUEST = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?![^>]*canonical)[^>]*\bhref=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|(?:url\(|@import\s*)["']?((?:https?:)?//[^"')\s]+)"""
)


def stage(folder: Path) -> None:
    """Copy everything that the site is made of, and turn notebooks into pages."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    for name in FILES:
        shutil.copy(REPOSITORY / name, folder / name)
    for page in folder.rglob("*.md"):
        page.write_text(_for_the_site(page.read_text(encoding="utf-8")), encoding="utf-8")
    for notebook in folder.rglob("*.ipynb"):
        page = notebook_page(json.loads(notebook.read_text(encoding="utf-8")), notebook.name)
        notebook.with_suffix(".md").write_text(page, encoding="utf-8")


def _for_the_site(page: str) -> str:
    """A page with what differs from a code host: bare pipes in code, and pages for notebooks."""
    bare = re.sub(r"`[^`\n]*`", lambda code: code[0].replace("\\|", "|"), page)
    return bare.replace(".ipynb)", ".md)")


def notebook_page(notebook: dict[str, Any], name: str) -> str:
    """A notebook as Markdown: its texts, its code, and what the code showed."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [shown for output in cell["outputs"] for shown in _shown(output)]
    parts.append(f"This page is a notebook: [{name}]({name}).")
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any]) -> Iterator[str]:
    data = output.get("data", {})
    if "image/png" in data:
        yield f"![What the code above shows](data:image/png;base64,{_one_line(data['image/png'])})"
    elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
        yield f"```text\n{text}\n```"


def _one_line(image: str) -> str:
    return base64.b64encode(base64.b64decode(image)).decode()


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without making the Python objects that it names."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def menu(config: Path) -> set[str]:
    """The pages that the menu of the site leads to, relative to the repository."""
    return set(_leaves(yaml.load(config.read_text(encoding="utf-8"), _Loader)["nav"]))


def _leaves(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    for inner in (
        node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    ):
        yield from _leaves(inner)


def forgotten(pages: Path, listed: set[str]) -> list[str]:
    """What is wrong with the menu: pages that it leaves out, and such that are not there."""
    there = {path.relative_to(pages).as_posix() for path in pages.rglob("*.md")}
    left_out = {page for page in there - listed if not page.startswith(NOT_IN_THE_MENU)}
    return [
        *(f"{page}: is in no menu; add it to nav in mkdocs.yml" for page in sorted(left_out)),
        *(f"{page}: nav in mkdocs.yml names it, and it is not there" for page in listed - there),
    ]


def requests(site: Path) -> list[str]:
    """Where the built pages would ask another host for something."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css"):
            for match in _REQUEST.finditer(path.read_text(encoding="utf-8")):
                found.append(f"{path.relative_to(site)}: asks {next(filter(None, match.groups()))}")
    return found


def main() -> int:
    """Build the site; the exit code is 1 where anything is wrong with it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=BUILT, help="the folder of the site")
    output = parser.parse_args().output
    stage(STAGED)
    problems = forgotten(STAGED, menu(REPOSITORY / "mkdocs.yml"))
    if not problems:
        zensical = [Path(sys.executable).parent / "zensical", "build", "--strict", "--clean"]
        if subprocess.run(zensical, cwd=REPOSITORY, check=False).returncode != 0:
            return 1
        problems = requests(BUILT)
    print(*problems, sep="\n", end="\n" if problems else "")
    if not problems and output.resolve() != BUILT:
        shutil.copytree(BUILT, output, dirs_exist_ok=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
