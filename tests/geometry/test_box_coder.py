from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder as TorchvisionBoxCoder

from retina.geometry.box_coders import DeltasConfig
from retina.geometry.boxes import xywh_to_xyxy

CODER = DeltasConfig().build()
REFERENCE = TorchvisionBoxCoder((1.0, 1.0, 1.0, 1.0))


def random_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 900 - 50
    side = torch.rand(count, 2, generator=generator) * 600 + 0.5
    return xywh_to_xyxy(torch.cat([corner, side], dim=1))


def test_code_of_a_hand_made_box() -> None:
    anchor = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    box = torch.tensor([[5.0, 5.0, 25.0, 15.0]])
    expected = torch.tensor([[1.0, 0.0, math.log(2), -math.log(2)]])
    torch.testing.assert_close(CODER.encode(box, anchor), expected)
    torch.testing.assert_close(CODER.decode(expected, anchor), box)


def test_encoding_and_decoding_equal_torchvision_to_the_bit() -> None:
    boxes, anchors = random_boxes(5000, 0), random_boxes(5000, 1)
    assert torch.equal(CODER.encode(boxes, anchors), REFERENCE.encode_single(boxes, anchors))
    deltas = torch.randn(5000, 4, generator=torch.Generator().manual_seed(2)) * 3
    assert torch.equal(CODER.decode(deltas, anchors), REFERENCE.decode_single(deltas, anchors))


def test_weights_agree_with_torchvision() -> None:
    weights = (10.0, 10.0, 5.0, 5.0)
    ours, reference = DeltasConfig(weights=weights).build(), TorchvisionBoxCoder(weights)
    boxes, anchors = random_boxes(100, 3), random_boxes(100, 4)
    assert torch.equal(ours.encode(boxes, anchors), reference.encode_single(boxes, anchors))
    deltas = torch.randn(100, 4, generator=torch.Generator().manual_seed(5))
    assert torch.equal(ours.decode(deltas, anchors), reference.decode_single(deltas, anchors))


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_decoding_undoes_encoding(seed_a: int, seed_b: int) -> None:
    boxes, anchors = random_boxes(20, seed_a), random_boxes(20, seed_b)
    # Beyond the limit of dw and dh a box cannot be reached: the anchor is over 62 times smaller.
    anchors[:, 2:] = torch.maximum(anchors[:, 2:], anchors[:, :2] + 20)
    decoded = CODER.decode(CODER.encode(boxes, anchors), anchors)
    torch.testing.assert_close(decoded, boxes, atol=5e-3, rtol=1e-5)


def test_a_batch_of_codes_shares_the_anchors() -> None:
    anchors = random_boxes(7, 6)
    deltas = torch.randn(3, 7, 4)
    decoded = CODER.decode(deltas, anchors)
    assert decoded.shape == (3, 7, 4)
    assert torch.equal(decoded[2], CODER.decode(deltas[2], anchors))


def test_sides_are_limited_and_stay_finite() -> None:
    anchor = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
    box = CODER.decode(torch.tensor([[0.0, 0.0, 500.0, 1e9]]), anchor)
    torch.testing.assert_close(box, torch.tensor([[-492.0, -492.0, 508.0, 508.0]]))


def test_bfloat16_deltas_are_decoded_in_float32() -> None:
    anchors = random_boxes(50, 7)
    deltas = torch.randn(50, 4, generator=torch.Generator().manual_seed(8)).bfloat16()
    decoded = CODER.decode(deltas, anchors)
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, CODER.decode(deltas.float(), anchors))


def test_the_code_of_a_padding_row_is_finite() -> None:
    code = CODER.encode(torch.zeros(1, 4), torch.tensor([[0.0, 0.0, 32.0, 32.0]]))
    assert bool(code.isfinite().all())
