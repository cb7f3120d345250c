"""What a step that was not finite is described with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from retina.devices import Precision
from retina.structures import Batch
from retina.training.finite_guard import Verdict
from retina.wording import counted

_SHOWN = 16
"""Image ids in a message; a larger batch is cut."""

WEIGHTS_FIX = "The weights grew without bound: lower optimizer.lr or set training.clip_norm"


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


def box_facts(micro_batches: Sequence[Batch]) -> BoxFacts:
    """Look at the boxes of a step."""
    sides, strange = [], []
    for batch in micro_batches:
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
        where: where it breaks, in each precision that was tried; empty where nobody looked.
        fix: a sentence.
        has_bad_weights: whether the weights were not finite before the step; no step can go on
            from them.
        replay: how to run it again, or why not; empty where nobody wrote it down.
    """

    rank: int
    images: str
    where: str
    fix: str
    has_bad_weights: bool
    replay: str


def describe_images(micro_batches: Sequence[Batch]) -> str:
    """Which images a step was made of, and their boxes."""
    ids = [image for batch in micro_batches for image in batch.image_ids]
    shown = ", ".join(map(str, ids[:_SHOWN])) + (", …" if len(ids) > _SHOWN else "")
    facts = box_facts(micro_batches)
    text = f"image ids {shown}; {counted(facts.num_boxes, 'box')}"
    if facts.num_boxes:
        text += f" with sides of {facts.smallest_side:.4g} to {facts.largest_side:.4g} pixels"
    if facts.strange_images:
        text += (
            "; a box of image "
            f"{', '.join(map(str, facts.strange_images[:_SHOWN]))} is not finite or has no area"
        )
    return text


def fix_of_boxes(micro_batches: Sequence[Batch]) -> str:
    """What to do about boxes that no loss is made for; empty where there are none."""
    strange = box_facts(micro_batches).strange_images
    return f"Fix the boxes of image {', '.join(map(str, strange[:_SHOWN]))}" if strange else ""


def general_fix(precision: Precision) -> str:
    """What to do where nobody knows better."""
    if precision == "fp32":
        return "Lower optimizer.lr, or set training.clip_norm"
    return "Lower optimizer.lr, set training.clip_norm, or use training.precision=fp32"


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
        told = [finding.images, finding.where, finding.replay]
        text += f"; {who}{'; '.join(part for part in told if part)}"
    return text
