"""Images in, detections out: the one place that runs a network without gradients."""

from retina.runtime.runtime import Runtime
from retina.runtime.torch_runtime import DenseOutput, TorchRuntime

__all__ = ["DenseOutput", "Runtime", "TorchRuntime"]
