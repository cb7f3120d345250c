"""Images and categories that a file lists several times, as merged exports do, made one again."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from retina.datasets.ids import NO_ID, Ids
from retina.structures import Categories, IntArray, Size


@dataclass(frozen=True, slots=True)
class MergedImages:
    """The images of a file, each once.

    Letters: I images, L entries of the list.

    Attributes:
        ids: ``(I,)`` int64, of the first entry of each image.
        file_names: I names.
        sizes: ``(I, 2)`` int64, ``(0, 0)`` where no entry gives one.
        row_of: ``(L,)`` int64, the image of every entry.
        aliases: the id of a further entry, and that of its image.
        finding: a sentence for people, or nothing.
    """

    ids: IntArray
    file_names: Sequence[str]
    sizes: IntArray
    row_of: IntArray
    aliases: Mapping[int, int] = field(default_factory=dict)
    finding: str = ""


def merge_images(
    ids: Ids,
    file_names: Sequence[str],
    sizes: IntArray,
    problems: list[str],
    *,
    entry_name: Callable[[int], str] = "images[{}]".format,
) -> MergedImages:
    """Make entries of one file, or of one id, one image.

    Args:
        ids: of the entries.
        file_names: of the entries.
        sizes: ``(L, 2)``, ``(0, 0)`` where an entry gives none.
        problems: gets a sentence for every entry that contradicts an earlier one.
        entry_name: what messages call an entry.
    """
    numbers, names = ids.numbers.tolist(), [plain_path(name) for name in file_names]
    every = np.arange(len(names))
    if len(set(names)) == len(names) == len(set(numbers)):
        return MergedImages(ids.numbers, file_names, sizes, every)
    row_of, known = every.copy(), [_size(row) for row in sizes.tolist()]
    kept: list[int] = []
    by_id: dict[int, int] = {}
    by_name: dict[str, int] = {}
    for entry, (number, name) in enumerate(zip(numbers, names, strict=True)):
        row = by_id.get(number, by_name.get(name, len(kept)))
        if row == len(kept):
            kept.append(entry)
        else:
            first = kept[row]
            fault = _contradiction(
                (name, names[first]), (known[entry], known[first]), entry_name(first)
            )
            problems += [f"{entry_name(entry)}: {fault}"] if fault else []
            known[first] = known[first] or known[entry]
        if number != NO_ID:
            by_id.setdefault(number, row)
        by_name.setdefault(name, row)
        row_of[entry] = row
    repeats = sorted(set(every.tolist()) - set(kept))
    return MergedImages(
        ids=ids.numbers[kept],
        file_names=[file_names[entry] for entry in kept],
        sizes=np.array([known[entry] or (0, 0) for entry in kept], dtype=np.int64).reshape(-1, 2),
        row_of=row_of,
        aliases={
            numbers[entry]: numbers[kept[row_of[entry]]]
            for entry in repeats
            if numbers[entry] != numbers[kept[row_of[entry]]]
        },
        finding=f"{len(repeats)} of {len(names)} entries list an image that is listed before: "
        f"merged, with all their annotations (the first: {entry_name(repeats[0])}, "
        f"'{names[repeats[0]]}')"
        if repeats
        else "",
    )


def plain_path(name: str) -> str:
    """A path below a folder, without what does not change it: dots, and which slashes it has."""
    if "\\" in name or "./" in name or "//" in name:
        return posixpath.normpath(name.replace("\\", "/"))
    return name


def _size(row: Sequence[int]) -> Size | None:
    height, width = row
    return (height, width) if height else None


def _contradiction(
    names: tuple[str, str], sizes: tuple[Size | None, Size | None], first: str
) -> str:
    """Why an entry cannot be the same image as the first one of that name or id, or nothing."""
    if names[0] != names[1]:
        return (
            f"has the id of {first} too, but this is '{names[0]}' and that '{names[1]}'; every "
            "image needs an id of its own"
        )
    if sizes[0] is not None and sizes[1] is not None and sizes[0] != sizes[1]:
        ours, theirs = ("{}×{}".format(*size) for size in sizes if size)
        return (
            f"'{names[0]}' is {ours} here (height × width), but {theirs} in {first}; correct one "
            "of them"
        )
    return ""


def merge_categories(
    ids: Ids, names: Sequence[str], problems: list[str]
) -> tuple[Categories, IntArray]:
    """The categories, each id once, and the label of every entry.

    Args:
        ids: of the entries.
        names: of the entries.
        problems: gets a sentence for every entry that contradicts an earlier one.
    """
    first: dict[int, int] = {}
    for entry, number in enumerate(ids.numbers.tolist()):
        other = first.setdefault(number, entry)
        if names[other] != names[entry] and number != NO_ID:
            shown = ids.originals.get(number, number)
            problems.append(
                f"categories[{entry}].id: {shown!r} is the id of '{names[other]}' and of "
                f"'{names[entry]}'; every category needs an id of its own"
            )
    label = {number: at for at, number in enumerate(first)}
    listed = Categories(
        tuple(names[entry] for entry in first.values()), tuple(first), ids.originals
    )
    return listed, np.array([label[number] for number in ids.numbers.tolist()], dtype=np.int64)
