"""A detector as one graph: resized images in, detections out, in code that can be traced.

Letters: B images, H × W pixels, C candidates of an image, K classes, D detections at most.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from retina.artifact import Artifact
from retina.modeling.postprocess import Postprocess, PostprocessConfig
from retina.modeling.preprocess import Preprocess
from retina.runtime.operators import best, stays
from retina.structures import Size

NO_CHANCE = torch.finfo(torch.float32).min
"""The logit of a candidate that is none: its score is 0."""


class CandidateGraph(nn.Module):
    """Resized images to the best (anchor, class) pairs of every level, decoded.

    It does what `TorchRuntime` does for images of one size, without a shape that a value decides: a
    level with fewer pairs than ``candidates_per_level`` is filled up with pairs of score 0. Of
    predictions that are not finite only the candidates are looked at.

    Args:
        artifact: the detector.
    """

    def __init__(self, artifact: Artifact) -> None:
        super().__init__()
        config = artifact.config
        self.detector = artifact.build_detector()
        self.preprocess: Preprocess = config.preprocess.build()
        self.postprocess: PostprocessConfig = config.postprocess
        self.num_classes = len(artifact.categories)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The candidates of each image, level by level, best first.

        Args:
            images: ``(B, 3, H, W)`` float32 RGB in 0 … 255, resized and not padded.

        Returns:
            Boxes ``(B, C, 4)`` in pixels of the images, not clipped, float32; scores ``(B, C)``
            float32, 0 where there is no candidate; labels ``(B, C)`` int64.
        """
        boxes, logits, labels = self.candidates(images)
        return boxes, logits.sigmoid(), labels

    def candidates(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same with logits in the place of scores."""
        padded = self._padded(self.preprocess.normalise(images))
        predictions = self.detector(padded)
        shapes = [(level.shape[1], level.shape[2]) for level in predictions.class_logits]
        anchors = self.detector.anchor_generator.levels(
            shapes, (padded.shape[2], padded.shape[3]), images.device
        )
        levels = [
            self._candidates(logits.flatten(1, 3), codes.flatten(1, 3), boxes)
            for logits, codes, boxes in zip(
                predictions.class_logits,
                predictions.box_codes,
                anchors,
                strict=True,
            )
        ]
        boxes, logits, labels = (torch.cat(part, dim=1) for part in zip(*levels, strict=True))
        return boxes, logits, labels

    def _padded(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if self.preprocess.pad_to is None:
            divisor = self.preprocess.size_divisor
            below, right = -height % divisor, -width % divisor
        else:
            below, right = (to - side for to, side in zip(self.preprocess.pad_to, (height, width)))
        return functional.pad(images, (0, right, 0, below))

    def _candidates(
        self, logits: Tensor, codes: Tensor, anchors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best pairs of one level: logits ``(B, R, K)``, codes ``(B, R, …)``, ``(R, 4)``."""
        count = self.postprocess.candidates_per_level
        best_of_anchor = functional.pad(logits.amax(dim=2), (0, count), value=NO_CHANCE)
        rows = best(best_of_anchor, count).sort(dim=1).values  # (B, count)
        is_there = rows < logits.shape[1]
        rows = rows.clamp(max=logits.shape[1] - 1)
        pairs = logits.gather(1, rows[:, :, None].expand(-1, -1, self.num_classes))
        pairs = torch.where(is_there[:, :, None], pairs, NO_CHANCE).flatten(1)
        places = best(pairs, count)
        rows = rows.gather(1, places // self.num_classes)
        chosen = codes.gather(1, rows[:, :, None].expand(-1, -1, codes.shape[2]))
        boxes = self.detector.box_coder.decode(chosen, anchors[rows])
        values = pairs.gather(1, places)
        finite = values.isfinite() & chosen.isfinite().all(dim=2) & boxes.isfinite().all(dim=2)
        boxes = torch.where(finite[:, :, None], boxes, 0.0)
        return boxes, torch.where(finite, values, NO_CHANCE), places % self.num_classes


class DetectionGraph(CandidateGraph):
    """Resized images to detections: a fixed number of rows, and how many of them are some."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # type: ignore[override]
        """The detections of each image, highest score first.

        Args:
            images: ``(B, 3, H, W)`` float32 RGB in 0 … 255, resized and not padded.

        Returns:
            Boxes ``(B, D, 4)`` float32 in pixels of the images; scores ``(B, D)`` float32; labels
            ``(B, D)`` int64; the number of detections ``(B,)`` int64. The rows behind it are zero.
        """
        rule = self.postprocess
        boxes, logits, labels = self.candidates(images)
        scores = logits.double().sigmoid().float()  # as TorchRuntime does
        clipped = _clipped(boxes, (images.shape[2], images.shape[3]))
        sides = clipped[..., 2:] - clipped[..., :2]
        usable = (sides >= rule.smallest_side).all(dim=2) & (scores > rule.score_threshold)
        scores = torch.where(usable, scores, 0.0)
        kept = stays(
            clipped if rule.clip_before_nms else boxes,
            scores,
            labels,
            self.num_classes,
            rule.nms_iou_threshold,
            rule.score_threshold,
            rule.max_detections,
        )
        left = torch.where(kept, scores, -1.0)
        left = functional.pad(left, (0, rule.max_detections), value=-1.0)
        places = best(left, rule.max_detections)  # (B, D)
        is_there = left.gather(1, places) >= 0
        places = places.clamp(max=scores.shape[1] - 1)
        boxes = clipped.gather(1, places[:, :, None].expand(-1, -1, 4))
        return (
            torch.where(is_there[:, :, None], boxes, 0.0),
            torch.where(is_there, scores.gather(1, places), 0.0),
            torch.where(is_there, labels.gather(1, places), 0),
            is_there.sum(dim=1),
        )


def _clipped(boxes: Tensor, size: Size) -> Tensor:
    """Boxes ``(B, C, 4)`` cut off at the border; `clip_boxes` for a size that is traced."""
    height, width = (torch.scalar_tensor(side, dtype=boxes.dtype) for side in size)
    limits = torch.stack([width, height, width, height]).to(boxes.device)
    return torch.minimum(boxes.clamp(min=0), limits)
