"""What a detector says about a sample of images, kept so that any γ and α can be replayed on it.

The logits themselves would be gigabytes. What a replay needs of them is much less: on negatives the
loss depends on nothing but the logit, so a fine histogram does; the positives, few and important,
are kept one by one. Both fit into a small file, however many images the sample has.

Letters: B images, R anchors, K classes, F foreground anchors, N bins of the logit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from retina.artifact import Artifact
from retina.datasets.dataset import DetectionDataset
from retina.instruments.anatomy.elements import EASY_LOGIT
from retina.instruments.anatomy.histogram import (
    BINS_PER_UNIT,
    LIMIT,
    NUM_BINS,
    logit_histogram,
)
from retina.objective.assignment import Assigner
from retina.objective.classification import anchor_labels
from retina.runtime import TorchRuntime
from retina.runtime.splits import ForwardedBatch, forward_split, spread_indices
from retina.storage import replacing

FORMAT_VERSION = 1
MIDDLE = -EASY_LOGIT
"""Of the bins: an edge lies exactly where easy negatives end."""


@dataclass(frozen=True, slots=True)
class LogitHistogram:
    """Logits by their value.

    Attributes:
        counts: ``(N,)`` float64, how many fall into each bin.
        sums: ``(N,)`` float64, the sum of their logits.
    """

    counts: Tensor
    sums: Tensor

    @property
    def means(self) -> Tensor:
        """``(N,)`` float64, the mean logit of each bin; where one is empty, its lower edge."""
        edges = torch.arange(NUM_BINS, dtype=torch.float64) / BINS_PER_UNIT + (MIDDLE - LIMIT)
        return torch.where(self.counts > 0, self.sums / self.counts.clamp(min=1), edges)

    @property
    def easy(self) -> slice:
        """The bins of easy negatives, p_t > 0.9."""
        return slice(0, NUM_BINS // 2)


@dataclass(frozen=True, slots=True)
class LabSample:
    """A sample of images, as far as a replay needs it.

    Attributes:
        num_images: that were looked at.
        num_objects: that have foreground anchors.
        num_classes: K.
        background: the logits of all classes on background anchors.
        other_classes: the logits of the K - 1 classes that a foreground anchor is not.
        own_class: ``(F,)`` float32, the logit of the class that it is.
    """

    num_images: int
    num_objects: int
    num_classes: int
    background: LogitHistogram
    other_classes: LogitHistogram
    own_class: Tensor

    @property
    def num_elements(self) -> int:
        """Anchors × classes that have a loss."""
        negatives = self.background.counts.sum() + self.other_classes.counts.sum()
        return int(negatives.item()) + len(self.own_class)


class LabSampler:
    """Takes in batches, and gives the sample."""

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._num_images = self._num_objects = 0
        # counts and sums of background and other classes
        self._histograms = torch.zeros(2, 2, NUM_BINS, dtype=torch.float64)
        self._own: list[Tensor] = []

    def add(self, batch: ForwardedBatch, assigner: Assigner) -> None:
        """Take in a batch."""
        assignment = assigner(batch.anchors, batch.targets)
        labels = anchor_labels(assignment, batch.targets, self._num_classes)  # (B, R)
        start = 0
        for logits in batch.predictions.class_logits:
            rows = logits.flatten(1, 3).float()  # (B, HWA, K)
            at = slice(start, start + rows.shape[1])
            start = at.stop
            self._histograms[0] += _histogram(rows[labels[:, at] == self._num_classes])
            is_foreground = assignment.is_foreground[:, at]
            positives, own = rows[is_foreground], labels[:, at][is_foreground]  # (F, K), (F,)
            is_own = own.unsqueeze(1) == torch.arange(self._num_classes, device=own.device)
            self._own.append(positives[is_own].cpu())
            self._histograms[1] += _histogram(positives[~is_own])
        self._num_images += len(labels)
        objects = assignment.target_index.masked_fill(~assignment.is_foreground, -1)
        self._num_objects += sum(len(row.unique()) - int((row < 0).any()) for row in objects)

    def sample(self) -> LabSample:
        """What was taken in."""
        return LabSample(
            num_images=self._num_images,
            num_objects=self._num_objects,
            num_classes=self._num_classes,
            background=LogitHistogram(*self._histograms[0]),
            other_classes=LogitHistogram(*self._histograms[1]),
            own_class=torch.cat(self._own) if self._own else torch.zeros(0),
        )


def _histogram(logits: Tensor) -> Tensor:
    """``(2, N)``: counts and sums, taken on the CPU, where their order is always the same."""
    return logit_histogram(logits.cpu(), middle=MIDDLE).squeeze(1)


def take_sample(
    artifact: Artifact,
    dataset: DetectionDataset,
    *,
    assigner: Assigner,
    device: torch.device,
    images_limit: int | None,
    batch_size: int = 4,
    num_workers: int = 0,
    on_progress: Callable[[int], None] = lambda num_images: None,
) -> LabSample:
    """Run a detector over images of a split, spread evenly over it."""
    batches: Iterable[ForwardedBatch] = forward_split(
        TorchRuntime.from_artifact(artifact, device=device),
        dataset,
        spread_indices(len(dataset), images_limit),
        batch_size=batch_size,
        num_workers=num_workers,
    )
    sampler = LabSampler(len(artifact.categories))
    for batch in batches:
        sampler.add(batch, assigner)
        on_progress(len(batch.image_ids))
    return sampler.sample()


def fingerprint(detector: Path, dataset: DetectionDataset, *about: object) -> str:
    """Of all that the sample depends on: another one means that it must be taken again.

    The images count by their ids, sizes and boxes; their pixels are taken to be the same.
    """
    truth = dataset.ground_truth()
    digest = hashlib.sha256(detector.read_bytes())
    images = (truth.image_ids, truth.image_sizes, truth.annotation_image_ids)
    for column in (*images, truth.category_labels, truth.boxes_xywh, truth.is_crowd):
        digest.update(column.tobytes())
    digest.update(repr((FORMAT_VERSION, *about)).encode())
    return digest.hexdigest()


def save_sample(path: Path, sample: LabSample, key: str) -> None:
    """Write the sample in one step, under its fingerprint."""
    tensors = {
        "background": torch.stack([sample.background.counts, sample.background.sums]),
        "other_classes": torch.stack([sample.other_classes.counts, sample.other_classes.sums]),
        "own_class": sample.own_class.contiguous(),
    }
    facts = {
        "num_images": sample.num_images,
        "num_objects": sample.num_objects,
        "num_classes": sample.num_classes,
    }
    with replacing(path) as aside:
        aside.write_bytes(save(tensors, metadata={"fingerprint": key, "facts": json.dumps(facts)}))


def load_sample(path: Path, key: str) -> LabSample | None:
    """The sample with this fingerprint, or None where the file holds another or none."""
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if metadata.get("fingerprint") != key:
                return None
            facts = json.loads(metadata["facts"])
            return LabSample(
                **facts,
                background=LogitHistogram(*file.get_tensor("background")),
                other_classes=LogitHistogram(*file.get_tensor("other_classes")),
                own_class=file.get_tensor("own_class"),
            )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        return None
