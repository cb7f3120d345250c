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
