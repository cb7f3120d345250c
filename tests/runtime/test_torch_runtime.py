from __future__ import annotations

import pytest
import torch
from torch import Tensor

from retina.configuration import validate
from retina.datasets.loading import collate
from retina.devices import Precision, autocast
from retina.modeling.config import ModelConfig
from retina.modeling.detector import RetinaNet
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.runtime import TorchRuntime
from retina.structures import Categories, Detections, Sample, Targets

TREE = {"backbone": {"name": "resnet18"}, "pyramid": {"channels": 32}, "head": {"num_convs": 1}}
PREPROCESS = PreprocessConfig(min_size=96, max_size=160)


@pytest.fixture(scope="module")
def detector() -> RetinaNet:
    torch.manual_seed(0)
    built = validate(TREE, ModelConfig, source="test").build(4)
    torch.nn.init.normal_(built.head.classification.output.weight, std=0.5)
    return built


def images(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes
    ]


def runtime(
    detector: RetinaNet,
    precision: Precision = "fp32",
    preprocess: PreprocessConfig = PREPROCESS,
    **fields: float,
) -> TorchRuntime:
    return TorchRuntime(
        detector,
        categories=Categories.from_names(["a", "b", "c", "d"]),
        preprocess=preprocess.build(),
        postprocess=validate(fields, PostprocessConfig, source="test").build(detector.box_coder),
        device=torch.device("cpu"),
        precision=precision,
        memory_fix="take fewer",
    )


def run(
    detector: RetinaNet, inputs: list[Tensor], precision: Precision = "fp32", **fields: float
) -> list[Detections]:
    return runtime(detector, precision, **fields).detect(inputs)


def test_detections_are_in_pixels_of_the_images_as_given(detector: RetinaNet) -> None:
    sizes = ((50, 61), (301, 200), (96, 96))
    found = run(detector, images(*sizes))
    assert len(found) == 3
    for detections, (height, width) in zip(found, sizes, strict=True):
        assert len(detections) == 100
        assert float(detections.boxes.min()) >= 0
        assert width - 1 < float(detections.boxes[:, 2].max()) <= width + 1e-3
        assert height - 1 < float(detections.boxes[:, 3].max()) <= height + 1e-3
        assert bool((detections.scores.diff() <= 0).all())


def test_an_image_is_judged_alike_alone_and_in_a_batch_of_its_size(detector: RetinaNet) -> None:
    batch = images((96, 128), (96, 128), (96, 128))
    together = run(detector, batch)
    for alone, detections in zip(batch, together, strict=True):
        (expected,) = run(detector, [alone])
        torch.testing.assert_close(detections.boxes, expected.boxes, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(detections.scores, expected.scores, atol=1e-5, rtol=1e-5)


def test_a_batch_of_the_training_is_judged_as_its_images_are(detector: RetinaNet) -> None:
    """Images that have the input's size already: what `forward` makes of them, to the bit."""
    inputs = images((96, 100), (96, 150))
    nothing = Targets(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool())
    samples = [Sample(image, nothing, image_id=number) for number, image in enumerate(inputs)]
    judge = runtime(detector)
    expected = judge.forward(inputs)
    found = judge.forward_batch(collate(samples, size_divisor=PREPROCESS.size_divisor))
    assert found.input_sizes == expected.input_sizes == ((96, 100), (96, 150))
    for ours, theirs in zip(
        found.predictions.flatten(), expected.predictions.flatten(), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (7, 5)])
def test_tiny_images(detector: RetinaNet, size: tuple[int, int]) -> None:
    (found,) = run(detector, images(size), score_threshold=0.0)
    assert bool(found.boxes.isfinite().all())
    assert bool((found.boxes[:, 2:] > found.boxes[:, :2]).all())
    assert 50 < len(found) <= 100  # what lies outside of the image is no detection
    assert float(found.boxes[:, 2].max()) == pytest.approx(size[1])


def test_an_input_smaller_than_a_stride(detector: RetinaNet) -> None:
    preprocess = PreprocessConfig(min_size=5, max_size=7, size_divisor=1)
    output = runtime(detector, preprocess=preprocess).forward(images((5, 7)))
    assert output.input_sizes == ((5, 7),)
    assert output.predictions.feature_shapes == ((1, 1),) * 5
    assert len(output.anchors) == 45


def test_no_images_give_no_detections(detector: RetinaNet) -> None:
    assert run(detector, []) == []


def test_nothing_found_is_an_empty_result(detector: RetinaNet) -> None:
    bias = detector.head.classification.output.bias
    old = bias.detach().clone()
    with torch.no_grad():
        bias.fill_(-1e4)
    (found,) = run(detector, images((60, 60)))
    with torch.no_grad():
        bias.copy_(old)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


@pytest.mark.parametrize("training", [True, False])
def test_the_detector_is_left_as_it_was(detector: RetinaNet, training: bool) -> None:
    detector.train(training)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    found = run(detector, images((60, 90)))
    assert detector.training == training
    assert detector.backbone.bn1.training == training
    assert all(torch.equal(before[name], value) for name, value in detector.state_dict().items())
    assert not found[0].scores.requires_grad
    assert not found[0].boxes.is_inference()
    detector.eval()
    assert torch.equal(run(detector, images((60, 90)))[0].scores, found[0].scores)


def test_the_mode_comes_back_after_an_error(detector: RetinaNet) -> None:
    detector.train()
    with pytest.raises(ValueError, match="must be"):
        run(detector, [torch.zeros(1, 8, 8)])
    assert detector.training
    assert torch.is_grad_enabled()


def test_bfloat16_is_near_float32_and_its_boxes_are_float32(detector: RetinaNet) -> None:
    (half,) = run(detector, images((90, 120)), "bf16")
    (full,) = run(detector, images((90, 120)))
    assert half.boxes.dtype == half.scores.dtype == torch.float32
    assert float((half.scores - full.scores).abs().max()) < 0.1
    assert not torch.equal(half.scores, full.scores)
    forwarded = runtime(detector, "bf16").forward(images((90, 120)))
    assert forwarded.predictions.class_logits[0].dtype == torch.bfloat16
    assert forwarded.anchors.boxes.dtype == torch.float32


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_autocast_computes_in_the_named_precision(precision: str, dtype: torch.dtype) -> None:
    a = torch.rand(3, 3)
    with autocast(precision, torch.device("cpu")):
        assert (a @ a).dtype == dtype
