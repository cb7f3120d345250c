"""Which categories a split is read with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from retina.datasets.annotations import AnnotationTable
from retina.errors import UserError
from retina.structures import Categories, IntArray
from retina.wording import counted

UnusedCategories = Literal["keep", "drop"]
UnknownCategories = Literal["refuse", "leave_out"]


class UnknownCategoriesError(UserError):
    """Annotations use categories that the training set or the detector does not have.

    Args:
        message: ends with the fix in the file itself; who knows how the data was named adds others.
        are_all: whether no annotation is of a known one, so that leaving the others out is no fix.
    """

    def __init__(self, message: str, *, are_all: bool) -> None:
        super().__init__(message)
        self.are_all = are_all


class NoCategoryError(UserError):
    """A split has no category of its own, as a test split of files that name them at each box."""


def choose_categories(
    table: AnnotationTable, *, classes: Sequence[str] | None, unused: UnusedCategories
) -> AnnotationTable:
    """The split with the categories that a training set defines.

    The labels follow the order of ``classes``, or else the ascending ids of the categories.

    Args:
        table: with all categories of the format.
        classes: names to keep; annotations of other categories are left out. None keeps all.
        unused: what becomes of categories that no annotation uses, where ``classes`` is None.

    Raises:
        NoCategoryError: no category is left.
        UserError: a name in ``classes`` is unknown or ambiguous.
    """
    listed = table.categories
    used = np.bincount(table.labels, minlength=len(listed)) > 0
    if classes is None:
        order = sorted(range(len(listed)), key=lambda label: listed.dataset_ids[label])
        keep = [label for label in order if unused == "keep" or used[label]]
    else:
        keep = [_label_named(name, listed, table.source) for name in classes]
    if not keep:
        fix = "set unused_categories: keep, or correct" if len(listed) else "correct"
        raise NoCategoryError(
            f"{table.source}: there is no category to learn, since no annotation uses any; "
            f"{fix} the annotations"
        )
    chosen = _take(listed, keep)
    return _relabel(table, chosen, keep).with_findings(
        _left_out_finding(table, keep), _unused_finding(chosen, [bool(used[i]) for i in keep])
    )


def match_categories(
    table: AnnotationTable,
    expected: Categories,
    *,
    classes: Sequence[str] | None,
    unknown: UnknownCategories,
) -> AnnotationTable:
    """The split with the labels of the categories that a detector already has.

    A category is the expected one of the same id and name, or else of the same name. The result
    keeps the ids that this split has itself, so that detections on it can be scored against its own
    file; an expected category that it does not list gets a free id.

    Args:
        table: with all categories of the format.
        expected: the detector's.
        classes: as in `choose_categories`; annotations of other categories are left out.
        unknown: what becomes of annotations of unexpected categories where ``classes`` is None.

    Raises:
        UnknownCategoriesError: an annotation uses a category that is not expected; or all of them
            do, so that nothing would be left.
    """
    listed = table.categories
    counts = np.bincount(table.labels, minlength=len(listed))
    target = [_match(name, dataset_id, expected) for name, dataset_id in _pairs(listed)]
    if classes is not None:
        wanted = {
            _label_named(name, listed, table.source) for name in classes if name in listed.names
        }
        target = [label if i in wanted else None for i, label in enumerate(target)]
    strange = [i for i, label in enumerate(target) if label is None and counts[i]]
    if strange and classes is None:
        all_are = int(counts[strange].sum()) == len(table.labels)
        if unknown == "refuse" or all_are:
            message = _unknown_message(table, strange, counts, expected)
            raise UnknownCategoriesError(message, are_all=all_are)
    new_labels = np.array([-1 if label is None else label for label in target], dtype=np.int64)
    return table.relabelled(_own_ids(listed, target, counts, expected), new_labels).with_findings(
        _left_out_finding(table, [i for i, label in enumerate(target) if label is not None])
    )


def joined_categories(parts: Sequence[Categories]) -> tuple[Categories, list[IntArray]]:
    """The categories of all parts, those of the first one foremost.

    Categories are the same where their names are. One that the first part lacks keeps its id where
    that is free, else it gets the next.

    Returns:
        The categories, and for each part the new labels of its old ones.
    """
    names, ids = list(parts[0].names), list(parts[0].dataset_ids)
    originals = dict(parts[0].original_ids)
    new_labels = [np.arange(len(names))]
    for part in parts[1:]:
        labels = []
        for name, number in _pairs(part):
            label = _match(name, number, Categories(tuple(names), tuple(ids)))
            if label is None and name in names:
                label = names.index(name)
            if label is None:
                label = len(names)
                original = part.original_ids.get(number)
                ids.append(number if number not in ids else max(ids) + 1)
                names.append(name)
                if original is not None and original not in originals.values():
                    originals[ids[-1]] = original
            labels.append(label)
        new_labels.append(np.array(labels, dtype=np.int64))
    return Categories(tuple(names), tuple(ids), originals), new_labels


def _pairs(categories: Categories) -> zip[tuple[str, int]]:
    return zip(categories.names, categories.dataset_ids, strict=True)


def _take(categories: Categories, labels: Sequence[int]) -> Categories:
    return Categories(
        tuple(categories.names[label] for label in labels),
        tuple(categories.dataset_ids[label] for label in labels),
        categories.original_ids,
    )


def _relabel(table: AnnotationTable, chosen: Categories, keep: Sequence[int]) -> AnnotationTable:
    new_labels = np.full(len(table.categories), -1, dtype=np.int64)
    new_labels[np.array(keep)] = np.arange(len(keep))
    return table.relabelled(chosen, new_labels)


def _label_named(name: str, listed: Categories, source: str) -> int:
    labels = [label for label, known in enumerate(listed.names) if known == name]
    if len(labels) == 1:
        return labels[0]
    if labels:
        ids = ", ".join(str(listed.dataset_ids[label]) for label in labels)
        raise UserError(
            f"{source}: classes: '{name}' is the name of several categories (ids {ids})"
        )
    raise UserError(
        f"{source}: classes: there is no category '{name}'; there are {_shortened(listed.names)}"
    )


def _match(name: str, dataset_id: int, expected: Categories) -> int | None:
    same_name = [label for label, known in enumerate(expected.names) if known == name]
    same_both = [label for label in same_name if expected.dataset_ids[label] == dataset_id]
    if same_both:
        return same_both[0]
    return same_name[0] if len(same_name) == 1 else None


def _own_ids(
    listed: Categories, target: Sequence[int | None], counts: IntArray, expected: Categories
) -> Categories:
    ids: dict[int, int] = {}
    # Where two categories of one name meet in one label, the id of the one that is used is taken.
    for index in np.argsort(-counts, kind="stable"):
        label = target[index]
        if label is not None:
            ids.setdefault(label, listed.dataset_ids[index])
    taken = set(listed.dataset_ids)
    for label, dataset_id in enumerate(expected.dataset_ids):
        if label not in ids:
            ids[label] = dataset_id if dataset_id not in taken else max(taken) + 1
            taken.add(ids[label])
    numbers = tuple(ids[label] for label in range(len(expected)))
    return Categories(expected.names, numbers, listed.original_ids)


def _unknown_message(
    table: AnnotationTable, unknown: Sequence[int], counts: IntArray, expected: Categories
) -> str:
    listed = table.categories
    names = _shortened(
        [
            f"{listed.names[i]} (id {listed.original_id(i)}, "
            f"{counted(int(counts[i]), 'annotation')})"
            for i in unknown
        ]
    )
    return (
        f"{table.source}: annotations use categories that the training set or the detector does "
        f"not have: {names}; it has {_shortened(expected.names)}. Correct the names"
    )


def _left_out_finding(table: AnnotationTable, keep: Sequence[int]) -> str:
    kept = set(keep)
    gone = [label for label in range(len(table.categories)) if label not in kept]
    if not gone:
        return ""
    count = int(np.isin(table.labels, gone).sum())
    names = _shortened([table.categories.names[label] for label in gone])
    return (
        f"{len(gone)} of {len(table.categories)} categories left out, with "
        f"{counted(count, 'annotation')}: {names}"
    )


def _unused_finding(chosen: Categories, used: Sequence[bool]) -> str:
    unused = [name for name, is_used in zip(chosen.names, used, strict=True) if not is_used]
    if not unused:
        return ""
    return (
        f"{len(unused)} of {len(chosen)} categories kept although no annotation uses them "
        f"(in a config, unused_categories: drop leaves them out): {_shortened(unused)}"
    )


def duplicate_name_finding(categories: Categories) -> str:
    """A sentence on names that several categories share, or nothing."""
    twice = [name for name, count in Counter(categories.names).items() if count > 1]
    return f"several categories share a name: {_shortened(twice)}" if twice else ""


def _shortened(names: Sequence[str], most: int = 10) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} … ({len(names)} in all)"
