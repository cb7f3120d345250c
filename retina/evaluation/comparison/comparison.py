"""Two or more evaluations compared: each with the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retina.datasets import DetectionDataset
from retina.evaluation.bootstrap import draw_multiplicities
from retina.evaluation.comparison.agreement import Agreement, agree
from retina.evaluation.comparison.differences import (
    Difference,
    Pair,
    classes_by_number,
    compare_pair,
)
from retina.evaluation.comparison.objects import ChangedImage, FoundObjects, Matched, find_objects
from retina.evaluation.comparison.resampling import resample
from retina.evaluation.comparison.sides import Side, truth_findings
from retina.evaluation.folder import truth_sha256
from retina.evaluation.resampled_metrics import CONFIDENCE, num_resamples_for

NUM_RESAMPLES = 1000
"""Of the bootstrap, as a rule: the ends of an interval are then known to a 20th of its width."""


@dataclass(frozen=True, slots=True)
class PairComparison:
    """The first side and another one.

    Attributes:
        pair: in all numbers.
        best_f1: what they find, each at its highest F1.
        equal_false_alarms: what they find at equal false alarms.
        agreement: how far they say the same.
    """

    pair: Pair
    best_f1: FoundObjects
    equal_false_alarms: FoundObjects
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class Comparison:
    """All sides, and each but the first compared with the first.

    Attributes:
        truth: what the data set is called.
        sha256: of the truth.
        image_ids: of the truth, ascending, as the files have them.
        image_files: of the same images.
        annotation_ids: of the truth.
        findings: what must be known of the truth, one sentence each.
        sides: in the order in which they were named.
        pairs: one fewer.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    truth: str
    sha256: str
    image_ids: tuple[int | str, ...]
    image_files: tuple[str, ...]
    annotation_ids: tuple[int, ...]
    findings: tuple[str, ...]
    sides: tuple[Side, ...]
    pairs: tuple[PairComparison, ...]
    num_resamples: int
    seed: int

    @property
    def num_images(self) -> int:
        """Those without an object included."""
        return len(self.image_ids)

    @property
    def num_objects(self) -> int:
        """Crowd regions not counted."""
        return int((~self.sides[0].problem.truth_is_crowd).sum())

    def side(self, letter: str) -> Side:
        """The side that is called so."""
        return next(side for side in self.sides if side.letter == letter)

    def to_json(self) -> dict[str, Any]:
        """What ``comparison.json`` holds; nothing that could not be scored is a number there."""
        return {
            "ground_truth": {
                "name": self.truth,
                "sha256": self.sha256,
                "num_images": self.num_images,
                "num_objects": self.num_objects,
                "findings": list(self.findings),
            },
            "bootstrap": {
                "resamples": self.num_resamples,
                "seed": self.seed,
                "confidence": CONFIDENCE,
            },
            "sides": [
                {
                    "letter": side.letter,
                    "path": side.path,
                    "num_detections": len(side.problem.scores),
                    "max_detections": side.metrics.max_detections,
                }
                for side in self.sides
            ],
            "pairs": [self._pair(one) for one in self.pairs],
        }

    def _pair(self, compared: PairComparison) -> dict[str, Any]:
        pair, agreement = compared.pair, compared.agreement
        return {
            "first": pair.first,
            "second": pair.second,
            "sentence": pair.sentence,
            "numbers": {one.name: _number(one) for one in pair.numbers},
            "classes": [{"name": one.name, **_number(one)} for one in pair.classes],
            "best_f1": self._found(compared.best_f1),
            "equal_false_alarms": self._found(compared.equal_false_alarms),
            "agreement": {**asdict(agreement), "is_same_set": agreement.is_same_set},
        }

    def _found(self, found: FoundObjects) -> dict[str, Any]:
        return {
            "first_score": found.first_score,
            "second_score": found.second_score,
            "all": asdict(found.total),
            "sizes": [asdict(counts) for counts in found.sizes],
            "classes": [asdict(counts) for counts in found.classes],
            "num_images_better": found.num_better,
            "num_images_worse": found.num_worse,
            "images_better": [self._image(image) for image in found.better],
            "images_worse": [self._image(image) for image in found.worse],
        }

    def _image(self, image: ChangedImage) -> dict[str, Any]:
        return {
            "image_id": self.image_ids[image.index],
            "file": self.image_files[image.index],
            "gain": image.gain,
            "only_first": [self.annotation_ids[row] for row in image.only_first],
            "only_second": [self.annotation_ids[row] for row in image.only_second],
            "first_false": image.first_false,
            "second_false": image.second_false,
        }


def _number(one: Difference) -> dict[str, Any]:
    numbers = asdict(one)
    del numbers["name"]
    return {
        **numbers,
        "change": one.change,
        "has_few_images": one.has_few_images,
        "is_shown": one.is_shown,
        "images_needed": one.images_needed,
    }


def compare(
    sides: Sequence[Side],
    dataset: DetectionDataset,
    *,
    truth_name: str,
    num_resamples: int | None = None,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Compare each side with the first one.

    Args:
        sides: two at least, scored against the data set.
        dataset: whose images need not be there.
        truth_name: what the data set is called.
        num_resamples: of the images; None for `NUM_RESAMPLES`, and fewer where there are a hundred
            thousand detections or more.
        seed: of what is drawn.
        on_progress: called with 1 whenever a side has been resampled.
    """
    truth = dataset.ground_truth()
    if num_resamples is None:
        num_resamples = min(num_resamples_for(side.problem, NUM_RESAMPLES) for side in sides)
    multiplicities = draw_multiplicities(len(truth.image_ids), num_resamples, seed=seed)
    resampled = {}
    for side in sides:
        resampled[side.letter] = resample(side.problem, multiplicities)
        if on_progress is not None:
            on_progress(1)
    first, *others = sides
    names = [category.name for category in classes_by_number(first)]
    ours = Matched.of(first)
    pairs = []
    for other in others:
        theirs = Matched.of(other)
        best_f1, equal = find_objects(ours, theirs, names)
        agreement = agree(ours, theirs, best_f1.first_score)
        pair = compare_pair(first, other, resampled)
        pairs.append(PairComparison(pair, best_f1, equal, agreement))
    order = np.argsort(truth.image_ids)
    ids = truth.ids_in_file
    return Comparison(
        truth=truth_name,
        sha256=truth_sha256(truth),
        image_ids=tuple(ids[row] for row in order.tolist()),
        image_files=tuple(Path(dataset.file_path(index)).name for index in order.tolist()),
        annotation_ids=tuple(truth.annotation_ids.tolist()),
        findings=truth_findings(truth),
        sides=tuple(sides),
        pairs=tuple(pairs),
        num_resamples=num_resamples,
        seed=seed,
    )
