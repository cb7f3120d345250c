"""The gate: an export is run against its source, and is not written if it finds something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retina.datasets.dataset import DetectionDataset
from retina.errors import RunError, UserError
from retina.evaluation.engines import COCO_IOUS, ScoringProblem
from retina.evaluation.evaluator import Evaluator
from retina.evaluation.matching import match_detections
from retina.export.agreement import BOX_TOLERANCE, SCORE_TOLERANCE, Agreement, compare_detections
from retina.export.calibration import pixels_of
from retina.export.score_shift import score_shift
from retina.modeling.postprocess import PostprocessConfig
from retina.runtime import Runtime, TorchRuntime
from retina.runtime.description import ExportPrecision, Verification
from retina.runtime.exported import ExportedRuntime, rows_by_input_size
from retina.structures import Detections, IntArray
from retina.wording import counted

MOST_TIES = (4, 0.01)
"""So many detections, and this share of all, may differ where last digits decide."""
_WORST = 5
"""Images that a message names."""
_KEPT_TIES = 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may change in bf16 and INT8.

    Attributes:
        ap_drop: of the AP, 0 to 1.
        score_shift: of the scores, on average, 0 to 1.

    Raises:
        UserError: one of them is no such number.
    """

    ap_drop: float = 0.005
    score_shift: float = 0.05

    def __post_init__(self) -> None:
        named = {"--max-ap-drop": self.ap_drop, "--max-score-shift": self.score_shift}
        for option, value in named.items():
            if not 0 <= value <= 1:  # NaN is not, either: nothing would exceed it
                raise UserError(f"{option} {value:g}: does not lie within 0 … 1")


@dataclass(frozen=True)
class Examples:
    """What an export is verified on: a data set, or pictures in batches.

    Attributes:
        name: what it is, for people.
        dataset: annotated images; or None, and
        batches: uint8 ``(3, h, w)`` images, a batch each.
        batch_size: of the data set.
    """

    name: str
    dataset: DetectionDataset | None = None
    batches: Sequence[Sequence[Tensor]] = ()
    batch_size: int = 4

    def image(self, row: int) -> Tensor:
        """One of all, uint8 ``(3, h, w)``, counted from 0."""
        if self.dataset is not None:
            return pixels_of(self.dataset, row)
        return [image for batch in self.batches for image in batch][row]


@dataclass(frozen=True)
class _Found:
    """What a runtime found.

    Attributes:
        detections: in each image.
        names: of the images.
        ap: None without annotations.
        num_found: of each image the annotated objects that are found, the mean over COCO's IoUs;
            empty without annotations.
    """

    detections: Sequence[Detections]
    names: Sequence[str]
    ap: float | None
    num_found: Sequence[float] = ()


