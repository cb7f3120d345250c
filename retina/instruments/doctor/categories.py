"""The category map and the class counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from retina.datasets.dataset import DetectionDataset
from retina.datasets.ids import canonical_id
from retina.instruments.doctor.context import CheckContext
from retina.instruments.doctor.findings import CheckResult, Finding, named
from retina.structures import BoolArray, Categories, IntArray
from retina.wording import counted

BACKGROUND_NAMES = {"background", "__background__", "_background_", "bg", "no_object", "no object"}

FEW_BOXES = 10
"""Classes with fewer boxes can hardly be learned."""

_CLEARLY_BETTER = 20.0
"""Log likelihood (nats) by which another map must explain the validation labels better."""

_CLEARLY_DIFFERENT = 0.2
"""Total variation between the class shares of training and validation that asks for a reason."""


def check_categories(context: CheckContext) -> CheckResult:
    """Names, ids, and whether training and validation mean the same by them."""
    findings = [*_names(context), *_background(context)]
    if context.validation is not None:
        findings += [
            *_other_map(context, context.validation),
            *_absent(context, context.validation),
        ]
    ids = context.train.categories.dataset_ids
    return CheckResult(
        summary=f"{counted(len(ids), 'class')}, ids {min(ids)} to {max(ids)}",
        findings=tuple(findings),
        numbers={"classes": len(ids), "lowest_id": min(ids), "highest_id": max(ids)},
    )


def check_class_counts(context: CheckContext) -> CheckResult:
    """How many boxes each class has, and how many images have none."""
    counts = context.train.ground_truth().class_counts()
    names = context.train.categories.distinct_names
    if not sum(counts):
        return CheckResult("no boxes", (_no_boxes(len(context.train)),), {"boxes": 0})
    findings = [*_empty_classes(context, counts), *_rare_classes(context, counts)]
    findings += _empty_images(context)
    rarest, commonest = int(np.argmin(counts)), int(np.argmax(counts))
    return CheckResult(
        summary=f"{counted(sum(counts), 'box')}; {names[commonest]} {counts[commonest]}, "
        f"{names[rarest]} "
        f"{counts[rarest]}",
        findings=tuple(findings),
        numbers={"boxes": sum(counts), **dict(zip(names, counts, strict=True))},
    )


def _names(context: CheckContext) -> Iterator[Finding]:
    names = context.train.categories.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        yield Finding(
            code="category_names_repeated",
            level="warning",
            what=f"several categories share a name: {named(twice)}",
            why="They are learned as different classes and compete for the same objects.",
            fix="Merge them in the annotations, or rename them.",
        )


def _background(context: CheckContext) -> Iterator[Finding]:
    counts = context.train.ground_truth().class_counts()
    for name, count in zip(context.train.categories.names, counts, strict=True):
        if name.strip().lower() not in BACKGROUND_NAMES:
            continue
        if count:
            yield Finding(
                code="background_has_objects",
                level="error",
                what=f"the category '{name}' has {counted(count, 'box')}",
                why="Background is no class here: it would be taught as an object. Boxes of that "
                "name usually mean that the category ids are off by one.",
                fix="Remove the category, and check that each id means what its name says.",
                numbers={"boxes": count},
            )
        else:
            yield Finding(
                code="background_listed",
                level="warning",
                what=f"the category '{name}' is listed, without a box",
                why="Background is no class here: an output would learn nothing but zero.",
                fix="Drop the categories that no annotation uses.",
                patch=_drop_unused(),
            )


def _drop_unused() -> dict[str, object]:
    return {"dataset": {"train": {"unused_categories": "drop"}}}


def _other_map(context: CheckContext, validation: DetectionDataset) -> Iterator[Finding]:
    """Whether another meaning of the validation ids fits the training set far better."""
    ours, theirs = context.train.categories, validation.categories
    train = np.array(context.train.ground_truth().class_counts(), dtype=np.int64)
    found = np.array(validation.ground_truth().class_counts(), dtype=np.int64)
    if len(ours) < 2 or not found.sum() or not train.sum():
        return
    distance = _total_variation(train, found)
    conflicts = [
        f"{number} is {ours.names[ours.label_of(number)]} in training, {name} in validation"
        for name, number, used in zip(theirs.names, theirs.dataset_ids, found, strict=True)
        if used and number in ours.dataset_ids and ours.names[ours.label_of(number)] != name
    ]
    if conflicts and _have_ids(context) and not (_are_texts(ours) or _are_texts(theirs)):
        yield _permuted(conflicts, distance, train, found, _by_id(context, validation))
    for shift in (1, -1):
        moved = np.roll(found, -shift)
        gain = _likelihood(train, moved) - _likelihood(train, found)
        closer = _total_variation(train, moved)
        if distance > _CLEARLY_DIFFERENT and gain > _CLEARLY_BETTER and closer < distance / 2:
            yield Finding(
                code="labels_off_by_one",
                level="error",
                what=f"the validation labels look shifted by {shift:+d} against the training's: "
                f"the class shares differ by {distance:.0%}, and by {closer:.0%} if shifted back",
                why="One of the two splits teaches or scores every object under its neighbour's "
                "name; the AP would be near 0.",
                fix="Compare a few images of both splits (retina doctor draws a batch), and "
                "correct the category ids of the wrong one.",
                numbers={"shift": shift, "difference": distance, "if_shifted_back": closer},
            )


def _have_ids(context: CheckContext) -> bool:
    """Whether both splits number their categories, so that the numbers can contradict the names."""
    splits = context.config.dataset
    return splits.train.has_category_ids and bool(
        splits.validation and splits.validation.has_category_ids
    )


def _are_texts(categories: Categories) -> bool:
    """Whether the ids in the file are texts, in the place of which numbers only count."""
    return any(isinstance(canonical_id(one), str) for one in categories.original_ids.values())


def _by_id(context: CheckContext, validation: DetectionDataset) -> IntArray:
    """The validation's counts where each id is taken to mean what it does in training."""
    ours, counts = context.train.categories, np.zeros(len(context.train.categories), np.int64)
    for number, count in zip(
        validation.categories.dataset_ids, validation.ground_truth().class_counts(), strict=True
    ):
        if number in ours.dataset_ids:
            counts[ours.label_of(number)] += count
    return counts


