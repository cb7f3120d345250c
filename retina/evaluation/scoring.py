"""All numbers of one set of images: COCO's always, and what else was asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from retina.datasets.coco_results import DetectionArrays
from retina.errors import UserError
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.engines import COCO_IOUS, COCO_MAX_DETECTIONS, DEFAULT_BACKEND, Backend
from retina.evaluation.iou_metrics import IouMetrics, iou_metrics
from retina.evaluation.lvis_metrics import LVIS_MAX_DETECTIONS, LvisMetrics, lvis_metrics
from retina.evaluation.metrics import DetectionMetrics
from retina.evaluation.per_image import ImageScores, score_images
from retina.evaluation.scored_images import ScoredImages, taken_detections
from retina.evaluation.voc_metrics import VOC_IOU, VocMetrics, voc_metrics
from retina.storage import write_text

MetricsName = Literal["coco", "voc", "lvis"]
"""Whose rules there are to score by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringOptions:
    """What is asked for.

    Attributes:
        metrics: whose numbers, beside COCO's twelve.
        ious: thresholds; None for those of the metric.
        per_image: whether each image is scored by itself too.
        backend: the engine of COCO's numbers.
        max_detections: that count, of a class in an image (COCO) or of an image (LVIS); None for
            what each of them says.

    Raises:
        UserError: the options do not go together.
    """

    metrics: MetricsName = "coco"
    ious: tuple[float, ...] | None = None
    per_image: bool = False
    backend: Backend = DEFAULT_BACKEND
    max_detections: int | None = None

    def __post_init__(self) -> None:
        if self.per_image and self.metrics == "lvis":
            raise UserError(
                "--per-image counts by COCO's rules, which take what LVIS did not look for for "
                "false alarms: leave it away with --metrics lvis"
            )
        if self.max_detections is not None and self.metrics == "voc":
            raise UserError(
                "--max-detections: Pascal VOC counts every detection: leave it away with "
                "--metrics voc"
            )

    @property
    def coco_cap(self) -> int:
        """How many detections of a class in an image count for COCO's numbers."""
        cap = None if self.metrics == "lvis" else self.max_detections
        return cap or COCO_MAX_DETECTIONS

    @property
    def lvis_cap(self) -> int:
        """How many detections of an image count for LVIS's numbers."""
        return self.max_detections or LVIS_MAX_DETECTIONS

    @property
    def made_detections(self) -> int | None:
        """How many detections of an image a detector should make; None leaves it to it."""
        return self.lvis_cap if self.metrics == "lvis" else self.max_detections


@dataclass(frozen=True, slots=True)
class Scores:
    """The numbers of a set of images; None where they were not asked for.

    Attributes:
        num_images: that were scored.
        per_file: the same of each annotation file, where there are several.
        views: what the detector has looked at beside the plain images, as `Views.to_json` says it.
        plain: COCO's numbers of the plain images alone, where there were more views.
    """

    num_images: int
    coco: DetectionMetrics
    ious: IouMetrics | None = None
    voc: VocMetrics | None = None
    lvis: LvisMetrics | None = None
    per_image: ImageScores | None = None
    per_file: tuple[tuple[str, Scores], ...] = ()
    views: Mapping[str, Any] | None = None
    plain: DetectionMetrics | None = None

    @property
    def has_other_metrics(self) -> bool:
        """Whether VOC's or LVIS's rules were asked for."""
        return self.voc is not None or self.lvis is not None

    def to_json(self) -> dict[str, Any]:
        """What ``metrics.json`` holds: COCO's numbers, and a key for each of the others."""
        blocks = {"ious": self.ious, "voc": self.voc, "lvis": self.lvis}
        tree = self.coco.to_json() | {
            key: block.to_json() for key, block in blocks.items() if block is not None
        }
        if self.views is not None and self.plain is not None:
            tree["views"], tree["plain"] = dict(self.views), self.plain.numbers()
        if self.per_file:
            tree["num_images"] = self.num_images
            tree["per_file"] = [
                {"annotations": name, "num_images": scores.num_images, **scores.to_json()}
                for name, scores in self.per_file
            ]
        return tree


def score(
    images: ScoredImages,
    found: DetectionArrays,
    options: ScoringOptions,
    *,
    coco: DetectionMetrics | None = None,
) -> Scores:
    """Score detections, all together and by annotation file.

    Args:
        images: what to score against.
        found: the detections; those of other images are passed over.
        options: what to compute.
        coco: COCO's numbers of all images, where they are known already.

    Raises:
        UserError: the ground truth lacks what the metric needs.
    """
    found = taken_detections(found, images.truth)
    metrics = CocoMetrics(images.truth, backend=options.backend, max_detections=options.coco_cap)
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    problem = metrics.problem()
    numbers: dict[str, Any] = {}
    if options.metrics == "voc":
        numbers["voc"] = voc_metrics(images.truth, problem, options.ious or (VOC_IOU,))
    elif options.metrics == "lvis":
        numbers["lvis"] = lvis_metrics(
            images.truth,
            problem,
            ious=options.ious or COCO_IOUS,
            max_detections=options.lvis_cap,
        )
    elif options.ious is not None:
        numbers["ious"] = iou_metrics(images.truth, problem, options.ious, options.backend)
    if options.per_image:
        numbers["per_image"] = score_images(problem, images.in_order_of_ids())
    return Scores(
        num_images=len(images),
        coco=metrics.compute() if coco is None else coco,
        per_file=tuple(
            (part.sources[0], score(part, found, replace(options, per_image=False)))
            for part in images.by_source()
        ),
        **numbers,
    )


def write_scores(folder: Path, scores: Scores) -> None:
    """Write ``metrics.json``, and ``per_image.json`` where each image was scored.

    Raises:
        UserError: a file may not be written.
        RunError: the disk is full.
    """
    trees = {"metrics.json": scores.to_json()}
    if scores.per_image is not None:
        trees["per_image.json"] = scores.per_image.to_json()
    for name, tree in trees.items():
        write_text(folder / name, json.dumps(tree, indent=2, allow_nan=False) + "\n")
