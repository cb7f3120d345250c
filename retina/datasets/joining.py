"""The annotations of several files as those of one.

Letters: I images, G annotations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from retina.datasets.annotations import AnnotationTable, name_array
from retina.datasets.categories import joined_categories
from retina.datasets.ids import canonical_id
from retina.structures import BoolArray, Federation, IntArray, OriginalId


def unique_ids(parts: Sequence[IntArray]) -> tuple[IntArray, bool]:
    """All ids, and whether they had to be numbered anew from 1."""
    joined = np.concatenate(parts)
    if len(np.unique(joined)) == len(joined):
        return joined, False
    return np.arange(1, len(joined) + 1), True


def join_originals(
    parts: Sequence[tuple[IntArray, Mapping[int, OriginalId]]], image_ids: IntArray
) -> dict[int, OriginalId]:
    """What stands in the files in the place of a number; nothing where two have one id in common.

    Args:
        parts: the image ids of each file, and what stands there in the place of a number.
        image_ids: what `unique_ids` made of them.
    """
    old_ids = np.concatenate([ids for ids, _ in parts])
    if np.array_equal(old_ids, image_ids):
        return {key: value for _, originals in parts for key, value in originals.items()}
    meant = [originals.get(number, number) for ids, originals in parts for number in ids.tolist()]
    is_clear = len(set(map(canonical_id, meant))) == len(meant)
    return dict(zip(image_ids.tolist(), meant, strict=True)) if is_clear else {}


def join_flags(parts: Sequence[BoolArray | None], counts: Sequence[int]) -> BoolArray | None:
    """Marks of annotations, False in parts that know no such mark; None where none does."""
    if all(part is None for part in parts):
        return None
    return np.concatenate(
        [
            np.zeros(count, dtype=np.bool_) if part is None else part
            for part, count in zip(parts, counts, strict=True)
        ]
    )


def join_federations(
    parts: Sequence[Federation | None], starts: Sequence[int]
) -> Federation | None:
    """What the parts say about the classes that were looked for; None where a part says nothing.

    Args:
        parts: of the same categories.
        starts: the row of the first image of each part.
    """
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    tables: dict[str, list[IntArray]] = {"absent": [], "not_exhaustive": []}
    for part, start in zip(known, starts, strict=False):
        for name, moved in tables.items():
            moved.append(getattr(part, name) + np.array([start, 0]))
    return Federation(
        absent=np.concatenate(tables["absent"]),
        not_exhaustive=np.concatenate(tables["not_exhaustive"]),
        frequencies=tuple(
            next(filter(None, letters), "")
            for letters in zip(*(part.frequencies for part in known), strict=True)
        ),
    )


def join_tables(tables: Sequence[AnnotationTable]) -> AnnotationTable:
    """The images and annotations of several files, one file after the other.

    Image and annotation ids stay as they are where they are unique over all files; otherwise all
    are numbered anew from 1. Categories are the same where their names are.

    Args:
        tables: at least one, with their boxes in pixels.
    """
    if len(tables) == 1:
        return tables[0]
    categories, new_labels = joined_categories([table.categories for table in tables])
    parts = [
        table.relabelled(categories, labels)
        for table, labels in zip(tables, new_labels, strict=True)
    ]
    starts = np.cumsum([0, *(part.num_images for part in parts)]).tolist()
    counts = [len(part.labels) for part in parts]
    image_ids, renumbered = unique_ids([part.image_ids for part in parts])
    originals = [(part.image_ids, part.original_image_ids) for part in parts]
    return AnnotationTable(
        source=", ".join(part.source for part in parts),
        categories=categories,
        image_ids=image_ids,
        file_names=name_array([name for part in parts for name in _names(part)]),
        image_sizes=np.concatenate([part.image_sizes for part in parts]),
        annotation_ids=unique_ids([part.annotation_ids for part in parts])[0],
        image_indices=np.concatenate(
            [part.image_indices + start for part, start in zip(parts, starts, strict=False)]
        ),
        labels=np.concatenate([part.labels for part in parts]),
        boxes_xywh=np.concatenate([part.boxes_xywh for part in parts]),
        areas=np.concatenate([part.areas for part in parts]),
        is_crowd=np.concatenate([part.is_crowd for part in parts]),
        occluded_fractions=np.concatenate([part.occluded_fractions for part in parts]),
        findings=tuple(f"{part.source}: {one}" for part in parts for one in part.findings),
        original_image_ids=join_originals(originals, image_ids),
        image_aliases={}
        if renumbered
        else {key: value for part in parts for key, value in part.image_aliases.items()},
        is_difficult=join_flags([part.is_difficult for part in parts], counts),
        federation=join_federations([part.federation for part in parts], starts),
    )


def _names(table: AnnotationTable) -> list[str]:
    return [table.file_name(row) for row in range(table.num_images)]
