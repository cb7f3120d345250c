"""The fast path: the summed focal loss of class indices, with its gradient in the same pass."""

from retina.losses.fused.function import can_fuse, fused_focal_sums

__all__ = ["can_fuse", "fused_focal_sums"]
