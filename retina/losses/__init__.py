"""Loss functions that stand alone: tensors in, tensors out, nothing known of detection."""

from retina.losses.box import BoxLoss, box_loss
from retina.losses.focal import sigmoid_focal_loss

__all__ = ["BoxLoss", "box_loss", "sigmoid_focal_loss"]
