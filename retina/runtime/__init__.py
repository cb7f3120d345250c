"""Images in, detections out: the one place that runs a network without gradients."""

from retina.runtime.runtime import Runtime
from retina.runtime.tiled import TiledRuntime
from retina.runtime.torch_runtime import DenseOutput, TorchRuntime
from retina.runtime.views import Views

__all__ = ["DenseOutput", "Runtime", "TiledRuntime", "TorchRuntime", "Views"]
