import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from retina.geometry.box_coders import DeltasConfig
from retina.losses.box import COMPARES_BOXES, BoxLoss, box_loss

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


KINDS: tuple[BoxLoss, ...] = ("l1", "smooth_l1", "giou", "diou", "ciou")
COLLAPSED = [
    (0, 0, 0, -14),
    (0, 0, -14, 0),
    (0, 0, -14, -14),
    (0, 0, 0, -60),
    (0, 0, -60, 0),
    (0, 0, -60, -60),
    (0, 0, -200, -200),
    (0, 0, 80, -80),
]
FAR = [(0, 0, 90, 90), (0, 0, 1e30, 0), (1e6, -1e6, 5, 5), (1e10, 0, 0, 0), (1e18, 1e18, 0, 0)]
ANCHORS = [(300, 200, 332, 232), (-16, -16, 16, 16), (0, 0, 512, 256)]
WANTED = [(310, 190, 350, 260), (310, 210, 310, 210), (310, 210, 310, 250), (310, 210, 350, 210)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("deltas", COLLAPSED + FAR)
@pytest.mark.parametrize("anchor", ANCHORS)
def test_any_finite_prediction_has_a_finite_loss_and_gradient(
    kind: BoxLoss, deltas: tuple[float, ...], anchor: tuple[float, ...]
) -> None:
    coder = DeltasConfig().build()
    anchors = torch.tensor([anchor], dtype=torch.float32)
    wanted = torch.cat([torch.tensor(WANTED, dtype=torch.float32), anchors])
    leaf = torch.tensor([deltas], dtype=torch.float32).repeat(len(wanted), 1).requires_grad_()
    if kind in COMPARES_BOXES:
        losses = box_loss(coder.decode(leaf, anchors), wanted, kind)
    else:
        losses = box_loss(leaf, coder.encode(wanted, anchors), kind)
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    assert losses.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
@pytest.mark.parametrize("deltas", COLLAPSED)
@pytest.mark.parametrize("anchor", ANCHORS)
def test_values_of_collapsed_boxes_are_torchvisions_where_that_has_one(
    kind: BoxLoss, deltas: tuple[float, ...], anchor: tuple[float, ...]
) -> None:
    anchors = torch.tensor([anchor], dtype=torch.float32)
    boxes = DeltasConfig().build().decode(torch.tensor([deltas]).float(), anchors)
    wanted = torch.cat([torch.tensor(WANTED, dtype=torch.float32), anchors])
    predicted = boxes.expand_as(wanted)
    theirs = TORCHVISION[kind](predicted, wanted)
    ours = box_loss(predicted, wanted, kind)
    assert torch.equal(ours[theirs.isfinite()], theirs[theirs.isfinite()])
    assert ours.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_prediction_that_is_not_finite_is_not_hidden(kind: BoxLoss, value: float) -> None:
    predicted = torch.tensor([[value, 5.0, 20.0, 20.0]])
    assert not box_loss(predicted, torch.tensor([[5.0, 5.0, 20.0, 20.0]]), kind).isfinite()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_other_numbers_are_computed_in_float32(kind: BoxLoss, dtype: torch.dtype) -> None:
    predicted = torch.tensor([[0, 0, 800, 600], [8, 8, 16, 640]]).to(dtype)  # 480,000 pixels
    wanted = torch.tensor([[16, 0, 800, 512], [8, 8, 24, 512]]).to(dtype)
    losses = box_loss(predicted, wanted, kind)
    assert losses.dtype == torch.float32
    assert torch.equal(losses, box_loss(predicted.float(), wanted.float(), kind))


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_gradients_in_float64(kind: BoxLoss) -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, wanted = torch.rand(2, 30, 4, generator=generator, dtype=torch.float64) * 20
    predicted[:, 2:] += predicted[:, :2] + 1
    wanted[:, 2:] += wanted[:, :2] + 1
    leaf = predicted.requires_grad_()
    if kind != "ciou":  # whose weight of the aspect ratio is a constant to the gradient
        assert torch.autograd.gradcheck(lambda boxes: box_loss(boxes, wanted, kind), leaf)
    ours, theirs = (
        torch.autograd.grad(loss(leaf, wanted).sum(), leaf)[0]
        for loss in (lambda p, w: box_loss(p, w, kind), TORCHVISION[kind])
    )
    assert torch.equal(ours, theirs)
