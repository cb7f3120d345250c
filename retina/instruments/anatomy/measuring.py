"""Takes the anatomy of the loss that a saved detector has on a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from retina.artifact import Artifact
from retina.datasets.dataset import DetectionDataset
from retina.instruments.anatomy.elements import FocalSetting
from retina.instruments.anatomy.meter import AnatomyMeter
from retina.instruments.anatomy.result import LossAnatomy
from retina.modeling.detector import RetinaNet
from retina.objective.assignment import Assigner
from retina.objective.criterion import ObjectiveConfig
from retina.runtime import TorchRuntime
from retina.runtime.splits import forward_split, spread_indices


@dataclass(frozen=True, slots=True)
class TrainedLoss:
    """The focal loss that stands for the one of a config.

    Attributes:
        parameters: its γ and α.
        kind: of the training's loss.
        difference: what the training's loss does otherwise, a clause for people; None where it is
            the very loss of the training.
    """

    parameters: FocalSetting
    kind: str
    difference: str | None

    @property
    def is_exact(self) -> bool:
        """Whether it is the very loss of the training."""
        return self.difference is None


def trained_loss(
    objective: ObjectiveConfig, class_counts: Sequence[int] | None = None
) -> TrainedLoss:
    """What to take apart for the classification loss of an objective.

    A loss that is no plain sigmoid focal loss is looked at through one with its γ, and its α where
    that means the same: the same logits and the same groups, but not the same sums.

    Args:
        objective: of the training.
        class_counts: the objects of each class in the training set, where `needs_counting` says so.
    """
    view = objective.classification.focal_view(class_counts)
    parameters = FocalSetting(view.gamma, view.alpha)
    return TrainedLoss(parameters, objective.classification.kind, view.difference)


def needs_counting(objective: ObjectiveConfig) -> bool:
    """Whether `trained_loss` has to be told the class counts of the training set."""
    return objective.classification.focal_view().lacks_class_counts


def level_names(detector: RetinaNet) -> tuple[str, ...]:
    """P3, P4 …: the level of stride 2^n is Pn (Lin et al. 2017, "Feature Pyramid Networks")."""
    return tuple(f"P{round(math.log2(stride))}" for stride in detector.pyramid.strides)


def measure_anatomy(
    artifact: Artifact,
    dataset: DetectionDataset,
    *,
    assigner: Assigner,
    parameters: FocalSetting,
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
    runtime = TorchRuntime.from_artifact(artifact, device=device)
    names = level_names(runtime.detector)
    meter = AnatomyMeter(names, artifact.categories.distinct_names, parameters, device)
    batches = forward_split(
        runtime,
        dataset,
        spread_indices(len(dataset), images_limit),
        batch_size=batch_size,
        num_workers=num_workers,
    )
    for batch in batches:
        meter.add(batch.predictions, assigner(batch.anchors, batch.targets), batch.targets)
        if on_progress is not None:
            on_progress(len(batch.image_ids))
    return meter.result()
