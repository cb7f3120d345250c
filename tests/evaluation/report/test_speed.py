"""The three times of an image are measured, each around its own step."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from retina.configuration import validate
from retina.datasets.dataset import AnnotatedImage
from retina.evaluation.report.speed import measure_speed
from retina.modeling.config import ModelConfig
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.runtime import DenseOutput, TorchRuntime
from retina.structures import Categories, Detections
from tests.memory_dataset import MemoryDataset  # type: ignore[import-not-found]

TREE = {"backbone": {"name": "resnet18"}, "pyramid": {"channels": 32}, "head": {"num_convs": 1}}


class SlowRuntime(TorchRuntime):
    """Waits before each step, to tell the steps apart."""

    def forward(self, images: Sequence[Tensor]) -> DenseOutput:
        time.sleep(0.3)
        return super().forward(images)

    def detections(self, output: DenseOutput) -> list[Detections]:
        time.sleep(0.6)
        return super().detections(output)


class SlowDataset(MemoryDataset):
    def load(self, index: int) -> AnnotatedImage:
        time.sleep(0.1)
        return super().load(index)


@pytest.fixture(scope="module")
def runtime() -> SlowRuntime:
    detector = validate(TREE, ModelConfig, source="test").build(2)
    return SlowRuntime(
        detector,
        categories=Categories.from_names(["cat", "dog"]),
        preprocess=PreprocessConfig(min_size=64, max_size=96).build(),
        postprocess=PostprocessConfig().build(detector.box_coder),
        device=torch.device("cpu"),
        precision="fp32",
        memory_fix="take fewer",
    )


def test_each_step_has_its_own_time(runtime: SlowRuntime) -> None:
    speed = measure_speed(runtime, SlowDataset([[]] * 5), num_images=3)

    assert speed is not None
    assert speed.num_images == 3
    assert speed.device.startswith("cpu")
    assert speed.decode_ms >= 100
    assert speed.network_ms >= 300
    assert speed.postprocess_ms >= 600


def test_a_split_without_images_has_no_speed(runtime: SlowRuntime) -> None:
    assert measure_speed(runtime, MemoryDataset([])) is None
