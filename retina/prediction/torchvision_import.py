"""torchvision's RetinaNet, as a predictor of this project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from retina.devices import PrecisionChoice
from retina.modeling.config import MemoryFormat
from retina.prediction.detectors import torchvision_artifact
from retina.prediction.predictor import Predictor


def load_torchvision(
    state_dict: Mapping[str, Tensor],
    variant: Literal["v1", "v2"],
    categories: Sequence[str],
    *,
    min_size: int | None = None,
    max_size: int | None = None,
    norm_eps: float | None = None,
    memory_format: MemoryFormat = "contiguous",
    device: str = "auto",
    precision: PrecisionChoice = "fp32",
) -> Predictor:
    """A predictor that finds what torchvision's own model finds.

    See `torchvision_artifact` for the arguments and errors, `retina.load` for the last two.
    """
    artifact = torchvision_artifact(
        state_dict,
        variant,
        categories,
        min_size=min_size,
        max_size=max_size,
        norm_eps=norm_eps,
        memory_format=memory_format,
    )
    return Predictor.from_artifact(artifact, device=device, precision=precision)
