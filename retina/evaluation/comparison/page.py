"""A comparison as one page, ``comparison.html``, which loads nothing and has no script."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import PIL.Image

from retina.datasets import DetectionDataset
from retina.errors import UserError
from retina.evaluation.comparison.comparison import Comparison, PairComparison
from retina.evaluation.comparison.differences import Difference, signed
from retina.evaluation.comparison.objects import ChangedImage, Counts
from retina.evaluation.comparison.summary import (
    agreement_lines,
    few_images_lines,
    heading,
    percent,
    point,
    span,
)
from retina.evaluation.engines import ScoringProblem
from retina.evaluation.report.page_pictures import Picture, fit_pictures
from retina.evaluation.resampled_metrics import CONFIDENCE
from retina.storage import write_text

JSON = "comparison.json"
HTML = "comparison.html"

_MAX_BYTES = 5_000_000
_MOST_PICTURES = 6
"""Of one pair that changed for the better, and likewise for the worse."""

_MOST_CLASSES = 50
_MOST_BOXES = 200
_MAX_SIDE = 640
_QUALITY = 80


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A box over a picture.

    Attributes:
        x, y, width, height: in pixels of the image.
        kind: ``truth``, ``first`` or ``second``; of an object that one side alone finds
            ``only-first`` or ``only-second``.
        title: its class, and its score.
    """

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """An image that changed, with its boxes.

    Attributes:
        file: its name.
        image: what changed.
        width, height: in pixels of the image.
        url: of its picture; empty where there is none.
        boxes: over it.
    """

    file: str
    image: ChangedImage
    width: float
    height: float
    url: str
    boxes: tuple[DrawnBox, ...]


def write_comparison(folder: Path, comparison: Comparison, dataset: DetectionDataset) -> None:
    """Write ``comparison.json`` and ``comparison.html``.

    Args:
        folder: made if need be.
        comparison: to be told.
        dataset: whose pictures are shown, where they are there.

    Raises:
        UserError: a file may not be written.
        RunError: the disk is full.
    """
    text = json.dumps(comparison.to_json(), indent=2, allow_nan=False)
    write_text(folder / JSON, text + "\n")
    write_text(folder / HTML, html_page(comparison, dataset))