def _permuted(
    conflicts: Sequence[str], distance: float, train: IntArray, found: IntArray, by_id: IntArray
) -> Finding:
    closer = _total_variation(train, by_id)
    gain = _likelihood(train, by_id) - _likelihood(train, found)
    is_certain = gain > _CLEARLY_BETTER and closer < distance / 2
    proof = (
        f"; matched by name the class shares differ by {distance:.0%}, by id only by {closer:.0%}, "
        "so the names are the ones that are permuted"
    )
    return Finding(
        code="validation_categories_permuted",
        level="error" if is_certain else "warning",
        what=f"the same ids mean other classes in validation: {named(conflicts, 3)}"
        + (proof if is_certain else ""),
        why="Splits are matched by name. If the names stand at the wrong ids in one of them, its "
        "objects are learned or scored as other classes.",
        fix="Give 'categories' the same ids and names in both files.",
        numbers={"conflicts": len(conflicts), "by_name": distance, "by_id": closer},
    )


def _absent(context: CheckContext, validation: DetectionDataset) -> Iterator[Finding]:
    train = context.train.ground_truth().class_counts()
    found = validation.ground_truth().class_counts()
    names = context.train.categories.distinct_names
    untrained = [name for name, a, b in zip(names, train, found, strict=True) if b and not a]
    lost = sum(b for a, b in zip(train, found, strict=True) if not a) / max(1, sum(found))
    unscored = [name for name, a, b in zip(names, train, found, strict=True) if a and not b]
    if untrained:
        yield Finding(
            code="classes_untrained",
            level="error" if lost > 0.1 else "warning",
            what=f"validation has objects of {counted(len(untrained), 'class')} that "
            f"training has none of ({lost:.0%} of them): {named(untrained)}",
            why="They cannot be learned; each counts with an AP of 0.",
            fix="Split the data anew, or check the category ids of both files.",
            numbers={"classes": len(untrained), "share": lost},
        )
    if not sum(found):
        yield Finding(
            code="validation_has_no_boxes",
            level="error",
            what=f"none of the {len(validation)} validation images has a box",
            why="There is nothing to score, so no best detector can be chosen.",
            fix="Check the annotations of the validation split.",
        )
    elif unscored:
        most = len(unscored) > len(names) / 2
        yield Finding(
            code="classes_unscored",
            level="warning" if most else "note",
            what=f"validation has no object of {len(unscored)} of {counted(len(names), 'class')}: "
            f"{named(unscored)}",
            why="Their AP is not measured, and the mean leaves them out.",
            fix="Use a larger or another validation split.",
            numbers={"classes": len(unscored)},
        )


