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


def test_a_separable_head_is_light_and_starts_as_a_standard_one() -> None:
    config = HeadConfig(norm="group", channels=64)
    plain, light = (
        config.model_copy(update={"convs": convs}).build(
            in_channels=64, num_anchors=1, num_classes=20, num_box_outputs=68
        )
        for convs in ("standard", "separable")
    )
    counts = [sum(p.numel() for p in head.parameters()) for head in (plain, light)]
    assert counts[1] < counts[0] / 5
    levels = (torch.randn(2, 64, 12, 12),)
    for subnet, other in (
        (plain.classification, light.classification),
        (plain.box_regression, light.box_regression),
    ):
        deviation = subnet(levels[0]).detach().std()
        assert float(other(levels[0]).detach().std()) == pytest.approx(float(deviation), rel=0.3)
    # without norms, the signal must not fade either
    for _ in range(3):
        bare = HeadConfig(channels=64, convs="separable").build(
            in_channels=64, num_anchors=1, num_classes=20
        )
        thick = HeadConfig(channels=64).build(in_channels=64, num_anchors=1, num_classes=20)
        a, b = (head.box_regression(levels[0]).detach().std() for head in (bare, thick))
        assert 0.3 < float(a / b) < 3
    assert all(p.grad is None for p in light.parameters())
    light(levels).class_logits[0].sum().backward()
    assert all(p.grad is not None for p in light.classification.parameters())


@pytest.mark.parametrize("num_convs", [0, 2])
def test_a_separable_subnet_has_a_depthwise_part_for_each_pointwise_one(num_convs: int) -> None:
    head = build(HeadConfig(convs="separable", num_convs=num_convs))
    convs = [m for m in head.classification.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 2 * (num_convs + 1)
    assert {(conv.kernel_size, conv.groups) for conv in convs} == {((3, 3), 16), ((1, 1), 1)}
    assert head(LEVELS).class_logits[0].shape == (2, 6, 9, 9, 3)


def test_level_scales_multiply_the_box_codes_of_their_level() -> None:
    config = HeadConfig(level_scales=True)
    head, plain = build(config), build(HeadConfig())
    assert head.level_scales is not None
    assert head.level_scales.tolist() == [1.0] * 5
    assert set(head.state_dict()) - set(plain.state_dict()) == {"level_scales"}
    before: DensePredictions = plain(LEVELS)
    same: DensePredictions = head(LEVELS)
    assert all(map(torch.equal, same.box_codes, before.box_codes))
    with torch.no_grad():
        head.level_scales[:] = torch.tensor([1.0, 2.0, -3.0, 4.0, 5.0])
    scaled: DensePredictions = head(LEVELS)
    assert torch.equal(scaled.box_codes[0], before.box_codes[0])
    torch.testing.assert_close(scaled.box_codes[1], before.box_codes[1] * 2)
    torch.testing.assert_close(scaled.box_codes[2], before.box_codes[2] * -3)
    assert all(map(torch.equal, scaled.class_logits, before.class_logits))
    for codes in scaled.box_codes:
        codes.sum().backward(retain_graph=True)
    assert head.level_scales.grad is not None
    assert head.level_scales.grad[3:].tolist() == [0, 0]  # there are three levels here
