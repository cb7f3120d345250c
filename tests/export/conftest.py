"""A tiny detector, traced once and written in every format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from retina.artifact import Artifact, make_artifact
from retina.configuration import validate
from retina.export.exporting import ExportJob, write
from retina.export.formats import ConvertedModel, ExportForm
from retina.export.graph import DetectionGraph
from retina.export.onnx_format import OnnxModel
from retina.export.torch_format import TorchProgram
from retina.export.tracing import trace
from retina.modeling.config import ModelConfig
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.structures import Categories
from tests.small_detector import small_backbone_listed  # type: ignore[import-not-found]

MODEL = {
    "backbone": {"kind": "small"},
    "pyramid": {"channels": 8},
    "head": {"num_convs": 1},
    "anchors": {"sizes": [16, 32, 64, 128, 256], "stride_source": "padded_size"},
}


def random_images(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes
    ]


def make_detector(*, bias: float = 0.0, seed: int = 0) -> Artifact:
    """A detector with random weights that finds a lot."""
    torch.manual_seed(seed)
    model = validate(MODEL, ModelConfig, source="test")
    detector = model.build(3)
    for subnet, std in ((detector.head.classification, 12.0), (detector.head.box_regression, 4.0)):
        torch.nn.init.normal_(subnet.output.weight, std=std)
    with torch.no_grad():
        detector.head.classification.output.bias += 2.5 + bias
    return make_artifact(
        detector,
        model=model,
        preprocess=PreprocessConfig(min_size=96, max_size=160),
        postprocess=PostprocessConfig(candidates_per_level=80, max_detections=20),
        categories=Categories.from_names(["a", "b", "c"]),
        training={"step": 7},
    )


@dataclass(frozen=True)
class Exports:
    """A detector and what was made of it."""

    artifact: Artifact
    onnx: OnnxModel
    program: TorchProgram
    folder: Path

    def job(self, form: str, suffix: str, **fields: object) -> ExportJob:
        return ExportJob(
            artifact=self.artifact,
            source="tiny.safetensors",
            form=ExportForm(form, **fields),  # type: ignore[arg-type]
            output=self.folder / f"model{suffix}",
            examples=None,
        )

    def write(self, job: ExportJob, model: ConvertedModel) -> Path:
        write(model, job.output, job.describe(None))
        return job.output


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exports]:
    pytest.importorskip("onnxruntime")
    with small_backbone_listed():
        artifact = make_detector()
        program = trace(DetectionGraph(artifact), batch=None, size=None)
        onnx, torch_form = ExportForm("onnx"), ExportForm("torch")
        yield Exports(
            artifact,
            OnnxModel.convert(program, onnx, ()),
            TorchProgram.convert(program, torch_form, ()),
            tmp_path_factory.mktemp("exports"),
        )