def _no_boxes(num_images: int) -> Finding:
    return Finding(
        code="no_boxes",
        level="error",
        what=f"none of the {num_images} training images has a box",
        why="There is nothing to learn.",
        fix="Check the annotations of the training split, and 'classes' where it is set.",
    )


def _empty_classes(context: CheckContext, counts: Sequence[int]) -> Iterator[Finding]:
    names = context.train.categories.names
    empty = [
        name
        for name, count in zip(names, counts, strict=True)
        if not count and name.strip().lower() not in BACKGROUND_NAMES
    ]
    if empty:
        most = len(empty) > len(names) / 2
        yield Finding(
            code="classes_empty",
            level="warning" if most else "note",
            what=f"{len(empty)} of {counted(len(names), 'class')} have no box in training: "
            f"{named(empty)}",
            why="Their outputs learn nothing but zero.",
            fix="Drop the categories that no annotation uses, or add such images.",
            patch=_drop_unused(),
            numbers={"classes": len(empty)},
        )


def _rare_classes(context: CheckContext, counts: Sequence[int]) -> Iterator[Finding]:
    names = context.train.categories.distinct_names
    pairs = zip(names, counts, strict=True)
    rare = [f"{name} ({count})" for name, count in pairs if 0 < count < FEW_BOXES]
    if rare:
        who = "class has" if len(rare) == 1 else "classes have"
        repeats = context.config.sampling.repeat_threshold is not None
        yield Finding(
            code="classes_rare",
            level="note",
            what=f"{len(rare)} {who} fewer than {FEW_BOXES} boxes: {named(rare)}",
            why="They can hardly be learned, or are mislabelled.",
            fix="Add images of them"
            + ("." if repeats else ", or show theirs more often with sampling.repeat_threshold."),
            patch=None if repeats else {"sampling": {"repeat_threshold": 0.05}},
            numbers={"classes": len(rare)},
        )


def _empty_images(context: CheckContext) -> Iterator[Finding]:
    report = context.train.report
    share = report.num_empty_images / max(1, report.num_images)
    if share <= 0.5 or context.config.sampling.empty_images == "drop":
        return
    yield Finding(
        code="images_mostly_empty",
        level="warning",
        what=f"{report.num_empty_images} of {report.num_images} training images have no box "
        f"({share:.0%})",
        why="They teach background alone; and annotations that lost their images look just like "
        "this.",
        fix="Check that the image ids of the annotations are right; if the images are truly "
        "empty, leave them out.",
        patch={"sampling": {"empty_images": "drop"}},
        numbers={"empty_images": report.num_empty_images, "share": share},
    )


def _total_variation(a: IntArray, b: IntArray) -> float:
    return float(np.abs(a / max(1, a.sum()) - b / max(1, b.sum())).sum() / 2)


def _likelihood(train: IntArray, found: IntArray) -> float:
    """Log likelihood of the counts under the training's class shares (half a box added to each)."""
    is_known: BoolArray = found > 0
    shares = (train + 0.5) / (train.sum() + 0.5 * len(train))
    return float((found[is_known] * np.log(shares[is_known])).sum())
