import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from retina.losses.box import BoxLoss, box_loss

TORCHVISION = {
    "giou": generalized_box_iou_loss,
    "diou": distance_box_iou_loss,
    "ciou": complete_box_iou_loss,
}


def some_boxes(seed: int) -> tuple[Tensor, Tensor]:
    """Pairs that lie apart, overlap a little or nearly, or are equal: ``(3, 400, 4)``."""
    generator = torch.Generator().manual_seed(seed)
    predicted, wanted = torch.rand(2, 3, 400, 4, generator=generator) * 100
    for boxes in (predicted, wanted):
        boxes[..., 2:] += boxes[..., :2]
    wanted[:, 100:200] = predicted[:, 100:200] + torch.randn(3, 100, 4, generator=generator)
    wanted[:, 200:220] = predicted[:, 200:220]
    return predicted, wanted


@pytest.mark.parametrize("kind", list(TORCHVISION))
@pytest.mark.parametrize("seed", range(3))
def test_values_and_gradients_are_torchvisions_to_the_bit(kind: BoxLoss, seed: int) -> None:
    predicted, wanted = some_boxes(seed)
    weights = torch.linspace(0, 1, 400)
    results = []
    for loss in (TORCHVISION[kind], lambda p, w: box_loss(p, w, kind)):
        leaf = predicted.clone().requires_grad_()
        values = loss(leaf, wanted)
        results.append((values.detach(), *torch.autograd.grad((values * weights).sum(), leaf)))
    for theirs, ours in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", ["l1", "smooth_l1", "giou", "diou", "ciou"])
def test_its_operations_know_the_shape_of_their_results_beforehand(kind: BoxLoss) -> None:
    """A meta tensor has no values, so that nothing can be counted, which waits on a GPU."""
    boxes = torch.empty(2, 7, 4, device="meta", requires_grad=True)
    losses = box_loss(boxes, torch.empty(2, 7, 4, device="meta"), kind)
    assert losses.shape == (2, 7)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert boxes.grad is not None


def test_boxes_without_area_are_finite() -> None:
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    for kind in ("giou", "diou"):
        assert math.isfinite(box_loss(point, point, kind).item())  # type: ignore[arg-type]
