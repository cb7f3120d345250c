"""Lists of what to predict on: a file with a line for each, or the standard input."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from retina.datasets.ids import canonical_id
from retina.errors import UserError
from retina.structures import OriginalId
from retina.text_files import read_text

STDIN = "-"


@dataclass(frozen=True, slots=True)
class ListedImage:
    """A line of a list.

    Attributes:
        source: a file that is there, or a URL.
        image_id: behind a tab; None where the line gives none.
    """

    source: str
    image_id: OriginalId | None


def is_list(source: str) -> bool:
    """Whether a source is ``-`` or ``@FILE``."""
    return source == STDIN or (source.startswith("@") and len(source) > 1)


def is_url(source: str) -> bool:
    """Whether a source is a URL."""
    return source.lower().startswith(("http://", "https://"))


def read_list(source: str) -> list[ListedImage]:
    """The lines of a list, blank ones left out.

    A line is the path of a file, relative to the working directory or else to the list, or a URL;
    behind a tab it may give the image's id.

    Raises:
        UserError: the list cannot be read, or a file is not there; the message names its line.
    """
    if source == STDIN:
        name, folder, text = "the standard input", Path(), _standard_input()
    else:
        path = Path(source[1:])
        name, folder, text = str(path), path.parent, read_text(path, "list of files")
    return [
        _listed(line, folder, f"{name}, line {number}")
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]


def _standard_input() -> str:
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise UserError(
            "-: several processes cannot share the standard input; write the list to a file, and "
            "give @FILE"
        )
    return sys.stdin.read()


def _listed(line: str, folder: Path, where: str) -> ListedImage:
    source, _, spelled = (part.strip() for part in line.partition("\t"))
    image_id = canonical_id(spelled) if spelled else None
    if is_url(source):
        return ListedImage(source, image_id)
    for path in (Path(source), folder / source):
        if path.is_file():
            return ListedImage(str(path), image_id)
    kind = "a folder, and a list names files" if Path(source).is_dir() else "no such file"
    raise UserError(f"{where}: {source}: {kind}; correct the line or take it out")
