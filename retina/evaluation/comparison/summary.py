"""A comparison on the terminal: sentences and tables of at most 80 columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from retina.evaluation.bootstrap import FEW_IMAGES
from retina.evaluation.comparison.agreement import Agreement, Shift
from retina.evaluation.comparison.comparison import Comparison, PairComparison
from retina.evaluation.comparison.differences import Difference, signed
from retina.evaluation.comparison.objects import ChangedImage, Counts, FoundObjects
from retina.evaluation.resampled_metrics import CONFIDENCE
from retina.tables import Column, Table
from retina.wording import counted

MOST_CLASSES = 20
"""Shown on the terminal: those that changed most."""

_MOST_IMAGES = 5


def heading(comparison: Comparison) -> list[str]:
    """What is compared, a line each."""
    sides = (
        f"{side.letter} = {side.path} ({counted(len(side.problem.scores), 'detection')})"
        for side in comparison.sides
    )
    images = counted(comparison.num_images, "image")
    objects = counted(comparison.num_objects, "object")
    told = (comparison.findings, *(side.findings for side in comparison.sides))
    findings = (f"  {finding}" for own in told for finding in own)
    return [*sides, f"scored on {comparison.truth}: {images}, {objects}", *findings]


def tables(comparison: Comparison, compared: PairComparison) -> Iterator[Table]:
    """The tables of one pair."""
    pair = compared.pair
    yield numbers_table(compared)
    if len(pair.classes) > 1:
        yield classes_table(compared)
    for found in (compared.best_f1, compared.equal_false_alarms):
        yield found_table(compared, found)
    if compared.best_f1.num_better or compared.best_f1.num_worse:
        yield images_table(comparison, compared)


def numbers_table(compared: PairComparison) -> Table:
    """The twelve numbers."""
    title = f"COCO metrics, with {CONFIDENCE * 100:.0f} % intervals over the images"
    return _differences(compared, title, "metric", compared.pair.numbers, ())


def classes_table(compared: PairComparison) -> Table:
    """The AP of each class, of many those that changed most."""
    classes = compared.pair.classes
    shown: Sequence[Difference] = classes
    title = "AP of each class"
    if len(classes) > MOST_CLASSES:
        shown = sorted(classes, key=lambda one: -abs(one.change or 0.0))[:MOST_CLASSES]
        title += f": the {MOST_CLASSES} of {len(classes)} that changed most"
    number = Column("objects", "num_objects", justify="right")
    return _differences(compared, title, "class", shown, (number,))


def _differences(
    compared: PairComparison,
    title: str,
    what: str,
    rows: Sequence[Difference],
    more: tuple[Column, ...],
) -> Table:
    first, second = compared.pair.first, compared.pair.second
    number = partial(Column, justify="right")
    return Table(
        title=title,
        columns=(
            Column(what, "name"),
            *more,
            number(first, "first", _value),
            number(second, "second", _value),
            number(f"{second} - {first}", "change", signed, style=lambda _: "bold"),
            number("interval", "interval"),
            number(f"{second} better", "probability", percent),
        ),
        rows=tuple(
            {
                "name": one.name,
                "num_objects": one.num_objects,
                "first": one.first,
                "second": one.second,
                "change": one.change,
                "interval": span(one),
                "probability": None if one.has_few_images else one.probability,
                "is_shown": one.is_shown,
                "has_few_images": one.has_few_images,
            }
            for one in rows
        ),
        look="lines",
        row_style=_shown_style,
    )


def _shown_style(row: Any) -> str:
    if not row["is_shown"]:
        return "dim" if row["has_few_images"] else ""
    return "green" if row["change"] > 0 else "red"


def found_table(compared: PairComparison, found: FoundObjects) -> Table:
    """What both find, and what only one of them finds."""
    first, second = compared.pair.first, compared.pair.second
    number = partial(Column, justify="right")
    classes = sorted(found.classes, key=lambda one: -(one.only_first + one.only_second))
    kinds: list[tuple[str, Counts]] = [("all", found.total)]
    kinds += [("size", one) for one in found.sizes if one.num_objects]
    if found is compared.best_f1 and len(classes) > 1:
        kinds += [("class", one) for one in classes[:MOST_CLASSES] if one.num_objects]
    return Table(
        title=f"objects found at IoU 0.5 {point(compared, found)}",
        columns=(
            Column("of", "name"),
            number("objects", "num_objects"),
            number("both", "both"),
            number(f"only {first}", "only_first"),
            number(f"only {second}", "only_second"),
            number("neither", "neither"),
            number(f"false {first}", "first_false"),
            number(f"false {second}", "second_false"),
        ),
        rows=tuple(
            {"kind": kind, **{key: getattr(one, key) for key in Counts.__slots__}}
            for kind, one in kinds
        ),
        look="lines",
        section="kind",
    )


def point(compared: PairComparison, found: FoundObjects) -> str:
    """At which scores, in words."""
    first, second = compared.pair.first, compared.pair.second
    scores = f"({first} from score {found.first_score:.3f}, {second} from {found.second_score:.3f})"
    if found is compared.best_f1:
        return f"where each has its highest F1 {scores}"
    return f"with no more false alarms in {second} than in {first} {scores}"


def images_table(comparison: Comparison, compared: PairComparison) -> Table:
    """The images that changed most."""
    first, second = compared.pair.first, compared.pair.second
    found = compared.best_f1
    number = partial(Column, justify="right")
    return Table(
        title=f"images that changed most, where each has its highest F1: {found.num_better} have "
        f"fewer mistakes in {second}, {found.num_worse} more",
        columns=(
            Column("image", "file"),
            number("mistakes", "mistakes", "{:+d}".format),
            number(f"only {first} finds", "only_first"),
            number(f"only {second} finds", "only_second"),
            number(f"false {first}", "first_false"),
            number(f"false {second}", "second_false"),
        ),
        rows=tuple(
            _image_row(comparison, image, kind)
            for kind, images in (("better", found.better), ("worse", found.worse))
            for image in images[:_MOST_IMAGES]
        ),
        look="lines",
        section="kind",
    )


def _image_row(comparison: Comparison, image: ChangedImage, kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "file": comparison.image_files[image.index],
        "mistakes": -image.gain,
        "only_first": len(image.only_first),
        "only_second": len(image.only_second),
        "first_false": image.first_false,
        "second_false": image.second_false,
    }


def few_images_lines(compared: PairComparison) -> list[str]:
    """Which rows cannot show a difference, and why: a sentence, or none."""
    pair = compared.pair
    kinds = (
        (few_images(pair.numbers), len(pair.numbers), "number"),
        (few_images(pair.classes) if len(pair.classes) > 1 else 0, len(pair.classes), "class"),
    )
    told = [f"{few} of {counted(every, what)}" for few, every, what in kinds if few]
    if not told:
        return []
    return [
        f"Grey, and without a share of the resamples: {' and '.join(told)} with objects in fewer "
        f"than {FEW_IMAGES} images, which are too few to show a difference."
    ]


def few_images(rows: Sequence[Difference]) -> int:
    """How many have objects, but in too few images."""
    return sum(one.has_few_images and one.num_objects > 0 for one in rows)


def agreement_lines(compared: PairComparison) -> list[str]:
    """How far both say the same, in sentences."""
    first, second, told = compared.pair.first, compared.pair.second, compared.agreement
    if not told.total_first or not told.total_second:
        return [_missing_detections(first, second, told)]
    above = f"from score {told.score:.3f} on"
    if not told.num_first and not told.num_second:
        return [f"Neither has a detection {above}."]
    lines = [_same_or_not(first, second, told, above)]
    scores, boxes, objects = told.scores, told.box_shifts, told.objects
    if scores.num_pairs:
        lines.append(
            f"Between the {counted(scores.num_pairs, 'pair')} of these, the score shifts by "
            f"{_shift(scores, signed)}, the side of a box by {_shift(boxes, _pixels)}."
        )
    if objects.num_pairs:
        lines.append(
            f"Between the detections of {counted(objects.num_pairs, 'object')} that both find at "
            f"any score, the score shifts by {_shift(objects, signed)}."
        )
    return lines


def _missing_detections(first: str, second: str, told: Agreement) -> str:
    if not told.total_first and not told.total_second:
        return "Neither has a detection."
    none, some, number = (
        (second, first, told.total_first)
        if told.total_first
        else (first, second, told.total_second)
    )
    return f"{none} has no detection, {some} has {number}."


def _same_or_not(first: str, second: str, told: Agreement, above: str) -> str:
    if told.is_same_set:
        return f"{first} and {second} show the same {counted(told.num_pairs, 'detection')} {above}."
    return (
        f"{above[0].upper()}{above[1:]}, {first} has {told.num_first} detections and {second} "
        f"{told.num_second}: {told.num_pairs} are the same in both (class, IoU 0.5), "
        f"{told.only_first} only {first} has, {told.only_second} only {second} has, "
        f"{told.crossed_down + told.crossed_up} have a partner below that score."
    )


def _shift(shift: Shift, show: Callable[[float | None], str]) -> str:
    return f"{show(shift.median)} (median) and {show(shift.largest)} (largest)"


def _pixels(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} pixels"


def percent(value: float | None) -> str:
    """A probability; what holds in every resample is still not certain."""
    if value is None:
        return "–"
    if not 0.01 <= value <= 0.99:
        return "< 1 %" if value < 0.5 else "> 99 %"
    return f"{value * 100:.0f} %"


def span(one: Difference) -> str:
    """An interval; a dash where it cannot be told."""
    if one.low is None or one.high is None:
        return "–"
    return f"{signed(one.low)} to {signed(one.high)}"


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
