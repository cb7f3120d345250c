"""How long an image takes on this machine: to decode, in the network, and after it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from retina.datasets.dataset import DetectionDataset
from retina.runtime import Runtime, TorchRuntime
from retina.runtime.splits import spread_indices

NUM_IMAGES = 20
"""Images that are timed, as a rule."""

_WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Speed:
    """Milliseconds for one image at a time, the median of several.

    Attributes:
        device: as torch calls it, with the name of a GPU.
        decode_ms: reading the file.
        network_ms: resizing, and the network; of an exported detector all up to its detections.
        postprocess_ms: from its outputs to detections in host memory; 0 where that is in its graph.
        num_images: that were timed.
    """

    device: str
    decode_ms: float
    network_ms: float
    postprocess_ms: float
    num_images: int


def measure_speed(
    runtime: Runtime, dataset: DetectionDataset, *, num_images: int = NUM_IMAGES
) -> Speed | None:
    """Time some images, spread over a split; None for a split without images.

    Raises:
        UserError: an image cannot be read.
        RunError: memory ran out.
    """
    indices = spread_indices(len(dataset), num_images)
    if not indices:
        return None
    for index in indices[:_WARM_UP]:  # a network is slow at first, and a file not in memory
        _times(runtime, dataset, index)
    times = np.array([_times(runtime, dataset, index) for index in indices])
    decode, network, postprocess = (1000 * np.median(times, axis=0)).tolist()
    device = runtime.device if isinstance(runtime, TorchRuntime) else torch.device("cpu")
    return Speed(_name(device), decode, network, postprocess, len(indices))


def _times(runtime: Runtime, dataset: DetectionDataset, index: int) -> tuple[float, ...]:
    """The seconds of the three steps."""
    start = time.perf_counter()
    image = dataset.load(index).image
    decoded = time.perf_counter()
    images = [torch.from_numpy(np.require(image, requirements="W")).permute(2, 0, 1)]
    if not isinstance(runtime, TorchRuntime):
        runtime.detect(images)
        return decoded - start, time.perf_counter() - decoded, 0.0
    output = runtime.forward(images)
    _wait(runtime.device)
    computed = time.perf_counter()
    runtime.detections(output)
    return decoded - start, computed - decoded, time.perf_counter() - computed


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return str(device) if device.type != "cpu" else f"cpu ({threads} threads)"
