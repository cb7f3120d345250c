"""A detector in an ONNX file, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from retina.devices import is_out_of_memory, pick_device
from retina.errors import UserError
from retina.runtime.description import METADATA_KEY, ExportDescription, read_description
from retina.runtime.exported import ExportedRuntime, missing_package
from retina.wording import first_line

_CUDA = "CUDAExecutionProvider"


class OnnxRuntime(ExportedRuntime):
    """An ONNX file; other arguments as `ExportedRuntime`.

    Args:
        path: of the file.
        description: what it says about itself.
        session: of ONNX Runtime.
        max_detections: of an image.
    """

    kind = "ONNX"

    def __init__(
        self,
        path: Path,
        description: ExportDescription,
        session: Any,
        *,
        max_detections: int | None = None,
    ) -> None:
        super().__init__(path, description, max_detections=max_detections)
        self._session = session

    @classmethod
    def load(cls, path: Path, *, device: str = "auto", max_detections: int | None = None) -> Self:
        """Read the file.

        Args:
            path: of it.
            device: ``auto`` takes a GPU where this build of ONNX Runtime can use one.
            max_detections: of an image.

        Raises:
            UserError: ONNX Runtime is missing, or cannot read the file or use the device.
        """
        providers = _providers(path, device)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors; its warnings are about its own optimisations
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # of a kind for each cause, with no base of their own
            raise UserError(
                f"{path}: not an ONNX file that ONNX Runtime can read ({first_line(error)})"
            ) from None
        wants_cuda = providers != ["CPUExecutionProvider"]
        if wants_cuda and device != "auto" and _CUDA not in session.get_providers():
            raise UserError(
                f"device: ONNX Runtime could not start '{device}' for {path}; take cpu, or install "
                f"the CUDA and cuDNN that onnxruntime-gpu {onnxruntime.__version__} needs"
            )
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        return cls(path, read_description(text, path), session, max_detections=max_detections)

    @classmethod
    def check_device(cls, path: Path, device: str) -> None:
        """See `ExportedRuntime`."""
        _providers(path, device)

    def run(self, images: Tensor) -> tuple[Tensor, ...]:
        """See `ExportedRuntime`."""
        try:
            outputs = self._session.run(None, {"images": images.numpy()})
        except Exception as error:
            if is_out_of_memory(error) or "allocate" in str(error):
                raise MemoryError from None
            raise
        return tuple(torch.from_numpy(output) for output in outputs)


def _providers(path: Path, device: str) -> list[Any]:
    """What computes, first choice first.

    Raises:
        UserError: ONNX Runtime is missing, or cannot use the device.
    """
    try:
        import onnxruntime
    except ImportError:
        raise missing_package("onnxruntime", f"{path}: an ONNX file") from None
    present = onnxruntime.get_available_providers()
    if device == "cpu" or (device == "auto" and _CUDA not in present):
        return ["CPUExecutionProvider"]
    where = pick_device(device)
    if where.type == "cpu":
        return ["CPUExecutionProvider"]
    if where.type != "cuda" or _CUDA not in present:
        raise UserError(
            f"device: '{device}' is none that this build of ONNX Runtime uses; take cpu, or for "
            "CUDA pip install onnxruntime-gpu"
        )
    # TF32 has 10 bits, which move scores by a thousandth.
    cuda = (_CUDA, {"device_id": where.index or 0, "use_tf32": 0})
    return [cuda, "CPUExecutionProvider"]
