from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import box_iou, clip_boxes_to_image

from retina.geometry.boxes import (
    box_areas,
    clip_boxes,
    pairwise_intersection,
    pairwise_iof,
    pairwise_iou,
    xywh_to_xyxy,
)

coordinates = st.floats(-200, 1500, width=32, allow_subnormal=False)
sides = st.floats(0, 800, width=32, allow_subnormal=False)


@st.composite
def boxes(draw: st.DrawFn, min_side: float = 0.0) -> Tensor:
    count = draw(st.integers(1, 6))
    rows = [
        [draw(coordinates), draw(coordinates), draw(sides) + min_side, draw(sides) + min_side]
        for _ in range(count)
    ]
    return xywh_to_xyxy(torch.tensor(rows))


def test_iou_of_hand_made_boxes() -> None:
    a = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 4.0, 2.0]])
    b = torch.tensor(
        [[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [10.0, 0.0, 20.0, 10.0], [2, 1, 4, 3]]
    )
    expected = torch.tensor([[1.0, 50 / 150, 0.0, 4 / 100], [8 / 100, 0.0, 0.0, 2 / 10]])
    torch.testing.assert_close(pairwise_iou(a, b), expected)


def test_iof_divides_by_the_box_and_not_by_the_region() -> None:
    box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    regions = torch.tensor([[2.0, 0.0, 100.0, 100.0], [-5.0, -5.0, 50.0, 50.0], [4, 4, 9, 9]])
    assert pairwise_iof(box, regions).tolist() == [[0.5, 1.0, 0.0]]


def test_boxes_without_area_overlap_nothing() -> None:
    points = torch.tensor([[3.0, 3.0, 3.0, 3.0], [0.0, 2.0, 8.0, 2.0]])
    box = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    assert pairwise_iou(points, points).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert pairwise_iou(points, box).tolist() == [[0.0], [0.0]]
    assert pairwise_iof(points, box).tolist() == [[0.0], [0.0]]


def test_empty_sides_give_empty_matrices() -> None:
    assert pairwise_iou(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)
    assert pairwise_iof(torch.zeros(2, 4), torch.zeros(0, 4)).shape == (2, 0)


def test_leading_dimensions_are_batches() -> None:
    a, b = torch.rand(2, 5, 4).cumsum(-1), torch.rand(2, 3, 4).cumsum(-1)
    batched = pairwise_iou(a, b)
    assert batched.shape == (2, 5, 3)
    assert torch.equal(batched[1], pairwise_iou(a[1], b[1]))
    shared = pairwise_iou(a, b[0])
    assert torch.equal(shared[1], pairwise_iou(a[1], b[0]))


@given(boxes(min_side=0.125), boxes(min_side=0.125))
def test_iou_agrees_with_torchvision(a: Tensor, b: Tensor) -> None:
    assert torch.equal(pairwise_iou(a, b), box_iou(a, b))


@given(boxes(min_side=1.0), boxes(min_side=1.0))
def test_iou_is_symmetric_and_between_zero_and_one(a: Tensor, b: Tensor) -> None:
    iou = pairwise_iou(a, b)
    torch.testing.assert_close(iou, pairwise_iou(b, a).T)
    assert float(iou.min()) >= 0
    assert float(iou.max()) <= 1 + 1e-6
    torch.testing.assert_close(pairwise_iou(a, a).diagonal(), torch.ones(len(a)))


@given(boxes(), st.integers(1, 1000), st.integers(1, 1000))
def test_clipping_agrees_with_torchvision(some: Tensor, height: int, width: int) -> None:
    clipped = clip_boxes(some, (height, width))
    assert torch.equal(clipped, clip_boxes_to_image(some, (height, width)))
    assert torch.equal(clip_boxes(clipped, (height, width)), clipped)
    assert bool((box_areas(clipped) <= box_areas(some) * (1 + 1e-6)).all())


def test_clipping_a_batch_takes_each_images_own_size() -> None:
    box = torch.tensor([-5.0, -5.0, 300.0, 300.0])
    clipped = clip_boxes(box.expand(2, 1, 4), torch.tensor([[100, 200], [50, 400]]))
    assert clipped.tolist() == [[[0, 0, 200, 100]], [[0, 0, 300, 50]]]


def test_conversion_of_a_hand_made_box() -> None:
    box = torch.tensor([[10.0, 20.0, 40.0, 60.0]])
    assert xywh_to_xyxy(torch.tensor([[10.0, 20.0, 30.0, 40.0]])).tolist() == box.tolist()
    assert box_areas(box).tolist() == [1200.0]


class LargestStorage(TorchDispatchMode):
    """Records the size of the largest tensor that any operation owns."""

    num_bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.num_bytes = max(self.num_bytes, result.untyped_storage().nbytes())
        return result


def test_no_intermediate_is_larger_than_the_result() -> None:
    anchors, many = torch.rand(5000, 4).cumsum(-1), torch.rand(2000, 4).cumsum(-1)
    for overlap in (pairwise_iou, pairwise_iof):
        with LargestStorage() as largest:
            result = overlap(many, anchors)
        assert largest.num_bytes == result.untyped_storage().nbytes() == 2000 * 5000 * 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_overlaps_of_half_precision_boxes_are_those_of_the_same_in_float32(
    dtype: torch.dtype,
) -> None:
    boxes = torch.tensor([[0, 0, 300, 300], [0, 0, 300, 150], [0, 0, 4000, 4000]], dtype=dtype)
    assert box_areas(boxes).tolist() == [90_000, 45_000, 16e6]
    for overlap in (pairwise_iou, pairwise_iof):
        found = overlap(boxes, boxes)
        assert found.dtype == torch.float32
        assert torch.equal(found, overlap(boxes.float(), boxes.float()))
        assert torch.equal(overlap(boxes, boxes.float()), found)
    assert pairwise_iou(boxes, boxes)[0].tolist() == pytest.approx([1, 0.5, 90_000 / 16e6])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
def test_overlaps_of_whole_numbers_neither_overflow_nor_are_cut(dtype: torch.dtype) -> None:
    side = 200 if dtype == torch.uint8 else 30_000
    boxes = torch.tensor([[0, 0, side, side], [0, 0, side, side // 2]], dtype=dtype)
    assert box_areas(boxes).tolist() == [side**2, side**2 // 2]
    assert pairwise_intersection(boxes, boxes).tolist() == [
        [side**2, side**2 // 2],
        [side**2 // 2, side**2 // 2],
    ]
    assert pairwise_iou(boxes, boxes).tolist() == [[1, 0.5], [0.5, 1]]
    assert pairwise_iof(boxes, boxes).tolist() == [[1, 0.5], [1, 1]]
    apart = torch.tensor([[150, 150, 160, 160]], dtype=dtype)  # of unsigned numbers, too
    assert pairwise_iou(apart, apart - 50).tolist() == [[0]]
    assert pairwise_iou(boxes, boxes.float()).dtype == torch.float32


def test_areas_beyond_the_whole_numbers_of_float32_are_exact() -> None:
    boxes = torch.tensor([[0, 0, 100_003, 100_019], [0, 0, 2**31 - 1, 2**31 - 1]])
    assert box_areas(boxes).tolist() == [100_003 * 100_019, float((2**31 - 1) ** 2)]
    assert pairwise_iou(boxes, boxes).diagonal().tolist() == [1, 1]