def html_page(comparison: Comparison, dataset: DetectionDataset) -> str:
    """The page, with every name escaped."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.PackageLoader("retina.evaluation.comparison"),
                jinja2.PackageLoader("retina.evaluation.report"),  # has the look of all pages
            ]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(signed=signed, percent=percent, span=span, decimals=_decimals)
    style = "".join(_source(environment, name) for name in ("report.css", "comparison.css"))
    shown = list(_shown_images(comparison))
    urls = _urls(dataset, [image.index for _, image in shown])
    drawn: dict[str, list[DrawnImage]] = {}
    for compared, image in shown:
        one = _draw(comparison, compared, image, dataset, urls.get(image.index, ""))
        drawn.setdefault(compared.pair.second, []).append(one)
    return environment.get_template("comparison.html").render(
        comparison=comparison,
        heading=heading(comparison),
        confidence=f"{CONFIDENCE * 100:.0f} %",
        drawn=drawn,
        agreement_lines=agreement_lines,
        few_images_lines=few_images_lines,
        point=point,
        interval_bar=interval_bar,
        extent=_extent,
        shown_classes=_shown_classes,
        shown_counts=_shown_counts,
        style=style,
        style_hash="sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )


@dataclass(frozen=True, slots=True)
class IntervalBar:
    """An interval as a drawing from 0 (the lowest value) to 100; 50 is no difference."""

    start: float
    width: float
    dot: float


def interval_bar(one: Difference, extent: float) -> IntervalBar | None:
    """Where an interval lies on an axis from −extent to extent; None where there is none."""
    if one.change is None or one.low is None or one.high is None:
        return None
    low, dot, high = (50 + 50 * value / extent for value in (one.low, one.change, one.high))
    return IntervalBar(low, high - low, dot)


@dataclass(frozen=True, slots=True)
class _ShownClasses:
    rows: Sequence[Difference]
    left_out: int


def _shown_classes(classes: Sequence[Difference]) -> _ShownClasses:
    """Those with objects; of many those that changed most."""
    rows = [one for one in classes if one.num_objects]
    if len(rows) <= _MOST_CLASSES:
        return _ShownClasses(rows, 0)
    rows.sort(key=lambda one: -abs(one.change or 0.0))
    return _ShownClasses(rows[:_MOST_CLASSES], len(rows) - _MOST_CLASSES)


def _shown_counts(classes: Sequence[Counts]) -> Sequence[Counts]:
    rows = [one for one in classes if one.num_objects or one.first_false or one.second_false]
    if len(rows) > _MOST_CLASSES:
        rows.sort(key=lambda one: -(one.only_first + one.only_second))
    return rows[:_MOST_CLASSES]


def _extent(rows: Sequence[Difference]) -> float:
    ends = [abs(end) for row in rows for end in (row.low, row.high, row.change) if end is not None]
    return max(ends, default=0.0) * 1.02 or 1.0


def _decimals(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _source(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0].replace("\r\n", "\n")


def _shown_images(comparison: Comparison) -> Iterator[tuple[PairComparison, ChangedImage]]:
    for compared in comparison.pairs:
        found = compared.best_f1
        for image in (*found.worse[:_MOST_PICTURES], *found.better[:_MOST_PICTURES]):
            yield compared, image


def _urls(dataset: DetectionDataset, indices: Sequence[int]) -> dict[int, str]:
    """The pictures of images by their index in the order of the ids, as far as they fit."""
    order = np.argsort(dataset.image_ids)
    pictures = {}
    for index in dict.fromkeys(indices):
        picture = _picture(dataset, int(order[index]))
        if picture is not None:
            pictures[str(index)] = picture
    fitted = fit_pictures(pictures, _MAX_BYTES * 4 // 5).pictures
    return {
        int(key): "data:image/jpeg;base64," + base64.b64encode(picture.jpeg).decode()
        for key, picture in fitted.items()
    }


def _picture(dataset: DetectionDataset, index: int) -> Picture | None:
    try:
        image = PIL.Image.fromarray(dataset.load(index).image)
    except UserError:
        return None
    image.thumbnail((_MAX_SIDE, _MAX_SIDE), PIL.Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=_QUALITY, optimize=True)
    return Picture(content.getvalue(), *image.size)


def _draw(
    comparison: Comparison,
    compared: PairComparison,
    image: ChangedImage,
    dataset: DetectionDataset,
    url: str,
) -> DrawnImage:
    number = image.index + 1
    found, letters = compared.best_f1, (compared.pair.first, compared.pair.second)
    names = [one.name for one in compared.pair.classes]
    sides = [comparison.side(letter) for letter in letters]
    boxes = list(_truth_boxes(sides[0].problem, image, names, letters))
    scores = (found.first_score, found.second_score)
    for kind, side, score in zip(("first", "second"), sides, scores, strict=True):
        boxes += _detected_boxes(side.problem, number, score, names, kind, side.letter)
    size = dataset.image_sizes[int(np.argsort(dataset.image_ids)[image.index])]
    height, width = (float(side) for side in size.tolist())
    if not width or not height:  # the annotations do not say it, and the image is not there
        width = max((box.x + box.width for box in boxes), default=1.0)
        height = max((box.y + box.height for box in boxes), default=1.0)
    return DrawnImage(comparison.image_files[image.index], image, width, height, url, tuple(boxes))


def _truth_boxes(
    problem: ScoringProblem, image: ChangedImage, names: Sequence[str], letters: tuple[str, str]
) -> Iterator[DrawnBox]:
    for row in np.flatnonzero(problem.truth_images == image.index + 1)[:_MOST_BOXES].tolist():
        name = names[int(problem.truth_categories[row]) - 1]
        kind, told = "truth", name
        for only, lone, letter in zip(
            ("only-first", "only-second"),
            (image.only_first, image.only_second),
            letters,
            strict=True,
        ):
            if row in lone:
                kind, told = only, f"{name}, found by {letter} alone"
        x, y, width, height = problem.truth_boxes[row].tolist()
        yield DrawnBox(x, y, width, height, kind, told)


def _detected_boxes(
    problem: ScoringProblem,
    number: int,
    score: float,
    names: Sequence[str],
    kind: str,
    letter: str,
) -> Iterator[DrawnBox]:
    rows = np.flatnonzero((problem.images == number) & (problem.scores >= score))
    for row in rows[np.argsort(-problem.scores[rows])][:_MOST_BOXES].tolist():
        name = names[int(problem.categories[row]) - 1]
        x, y, width, height = problem.boxes[row].tolist()
        yield DrawnBox(x, y, width, height, kind, f"{letter}: {name} {problem.scores[row]:.2f}")
