"""From predictions at every anchor to the detections of each image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torchvision.ops import batched_nms

from retina.configuration import Config
from retina.geometry.box_coder import BoxCoder
from retina.geometry.boxes import clip_boxes
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

    def build(self, box_coder: BoxCoder) -> Postprocess:
        """The function, for a detector with this box coder."""
        return Postprocess(box_coder=box_coder, **dict(self))


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The best (anchor, class) pairs of each image: C of them, best first on every level."""

    logits: Tensor  # (B, C)
    labels: Tensor  # (B, C)
    deltas: Tensor  # (B, C, 4)
    anchors: Tensor  # (B, C, 4)


class Postprocess:
    """Scores, thresholds, decodes, clips and suppresses; other arguments as `PostprocessConfig`.

    Args:
        box_coder: what the box deltas mean.
        score_threshold: see the config, as for the rest.
        candidates_per_level: the best pairs that are considered.
        nms_iou_threshold: the overlap that suppresses.
        max_detections: the most for one image.
        clip_before_nms: whether boxes are clipped before the suppression or after it.
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
    ) -> None:
        self.box_coder = box_coder
        self.score_threshold = score_threshold
        self.candidates_per_level = candidates_per_level
        self.nms_iou_threshold = nms_iou_threshold
        self.max_detections = max_detections
        self.clip_before_nms = clip_before_nms

    @torch.no_grad()
    def __call__(
        self,
        predictions: DensePredictions,
        anchors: Anchors,
        valid_sizes: Tensor | Sequence[Size],
    ) -> list[Detections]:
        """The detections of each image, highest score first, in pixels of the network's input.

        Args:
            predictions: of a batch of B images.
            anchors: what they are about.
            valid_sizes: ``(B, 2)`` (height, width) of the images without their padding.
        """
        levels = [
            self._candidates(logits, deltas, boxes)
            for logits, deltas, boxes in zip(
                predictions.class_logits,
                predictions.box_deltas,
                torch.split(anchors.boxes, list(anchors.num_per_level)),
                strict=True,
            )
        ]
        boxes = self.box_coder.decode(
            torch.cat([level.deltas for level in levels], dim=1),
            torch.cat([level.anchors for level in levels], dim=1),
        )  # (B, C, 4)
        sizes = torch.as_tensor(valid_sizes, device=boxes.device)
        if self.clip_before_nms:
            boxes = clip_boxes(boxes, sizes)
        # Only the candidates ever meet a sigmoid, and they do in float32.
        scores = torch.cat([level.logits for level in levels], dim=1).float().sigmoid()  # (B, C)
        labels = torch.cat([level.labels for level in levels], dim=1)  # (B, C)
        return [self._suppress(*image) for image in zip(boxes, scores, labels, sizes, strict=True)]

    def _candidates(self, logits: Tensor, deltas: Tensor, anchors: Tensor) -> _Candidates:
        """The best pairs of one level ``(B, H, W, A, …)``; shapes depend on no value: no sync.

        The sigmoid keeps the order, so logits are compared. No pair is among the best n unless its
        anchor's best class is among the best n of these: the second, small search replaces one over
        all pairs.
        """
        logits, deltas = logits.flatten(1, 3), deltas.flatten(1, 3)  # (B, R, K), (B, R, 4)
        num_anchors, num_classes = logits.shape[1:]
        best_anchors = logits.amax(dim=2).topk(min(self.candidates_per_level, num_anchors)).indices
        pairs = logits.gather(1, best_anchors[:, :, None].expand(-1, -1, num_classes)).flatten(1)
        best = pairs.topk(min(self.candidates_per_level, pairs.shape[1]))  # (B, C)
        rows = best_anchors.gather(1, best.indices // num_classes)
        return _Candidates(
            logits=best.values,
            labels=best.indices % num_classes,
            deltas=deltas.gather(1, rows[:, :, None].expand(-1, -1, 4)),
            anchors=anchors[rows],
        )

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor, size: Tensor) -> Detections:
        """The detections among the candidates of one image."""
        kept = scores > self.score_threshold
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        kept = batched_nms(boxes, scores, labels, self.nms_iou_threshold)[: self.max_detections]
        boxes = boxes[kept]
        if not self.clip_before_nms:
            boxes = clip_boxes(boxes, size)
        return Detections(boxes, scores[kept], labels[kept])
