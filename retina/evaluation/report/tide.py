"""Six kinds of errors and the AP50 that each costs: TIDE (Bolya et al., 2020), by hotcoco.

A false detection is looked at beside all objects of its image, crowd regions not counted:
localisation, if an object of its class overlaps it by 0.1 to 0.5; classification, if one of another
class does by 0.5; duplicate, if one of its class does by 0.5 and has been found by another; background,
if none does by more than 0.1; both, otherwise. An object is missed if it is not found and no
classification or localisation error is about it. The cost of a kind is how much AP50 would rise if
its errors were mended, each kind alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from retina.evaluation.engines import tide
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
    found = tide(split.problem)
    return Tide(
        ap50=float(found["ap_base"]),
        errors=tuple(
            TideError(kind, int(found["counts"][name]), float(found["delta_ap"][name]))
            for kind, name in _KINDS.items()
        ),
    )
