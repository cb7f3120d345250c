"""Three sentences: what a detector is good at, what costs most, and what to do next.

Every number in them stands elsewhere in the report, in the same digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retina.evaluation.metrics import CategoryMetrics, DetectionMetrics
from retina.evaluation.report.breakdown import Breakdown, SliceScore
from retina.evaluation.report.confusion import BACKGROUND, Confusion
from retina.evaluation.report.overlap import Overlap
from retina.evaluation.report.scored_split import STOPS, stop_at
from retina.evaluation.report.tide import Tide, TideError

_ENOUGH_OBJECTS = 10
"""Of a class or a slice, before it is called the best or the worst."""

_GOOD = 0.1
"""An AP that is worth praise."""

_WIDE = 0.15
"""An interval of AP that leaves too much open."""

_MANY_DUPLICATES = 0.02
"""The share of images with a near duplicate in the training set that makes numbers doubtful."""

_LOOSE = 0.4
"""Share of AP50 that is gone at IoU 0.75; of published detectors on COCO it is about 0.3."""

_TELLING = 0.1
"""The share of all confusions of two classes that makes one worth naming."""

_LITTLE = 0.005
"""A cost of AP50 that is not worth a word."""


_WHAT = {
    "classification": ("box has the wrong class", "boxes have the wrong class"),
    "localisation": (
        "box of the right class fits too little",
        "boxes of the right class fit too little",
    ),
    "both": (
        "box has the wrong class and fits too little",
        "boxes have the wrong class and fit too little",
    ),
    "duplicate": (
        "detection is of an object already found",
        "detections are of objects already found",
    ),
    "background": ("detection lies where no object is", "detections lie where no object is"),
    "missed": ("object has no detection at all", "objects have no detection at all"),
}
"""One error of a kind, and several."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence, and the part of the report that holds its numbers."""

    text: str
    refers_to: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the sentences are made from.

    Attributes:
        result: the numbers.
        ap_interval: of AP; None where it is not known.
        num_images: that were scored.
        num_detections: in all of them.
        tide: the errors.
        breakdown: the slices.
        confusion: at IoU 0.5.
        score: the suggested operating point.
        num_label_errors: probable ones.
        ap_without_label_errors: AP without them; None where there is none.
        overlap: with the training set; None where that is not known.
    """

    result: DetectionMetrics
    ap_interval: tuple[float, float] | None
    num_images: int
    num_detections: int
    tide: Tide | None
    breakdown: Breakdown
    confusion: Confusion
    score: float
    num_label_errors: int
    ap_without_label_errors: float | None
    overlap: Overlap | None


def verdict(evidence: Evidence) -> tuple[Sentence, Sentence, Sentence]:
    """Good at, costs most, do next."""
    if not evidence.result.is_scored:
        return (
            Sentence("Nothing can be said: the annotations have no object.", "metrics"),
            Sentence("Without objects, no error costs AP.", "metrics"),
            Sentence("Score on annotations that have objects.", "metrics"),
        )
    if evidence.num_detections == 0:
        return (
            Sentence("Good at nothing: there is no detection.", "metrics"),
            Sentence("Every object is missed.", "metrics"),
            Sentence(
                "Look at the training's losses, and whether the detector's score threshold is too "
                "high.",
                "metrics",
            ),
        )
    return _good_at(evidence), _costs_most(evidence), _do_next(evidence)


def _good_at(evidence: Evidence) -> Sentence:
    result = evidence.result
    scored = [one for one in result.per_category if one.AP is not None]
    sure = [one for one in scored if one.num_ground_truth >= _ENOUGH_OBJECTS] or scored
    best = max(sure, key=lambda one: one.AP or 0.0)
    assert best.AP is not None
    if best.AP < _GOOD:
        text = f"Good at nothing yet: the best class, {best.name}, has AP {best.AP:.3f}."
        return Sentence(text, "categories")
    if len(scored) == 1:
        return _good_at_one_class(evidence, best)
    return Sentence(
        f"Best at {best.name}: AP {best.AP:.3f} on {best.num_ground_truth:,} "
        f"{_objects(best.num_ground_truth)}, against {result.AP:.3f} over all classes.",
        "categories",
    )


def _good_at_one_class(evidence: Evidence, only: CategoryMetrics) -> Sentence:
    result = evidence.result
    sizes = _known(evidence.breakdown.size)
    if len(sizes) > 1:
        best = max(sizes, key=lambda one: one.AP or 0.0)
        return Sentence(
            f"Best at {only.name} of {best.name}: AP {best.AP:.3f} on {best.num_objects:,} "
            f"objects, against {result.AP:.3f} over all sizes.",
            "size",
        )
    return Sentence(
        f"Finds {only.name} with AP50 {result.AP50:.3f}, AP {result.AP:.3f}.", "metrics"
    )


def _costs_most(evidence: Evidence) -> Sentence:
    worst = _worst_error(evidence)
    if _has_loose_boxes(evidence):
        result = evidence.result
        return Sentence(
            f"Loose boxes cost most: objects are found (AP50 {result.AP50:.3f}), but few boxes fit "
            f"closely (AP75 {result.AP75:.3f}).",
            "metrics",
        )
    if worst is None or worst.ap_cost < _LITTLE:
        return Sentence(
            f"No kind of error costs much: AP50 is {evidence.result.AP50:.3f}, and mending any "
            "one kind would hardly raise it.",
            "tide",
        )
    one, several = _WHAT[worst.kind]
    what = f"{worst.count:,} {one if worst.count == 1 else several}"
    return Sentence(
        f"{worst.kind.capitalize()} errors cost most: {what}, which costs {worst.ap_cost:.3f} of "
        "AP50.",
        "tide",
    )


def _has_loose_boxes(evidence: Evidence) -> bool:
    """Whether objects are found, but few are framed well: TIDE, at IoU 0.5, does not tell that."""
    result, worst = evidence.result, _worst_error(evidence)
    lost = result.AP50 - result.AP75
    return lost > _LOOSE * result.AP50 and lost > 2 * (worst.ap_cost if worst else 0.0)


def _do_next(evidence: Evidence) -> Sentence:
    overlap, low_high = evidence.overlap, evidence.ap_interval
    if overlap is not None and overlap.num_images > (
        _MANY_DUPLICATES * overlap.num_validation_compared
    ):
        return Sentence(
            f"First take the {overlap.num_images:,} images out that have a near duplicate in the "
            "training set: with them the numbers flatter the detector.",
            "overlap",
        )
    worst = _worst_error(evidence)
    gain = (evidence.ap_without_label_errors or 0.0) - evidence.result.AP
    if evidence.num_label_errors and gain > max(0.01, worst.ap_cost / 2 if worst else 0.0):
        return Sentence(
            f"First look at the {evidence.num_label_errors:,} probable label "
            f"{'error' if evidence.num_label_errors == 1 else 'errors'}: without them AP would be "
            f"up to {evidence.ap_without_label_errors:.3f}.",
            "label_errors",
        )
    if low_high is not None and low_high[1] - low_high[0] > _WIDE:
        return Sentence(
            f"Score on more images before deciding anything: with {evidence.num_images:,} "
            f"{'image' if evidence.num_images == 1 else 'images'}, AP may lie anywhere from "
            f"{low_high[0]:.3f} to {low_high[1]:.3f}.",
            "metrics",
        )
    if _has_loose_boxes(evidence):
        return Sentence(
            "Look whether the boxes of the training set are drawn alike, close to their objects; "
            f"then train longer, or at a larger input size (AP75 is {evidence.result.AP75:.3f}).",
            "metrics",
        )
    if worst is None or worst.ap_cost < _LITTLE:
        return Sentence(
            f"Nothing stands out: AP {evidence.result.AP:.3f} grows with more data, or a larger "
            "backbone.",
            "metrics",
        )
    return _mend(evidence, worst)


def _mend(evidence: Evidence, worst: TideError) -> Sentence:
    if worst.kind in ("classification", "both"):
        pair = _worst_confusion(evidence)
        if pair is not None:
            return pair
    if worst.kind in ("missed", "localisation"):
        sizes = _known(evidence.breakdown.size)
        weakest = min(sizes, key=lambda one: one.AP or 0.0, default=None)
        if weakest is not None and len(sizes) > 1:
            return Sentence(
                f"Train for objects of {weakest.name}: AP {weakest.AP:.3f} on "
                f"{weakest.num_objects:,} objects; {_for_size(weakest, sizes)}.",
                "size",
            )
    text = {
        "classification": "Add training images of the classes that are taken for each other",
        "both": "Add training images of the classes that are taken for each other",
        "localisation": "Train longer, and look whether the boxes are drawn alike",
        "duplicate": "Lower the IoU of non-maximum suppression",
        "background": "Add training images that show what the false alarms show, without a box",
        "missed": "Add training images like those with missed objects, and train longer",
    }[worst.kind]
    return Sentence(f"{text} ({worst.kind}: {worst.ap_cost:.3f} of AP50).", "tide")


def _for_size(weakest: SliceScore, sizes: Sequence[SliceScore]) -> str:
    at = [one.name for one in sizes].index(weakest.name)
    if at < len(sizes) / 2:
        return "a larger input size shows them larger"
    return "more training images of them, and more scale augmentation"


def _worst_confusion(evidence: Evidence) -> Sentence | None:
    stop = stop_at(evidence.score)
    names = [one.name for one in evidence.result.per_category]
    cells = [
        cell
        for cell in evidence.confusion.cells
        if cell.truth != cell.detected
        and BACKGROUND not in (cell.truth, cell.detected)
        and cell.counts[stop]
    ]
    if not cells:
        return None
    worst = max(cells, key=lambda cell: cell.counts[stop])
    if worst.counts[stop] < _TELLING * sum(cell.counts[stop] for cell in cells):
        return None
    times = "once" if worst.counts[stop] == 1 else f"{worst.counts[stop]:,} times"
    return Sentence(
        f"Add training images that tell {names[worst.truth]} from {names[worst.detected]}: the "
        f"first is taken for the second {times} at score {STOPS[stop]:.2f}.",
        "confusion",
    )


def _worst_error(evidence: Evidence) -> TideError | None:
    errors = evidence.tide.errors if evidence.tide else ()
    return max(errors, key=lambda error: error.ap_cost, default=None)


def _known(slices: Sequence[SliceScore]) -> list[SliceScore]:
    return [one for one in slices if one.AP is not None and one.num_objects >= _ENOUGH_OBJECTS]


def _objects(count: int) -> str:
    return "object" if count == 1 else "objects"
