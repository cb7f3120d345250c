import numpy as np
import numpy.typing as npt
import pytest
import torch

from retina.losses import tversky_loss, unified_focal_loss

Array = npt.NDArray[np.float64]
CLIP = 1e-7


def published(
    probability: Array,
    wanted: Array,
    *,
    asymmetric: bool,
    weight: float,
    delta: float,
    gamma: float,
) -> float:
    """The authors' code (github.com/mlyg/unified-focal-loss) in numpy, channels second.

    Classes beyond the second are foreground like the second.
    """
    probability = np.clip(probability, CLIP, 1 - CLIP)
    axes = tuple(range(2, probability.ndim))
    tp = (wanted * probability).sum(axis=axes)
    fn = (wanted * (1 - probability)).sum(axis=axes)
    fp = ((1 - wanted) * probability).sum(axis=axes)
    index = (tp + CLIP) / (tp + delta * fn + (1 - delta) * fp + CLIP)
    tversky = (1 - index) * np.power(1 - index, -gamma)
    if asymmetric:
        tversky[:, 0] = 1 - index[:, 0]

    cross_entropy = -wanted * np.log(probability)
    faded = np.power(1 - probability, gamma) * cross_entropy
    background = (1 - delta) * faded[:, 0]
    foreground = delta * (cross_entropy if asymmetric else faded)[:, 1:].sum(axis=1)
    focal = (background + foreground).mean()
    return float(weight * tversky.mean() + (1 - weight) * focal)


def softmax(logits: Array) -> Array:
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = exponent / exponent.sum(axis=1, keepdims=True)
    return result


@pytest.mark.parametrize("shape", [(2, 2, 6, 5), (2, 4, 6, 5), (2, 2, 3, 4, 5), (2, 3, 3, 4, 5)])
@pytest.mark.parametrize("asymmetric", [True, False])
@pytest.mark.parametrize(
    ("weight", "delta", "gamma"), [(0.5, 0.6, 0.5), (0.3, 0.7, 0.2), (1.0, 0.6, 0.75), (0, 0.4, 0)]
)
def test_it_is_the_authors_code(
    shape: tuple[int, ...], asymmetric: bool, weight: float, delta: float, gamma: float
) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(*shape, generator=generator, dtype=torch.float64) * 2
    targets = torch.randint(0, shape[1], (shape[0], *shape[2:]), generator=generator)
    one_hot = np.moveaxis(np.eye(shape[1])[targets.numpy()], -1, 1)
    parameters = {"asymmetric": asymmetric, "weight": weight, "delta": delta, "gamma": gamma}
    expected = published(softmax(logits.numpy()), one_hot, **parameters)  # type: ignore[arg-type]
    loss = unified_focal_loss(logits, targets, **parameters)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    soft = unified_focal_loss(logits, torch.tensor(one_hot), **parameters)  # type: ignore[arg-type]
    assert soft.item() == pytest.approx(expected, rel=1e-10)


def test_values_worked_out_by_hand() -> None:
    # Foreground scores 0.8 on a foreground pixel, 0.4 on a background pixel; λ = δ = 1/2, γ = 0.5.
    # Foreground: TP 0.8, FN 0.2, FP 0.4: TI = 0.8/1.1. Background: TP 0.6, FN 0.4, FP 0.2: 0.6/0.9.
    logits = torch.logit(torch.tensor([0.8, 0.4], dtype=torch.float64)).reshape(1, 1, 2)
    targets = torch.tensor([[1, 0]])
    options = {"weight": 0.5, "delta": 0.5, "gamma": 0.5, "smooth": 1e-12}
    foreground, background = 0.3 / 1.1, 0.3 / 0.9

    tversky = (background + foreground**0.5) / 2
    focal = 0.5 * (0.4**0.5 * -np.log(0.6) + -np.log(0.8)) / 2
    loss = unified_focal_loss(logits, targets, asymmetric=True, **options)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(0.5 * tversky + 0.5 * focal, rel=1e-9)

    tversky = (background**0.5 + foreground**0.5) / 2
    focal = 0.5 * (0.4**0.5 * -np.log(0.6) + 0.2**0.5 * -np.log(0.8)) / 2
    loss = unified_focal_loss(logits, targets, asymmetric=False, **options)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(0.5 * tversky + 0.5 * focal, rel=1e-9)


