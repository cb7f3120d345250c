"""A detector as one ONNX file, opset 18."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from retina.export.formats import ConvertedModel, ExportForm
from retina.export.tracing import quiet
from retina.runtime.description import METADATA_KEY, ExportDescription
from retina.runtime.operators import NO_CHANCE

if TYPE_CHECKING:
    import onnx

OPSET = 18


class OnnxModel(ConvertedModel):
    """An ONNX graph with its weights.

    Args:
        proto: of the package onnx.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto

    @classmethod
    def convert(
        cls, program: ExportedProgram, form: ExportForm, calibration: Sequence[Tensor]
    ) -> Self:
        """See `ConvertedModel`."""
        translations = _translations()
        with quiet():
            converted = torch.onnx.export(
                program,
                (),
                dynamo=True,
                opset_version=OPSET,
                input_names=["images"],
                output_names=list(form.output_names),
                custom_translation_table=translations,
                verbose=False,
            )
        assert converted is not None
        return cls(converted.model_proto)

    def save(self, path: Path, description: ExportDescription) -> None:
        """See `ConvertedModel`; weights and all are in the one file."""
        import onnx

        _tell_shapes(self.proto, description)
        onnx.helper.set_model_props(self.proto, _properties(description))
        self.proto.producer_name, self.proto.producer_version = "retina", description.version
        path.write_bytes(self.proto.SerializeToString())


def _properties(description: ExportDescription) -> dict[str, str]:
    """The metadata: all of it as JSON, and what viewers show and other programs ask for."""
    detector = description.detector
    pixels, thresholds = detector.preprocess, detector.thresholds
    return {
        METADATA_KEY: description.to_json(),
        "version": description.version,
        "licence": description.licence,
        "classes": ", ".join(detector.categories.names),
        "colours": "RGB, 0 to 255",
        "resize": description.resize,
        "normalisation": f"in the graph: mean {pixels.mean}, deviation {pixels.std}, of 0 to 1",
        "score_threshold": f"{detector.postprocess.score_threshold:g}",
        "shown_from": f"{thresholds.common:g}",
    }


def _tell_shapes(proto: onnx.ModelProto, description: ExportDescription) -> None:
    """Write the shapes of inputs and outputs, with names for what is open, and no others.

    The trace's own symbols mean nothing to people, and not all readers infer all shapes.
    """
    told = {**description.inputs, **description.outputs}
    for value in (*proto.graph.input, *proto.graph.output):
        shape = value.type.tensor_type.shape
        del shape.dim[:]
        for size in told[value.name].shape:
            if isinstance(size, int):
                shape.dim.add().dim_value = size
            else:
                shape.dim.add().dim_param = size
    del proto.graph.value_info[:]


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What stands for our operators in ONNX."""
    import onnx
    from onnxscript import opset18

    op: Any = opset18  # its types are those of single calls, not of results

    def best(values: Any, count: int) -> Any:
        # Of equal values TopK takes those with the lower place, by its definition.
        _, places = op.TopK(values, op.Constant(value_ints=[count]), axis=1)
        return places

    def pairs(logits: Any, count: int) -> Any:
        number, last = op.Constant(value_ints=[count]), op.Constant(value_ints=[2])
        num_anchors = op.Shape(logits, start=1, end=2)
        num_classes = op.Shape(logits, start=2, end=3)
        nothing = op.Constant(value_float=NO_CHANCE)
        filled_up = op.Pad(  # with anchors that are not there, so that there are enough
            op.ReduceMax(logits, last, keepdims=0),
            op.Constant(value_ints=[0, 0, 0, count]),
            nothing,
        )
        _, unordered = op.TopK(filled_up, number, axis=1)
        rows, _ = op.TopK(unordered, number, axis=1, largest=0)  # in their own order
        is_there = op.Unsqueeze(op.Less(rows, num_anchors), last)
        rows = op.Min(rows, op.Sub(num_anchors, op.Constant(value_ints=[1])))
        of_rows = op.GatherND(logits, op.Unsqueeze(rows, last), batch_dims=1)  # (B, count, K)
        values, places = op.TopK(
            op.Flatten(op.Where(is_there, of_rows, nothing), axis=1), number, axis=1
        )
        best_rows = op.GatherElements(rows, op.Div(places, num_classes), axis=1)
        return values, best_rows, op.Mod(places, num_classes)

    def stays(
        boxes: Any,
        scores: Any,
        labels: Any,
        num_classes: int,
        iou_threshold: float,
        score_threshold: float,
        limit: int,
    ) -> Any:
        one = op.Constant(value_ints=[1])
        classes = np.arange(num_classes).reshape(1, num_classes, 1)
        is_own = op.Equal(
            op.Unsqueeze(labels, one),
            op.Constant(value=onnx.numpy_helper.from_array(classes)),
        )
        per_class = op.Where(is_own, op.Unsqueeze(scores, one), op.Constant(value_float=0.0))
        kept = op.NonMaxSuppression(  # (n, 3): image, class, candidate
            boxes,
            per_class,
            op.Constant(value_ints=[limit]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[score_threshold]),
        )
        places = op.Gather(kept, op.Constant(value_ints=[0, 2]), axis=1)
        zero = onnx.numpy_helper.from_array(np.zeros(1, dtype=np.int64))
        marks = op.Expand(one, op.Shape(places, end=1))
        marked = op.ScatterND(op.ConstantOfShape(op.Shape(scores), value=zero), places, marks)
        return op.Cast(marked, to=onnx.TensorProto.BOOL)

    own = torch.ops.retina
    return {own.best.default: best, own.pairs.default: pairs, own.stays.default: stays}
