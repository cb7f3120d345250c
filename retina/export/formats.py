"""The list of formats, and what one is to the rest of the code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Self

from torch import Tensor
from torch.export import ExportedProgram

from retina.runtime.description import ExportDescription, ExportPrecision
from retina.structures import Size


@dataclass(frozen=True, slots=True)
class ExportForm:
    """What is to be written.

    Attributes:
        format: a key of `FORMATS`.
        precision: of the network's arithmetic.
        raw: end at the candidates, before the suppression.
        batch: images of a call; None for any number.
        size: (height, width) of the resized images; None for any.
    """

    format: str
    precision: ExportPrecision = "fp32"
    raw: bool = False
    batch: int | None = None
    size: Size | None = None

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of the graph."""
        return ("boxes", "scores", "labels") if self.raw else ("boxes", "scores", "labels", "count")


class ConvertedModel(ABC):
    """A detector in a format, in memory."""

    companions: ClassVar[tuple[str, ...]] = ()
    """Suffixes of the files that are written beside the one that is named."""

    @classmethod
    @abstractmethod
    def convert(
        cls, program: ExportedProgram, form: ExportForm, calibration: Sequence[Tensor]
    ) -> Self:
        """Make it of a traced detector.

        Args:
            program: the detector.
            form: what is to be written.
            calibration: ``(1, 3, H, W)`` float32 images as the graph takes them, where ``form`` is
                of a precision that has to see some; they may be made one by one.
        """

    @abstractmethod
    def save(self, path: Path, description: ExportDescription) -> None:
        """Write it, with its description.

        Args:
            path: of the file; that of a companion has another suffix.
            description: what the file says about itself.
        """


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A format that a detector can be written in.

    Attributes:
        suffix: of its files.
        precisions: that it has.
        packages: that write it.
        module: its file, imported on use.
        model: the `ConvertedModel` there.
    """

    suffix: str
    precisions: tuple[ExportPrecision, ...]
    packages: tuple[str, ...]
    module: str
    model: str

    def load(self) -> type[ConvertedModel]:
        """The class that writes it."""
        found: type[ConvertedModel] = getattr(import_module(self.module), self.model)
        return found


_ONNX = ("onnx", "onnxscript")

FORMATS: Mapping[str, ExportFormat] = MappingProxyType(
    {
        "onnx": ExportFormat(".onnx", ("fp32",), _ONNX, "retina.export.onnx_format", "OnnxModel"),
        "openvino": ExportFormat(
            ".xml",
            ("fp32", "bf16", "int8"),
            (*_ONNX, "openvino"),
            "retina.export.openvino_format",
            "OpenVinoModel",
        ),
        "torch": ExportFormat(".pt2", ("fp32",), (), "retina.export.torch_format", "TorchProgram"),
    }
)
