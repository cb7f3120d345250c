from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from retina.errors import UserError
from retina.modeling.head import HeadConfig, RetinaHead
from retina.structures import DensePredictions

LEVELS = tuple(
    torch.randn(2, 16, height, width).contiguous(memory_format=torch.channels_last)
    for height, width in ((6, 9), (3, 5), (1, 1))
)


def build(config: HeadConfig, *, num_classes: int = 3, num_anchors: int = 9) -> RetinaHead:
    torch.manual_seed(0)
    head = config.build(in_channels=16, num_anchors=num_anchors, num_classes=num_classes)
    return head.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("num_classes", [1, 3, 91])
@pytest.mark.parametrize("num_convs", [0, 1, 4])
@pytest.mark.parametrize("channels", [None, 8])
def test_shapes(num_classes: int, num_convs: int, channels: int | None) -> None:
    head = build(HeadConfig(num_convs=num_convs, channels=channels), num_classes=num_classes)
    predictions: DensePredictions = head(LEVELS)
    for level, logits, deltas in zip(
        LEVELS, predictions.class_logits, predictions.box_codes, strict=True
    ):
        assert logits.shape == (2, *level.shape[2:], 9, num_classes)
        assert deltas.shape == (2, *level.shape[2:], 9, 4)
    convs = [m for m in head.classification.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == num_convs + 1
    assert convs[-1].in_channels == (channels or 16 if num_convs else 16)


@pytest.mark.parametrize("prior", [0.01, 0.2])
def test_every_anchor_starts_with_the_prior_probability(prior: float) -> None:
    head = build(HeadConfig(prior_probability=prior))
    assert head.classification.output.bias is not None
    assert head.classification.output.bias.unique().tolist() == pytest.approx(
        [-math.log((1 - prior) / prior)]
    )
    scores = head(LEVELS).class_logits[0].detach().sigmoid()
    assert float(scores.mean()) == pytest.approx(prior, rel=1e-2)


def test_weights_start_as_normal_with_a_deviation_of_a_hundredth() -> None:
    torch.manual_seed(0)
    head = HeadConfig(channels=64).build(in_channels=64, num_anchors=9, num_classes=20)
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            assert float(module.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
            assert abs(float(module.weight.detach().mean())) < 3e-4
    assert float(head.box_regression.output.bias.detach().abs().max()) == 0


def test_predictions_are_views_of_the_convolutions_channels_last_output() -> None:
    head = build(HeadConfig())
    outputs = []
    head.classification.output.register_forward_hook(lambda _m, _i, out: outputs.append(out))
    predictions = head(LEVELS)
    for logits, output in zip(predictions.class_logits, outputs, strict=True):
        assert output.is_contiguous(memory_format=torch.channels_last)
        assert logits.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()
        assert logits.is_contiguous()
        assert torch.equal(logits[1, 0, 0, 2], output[1, 6:9, 0, 0])  # anchor 2 of the first cell


def test_levels_share_their_weights() -> None:
    head = build(HeadConfig(num_convs=1))
    alone = head((LEVELS[1],))
    torch.testing.assert_close(alone.class_logits[0], head(LEVELS).class_logits[1])


def test_group_norm_stands_after_every_convolution_without_bias() -> None:
    head = build(HeadConfig(norm="group", num_groups=4, num_convs=2))
    norms = [m for m in head.modules() if isinstance(m, nn.GroupNorm)]
    assert [(norm.num_groups, norm.num_channels) for norm in norms] == [(4, 16)] * 4
    convs = [m for m in head.box_regression.convs.modules() if isinstance(m, nn.Conv2d)]
    assert all(conv.bias is None for conv in convs)
    assert head(LEVELS).class_logits[2].isfinite().all()


def test_a_width_that_cannot_be_grouped_is_refused() -> None:
    config = HeadConfig(norm="group", num_groups=32, channels=48)
    with pytest.raises(UserError, match=r"48 channels .*num_groups=32; choose num_groups=16"):
        config.build(in_channels=48, num_anchors=9, num_classes=2)
