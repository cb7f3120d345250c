from __future__ import annotations

import pytest
import torch
from torch import Tensor

from retina.configuration import validate
from retina.geometry.box_coders import DeltasConfig, DistributionConfig
from retina.modeling.config import ModelConfig

CODER = DistributionConfig(bins=4, unit=0.25).build()
ANCHORS = torch.tensor([[0.0, 0.0, 8.0, 16.0], [10.0, 10.0, 18.0, 18.0]])


def sure_of(*distances: int) -> Tensor:
    """The code of distances that leave no doubt."""
    codes = torch.full((4, 5), -1e4)
    codes[torch.arange(4), torch.tensor(distances)] = 0.0
    return codes.flatten()


def test_a_hand_made_code() -> None:
    codes = torch.stack([sure_of(1, 2, 3, 4), sure_of(0, 0, 4, 1)])
    # units of 2 × 4 and 2 × 2 pixels around (4, 8) and (14, 14)
    expected = torch.tensor([[2.0, 0.0, 10.0, 24.0], [14.0, 14.0, 22.0, 16.0]])
    torch.testing.assert_close(CODER.decode(codes, ANCHORS), expected)
    distances = torch.tensor([[1.0, 2, 3, 4], [0, 0, 4, 1]])
    torch.testing.assert_close(CODER.encode(expected, ANCHORS), distances)
    torch.testing.assert_close(CODER.coordinates(codes), distances)


def test_a_side_is_the_expectation() -> None:
    codes = torch.randn(3, 2, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shares = codes.view(3, 2, 4, 5).exp()
    shares = shares / shares.sum(dim=-1, keepdim=True)
    distances = shares @ torch.arange(5, dtype=torch.float64)
    boxes = CODER.decode(codes, ANCHORS)
    assert boxes.dtype == torch.float64
    torch.testing.assert_close(CODER.coordinates(codes), distances)
    torch.testing.assert_close(CODER.encode(boxes, ANCHORS.double()), distances)


def test_an_unknown_side_lies_in_the_middle_of_the_range() -> None:
    sides = DistributionConfig().build().decode(torch.zeros(2, 68), ANCHORS)
    torch.testing.assert_close(sides[1], torch.tensor([6.0, 6.0, 22.0, 22.0]))  # twice the anchor


def test_bfloat16_codes_are_decoded_in_float32() -> None:
    codes = torch.randn(2, 20, generator=torch.Generator().manual_seed(1)).bfloat16()
    boxes = CODER.decode(codes, ANCHORS)
    assert boxes.dtype == torch.float32
    assert torch.equal(boxes, CODER.decode(codes.float(), ANCHORS))


@pytest.mark.parametrize("tree", [{}, {"weights": [1.0, 1.0, 2.0, 2.0]}, {"kind": "deltas"}])
def test_without_a_kind_it_is_deltas(tree: dict[str, object]) -> None:
    config = validate({"box_coder": tree}, ModelConfig, source="test")
    assert isinstance(config.box_coder, DeltasConfig)
    assert config.box_coder.weights == tuple(tree.get("weights", (1.0, 1.0, 1.0, 1.0)))  # type: ignore[arg-type]
    assert config.box_coder.build().num_outputs == 4
