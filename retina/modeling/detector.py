"""RetinaNet (Lin et al. 2017): backbone, pyramid and head, put together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retina.geometry.anchors import AnchorGenerator
from retina.geometry.box_coders import BoxCoder
from retina.modeling.backbones.backbone import Backbone
from retina.modeling.head import RetinaHead
from retina.modeling.pyramid import Pyramid
from retina.structures import Anchors, DensePredictions, Size


class RetinaNet(nn.Module):
    """A dense detector: says at every anchor which class is there and where exactly.

    What is made of the predictions, losses or detections, is the job of others.

    Args:
        backbone: images to feature maps.
        pyramid: feature maps to levels.
        head: levels to predictions.
        anchor_generator: which anchors the predictions are about.
        box_coder: what the box codes mean.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        pyramid: Pyramid,
        head: RetinaHead,
        anchor_generator: AnchorGenerator,
        box_coder: BoxCoder,
    ) -> None:
        super().__init__()
        assert set(anchor_generator.num_per_cell) == {head.num_anchors}
        assert anchor_generator.strides == pyramid.strides
        assert box_coder.num_outputs == head.box_regression.num_outputs
        self.backbone = backbone
        self.pyramid = pyramid
        self.head = head
        self.anchor_generator = anchor_generator
        self.box_coder = box_coder

    @property
    def num_classes(self) -> int:
        """K, without a background class."""
        return self.head.num_classes

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of the weights, in which images are best given."""
        # One that is 1×1 or has one channel is laid out in both ways.
        is_plain = all(weight.is_contiguous() for weight in self.parameters())
        return torch.contiguous_format if is_plain else torch.channels_last

    def forward(self, images: Tensor) -> DensePredictions:
        """The predictions at every anchor of normalised images ``(B, 3, H, W)``."""
        predictions: DensePredictions = self.head(self.pyramid(self.backbone(images)))
        return predictions

    def anchors(
        self, feature_shapes: Sequence[Size], padded_size: Size, device: torch.device | str
    ) -> Anchors:
        """The anchors that predictions of these shapes are about, in the predictions' order.

        Args:
            feature_shapes: (H, W) of each level: `DensePredictions.feature_shapes`.
            padded_size: (height, width) of the images that were given to `forward`.
            device: where the anchors shall be.
        """
        anchors: Anchors = self.anchor_generator(feature_shapes, padded_size, device)
        return anchors
