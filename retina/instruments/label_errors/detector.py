"""One detector of a run, or several, as one source of evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from retina.artifact import Artifact
from retina.datasets.dataset import Image
from retina.devices import Precision
from retina.errors import UserError
from retina.geometry.boxes import clip_boxes
from retina.instruments.label_errors.evidence import DenseEvidence
from retina.runtime import TorchRuntime
from retina.runtime.splits import refuse_diverged


class AveragedDetector:
    """What one detector says of an image at every anchor, or the mean of what several say.

    Args:
        artifacts: at least one; all with the same anchors, as the detectors of a run have.
        device: where to compute.
        precision: of the networks.

    Raises:
        UserError: the detectors differ in their classes, their architecture or their input.
    """

    def __init__(
        self, artifacts: Sequence[Artifact], *, device: torch.device, precision: Precision
    ) -> None:
        first = artifacts[0].config
        for other in artifacts[1:]:
            for part in ("categories", "model", "preprocess"):
                if getattr(other.config, part) != getattr(first, part):
                    raise UserError(
                        f"the detectors differ in their {part}, so their outputs cannot be "
                        "averaged; give detectors of one run"
                    )
        self._runtimes = [
            TorchRuntime.from_artifact(artifact, device=device, precision=precision)
            for artifact in artifacts
        ]

    def __call__(self, image: Image) -> DenseEvidence:
        """The evidence about one ``(H, W, 3)`` uint8 image, in host memory.

        Raises:
            UserError: what a detector says of it is not finite: its training has diverged.
        """
        pixels = torch.from_numpy(np.require(image, requirements="W")).permute(2, 0, 1)
        size = height, width = int(image.shape[0]), int(image.shape[1])
        scores, codes = [], []
        for runtime in self._runtimes:
            output = runtime.forward([pixels])
            refuse_diverged(output, f"in an image of {height} × {width} pixels")
            logits, deltas = output.predictions.flatten()  # (1, R, K), (1, R, 4)
            scores.append(logits[0].float().sigmoid())
            codes.append(deltas[0].float())
        (used_height, used_width), anchors = output.input_sizes[0], output.anchors.boxes
        factors = anchors.new_tensor([width / used_width, height / used_height] * 2)
        boxes = self._runtimes[0].detector.box_coder.decode(torch.stack(codes).mean(dim=0), anchors)
        return DenseEvidence(
            anchors=(anchors * factors).cpu(),
            probabilities=torch.stack(scores).mean(dim=0).cpu(),
            boxes=clip_boxes(boxes * factors, size).cpu(),
        )
