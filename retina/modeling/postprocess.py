"""From predictions at every anchor to the detections of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from retina.configuration import Config
from retina.geometry.box_coders import BoxCoder
from retina.geometry.boxes import clip_boxes
from retina.geometry.suppression import suppress
from retina.structures import Anchors, DensePredictions, Detections, Size


class PostprocessConfig(Config):
    """Which predictions become detections (RetinaNet, section 4, inference)."""

    score_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Only predictions with a score above this are considered."""
    candidates_per_level: Annotated[int, Field(ge=1)] = 1000
    """How many (anchor, class) pairs of each pyramid level are considered, best first."""
    nms_iou_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    """A box that overlaps a better one of its class by more than this is dropped."""
    max_detections: Annotated[int, Field(ge=1)] = 100
    """How many detections of an image are kept, best first."""
    clip_before_nms: bool = True
    """Cut boxes off at the image's border before their overlaps are measured, else afterwards."""
    smallest_side: Annotated[float, Field(ge=0)] = 0.01
    """A box that is narrower or lower than this within the image, in pixels of the network's input,
    is dropped before it could suppress another; 0 keeps empty boxes."""

    def build(self, box_coder: BoxCoder) -> Postprocess:
        """The function, for a detector with this box coder."""
        return Postprocess(box_coder=box_coder, **dict(self))


