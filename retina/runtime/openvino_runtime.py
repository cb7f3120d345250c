"""A detector in OpenVINO's IR, run by OpenVINO on a CPU."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from retina.errors import UserError
from retina.runtime.description import METADATA_KEY, ExportDescription, read_description
from retina.runtime.detection_log import file_sha256
from retina.runtime.exported import ExportedRuntime, missing_package
from retina.wording import first_line

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""In what OpenVINO computes all that is not INT8; unasked it takes bfloat16 where that is fast."""


class OpenVinoRuntime(ExportedRuntime):
    """An ``.xml`` file with the ``.bin`` beside it; other arguments as `ExportedRuntime`.

    Args:
        path: of the ``.xml`` file.
        description: what it says about itself.
        compiled: the model, compiled for a device.
        max_detections: of an image.
    """

    kind = "OpenVINO IR"

    def __init__(
        self,
        path: Path,
        description: ExportDescription,
        compiled: Any,
        *,
        max_detections: int | None = None,
    ) -> None:
        super().__init__(path, description, max_detections=max_detections)
        self._request = compiled.create_infer_request()

    @classmethod
    def load(cls, path: Path, *, device: str = "auto", max_detections: int | None = None) -> Self:
        """See `ExportedRuntime`.

        Raises:
            UserError: OpenVINO is missing, cannot read the file, or was asked for another device.
        """
        cls.check_device(path, device)
        import openvino

        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise UserError(f"{path}: the weights are missing; {path.stem}.bin belongs beside it")
        core = openvino.Core()
        try:
            model = core.read_model(path)
        except Exception as error:
            raise UserError(
                f"{path}: not a model that OpenVINO can read, with {weights.name} as its weights "
                f"({first_line(error)})"
            ) from None
        text = model.get_rt_info(METADATA_KEY).value if model.has_rt_info(METADATA_KEY) else None
        description = read_description(text, path)
        if description.weights_sha256 not in (None, file_sha256(weights)):
            raise UserError(
                f"{path}: {weights.name} beside it is damaged, or of another export; copy both "
                "files anew, or export again"
            )
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[description.precision],
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            },
        )
        return cls(path, description, compiled, max_detections=max_detections)

    @classmethod
    def check_device(cls, path: Path, device: str) -> None:
        """See `ExportedRuntime`."""
        if device not in ("auto", "cpu"):
            raise UserError(f"device: OpenVINO runs {path} on the cpu here, not on '{device}'")
        if find_spec("openvino") is None:
            raise missing_package("openvino", f"{path}: OpenVINO's IR")

    def run(self, images: Tensor) -> tuple[Tensor, ...]:
        """See `ExportedRuntime`."""
        outputs = self._request.infer([images.numpy()], share_inputs=True)
        return tuple(torch.from_numpy(output) for output in outputs.to_tuple())
