"""What a step that was not finite is described with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from retina.devices import Precision
from retina.instruments.replay.layer_check import Examination
from retina.structures import Batch
from retina.training.finite_guard import Verdict

_SHOWN = 16
"""Image ids in a message; a larger batch is cut."""


@dataclass(frozen=True, slots=True)
class BoxFacts:
    """The boxes of a batch.

    Attributes:
        num_boxes: crowd regions included.
        smallest_side, largest_side: in pixels of the network's input; NaN without a box.
        strange_images: the ids of the images with a box that is not finite or has no area.
    """

    num_boxes: int
    smallest_side: float
    largest_side: float
    strange_images: tuple[int, ...]


def box_facts(parts: Sequence[Batch]) -> BoxFacts:
    """Look at the boxes of the batches."""
    sides, strange = [], []
    for batch in parts:
        boxes, is_object = batch.targets.boxes, batch.targets.is_object
        lengths = boxes[..., 2:] - boxes[..., :2]  # (B, M, 2)
        is_usable = (boxes.isfinite().all(-1) & (lengths > 0).all(-1)) | ~is_object
        strange += [
            image
            for image, usable in zip(batch.image_ids, is_usable.all(-1).tolist(), strict=True)
            if not usable
        ]
        sides.append(lengths[is_object].flatten())
    values = torch.cat(sides)
    if not values.numel():
        return BoxFacts(0, float("nan"), float("nan"), ())
    return BoxFacts(values.numel() // 2, values.min().item(), values.max().item(), tuple(strange))


@dataclass(frozen=True, slots=True)
class Finding:
    """What a process found out about its images of a step.

    Attributes:
        rank: the process.
        images: which images and boxes they are.
        broken: where it breaks, in each precision that was tried.
        remedy: a sentence.
        has_bad_weights: whether the weights were not finite before the step; no step can go on
            from them.
        replay: how to run it again, or why not.
    """

    rank: int
    images: str
    broken: str
    remedy: str
    has_bad_weights: bool
    replay: str


def describe_images(parts: Sequence[Batch]) -> str:
    """Which images a step was made of, and their boxes."""
    ids = [image for batch in parts for image in batch.image_ids]
    shown = ", ".join(map(str, ids[:_SHOWN])) + (", …" if len(ids) > _SHOWN else "")
    facts = box_facts(parts)
    text = f"image ids {shown}; {facts.num_boxes} boxes"
    if facts.num_boxes:
        text += f" with sides of {facts.smallest_side:.4g} to {facts.largest_side:.4g} pixels"
    if facts.strange_images:
        text += (
            "; a box of image "
            f"{', '.join(map(str, facts.strange_images[:_SHOWN]))} is not finite or has no area"
        )
    return text


def describe_examinations(examinations: Sequence[Examination]) -> str:
    """Where each run of the step breaks."""
    if not examinations:
        return "it could not be run again, for lack of memory or another error"
    return "; ".join(f"in {exam.precision} {exam.describe()}" for exam in examinations)


def remedy(parts: Sequence[Batch], examinations: Sequence[Examination]) -> str:
    """What to do about it, a sentence without its full stop."""
    strange = box_facts(parts).strange_images
    if any(exam.weights for exam in examinations):
        return "The weights grew without bound: lower optimizer.lr or set training.clip_norm"
    if strange:
        return f"Mend the boxes of image {', '.join(map(str, strange[:_SHOWN]))}"
    precisions: list[Precision] = [exam.precision for exam in examinations]
    if len(precisions) > 1 and examinations[-1].is_finite:
        wider = "bf16 or fp32" if precisions[0] == "fp16" else "fp32"
        return f"It is finite in fp32: use training.precision={wider}"
    if precisions == ["fp32"]:
        return "Lower optimizer.lr, or set training.clip_norm"
    return "Lower optimizer.lr, set training.clip_norm, or use training.precision=fp32"


def kept_checkpoint(path: Path) -> str:
    """What is left to go on from, a sentence."""
    if path.exists():
        return f"The last checkpoint is intact: {path}"
    return "There is no checkpoint yet (training.checkpoint_every_steps)"


def sentence(step: int, verdict: Verdict, findings: Sequence[Finding]) -> str:
    """What happened in a step, without a full stop at its end."""
    classification, box = verdict.losses
    if verdict.is_loss_finite:
        text = f"the gradient is not finite at step {step} (the loss is {classification + box:.4g})"
    else:
        text = (
            f"the loss is not finite at step {step} (classification {classification:.4g}, box "
            f"regression {box:.4g})"
        )
    for finding in findings:
        who = f"rank {finding.rank}: " if finding.rank or len(findings) > 1 else ""
        text += f"; {who}{finding.images}; {finding.broken}; {finding.replay}"
    return text
