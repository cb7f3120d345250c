"""Six kinds of errors and the AP50 that each costs: TIDE (Bolya et al., 2020), by hotcoco.

A false detection is looked at beside all objects of its image, crowd regions not counted. It is a
localisation error if an object of its class overlaps it by 0.1 to 0.5; a classification error if
one of another class does by 0.5; a duplicate if one of its class does by 0.5 that another has
found; background if none does by more than 0.1; and both, wrong class and place, otherwise. An
object is missed if it is not found and no classification or localisation error is about it. The
cost of a kind is how much AP50 would rise if its errors were mended, each kind alone. A box of the
wrong class or place is mended by making it right where it is the best one about an object that is
not found, and by taking it away elsewhere; a missed object by taking it away; all else likewise.

hotcoco takes crowd regions for objects that a detection can be a localisation error about, which
TIDE does not. So it is given neither them nor the detections that they absorb: AP50 stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from retina.evaluation.engines import ScoringProblem, tide
from retina.evaluation.report.scored_split import ScoredSplit

_KINDS = {
    "classification": "Cls",
    "localisation": "Loc",
    "both": "Both",
    "duplicate": "Dupe",
    "background": "Bkg",
    "missed": "Miss",
}


@dataclass(frozen=True, slots=True)
class TideError:
    """One kind of errors: how many there are, and the AP50 that they cost."""

    kind: str
    count: int
    ap_cost: float


@dataclass(frozen=True, slots=True)
class Tide:
    """AP at IoU 0.5, and what each kind of errors takes from it."""

    ap50: float
    errors: tuple[TideError, ...]


def tide_errors(split: ScoredSplit) -> Tide | None:
    """The errors of all detections that AP looks at; None without objects."""
    if not split.is_object.any():
        return None
    found = tide(_without_crowds(split))
    return Tide(
        ap50=float(found["ap_base"]),
        errors=tuple(
            TideError(kind, int(found["counts"][name]), float(found["delta_ap"][name]))
            for kind, name in _KINDS.items()
        ),
    )


def _without_crowds(split: ScoredSplit) -> ScoringProblem:
    problem, is_object = split.problem, split.is_object
    is_judged = ~split.matchings[0].is_ignored
    return replace(
        problem,
        truth_images=problem.truth_images[is_object],
        truth_categories=problem.truth_categories[is_object],
        truth_boxes=problem.truth_boxes[is_object],
        truth_areas=problem.truth_areas[is_object],
        truth_is_crowd=problem.truth_is_crowd[is_object],
        images=problem.images[is_judged],
        categories=problem.categories[is_judged],
        boxes=problem.boxes[is_judged],
        scores=problem.scores[is_judged],
    )
