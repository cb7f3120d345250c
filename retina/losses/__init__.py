"""Loss functions that stand alone: tensors in, tensors out, nothing known of detection."""

from retina.losses.box import BoxLoss, box_loss
from retina.losses.class_balance import (
    class_balanced_alpha,
    class_balanced_weights,
    effective_numbers,
)
from retina.losses.distribution import distribution_focal_loss
from retina.losses.equalized_focal import EqualizedFocalLoss
from retina.losses.focal import FocalSums, focal_loss_sums, sigmoid_focal_loss
from retina.losses.modules import (
    DiceLoss,
    DistributionFocalLoss,
    FocalTverskyLoss,
    QualityFocalLoss,
    SigmoidFocalLoss,
    SoftmaxFocalLoss,
    TverskyLoss,
    UnifiedFocalLoss,
    VarifocalLoss,
)
from retina.losses.quality import quality_focal_loss, varifocal_loss
from retina.losses.region import dice_loss, focal_tversky_loss, tversky_loss
from retina.losses.softmax_focal import softmax_focal_loss
from retina.losses.unified_focal import unified_focal_loss

__all__ = [
    "BoxLoss",
    "DiceLoss",
    "DistributionFocalLoss",
    "EqualizedFocalLoss",
    "FocalSums",
    "FocalTverskyLoss",
    "QualityFocalLoss",
    "SigmoidFocalLoss",
    "SoftmaxFocalLoss",
    "TverskyLoss",
    "UnifiedFocalLoss",
    "VarifocalLoss",
    "box_loss",
    "class_balanced_alpha",
    "class_balanced_weights",
    "dice_loss",
    "distribution_focal_loss",
    "effective_numbers",
    "focal_loss_sums",
    "focal_tversky_loss",
    "quality_focal_loss",
    "sigmoid_focal_loss",
    "softmax_focal_loss",
    "tversky_loss",
    "unified_focal_loss",
    "varifocal_loss",
]
