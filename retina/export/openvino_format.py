"""A detector as OpenVINO's IR: ``.xml`` and ``.bin``, in float32, for bfloat16, or in INT8."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from torch import Tensor
from torch.export import ExportedProgram

from retina.export.formats import ConvertedModel, ExportForm
from retina.export.onnx_format import OnnxModel
from retina.export.tracing import quiet
from retina.runtime.description import METADATA_KEY, ExportDescription
from retina.runtime.detection_log import file_sha256

_NETWORK = ("Convolution", "GroupConvolution", "MatMul")
"""The operations at which the network ends and the reading of its outputs begins."""


class OpenVinoModel(ConvertedModel):
    """A model of OpenVINO with its weights.

    Args:
        model: of the package openvino.
    """

    companions = (".bin",)

    def __init__(self, model: Any) -> None:
        self.model = model

    @classmethod
    def convert(
        cls, program: ExportedProgram, form: ExportForm, calibration: Sequence[Tensor]
    ) -> Self:
        """See `ConvertedModel`; by way of ONNX, where the suppression has a meaning of its own."""
        return cls.of_onnx(OnnxModel.convert(program, form, calibration), form, calibration)

    @classmethod
    def of_onnx(
        cls, onnx_model: OnnxModel, form: ExportForm, calibration: Sequence[Tensor]
    ) -> Self:
        """Make it of an ONNX graph; arguments as in `convert`."""
        import openvino

        with tempfile.TemporaryDirectory() as folder, quiet():
            path = Path(folder) / "model.onnx"
            path.write_bytes(onnx_model.proto.SerializeToString())
            model = openvino.convert_model(path)
        return cls(_quantised(model, calibration) if form.precision == "int8" else model)

    def save(self, path: Path, description: ExportDescription) -> None:
        """See `ConvertedModel`.

        The description names the ``.bin`` by its hash, so that no other one is taken for it.
        """
        import openvino

        weights = path.with_suffix(".bin")
        openvino.serialize(self.model, str(path), str(weights))
        told = description.model_copy(update={"weights_sha256": file_sha256(weights)})
        self.model.set_rt_info(told.to_json(), [METADATA_KEY])
        openvino.serialize(self.model, str(path), str(weights))


def _quantised(model: Any, calibration: Sequence[Tensor]) -> Any:
    """The model with INT8 convolutions; what reads their outputs stays in float.

    Weights have 7 of the 8 bits: processors without VNNI add two products in 16 bits, which those
    of 8 bits overflow, and a file may be run elsewhere than where it was verified.
    """
    with quiet():
        import nncf
    count = len(calibration)
    nncf.set_log_level(logging.ERROR)
    with quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(range(count), lambda number: calibration[number].numpy()),
            subset_size=count,
            ignored_scope=nncf.IgnoredScope(names=_behind_the_network(model), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE
            ),
        )


def _behind_the_network(model: Any) -> list[str]:
    """The operations from the last convolutions to the outputs: sigmoid, decoding, suppression."""
    found: dict[str, Any] = {}
    waiting = [result.get_node() for result in model.outputs]
    while waiting:
        node = waiting.pop()
        name = node.get_friendly_name()
        if name in found or node.get_type_name() in _NETWORK:
            continue
        found[name] = node
        waiting += [value.get_node() for value in node.input_values()]
    quiet_types = ("Parameter", "Constant", "Result")
    return [name for name, node in found.items() if node.get_type_name() not in quiet_types]
