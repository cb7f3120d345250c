"""A detector as one graph: resized images in, detections out, in code that can be traced.

Letters: B images, H × W pixels, C candidates of an image, K classes, D detections at most.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from retina.artifact import Artifact
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import Preprocess
from retina.runtime.operators import NO_CHANCE, best, pairs, stays
from retina.structures import Size


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
            self._best(logits.flatten(1, 3), codes.flatten(1, 3), boxes)
            for logits, codes, boxes in zip(
                predictions.class_logits, predictions.box_codes, anchors, strict=True
            )
        ]
        logits, labels, codes, boxes = (
            torch.cat(part, dim=1) for part in zip(*levels, strict=True)
        )
        boxes = self.detector.box_coder.decode(codes, boxes)
        finite = logits.isfinite() & codes.isfinite().all(dim=2) & boxes.isfinite().all(dim=2)
        boxes = torch.where(finite[:, :, None], boxes, 0.0)
        return boxes, torch.where(finite, logits, NO_CHANCE), labels

    def _best(
        self, logits: Tensor, codes: Tensor, anchors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits, labels, codes and anchors of the best pairs of a level, from all of its R."""
        best_logits, rows, labels = pairs(logits, self.postprocess.candidates_per_level)
        best_codes = codes.gather(1, rows[:, :, None].expand(-1, -1, codes.shape[2]))
        return best_logits, labels, best_codes, anchors[rows]

    def _padded(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if self.preprocess.pad_to is None:
            divisor = self.preprocess.size_divisor
            to = tuple((side + divisor - 1) // divisor * divisor for side in (height, width))
        else:
            to = self.preprocess.pad_to
        return functional.pad(images, (0, to[1] - width, 0, to[0] - height))


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
