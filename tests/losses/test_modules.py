import inspect
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from retina import losses
from tests.conftest import REPOSITORY  # type: ignore[import-not-found]

PAIRS: list[tuple[type[nn.Module], Callable[..., Tensor]]] = [
    (losses.SigmoidFocalLoss, losses.sigmoid_focal_loss),
    (losses.SoftmaxFocalLoss, losses.softmax_focal_loss),
    (losses.QualityFocalLoss, losses.quality_focal_loss),
    (losses.VarifocalLoss, losses.varifocal_loss),
    (losses.DistributionFocalLoss, losses.distribution_focal_loss),
    (losses.DiceLoss, losses.dice_loss),
    (losses.TverskyLoss, losses.tversky_loss),
    (losses.FocalTverskyLoss, losses.focal_tversky_loss),
    (losses.UnifiedFocalLoss, losses.unified_focal_loss),
]


def names(pair: tuple[type[nn.Module], Callable[..., Tensor]]) -> str:
    return pair[0].__name__


@pytest.mark.parametrize("pair", PAIRS, ids=names)
def test_a_module_has_the_options_and_defaults_of_its_function(
    pair: tuple[type[nn.Module], Callable[..., Tensor]],
) -> None:
    module, function = pair
    options = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    of_module = {
        name: parameter.default for name, parameter in inspect.signature(module).parameters.items()
    }
    assert of_module == options


@pytest.mark.parametrize("pair", PAIRS, ids=names)
def test_a_module_gives_what_its_function_gives(
    pair: tuple[type[nn.Module], Callable[..., Tensor]],
) -> None:
    module, function = pair
    logits = torch.randn(2, 3, 4, 4)
    if function is losses.sigmoid_focal_loss:
        inputs: tuple[Tensor, ...] = (logits, torch.randint(0, 5, (2, 3, 4)))
    elif function in (losses.quality_focal_loss, losses.varifocal_loss):
        inputs = (logits, torch.randint(0, 5, (2, 3, 4)), torch.rand(2, 3, 4))
    elif function is losses.distribution_focal_loss:
        inputs = (logits, torch.rand(2, 3, 4) * 3)
    else:
        inputs = (logits, torch.randint(0, 3, (2, 4, 4)))
    for reduction in ("none", "sum", "mean"):
        ours = module(reduction=reduction)(*inputs)
        assert torch.equal(ours, function(*inputs, reduction=reduction))
    assert f"{module.__name__}(" in repr(module())
    assert "reduction=" in repr(module())


def test_options_per_class_move_with_the_module_and_are_no_state() -> None:
    loss = losses.SoftmaxFocalLoss(class_weights=[1.0, 2.0], gamma=(1.0, 3.0)).double()
    buffers = dict(loss.named_buffers())
    assert buffers["class_weights"].dtype == torch.float64
    assert buffers["gamma"].tolist() == [1, 3]
    assert not loss.state_dict()
    logits, targets = torch.randn(5, 2, dtype=torch.float64), torch.randint(0, 2, (5,))
    expected = losses.softmax_focal_loss(
        logits, targets, class_weights=[1.0, 2.0], gamma=[1.0, 3.0]
    )
    torch.testing.assert_close(loss(logits, targets), expected)
    alpha = torch.tensor([0.25, 0.5])
    sigmoid = losses.SigmoidFocalLoss(alpha=alpha)
    targets = torch.randint(0, 3, (5,))
    expected = losses.sigmoid_focal_loss(logits, targets, alpha=alpha)
    torch.testing.assert_close(sigmoid(logits, targets), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.SigmoidFocalLoss(alpha=0.0),
        lambda: losses.SigmoidFocalLoss(alpha=[0.5, 1.0]),
        lambda: losses.SigmoidFocalLoss(gamma=[1.0, -1.0]),
        lambda: losses.SoftmaxFocalLoss(gamma=[1.0, -1.0]),
    ],
)
def test_options_per_class_are_checked_when_the_module_is_made(
    make: Callable[[], nn.Module],
) -> None:
    with pytest.raises(ValueError, match=r"alpha=|gamma"):
        make()


def test_the_losses_need_nothing_of_the_detector() -> None:
    code = (
        "import sys, retina.losses; "
        "print(sorted(m for m in sys.modules if m.split('.')[0] in "
        "('pydantic', 'albumentations', 'cv2', 'typer', 'matplotlib') "
        "or m.startswith('retina.') and not m.startswith('retina.losses')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['retina.distributed', 'retina.errors', 'retina.wording']"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.QualityFocalLoss(beta=-1), "beta must be"),
        (lambda: losses.VarifocalLoss(alpha=0), "alpha must be"),
        (lambda: losses.VarifocalLoss(gamma=-1), "gamma must be"),
        (lambda: losses.TverskyLoss(delta=2), "delta must be"),
        (lambda: losses.DiceLoss(smooth=0), "smooth must be"),
        (lambda: losses.FocalTverskyLoss(gamma=0), "gamma must be"),
        (lambda: losses.UnifiedFocalLoss(gamma=1), "gamma must be"),
        (lambda: losses.UnifiedFocalLoss(weight=2), "weight must be"),
        (lambda: losses.SoftmaxFocalLoss(label_smoothing=2), "label_smoothing must be"),
        (lambda: losses.SoftmaxFocalLoss(class_weights=[1.0, -1.0]), "class_weights must be"),
    ],
)
def test_options_are_checked_when_the_module_is_made(
    make: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("pair", PAIRS, ids=names)
def test_a_reduction_is_checked_when_the_module_is_made_and_when_the_function_is_called(
    pair: tuple[type[nn.Module], Callable[..., Tensor]],
) -> None:
    module, function = pair
    message = "reduction must be 'none', 'sum' or 'mean', is 'avg'"
    with pytest.raises(ValueError, match=message):
        module(reduction="avg")
    with pytest.raises(ValueError, match=message):
        function(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), reduction="avg")


def test_options_per_class_keep_their_digits_wherever_the_module_goes() -> None:
    alpha = [0.3, 1e-6, 1 - 1e-6]  # the last one is 1 in float16
    loss = losses.SigmoidFocalLoss(alpha=alpha)
    logits, targets = torch.randn(5, 3, dtype=torch.float64), torch.randint(0, 4, (5,))
    expected = losses.sigmoid_focal_loss(logits, targets, alpha=alpha)
    assert torch.equal(loss(logits, targets), expected)
    assert torch.equal(loss.half()(logits, targets), expected)
    assert loss.to("meta").get_buffer("alpha").device.type == "meta"
    given = torch.tensor(alpha, requires_grad=True)
    kept = losses.SigmoidFocalLoss(alpha=given).bfloat16()
    kept(logits, targets).sum().backward()
    assert given.grad is not None
    assert kept.get_buffer("alpha").dtype == torch.float32