class Postprocess:
    """Scores, thresholds, decodes, clips and suppresses; other arguments as `PostprocessConfig`.

    A prediction whose logit, code or box is not finite is none: the others are as without it.
    Of equal logits the anchor that comes first is the better one, then the lower class; of equal
    scores the finer level. So the order, and with it what is suppressed, is the same on every
    device for the same outputs of the network.

    Args:
        box_coder: what the box codes mean.
        score_threshold: see the config, as for the rest.
        candidates_per_level: the best pairs that are considered.
        nms_iou_threshold: the overlap that suppresses.
        max_detections: the most for one image.
        clip_before_nms: whether boxes are clipped before the suppression or after it.
        smallest_side: of the boxes within the image.
    """

    def __init__(
        self,
        *,
        box_coder: BoxCoder,
        score_threshold: float,
        candidates_per_level: int,
        nms_iou_threshold: float,
        max_detections: int,
        clip_before_nms: bool,
        smallest_side: float,
    ) -> None:
        self.box_coder = box_coder
        self.score_threshold = score_threshold
        self.candidates_per_level = candidates_per_level
        self.nms_iou_threshold = nms_iou_threshold
        self.max_detections = max_detections
        self.clip_before_nms = clip_before_nms
        self.smallest_side = smallest_side

    @torch.no_grad()
    def __call__(
        self,
        predictions: DensePredictions,
        anchors: Anchors,
        valid_sizes: Tensor | Sequence[Size],
    ) -> list[Detections]:
        """The detections of each image in host memory, highest score first.

        The device is waited for once, when the candidates of all images come to the host.

        Args:
            predictions: of a batch of B images.
            anchors: what they are about.
            valid_sizes: ``(B, 2)`` (height, width) of the images without their padding.

        Returns:
            In pixels of the network's input.
        """
        if not len(predictions.class_logits[0]):
            return []
        levels = [
            self._candidates(logits.flatten(1, 3), codes.flatten(1, 3), boxes)
            for logits, codes, boxes in zip(
                predictions.class_logits,
                predictions.box_codes,
                torch.split(anchors.boxes, list(anchors.num_per_level)),
                strict=True,
            )
        ]
        if not bool(torch.stack([level.are_all_finite for level in levels]).all()):
            return self(_with_chances_of_finite(predictions), anchors, valid_sizes)
        boxes = torch.cat([level.boxes for level in levels], dim=1).cpu()  # (B, C, 4)
        labels = torch.cat([level.labels for level in levels], dim=1).cpu()  # (B, C)
        # Only the candidates ever meet a sigmoid, and they do in float64: in float32 its last bit
        # depends on the place in memory, and on the device.
        logits = torch.cat([level.logits for level in levels], dim=1).cpu()
        scores = logits.double().sigmoid().float()  # (B, C)
        sizes = torch.as_tensor(valid_sizes).cpu()
        return [self.select(*image) for image in zip(boxes, scores, labels, sizes, strict=True)]

    def _candidates(self, logits: Tensor, codes: Tensor, anchors: Tensor) -> _Candidates:
        """The best pairs of one level ``(B, R, K)``; shapes depend on no value: no sync."""
        highest = logits.amax(dim=2)  # (B, R), all that is read of most of the logits
        best, rows, labels = best_pairs(logits, highest, self.candidates_per_level)  # (B, C)
        best_codes = codes.gather(1, rows[:, :, None].expand(-1, -1, codes.shape[2]))
        return _Candidates(
            logits=best,
            labels=labels,
            boxes=self.box_coder.decode(best_codes, anchors[rows]),
            are_all_finite=highest.isfinite().all() & torch.stack(codes.aminmax()).isfinite().all(),
        )

    def select(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, size: Tensor | Size
    ) -> Detections:
        """The detections among the candidates of one image, in host memory.

        Args:
            boxes: ``(C, 4)``, not clipped.
            scores: ``(C,)``.
            labels: ``(C,)`` int64.
            size: (height, width) of the image without padding.
        """
        clipped = clip_boxes(boxes, size)
        sides = clipped[:, 2:] - clipped[:, :2]
        usable = scores > self.score_threshold
        usable &= boxes.isfinite().all(dim=1) & (sides >= self.smallest_side).all(dim=1)
        boxes, clipped, scores, labels = (
            values[usable] for values in (boxes, clipped, scores, labels)
        )
        kept = suppress(
            clipped if self.clip_before_nms else boxes,
            scores,
            labels,
            self.nms_iou_threshold,
            limit=self.max_detections,
        )
        return Detections(clipped[kept], scores[kept], labels[kept])


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The best (anchor, class) pairs of each image on a level: C of them, best first."""

    logits: Tensor  # (B, C)
    labels: Tensor  # (B, C)
    boxes: Tensor  # (B, C, 4)
    are_all_finite: Tensor  # () bool, the logits and codes of the whole level


def best_pairs(logits: Tensor, highest: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best (anchor, class) pairs of a level, best first.

    The sigmoid keeps the order, so logits are compared. No pair is among the best n unless its
    anchor's best class is among the best n of these: the second, small search replaces one over
    all pairs. Of equal pairs that of the first anchor comes first, then that of the lower class.

    Args:
        logits: ``(B, R, K)``.
        highest: ``(B, R)``, of each anchor.
        count: how many are wanted.

    Returns:
        Logit, anchor and class of each, ``(B, C)`` with C = ``count``, or R·K where that is less.
    """
    num_classes = logits.shape[2]
    # In their own order, so that of equal pairs that of the first anchor comes first.
    rows = first_of_best(highest, count).sort(dim=1).values
    pairs = logits.gather(1, rows[:, :, None].expand(-1, -1, num_classes)).flatten(1)
    best = first_of_best(pairs, count)  # (B, C)
    return pairs.gather(1, best), rows.gather(1, best // num_classes), best % num_classes


def first_of_best(values: Tensor, count: int) -> Tensor:
    """Where the highest ``count`` of each row are, highest first, of equal ones the first in it.

    Which of equal values `Tensor.topk` takes is its own choice, another one on another device, and
    bfloat16 has many equal values. As integers that end in the place no two are equal.
    """
    bits = (values.float() + 0.0).view(torch.int32)  # 0.0 for -0.0, which is equal
    in_order = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # as the floats they stand for
    places = torch.arange(values.shape[1], device=values.device)
    keys = (in_order.long() << 32) - places
    return keys.topk(min(count, values.shape[1])).indices


def _with_chances_of_finite(predictions: DensePredictions) -> DensePredictions:
    """The same predictions, with the lowest logit where that or the box is not finite."""
    pairs = list(zip(predictions.class_logits, predictions.box_codes, strict=True))
    return DensePredictions(
        class_logits=tuple(
            torch.where(
                logits.isfinite() & codes.isfinite().all(dim=-1, keepdim=True),
                logits,
                torch.finfo(logits.dtype).min,
            )
            for logits, codes in pairs
        ),
        box_codes=tuple(torch.where(codes.isfinite(), codes, 0.0) for _, codes in pairs),
    )
