"""Any network of timm that gives feature maps at the strides 8, 16 and 32 (extra `[timm]`)."""

from retina.modeling.backbones.timm.config import TimmConfig

__all__ = ["TimmConfig"]
