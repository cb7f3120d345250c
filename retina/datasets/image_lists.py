"""A text file that names some images of a data set, one a line, by file name or id."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from retina.datasets.dataset import DetectionDataset
from retina.datasets.folder import FolderDataset
from retina.datasets.ids import canonical_id
from retina.datasets.repeated import plain_path
from retina.errors import UserError, all_problems
from retina.structures import IntArray, OriginalId
from retina.text_files import read_text

_MOST_SHOWN = 3


def listed_images(
    path: Path,
    file_names: Sequence[str],
    ids: Sequence[OriginalId],
    sources: Sequence[str],
) -> IntArray:
    """The rows of the images that a list names, ascending, each once.

    A line is a file name as the annotations have it, or its last part, also without its suffix; or
    else an id. With several annotation files it means the image of this name in each of them.

    Args:
        path: the list.
        file_names: of all images.
        ids: of all images, as their files have them.
        sources: the annotation file of each.

    Raises:
        UserError: the list cannot be read or is empty, or a line names no image, or several of one
            file; the message names such lines.
    """
    lines = read_text(path, "image list").splitlines()
    named = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not named:
        raise UserError(f"{path}: the image list names no image; write a file name or id a line")
    find = _finder(file_names, ids)
    rows: set[int] = set()
    missing, problems = [], []
    for number, line in named:
        found = find(line)
        if not found:
            missing.append(f"'{line}' (line {number})")
        elif len({sources[row] for row in found}) < len(found):
            shown = ", ".join(f"'{file_names[row]}'" for row in found[:_MOST_SHOWN])
            problems.append(
                f"line {number}: '{line}' could be any of {len(found)} images ({shown}): write the "
                "file name as the annotations have it"
            )
        rows.update(found)
    if missing:
        shown = ", ".join(missing[:_MOST_SHOWN]) + (" …" if len(missing) > _MOST_SHOWN else "")
        problems.insert(
            0,
            f"{len(missing)} of {len(named)} lines name no image of the annotations: {shown}; a "
            "line holds a file name or an id",
        )
    if problems:
        raise UserError(all_problems(str(path), problems))
    return np.array(sorted(rows), dtype=np.int64)


def image_names(dataset: DetectionDataset) -> list[str]:
    """What the annotations call the files, or where these lie."""
    if isinstance(dataset, FolderDataset):
        return [dataset.table.file_name(index) for index in range(len(dataset))]
    return [dataset.file_path(index) for index in range(len(dataset))]


def _finder(file_names: Sequence[str], ids: Sequence[OriginalId]) -> Callable[[str], Sequence[int]]:
    """What gives the rows of the images that a line may mean."""
    paths = [PurePosixPath(plain_path(name)) for name in file_names]
    exact, by_tail = _places(map(str, paths)), _places(path.name for path in paths)
    stems = _places(str(path.with_suffix("")) for path in paths)
    by_stem, by_id = _places(path.stem for path in paths), _places(map(canonical_id, ids))

    def find(line: str) -> Sequence[int]:
        name = plain_path(line)
        of_id = by_id.get(canonical_id(line), [])
        for places in (exact, by_tail, stems, by_stem):
            if name in places:
                # A bare number may be the name of one image and the id of another.
                also = of_id if places in (stems, by_stem) else []
                return sorted({*places[name], *also})
        tail = f"/{name}"
        within = by_tail.get(PurePosixPath(name).name, []) if "/" in name else []
        return [row for row in within if f"/{paths[row]}".endswith(tail)] or of_id

    return find


def _places(values: Iterable[object]) -> dict[object, list[int]]:
    places: dict[object, list[int]] = defaultdict(list)
    for row, value in enumerate(values):
        places[value].append(row)
    return dict(places)
