from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from retina.modeling.backbones import FeatureSpec
from retina.modeling.pyramid import PyramidConfig

SPECS = tuple(FeatureSpec(channels, stride) for channels, stride in ((12, 8), (24, 16), (48, 32)))


def feature_maps(height: int, width: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(
            2, s.channels, -(-height // s.stride), -(-width // s.stride), generator=generator
        )
        for s in SPECS
    )


@pytest.mark.parametrize("channels", [1, 20, 48])
@pytest.mark.parametrize("p6_from", ["c5", "p5"])
def test_five_levels_of_any_width(channels: int, p6_from: str) -> None:
    pyramid = PyramidConfig(channels=channels, p6_from=p6_from).build(SPECS)
    levels = pyramid(feature_maps(96, 160))
    assert pyramid.strides == (8, 16, 32, 64, 128)
    assert [tuple(level.shape) for level in levels] == [
        (2, channels, *shape) for shape in ((12, 20), (6, 10), (3, 5), (2, 3), (1, 2))
    ]


@pytest.mark.parametrize("p6_from", ["c5", "p5"])
def test_coarse_levels_come_from_the_named_map_even_where_widths_are_equal(p6_from: str) -> None:
    pyramid = PyramidConfig(channels=48, p6_from=p6_from).build(SPECS)
    maps = feature_maps(96, 160)
    levels = pyramid(maps)
    source = {"c5": maps[-1], "p5": levels[2]}[p6_from]
    weights = pyramid.fpn.extra_blocks
    p6 = functional.conv2d(source, weights.p6.weight, weights.p6.bias, stride=2, padding=1)
    p7 = functional.conv2d(p6.relu(), weights.p7.weight, weights.p7.bias, stride=2, padding=1)
    torch.testing.assert_close(levels[3], p6)
    torch.testing.assert_close(levels[4], p7)


def test_an_image_smaller_than_a_stride_still_has_all_levels() -> None:
    levels = PyramidConfig(channels=8).build(SPECS)(feature_maps(3, 5))
    assert [tuple(level.shape[2:]) for level in levels] == [(1, 1)] * 5


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (32, 32)])
def test_coarse_levels_of_small_images_are_right_under_bf16_on_a_cpu(size: tuple[int, int]) -> None:
    specs = [FeatureSpec(channels, stride) for channels, stride in ((16, 8), (32, 16), (512, 32))]
    torch.manual_seed(0)
    pyramid = PyramidConfig(channels=64).build(specs)
    maps = [
        torch.randn(8, spec.channels, size[0] // spec.stride, size[1] // spec.stride).bfloat16()
        for spec in specs
    ]
    expected = pyramid([level.float() for level in maps])
    for _ in range(8):
        # What a kernel reads beyond its input is then NaN.
        poison = [
            torch.full((count,), torch.nan, dtype=torch.bfloat16)
            for count in (64, 256, 1000, 4000, 16000, 64000, 256000)
        ]
        del poison
        channels_last = [m.to(memory_format=torch.channels_last).requires_grad_() for m in maps]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            levels = pyramid(channels_last)
        for level, exact in zip(levels, expected, strict=True):
            torch.testing.assert_close(level.float(), exact, rtol=0.05, atol=0.05)
        gradient = torch.autograd.grad(sum(level.float().sum() for level in levels), channels_last)
        assert all(part.isfinite().all() for part in gradient)


@pytest.mark.parametrize("p6_from", ["c5", "p5"])
def test_a_separable_pyramid_has_no_wide_3x3_convolution(p6_from: str) -> None:
    standard, light = (
        PyramidConfig(channels=16, p6_from=p6_from, convs=convs).build(SPECS)
        for convs in ("standard", "separable")
    )
    convs = [module for module in light.modules() if isinstance(module, torch.nn.Conv2d)]
    assert {conv.kernel_size for conv in convs if conv.groups == 1} == {(1, 1)}
    counts = [sum(p.numel() for p in pyramid.parameters()) for pyramid in (standard, light)]
    assert counts[1] < counts[0] / 3
    levels, expected = (pyramid(feature_maps(96, 160)) for pyramid in (light, standard))
    for level, other in zip(levels, expected, strict=True):
        assert level.shape == other.shape
        assert 0.2 < float(level.detach().std() / other.detach().std()) < 5