class _OneSizeAtATime(Runtime):
    """A runtime whose batches hold images of one size, as an export's do.

    In a batch of several sizes the padding lies elsewhere, which moves scores a little.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.preprocess = runtime, runtime.preprocess
        self.categories, self.thresholds = runtime.categories, runtime.thresholds
        self.thresholds_config = runtime.thresholds_config

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """See `Runtime`."""
        found: dict[int, Detections] = {}
        for rows in rows_by_input_size(self.preprocess, images).values():
            one_size = self.runtime.detect([images[row] for row in rows])
            found |= zip(rows, one_size, strict=True)
        return [found[row] for row in range(len(images))]


def verify(
    source: TorchRuntime,
    exported: ExportedRuntime,
    examples: Examples,
    *,
    precision: ExportPrecision,
    bounds: Bounds,
) -> Verification:
    """Run both on the same images and compare what they find.

    Args:
        source: the detector, in float32.
        exported: the export.
        examples: the images.
        precision: of the export: fp32 has to find the same.
        bounds: what may change in another precision.

    Raises:
        RunError: it finds something else, and the worst images are named; or in another precision
            nothing could be measured.
    """
    ours, theirs = _run(_OneSizeAtATime(source), examples), _run(exported, examples)
    shifts = _score_shifts(ours.detections, theirs.detections, source.thresholds)
    total, number = (sum(part) for part in zip(*shifts, strict=True)) if shifts else (0.0, 0)
    shift = total / number if number else None
    about = Verification(
        images=examples.name,
        num_images=len(ours.names),
        num_detections=sum(map(len, ours.detections)),
        max_box_difference=None,
        max_score_difference=None,
        score_shift=shift,
        source_ap=ours.ap,
        ap=theirs.ap,
    )
    if precision == "fp32":
        rule = exported.description.detector.postprocess
        return _check_same(ours, _compare(ours, theirs, rule, source, examples), about)
    _check_bounds(ours, theirs, shifts, about, bounds, source.thresholds)
    return about


def _run(runtime: Runtime, examples: Examples) -> _Found:
    if examples.dataset is None:
        detections = [one for batch in examples.batches for one in runtime.detect(batch)]
        names = [f"picture {number}" for number in range(1, len(detections) + 1)]
        return _Found(detections, names, None)
    dataset = examples.dataset
    result = Evaluator(dataset, batch_size=examples.batch_size).run(runtime)
    names = [dataset.file_path(index) for index in range(len(dataset))]
    if not result.metrics.is_scored or result.problem is None:
        return _Found(result.detections, names, None)
    num_found = _num_found(result.problem, dataset.image_ids)
    return _Found(result.detections, names, result.metrics.AP, num_found)


def _num_found(problem: ScoringProblem, image_ids: IntArray) -> list[float]:
    """Of each image the objects that are found, the mean over COCO's IoUs.

    Args:
        problem: numbers the images from 1 on, in the order of their ids.
        image_ids: in the order that is wanted.
    """
    counts = np.zeros(problem.num_images)
    for matching in match_detections(problem, COCO_IOUS):
        images = problem.images[matching.is_true] - 1
        counts += np.bincount(images, minlength=problem.num_images) / len(COCO_IOUS)
    by_row = np.empty_like(counts)
    by_row[np.argsort(image_ids)] = counts
    return [float(count) for count in by_row]


def _compare(
    ours: _Found,
    theirs: _Found,
    rule: PostprocessConfig,
    source: TorchRuntime,
    examples: Examples,
) -> list[Agreement]:
    compared = []
    for row, pair in enumerate(zip(ours.detections, theirs.detections, strict=True)):
        agreement = compare_detections(*pair, rule)
        if agreement.faults:  # only then is it worth running the network again
            last = last_candidates(source, examples.image(row))
            agreement = compare_detections(*pair, rule, last)
        compared.append(agreement)
    return compared


def last_candidates(source: TorchRuntime, image: Tensor) -> list[float]:
    """The score of the last candidate of each level that has more than are considered.

    Args:
        source: the detector.
        image: ``(3, h, w)`` uint8.
    """
    limit = source.postprocess.candidates_per_level
    levels = [level.flatten() for level in source.forward([image]).predictions.class_logits]
    return [
        float(level.topk(limit).values[-1].double().sigmoid())
        for level in levels
        if len(level) > limit
    ]


def _check_same(ours: _Found, compared: Sequence[Agreement], about: Verification) -> Verification:
    wrong = sorted(
        (one for one in zip(ours.names, compared, strict=True) if one[1].faults),
        key=lambda one: -len(one[1].faults),
    )
    if wrong:
        lines = [
            f"  {name}: {counted(len(one.faults), 'difference')}; {one.faults[0]}"
            for name, one in wrong[:_WORST]
        ]
        raise RunError(
            f"nothing is written: the export finds something else than its source in "
            f"{len(wrong)} of {counted(about.num_images, 'image')} (allowed: {BOX_TOLERANCE:g} "
            f"pixels, {SCORE_TOLERANCE:g} in score)\n" + "\n".join(lines)
        )
    num_ties = sum(len(one.ties) for one in compared)
    if num_ties > MOST_TIES[0] + MOST_TIES[1] * about.num_detections:
        name, first = next(one for one in zip(ours.names, compared, strict=True) if one[1].ties)
        raise RunError(
            f"nothing is written: {num_ties} of {counted(about.num_detections, 'detection')} "
            f"differ where the last digits decide, too many to be chance; {name}: {first.ties[0]}"
        )
    ties = [
        f"{name}: {tie}" for name, one in zip(ours.names, compared, strict=True) for tie in one.ties
    ]
    same = [one for one in compared if one.num_same]
    return about.model_copy(
        update={
            "max_box_difference": max((one.box_difference for one in same), default=None),
            "max_score_difference": max((one.score_difference for one in same), default=None),
            "ties": tuple(ties[:_KEPT_TIES]),
            "num_ties": num_ties,
        }
    )


def _score_shifts(
    ours: Sequence[Detections], theirs: Sequence[Detections], shown_from: Tensor
) -> list[tuple[float, int]]:
    """Of each image: the sum of the changes of score of what is shown, and how many."""
    return [score_shift(*pair, shown_from) for pair in zip(ours, theirs, strict=True)]


def _check_bounds(
    ours: _Found,
    theirs: _Found,
    shifts: Sequence[tuple[float, int]],
    about: Verification,
    bounds: Bounds,
    shown_from: Tensor,
) -> None:
    if not about.source_ap and about.score_shift is None:
        raise RunError(
            "nothing is written, since nothing could be measured: the detector shows nothing in "
            f"{counted(about.num_images, 'image')} ({about.images}); name annotated images with "
            "--data, or write it unproven with --no-verify"
        )
    ap_faults, score_faults = [], []
    if about.source_ap is not None and about.ap is not None:
        drop = about.source_ap - about.ap
        if drop > bounds.ap_drop:
            ap_faults.append(
                f"the AP falls from {about.source_ap:.4f} to {about.ap:.4f}, by more than "
                f"{bounds.ap_drop:g} (--max-ap-drop)"
            )
    if about.score_shift is not None and about.score_shift > bounds.score_shift:
        score_faults.append(
            f"the scores of what is shown change by {about.score_shift:.4f} on average, by more "
            f"than {bounds.score_shift:g} (--max-score-shift)"
        )
    if not ap_faults and not score_faults:
        return
    if score_faults:
        lines = _worst_by_score(ours, shifts)
    else:
        every = torch.zeros_like(shown_from)  # of low scores, too: the AP has them as well
        lines = _worst_by_ap(ours, theirs, _score_shifts(ours.detections, theirs.detections, every))
    told = "\n".join(["; ".join([*ap_faults, *score_faults]), *lines])
    raise RunError(f"nothing is written: {told}")


def _worst_by_score(ours: _Found, shifts: Sequence[tuple[float, int]]) -> list[str]:
    """A line for each of the images whose scores change most."""
    order = sorted(range(len(shifts)), key=lambda row: -shifts[row][0])[:_WORST]
    return [
        f"  {ours.names[row]}: {counted(shifts[row][1], 'detection')} shown, scores changed by "
        f"{shifts[row][0] / shifts[row][1]:.3f} on average"
        for row in order
        if shifts[row][1]
    ]


def _worst_by_ap(ours: _Found, theirs: _Found, changes: Sequence[tuple[float, int]]) -> list[str]:
    """A line for each of the images that lose most objects, then of those whose scores change."""

    def loss(row: int) -> tuple[float, float]:
        return theirs.num_found[row] - ours.num_found[row], -changes[row][0]

    return [
        f"  {ours.names[row]}: {ours.num_found[row]:.1f} objects found before, "
        f"{theirs.num_found[row]:.1f} after (mean over COCO's overlaps)"
        for row in sorted(range(len(ours.names)), key=loss)[:_WORST]
        if loss(row) != (0.0, 0.0)
    ]
