"""Takes the anatomy of the loss that a saved detector has on a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from retina.analysis.anatomy.elements import FocalParameters
from retina.analysis.anatomy.meter import AnatomyMeter
from retina.analysis.anatomy.result import LossAnatomy
from retina.analysis.forwarding import forward_split, spread_indices
from retina.artifact import Artifact
from retina.datasets.dataset import DetectionDataset
from retina.modeling.detector import RetinaNet
from retina.objective.assignment import Assigner
from retina.objective.classification import (
    ClassBalancedFocalConfig,
    ClassificationConfig,
    EqualizedFocalConfig,
    FocalClassification,
    FocalConfig,
    QualityFocalConfig,
    VarifocalConfig,
)


@dataclass(frozen=True, slots=True)
class TrainedLoss:
    """The focal loss that stands for the one of a config.

    Attributes:
        parameters: its γ and α.
        is_exact: whether it is the very loss of the training.
        kind: of the training's loss.
    """

    parameters: FocalParameters
    is_exact: bool
    kind: str


def trained_loss(
    classification: ClassificationConfig, class_counts: Sequence[int] | None = None
) -> TrainedLoss:
    """What to take apart for a classification loss of `retina.objective`.

    A loss that is no plain sigmoid focal loss is looked at through one with its γ, and its α where
    that means the same: the same logits and the same groups, but not the same sums.

    Args:
        classification: of the objective.
        class_counts: the objects of each class, for a loss that balances them.
    """
    gamma: float = 0.0
    alpha: float | tuple[float, ...] | None = None
    is_exact = False
    match classification:
        case FocalConfig():
            gamma, alpha, is_exact = classification.gamma, classification.alpha, True
        case ClassBalancedFocalConfig():
            counts = classification.class_counts or class_counts
            gamma, alpha = classification.gamma, classification.alpha
            if counts is not None:
                alpha, is_exact = _alpha_of(classification.build(counts)), True
        case EqualizedFocalConfig():
            gamma, alpha = classification.gamma, classification.alpha
        case QualityFocalConfig():
            gamma = classification.beta  # the same exponent of the error
        case VarifocalConfig():
            gamma = classification.gamma
    return TrainedLoss(FocalParameters(gamma, alpha), is_exact, classification.kind)


def _alpha_of(loss: FocalClassification) -> tuple[float, ...]:
    return tuple(torch.as_tensor(loss.alpha).tolist())


def level_names(detector: RetinaNet) -> tuple[str, ...]:
    """P3, P4 …: the level of stride 2^n is Pn (Lin et al. 2017, "Feature Pyramid Networks")."""
    return tuple(f"P{round(math.log2(stride))}" for stride in detector.pyramid.strides)


def measure_anatomy(
    artifact: Artifact,
    dataset: DetectionDataset,
    *,
    assigner: Assigner,
    parameters: FocalParameters,
    device: torch.device,
    images_limit: int | None = None,
    batch_size: int = 4,
    num_workers: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> LossAnatomy:
    """Run a detector over a split and add up what its loss is made of.

    Args:
        artifact: the detector.
        dataset: the split, with the detector's labels.
        assigner: decides which anchors are foreground.
        parameters: of the loss.
        device: where to compute.
        images_limit: look at no more images than these, evenly spread over the split.
        batch_size: images at a time.
        num_workers: processes that load images.
        on_progress: called with the number of images done since the last call.
    """
    detector = artifact.build_detector().to(device)
    meter = AnatomyMeter(level_names(detector), artifact.categories.names, parameters, device)
    batches = forward_split(
        dataset,
        spread_indices(len(dataset), images_limit),
        detector=detector,
        preprocess=artifact.config.preprocess.build().to(device),
        device=device,
        batch_size=batch_size,
        num_workers=num_workers,
    )
    for batch in batches:
        meter.add(batch.predictions, assigner(batch.anchors, batch.targets), batch.targets)
        if on_progress is not None:
            on_progress(len(batch.image_ids))
    return meter.result()
