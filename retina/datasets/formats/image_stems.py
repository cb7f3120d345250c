"""Finding image files by their names without suffix."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from retina.datasets.file_listing import IMAGE_SUFFIXES, list_files
from retina.datasets.file_names import in_lower_case


class ImageStems:
    """The image files of a folder, to be found by their names without suffix.

    Attributes:
        names: of all of them.
    """

    def __init__(self, folder: Path) -> None:
        rank = {suffix: number for number, suffix in enumerate(IMAGE_SUFFIXES)}
        paths = list(list_files(folder, IMAGE_SUFFIXES, deep=False).files)
        paths.sort(key=lambda path: -rank[path.suffix.lower()])  # a JPEG wins
        self.names = frozenset(path.name for path in paths)
        self._files = {path.stem: path.name for path in paths}
        self._alike: dict[str, list[str]] = defaultdict(list)
        for stem, name in self._files.items():
            self._alike[in_lower_case(stem)].append(name)

    def find(self, stem: str) -> str | None:
        """The file of this stem, or the only one whose stem differs as `find_files` allows."""
        alike = self._alike.get(in_lower_case(stem), ())
        return self._files.get(stem) or (alike[0] if len(alike) == 1 else None)
