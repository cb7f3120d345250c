"""Images that a data set holds several times, within a split and between splits."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from retina.datasets.dataset import DetectionDataset
from retina.datasets.duplicates import Fingerprint, near_duplicates
from retina.wording import counted

Kind = Literal["one file", "equal files", "near duplicates"]

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Repeat:
    """Images that show the same.

    Attributes:
        kind: whether they are one file, files of the same bytes, or look alike.
        members: the split and the index of each, in the order of the splits.
    """

    kind: Kind
    members: tuple[tuple[str, int], ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that it is in."""
        return tuple(dict.fromkeys(split for split, _ in self.members))


def find_repeats(
    datasets: Mapping[str, DetectionDataset],
    fingerprints: Mapping[str, Sequence[Fingerprint | None]],
) -> list[Repeat]:
    """What the splits hold several times.

    Images of a single colour look like any other: only equal files of them are found.

    Args:
        datasets: by the names of their splits.
        fingerprints: of their images.
    """
    places = [
        (split, index) for split, dataset in datasets.items() for index in range(len(dataset))
    ]
    prints = list(chain.from_iterable(fingerprints[split] for split in datasets))
    groups = near_duplicates(prints)
    plain = [number for number, one in enumerate(prints) if one is None]
    path_of = [datasets[split].file_path(index) for split, index in places]
    groups += [group for group in _grouped(plain, path_of).values() if len(group) > 1]
    return [
        Repeat(_kind([path_of[number] for number in group]), tuple(places[n] for n in group))
        for group in sorted(groups)
    ]


def _grouped(numbers: Iterable[int], path_of: Sequence[str]) -> dict[str, tuple[int, ...]]:
    by_content: dict[str, tuple[int, ...]] = defaultdict(tuple)
    for number in numbers:
        if os.path.isfile(path_of[number]):  # noqa: PTH113  # bare names: there may be many
            by_content[_content(path_of[number])] += (number,)
    return by_content


def _content(path: str) -> str:
    with open(path, "rb") as file:  # noqa: PTH123
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kind(paths: Sequence[str]) -> Kind:
    if len({os.path.realpath(path) for path in paths}) == 1:
        return "one file"
    about = [os.stat(path) for path in paths]  # noqa: PTH116
    if len({(one.st_dev, one.st_ino) for one in about}) == 1:
        return "one file"
    is_equal = len({one.st_size for one in about}) == 1 and len(set(map(_content, paths))) == 1
    return "equal files" if is_equal else "near duplicates"


def describe_repeats(
    repeats: Sequence[Repeat], datasets: Mapping[str, DetectionDataset]
) -> list[tuple[str, list[Repeat]]]:
    """A sentence for each set of splits that something is repeated in, those of several first."""
    by_splits: dict[tuple[str, ...], list[Repeat]] = defaultdict(list)
    for repeat in repeats:
        by_splits[repeat.splits].append(repeat)
    ordered = sorted(by_splits.items(), key=lambda item: -len(item[0]))
    return [(_sentence(splits, found, datasets), found) for splits, found in ordered]


def _sentence(
    splits: tuple[str, ...], repeats: list[Repeat], datasets: Mapping[str, DetectionDataset]
) -> str:
    count = sum(len(repeat.members) for repeat in repeats)
    kinds = [(kind, sum(one.kind == kind for one in repeats)) for kind in _MEANINGS]
    how = ", ".join(f"{number} {_MEANINGS[kind]}" for kind, number in kinds if number)
    shown = "; ".join(
        " = ".join(_name(datasets[split], index) for split, index in repeat.members[:4])
        for repeat in repeats[:_SHOWN]
    )
    more = " …" if len(repeats) > _SHOWN else ""
    if len(splits) > 1:
        what = f"{' and '.join(splits)} share images, so that a score says too much"
    else:
        what = "images are there several times" + (f" in {splits[0]}" if splits[0] else "")
    return f"{what}: {count} images in {counted(len(repeats), 'group')} ({how}): {shown}{more}"


_MEANINGS: dict[Kind, str] = {
    "one file": "of one file",
    "equal files": "of equal files",
    "near duplicates": "of near duplicates",
}


def _name(dataset: DetectionDataset, index: int) -> str:
    return os.path.basename(dataset.file_path(index))  # noqa: PTH119
