from __future__ import annotations

import pytest
import torch

from retina.configuration import validate
from retina.modeling.config import ModelConfig
from retina.modeling.detector import RetinaNet
from retina.structures import DensePredictions

TREE = {"backbone": {"name": "resnet18"}, "pyramid": {"channels": 32}, "head": {"num_convs": 1}}


def build(num_classes: int = 3, **parts: object) -> RetinaNet:
    torch.manual_seed(0)
    return validate({**TREE, **parts}, ModelConfig, source="test").build(num_classes)


@pytest.mark.parametrize("size", [(64, 96), (128, 128), (32, 32), (5, 7), (1, 1)])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_there_is_one_anchor_for_every_prediction(size: tuple[int, int], num_classes: int) -> None:
    detector = build(num_classes).eval()
    predictions: DensePredictions = detector(torch.rand(2, 3, *size))
    anchors = detector.anchors(predictions.feature_shapes, size, "cpu")
    logits, deltas = predictions.flatten()
    assert logits.shape == (2, len(anchors), num_classes)
    assert deltas.shape == (2, len(anchors), 4)
    assert detector.num_classes == num_classes
    for level, count in zip(predictions.class_logits, anchors.num_per_level, strict=True):
        assert level[0].flatten(0, 2).shape[0] == count


def test_the_anchor_of_a_prediction_lies_where_the_prediction_comes_from() -> None:
    detector = build().eval()
    outputs = []
    detector.head.classification.output.register_forward_hook(
        lambda _module, _inputs, output: outputs.append(output)
    )
    predictions: DensePredictions = detector(torch.rand(1, 3, 256, 320))
    anchors = detector.anchors(predictions.feature_shapes, (256, 320), "cpu")
    logits, _ = predictions.flatten()
    p4 = anchors.num_per_level[0]
    row = p4 + 9 * (5 * 20 + 13) + 3  # P4 is 16 × 20: row 5, column 13, the square anchor
    assert anchors.boxes[row].tolist() == [13 * 16 - 32, 5 * 16 - 32, 13 * 16 + 32, 5 * 16 + 32]
    assert torch.equal(logits[0, row], outputs[1][0, 3 * 3 : 3 * 4, 5, 13])


def test_every_trainable_parameter_gets_a_gradient() -> None:
    detector = build().train()
    predictions: DensePredictions = detector(torch.rand(2, 3, 128, 128))
    logits, deltas = predictions.flatten()
    (logits.square().sum() + deltas.square().sum()).backward()
    without = [name for name, p in detector.named_parameters() if p.grad is None]
    assert without == []


def test_the_same_seed_gives_the_same_weights() -> None:
    a, b = build(), build()
    assert all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def test_the_memory_format_is_a_choice() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 96)
    plain, fast = build(memory_format="contiguous").eval(), build().eval()
    assert plain.memory_format == torch.contiguous_format
    assert fast.memory_format == torch.channels_last
    fast.load_state_dict(plain.state_dict())
    assert fast.memory_format == torch.channels_last
    for one, other in zip(plain(images).flatten(), fast(images).flatten(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_weights_and_predictions_are_channels_last() -> None:
    detector = build()
    assert detector.backbone.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    images = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    predictions: DensePredictions = detector(images)
    assert all(level.is_contiguous() for level in predictions.class_logits)