def test_one_channel_is_two_classes_of_which_one_has_logit_zero() -> None:
    logits = torch.randn(3, 1, 4, 5, dtype=torch.float64)
    targets = torch.randint(0, 2, (3, 4, 5))
    two = torch.cat([torch.zeros_like(logits), logits], dim=1)
    torch.testing.assert_close(
        unified_focal_loss(logits, targets), unified_focal_loss(two, targets), rtol=1e-12, atol=0
    )


def test_reductions_pooling_and_ignored_pixels() -> None:
    logits = torch.randn(3, 4, 10, dtype=torch.float64)
    targets = torch.randint(0, 4, (3, 10))
    each = unified_focal_loss(logits, targets, reduction="none")
    assert each.shape == (3,)
    assert unified_focal_loss(logits, targets).item() == pytest.approx(each.mean().item())
    assert unified_focal_loss(logits, targets, reduction="sum").item() == pytest.approx(
        each.sum().item()
    )
    as_one = logits.transpose(0, 1).reshape(1, 4, 30)
    pooled = unified_focal_loss(logits, targets, pool_batch=True)
    torch.testing.assert_close(pooled, unified_focal_loss(as_one, targets.reshape(1, 30)))

    cut = unified_focal_loss(logits[..., :6], targets[..., :6], reduction="none")
    targets[..., 6:] = 255
    ignoring = unified_focal_loss(logits, targets, ignore_index=255, reduction="none")
    torch.testing.assert_close(ignoring, cut, rtol=1e-12, atol=0)


def test_at_gamma_zero_and_weight_one_it_is_the_tversky_loss() -> None:
    logits = torch.randn(2, 3, 20, dtype=torch.float64)
    targets = torch.randint(0, 3, (2, 20))
    unified = unified_focal_loss(logits, targets, weight=1.0, gamma=0.0, delta=0.6)
    torch.testing.assert_close(unified, tversky_loss(logits, targets, delta=0.6, smooth=1e-7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("asymmetric", [True, False])
def test_extreme_logits_stay_finite(dtype: torch.dtype, channels: int, asymmetric: bool) -> None:
    for sign in (-1, 1):
        for label in (0, 1):
            logits = torch.zeros(1, channels, 4, dtype=dtype)
            logits[:, min(1, channels - 1)] = sign * 1e4
            logits.requires_grad_()
            targets = torch.full((1, 4), label)
            loss = unified_focal_loss(logits, targets, asymmetric=asymmetric)
            loss.backward()
            assert loss.isfinite()
            assert logits.grad is not None
            assert logits.grad.isfinite().all()
            if channels == 1:  # right costs nothing, wrong about the logit
                right = (sign > 0) == (label == 1)
                share = 0.6 if label else 0.4
                expected = 0 if right else 0.5 * share * float(logits.detach().abs().max()) + 0.5
                assert loss.item() == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("asymmetric", [True, False])
def test_gradients_pass_gradcheck_twice(channels: int, asymmetric: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, channels, 3, 2, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    targets = torch.randint(0, max(2, channels), (2, 3, 2), generator=generator)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return unified_focal_loss(x, targets, asymmetric=asymmetric)

    assert torch.autograd.gradcheck(loss, (logits,))
    assert torch.autograd.gradgradcheck(loss, (logits,))


def test_it_compiles_whole_and_nothing_has_no_loss() -> None:
    logits, targets = torch.randn(2, 1, 4, 4), torch.randint(0, 2, (2, 4, 4))
    compiled = torch.compile(unified_focal_loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, targets), unified_focal_loss(logits, targets))
    nothing = unified_focal_loss(torch.zeros(0, 1, 4), torch.zeros(0, 4, dtype=torch.int64))
    assert nothing.item() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": 1.0}, "gamma must be at least 0 and below 1, is 1.0"),
        ({"weight": 1.1}, "weight must be between 0 and 1, is 1.1"),
        ({"delta": 0.0}, "delta must be between 0 and 1, is 0.0"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unified_focal_loss(
            torch.zeros(1, 1, 4),
            torch.zeros(1, 4, dtype=torch.int64),
            **arguments,  # type: ignore[arg-type]
        )
