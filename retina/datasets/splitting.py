"""Dividing a data set into splits: stratified over classes, with what belongs together in one.

After Sechidis et al., On the Stratification of Multi-Label Data (2011): the rarest class is dealt
out first, each time to the split that lacks most of it.

Letters: I images, K classes, S splits, N groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retina.datasets.folder import FolderDataset
from retina.datasets.image_groups import groups_by_name, groups_by_pattern
from retina.errors import UserError
from retina.structures import FloatArray, GroundTruth, IntArray
from retina.wording import counted


@dataclass(frozen=True, slots=True)
class Division:
    """A data set in parts.

    Attributes:
        splits: by name; none is empty.
        findings: what was kept together, one sentence each.
    """

    splits: Mapping[str, FolderDataset]
    findings: tuple[str, ...]


def divide(
    dataset: FolderDataset,
    duplicates: Sequence[Sequence[int]],
    shares: Mapping[str, float],
    *,
    seed: int,
    group_by: str | None = None,
) -> Division:
    """Divide a data set by its images.

    Args:
        dataset: the whole.
        duplicates: groups of images that show the same, by position.
        shares: of the images, by the name of the split; they add up to 1.
        seed: the same one gives the same splits.
        group_by: a regular expression for what else belongs together; None looks at the names for
            frames of videos and copies.

    Raises:
        UserError: there are too few images, or groups by the expression.
    """
    names = [dataset.table.file_name(index) for index in range(len(dataset))]
    if group_by is None:
        alone, (named, told) = names, groups_by_name(names)
    else:
        alone, told = groups_by_pattern(names, group_by)
        named = alone
    findings = [told]
    if duplicates:
        num_alike = sum(map(len, duplicates))
        findings.append(
            f"{num_alike} images are near duplicates in {counted(len(duplicates), 'group')}: kept "
            "together"
        )
    groups = joined_groups(named, duplicates)
    if len(set(groups.tolist())) < sum(share > 0 for share in shares.values()):
        groups = joined_groups(alone, ())
        findings = ["all images look alike, or are of one video: they are divided one by one"]
    counts = objects_per_image(dataset.ground_truth())
    chosen = split_images(counts, groups, shares, seed=seed)
    table = replace(dataset.table, findings=())
    splits = {
        name: FolderDataset(table.take_images(indices), images=dataset.images)
        for name, indices in chosen.items()
    }
    return Division(splits, tuple(filter(None, findings)))


def objects_per_image(truth: GroundTruth) -> IntArray:
    """``(I, K)`` how many objects of each class an image has, crowd regions not counted."""
    counts = np.zeros((len(truth.image_ids), len(truth.categories)), dtype=np.int64)
    kept = ~truth.is_crowd
    np.add.at(counts, (truth.image_indices[kept], truth.category_labels[kept]), 1)
    return counts


def joined_groups(names: Sequence[str], others: Iterable[Sequence[int]]) -> IntArray:
    """``(I,)`` int64, a number for what belongs together.

    Args:
        names: the group of each image.
        others: sets of images, by position, that belong together as well.
    """
    first = {name: index for index, name in reversed(list(enumerate(names)))}
    links = [(first[name], index) for index, name in enumerate(names)]
    links += [(group[0], index) for group in others for index in group[1:]]
    rows, columns = np.array(links).T
    graph = coo_array((np.ones(len(links)), (rows, columns)), shape=(len(names), len(names)))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def split_images(
    counts: IntArray, groups: IntArray, shares: Mapping[str, float], *, seed: int
) -> dict[str, IntArray]:
    """The images of each split, ascending.

    Args:
        counts: ``(I, K)`` objects of each class in each image.
        groups: ``(I,)`` images of one number come into one split.
        shares: of the images, by the name of the split; they add up to 1.
        seed: of the order in which equals are dealt out.

    Raises:
        UserError: there are fewer groups than splits.
    """
    wanted = {split: share for split, share in shares.items() if share > 0}
    numbers, group_of = np.unique(groups, return_inverse=True)
    if len(numbers) < len(wanted):
        together = "" if len(numbers) == len(groups) else f" in {counted(len(numbers), 'group')}"
        raise UserError(
            f"{counted(len(groups), 'image')}{together} cannot be divided into "
            f"{', '.join(wanted)}: each needs at least one"
        )
    sizes = np.bincount(group_of)
    presence = np.zeros((len(numbers), counts.shape[1]), dtype=np.int64)
    # In how many images a class occurs: a crowded image must not fill a split by itself.
    np.add.at(presence, group_of, (counts > 0).astype(np.int64))
    chosen = _deal(presence, sizes, np.array(list(wanted.values())), np.random.default_rng(seed))
    _leave_none_empty(chosen, sizes, len(wanted))
    return {split: np.flatnonzero(chosen[group_of] == s) for s, split in enumerate(wanted)}


def _deal(
    presence: IntArray, sizes: IntArray, shares: FloatArray, generator: np.random.Generator
) -> IntArray:
    """``(N,)`` the split of each group.

    Args:
        presence: ``(N, K)`` images of each group that show each class.
        sizes: ``(N,)`` images of each group.
        shares: ``(S,)`` of the images.
        generator: decides among equals.
    """
    chosen = np.full(len(sizes), -1)
    order = generator.permutation(len(sizes))
    # Large groups first: what is small fits in anywhere.
    order = order[np.argsort(-sizes[order], kind="stable")]
    lacking = shares[:, None] * presence.sum(axis=0)  # (S, K)
    room = shares * sizes.sum()  # (S,)
    classes = np.argsort(presence.sum(axis=0), kind="stable").tolist()
    for label in [*classes, None]:
        members = order if label is None else order[presence[order, label] > 0]
        for group in members[chosen[members] < 0].tolist():
            need = room if label is None else lacking[:, label]
            has_room = room >= sizes[group] / 2
            best = int(np.lexsort((room, need, has_room))[-1])
            chosen[group] = best
            lacking[best] -= presence[group]
            room[best] -= sizes[group]
    return chosen


def _leave_none_empty(chosen: IntArray, sizes: IntArray, num_splits: int) -> None:
    """Give a split without an image the smallest group of the split with most groups."""
    for split in range(num_splits):
        if not (chosen == split).any():
            fullest = int(np.bincount(chosen, minlength=num_splits).argmax())
            members = np.flatnonzero(chosen == fullest)
            chosen[members[np.argmin(sizes[members])]] = split
