"""Which images and categories the rows of a results file belong to, by their ids and names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np

from retina.datasets.annotations import AnnotationTable
from retina.datasets.file_names import composed, in_lower_case
from retina.datasets.ids import Ids
from retina.errors import UserError
from retina.structures import (
    BoolArray,
    IntArray,
    OriginalId,
)


@dataclass(slots=True)
class Reference:
    """What a column of ids, and of names beside them, refers to.

    Attributes:
        ids: ``(N,)`` of the rows.
        known_ids: ``(M,)`` that there are.
        name_of_row: ``(N,)`` the position of each row's name among ``names``; -1 for none.
        meanings: for each name the positions that it may mean.
        names: what the rows are said to belong to.
        words: what the id and the name are called.
        strange_ids: what messages show in the place of a number.
        finding: about the ids, once `positions` was called.
    """

    ids: IntArray
    known_ids: IntArray
    name_of_row: IntArray
    meanings: Sequence[Sequence[int]]
    names: Mapping[str, int]
    words: tuple[str, str]
    strange_ids: Mapping[int, OriginalId]
    finding: str = ""

    def positions(self, path: Path, fix: str) -> IntArray:
        """``(N,)`` which of the known ones each row belongs to.

        Raises:
            UserError: a row belongs to none; names it, with the fix.
        """
        by_id = Ids(self.known_ids).numbered(self.ids)
        counts = np.array([*map(len, self.meanings), -1])[self.name_of_row]  # -1 without a name
        if not (counts > 0).any() and (by_id >= 0).all():
            return by_id  # names of another kind
        word, name = self.words
        if (counts == 0).any():
            row = int(np.argmax(counts == 0))
            raise UserError(
                f"{path}: detection {row} (from 0) is of the {name} '{self._name(row)}', which the "
                f"annotations do not have; {fix}"
            )
        only = np.array([m[0] if len(m) == 1 else -1 for m in self.meanings] + [-1], dtype=np.int64)
        by_name = only[self.name_of_row]
        found = np.where(by_name >= 0, by_name, by_id)
        if (found < 0).any():
            fault = f"is of {word} {self._shown(found < 0)}, which the annotations do not have"
            refuse_rows(path, found < 0, fault, fix)
        self._refuse_other_meanings(path, by_id, counts > 1)
        others = np.flatnonzero((by_name >= 0) & (by_name != by_id))
        told = []
        if len(others):
            told.append(
                f"the {word} of {len(others)} of {len(found)} detections is not that of the {name} "
                f"they name (the first: {self._shown(others)} for '{self._name(int(others[0]))}'): "
                "the names are taken"
            )
        if (counts > 1).any():
            row = int(np.argmax(counts > 1))
            told.append(
                f"{int((counts > 1).sum())} of {len(found)} detections name a {name} that several "
                f"of the annotations could be (the first: '{self._name(row)}'): the {word} says "
                "which"
            )
        self.finding = "; ".join(told)
        return found

    def _refuse_other_meanings(self, path: Path, by_id: IntArray, is_ambiguous: BoolArray) -> None:
        """Raise a `UserError` for a row whose id is none of the several that its name may mean."""
        pairs = np.stack([self.name_of_row, by_id], axis=1)[is_ambiguous]
        rows = np.flatnonzero(is_ambiguous)
        for (named, known), first in zip(*np.unique(pairs, axis=0, return_index=True), strict=True):
            if known not in self.meanings[named]:
                row, (word, name) = int(rows[first]), self.words
                raise UserError(
                    f"{path}: detection {row} (from 0) is of the {name} '{self._name(row)}', which "
                    f"could be several of the annotations, and its {word} {self._shown([row])} is "
                    f"of none of them; name the {name} as the annotations do"
                )

    def _name(self, row: int) -> str:
        return list(self.names)[int(self.name_of_row[row])]

    def _shown(self, which: BoolArray | IntArray | list[int]) -> OriginalId:
        number = int(self.ids[which][0])
        return self.strange_ids.get(number, number)


def images_of_files(names: Iterable[str], images: AnnotationTable) -> list[Sequence[int]]:
    """The images that each file name may mean, in another spelling only where there is no other."""
    found = _matching(names, images, composed)
    taken = {position for positions in found.values() for position in positions}
    others = [name for name, positions in found.items() if not positions]
    if others:
        for name, positions in _matching(others, images, in_lower_case).items():
            found[name] = [position for position in positions if position not in taken]
    return list(found.values())


def _matching(
    names: Iterable[str], images: AnnotationTable, spelled: Callable[[str], str]
) -> dict[str, Sequence[int]]:
    by_base: dict[str, list[tuple[int, list[str]]]] = defaultdict(list)
    for position in range(images.num_images):
        *folders, base = spelled(images.file_name(position)).split("/")
        by_base[base].append((position, folders))
    return {name: _nearest(spelled(name).split("/"), by_base) for name in names}


def _nearest(
    parts: Sequence[str], by_base: Mapping[str, Sequence[tuple[int, list[str]]]]
) -> Sequence[int]:
    """The images whose paths agree with a file's over the most folders, counted from the end."""
    *folders, base = parts
    candidates = by_base.get(base, ())
    agreement = [_common_tail(folders, theirs) for _, theirs in candidates]
    best = max(agreement, default=0)
    return [at for (at, _), agree in zip(candidates, agreement, strict=True) if agree == best]


def _common_tail(ours: Sequence[str], theirs: Sequence[str]) -> int:
    pairs = zip(reversed(ours), reversed(theirs), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def places_of(names: Sequence[str], name: str) -> list[int]:
    """Where a name stands among others."""
    return [place for place, other in enumerate(names) if other == name]


def refuse_rows(path: Path, is_wrong: BoolArray, fault: str, fix: str) -> None:
    """Raise a `UserError` for the first of the rows of a results file that are wrong."""
    if is_wrong.any():
        raise UserError(f"{path}: detection {int(np.argmax(is_wrong))} (from 0) {fault}; {fix}")
