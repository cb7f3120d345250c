from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import batched_nms
from torchvision.ops.boxes import _batched_nms_vanilla

from retina.geometry.suppression import suppress
from retina.structures import FloatArray


def some_boxes(
    count: int, num_classes: int, size: float, seed: int, *, different_scores: int = 2**20
) -> tuple[Tensor, Tensor, Tensor]:
    """As a detector gives them: about twenty around each of a few places, cut off at the border."""
    generator = torch.Generator().manual_seed(seed)
    places = max(1, count // 20)
    at = torch.randint(0, places, (count,), generator=generator)
    centers = torch.rand(places, 2, generator=generator) * size
    sides = torch.rand(places, 2, generator=generator) * 300 + 4
    labels = torch.randint(0, num_classes, (places,), generator=generator)[at]
    noise = torch.randn(2, count, 2, generator=generator)
    moved = centers[at] + noise[0] * sides[at] * 0.1
    scaled = sides[at] * (1 + 0.1 * noise[1]).clamp(min=0.3)
    boxes = torch.cat([moved - scaled / 2, moved + scaled / 2], dim=1).clamp(0, size)
    scores = torch.randint(0, different_scores, (count,), generator=generator) / different_scores
    return boxes, scores, labels


def iou(a: FloatArray, b: FloatArray) -> FloatArray:
    """Of every pair, in float64, with 0 where neither has an area."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.maximum(sides, 0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def by_hand(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> list[int]:
    """Class by class, box by box, with nothing clever."""
    all_boxes, all_labels = boxes.double().numpy(), labels.numpy()
    order = np.argsort(-scores.numpy(), kind="stable")
    stays = np.zeros(len(order), dtype=bool)
    for label in np.unique(all_labels):
        left = order[all_labels[order] == label]
        while len(left):
            stays[left[0]] = True
            overlaps = iou(all_boxes[left[:1]], all_boxes[left[1:]])[0]
            left = left[1:][~(overlaps > threshold)]
    return [int(row) for row in order if stays[row]]


@pytest.mark.parametrize("size", [1333.0, 4000.0, 1e5])
@pytest.mark.parametrize("num_classes", [1, 3, 80, 1203])
@pytest.mark.parametrize("count", [0, 1, 700, 1001, 5000])
def test_equal_to_a_loop_over_each_class_in_float64(
    count: int, num_classes: int, size: float
) -> None:
    boxes, scores, labels = some_boxes(count, num_classes, size, seed=count + num_classes)
    for threshold in (0.3, 0.5, 0.7):
        expected = by_hand(boxes, scores, labels, threshold)
        for limit in (1, 100, 300, 10 * count + 1):
            found = suppress(boxes, scores, labels, threshold, limit=limit)
            assert found.tolist() == expected[:limit]


@pytest.mark.parametrize("size", [1333.0, 1e5])
@pytest.mark.parametrize("num_classes", [80, 1203])
def test_more_boxes_than_change_torchvisions_path_on_a_gpu(num_classes: int, size: float) -> None:
    boxes, scores, labels = some_boxes(26_000, num_classes, size, seed=num_classes)
    found = suppress(boxes, scores, labels, 0.5, limit=26_000)
    assert found.tolist() == by_hand(boxes, scores, labels, 0.5)


@pytest.mark.parametrize("num_classes", [80, 1203])
def test_equal_to_torchvisions_own_loop_and_not_to_its_offsets(num_classes: int) -> None:
    boxes, scores, labels = some_boxes(1000, num_classes, 1e5, seed=0)
    found = suppress(boxes, scores, labels, 0.5, limit=1000)
    assert torch.equal(found, _batched_nms_vanilla(boxes, scores, labels, 0.5))
    assert not torch.equal(found, batched_nms(boxes, scores, labels, 0.5))


@pytest.mark.parametrize("num_classes", [1, 80])
def test_of_equal_scores_the_lower_row_is_the_better_one(num_classes: int) -> None:
    boxes, scores, labels = some_boxes(3000, num_classes, 1333.0, seed=1, different_scores=4)
    found = suppress(boxes, scores, labels, 0.5, limit=3000)
    assert found.tolist() == by_hand(boxes, scores, labels, 0.5)
    twice = torch.tensor([[0.0, 0.0, 9.0, 9.0]] * 2)
    assert suppress(twice, torch.ones(2), torch.zeros(2).long(), 0.5, limit=2).tolist() == [0]


@pytest.mark.parametrize("copies", [1, 40])  # a class of few boxes and one of many
def test_an_overlap_of_just_the_threshold_is_allowed(copies: int) -> None:
    # 29 of 100: neither 29 / 100 nor 0.29 has an exact form, and 0.29 * 100 is below 29.
    pair = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 2.9]]) * 10
    boxes = torch.cat([pair + 1000 * number for number in range(copies)])
    scores, labels = torch.linspace(1, 0.5, 2 * copies), torch.zeros(2 * copies).long()
    assert len(suppress(boxes, scores, labels, 0.29, limit=99)) == 2 * copies
    assert len(suppress(boxes, scores, labels, 0.2899, limit=99)) == copies


@pytest.mark.parametrize("copies", [2, 50])
def test_boxes_without_area_remove_nothing(copies: int) -> None:
    points = torch.tensor([[5.0, 5.0, 5.0, 5.0]]).expand(copies, 4)
    rows = suppress(points, torch.ones(copies), torch.zeros(copies).long(), 0.5, limit=99)
    assert rows.tolist() == list(range(copies))
