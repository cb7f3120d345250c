import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retina.distributed import process_group, rank
from retina.losses import EqualizedFocalLoss, focal, sigmoid_focal_loss
from tests.processes import run_pair  # type: ignore[import-not-found]

K = 3


def random_case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, 50, K) and targets with few foreground rows and some ignored ones."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 50, K, generator=generator, dtype=torch.float64) * 2
    targets = torch.full((2, 50), K)
    targets[0, :4] = torch.tensor([0, 0, 1, 2])
    targets[1, :2] = torch.tensor([0, 1])
    targets[1, -5:] = -1
    return logits, targets


def one_hot(targets: torch.Tensor) -> torch.Tensor:
    return (targets.unsqueeze(-1) == torch.arange(K)).double()


def test_before_it_has_seen_anything_it_is_the_focal_loss() -> None:
    logits, targets = random_case()
    loss = EqualizedFocalLoss(K, alpha=0.25, gamma=2.0, scale=8.0)
    sums = loss(logits, targets, ignore_index=-1)
    focal = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2.0, ignore_index=-1)
    torch.testing.assert_close(sums.total, focal.sum(), rtol=1e-12, atol=0)
    is_class = (targets >= 0) & (targets < K)
    torch.testing.assert_close(sums.foreground, focal[is_class].sum(), rtol=1e-12, atol=0)
    assert loss.balance().tolist() == [1, 1, 1]


def test_with_a_known_balance_it_is_the_papers_formula() -> None:
    logits, targets = random_case()
    loss = EqualizedFocalLoss(K, alpha=0.25, gamma=2.0, scale=8.0)
    loss.positive_gradient.copy_(torch.tensor([1.0, 1.0, 9.0]))
    loss.negative_gradient.copy_(torch.tensor([2.0, 4.0, 3.0]))
    assert loss.balance().tolist() == [0.5, 0.25, 1.0]
    assert loss.focus().tolist() == [2 + 8 * 0.5, 2 + 8 * 0.75, 2]

    wanted = one_hot(targets).numpy()
    score = 1 / (1 + np.exp(-logits.numpy()))
    p_t = np.where(wanted > 0, score, 1 - score)
    alpha_t = np.where(wanted > 0, 0.25, 0.75)
    focus = np.array([6.0, 8.0, 2.0])
    elements = -focus / 2 * alpha_t * (1 - p_t) ** focus * np.log(p_t)
    weights = torch.rand(2, 50, dtype=torch.float64)
    rows = elements.sum(-1) * weights.numpy() * (targets.numpy() >= 0)
    sums = loss(logits, targets, ignore_index=-1, row_weights=weights)
    assert sums.total.item() == pytest.approx(rows.sum(), rel=1e-10)


def test_an_update_takes_in_the_gradients_of_all_levels_and_parts() -> None:
    loss = EqualizedFocalLoss(K).double()
    positive, everything = torch.zeros(K).double(), torch.zeros(K).double()
    for seed in range(3):  # levels, or accumulated parts
        logits, targets = random_case(seed)
        logits.requires_grad_()
        (1000 * loss(logits, targets, ignore_index=-1).total).backward()
        assert logits.grad is not None
        positive += (logits.grad.abs() * one_hot(targets)).sum((0, 1))
        everything += logits.grad.abs().sum((0, 1))
    assert loss.balance().tolist() == [1, 1, 1]  # until the step is done
    loss.update()
    expected = positive / (everything - positive)
    torch.testing.assert_close(loss.balance(), expected.clamp(max=1), rtol=1e-6, atol=0)
    assert (loss.positive_gradient.sum() + loss.negative_gradient.sum()).item() == pytest.approx(1)
    before = loss.balance()
    loss.update()  # nothing new
    assert torch.equal(loss.balance(), before)


def test_a_class_without_positives_gets_the_strongest_focus() -> None:
    logits, _ = random_case()
    logits = logits.float().requires_grad_()
    targets = torch.full((2, 50), K)
    targets[:, :20] = 0
    loss = EqualizedFocalLoss(K, gamma=2.0, scale=8.0)
    for _ in range(3):
        loss(logits, targets).total.backward()
        loss.update()
    focus = loss.focus()
    assert focus[1:].tolist() == [10.0, 10.0]
    assert 2 < focus[0] < 10


def test_the_size_of_the_loss_does_not_matter_and_an_overflow_is_left_out() -> None:
    logits, targets = random_case()
    balances = []
    for scale in (1.0, 2.0**16):
        loss = EqualizedFocalLoss(K)
        for seed in (0, 1):
            values = random_case(seed)[0].requires_grad_()
            (scale * loss(values, targets, ignore_index=-1).total).backward()
            loss.update()
        balances.append(loss.balance())
    torch.testing.assert_close(balances[0], balances[1])
    half = logits.half().requires_grad_()
    (1e9 * loss(half, targets, ignore_index=-1).total).backward()
    assert half.grad is not None
    assert half.grad.isinf().any()
    loss.update()
    assert torch.equal(loss.balance(), balances[1])


def test_only_training_teaches_it() -> None:
    logits, targets = random_case()
    loss = EqualizedFocalLoss(K)
    with torch.no_grad():
        loss(logits.requires_grad_(), targets, ignore_index=-1)
    loss.eval()
    loss(logits, targets, ignore_index=-1).total.backward()
    loss.update()
    assert loss.balance().tolist() == [1, 1, 1]


def test_its_state_is_in_the_state_dict_and_comes_back() -> None:
    logits, targets = random_case()
    first = EqualizedFocalLoss(K)
    first(logits.requires_grad_(), targets, ignore_index=-1).total.backward()
    first.update()
    assert set(first.state_dict()) == {"positive_gradient", "negative_gradient"}
    second = EqualizedFocalLoss(K)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.focus(), first.focus())
    assert second.focus().max() > 2


def learn_a_part(data: Path) -> None:
    """What a rank does in the test below."""
    with process_group("cpu"):
        logits, targets = torch.load(data)
        loss = EqualizedFocalLoss(K)
        for step in range(2):
            own = logits[step, rank()].requires_grad_()
            loss(own, targets[step, rank()], ignore_index=-1).total.backward()
            loss.update()
        data.with_name(f"{rank()}.json").write_text(json.dumps(loss.balance().tolist()))


@pytest.mark.slow
def test_two_ranks_learn_the_balance_of_both_of_their_parts(tmp_path: Path) -> None:
    cases = [random_case(seed) for seed in range(2)]
    logits = torch.stack([case[0] for case in cases])  # (steps, ranks, 50, K)
    targets = torch.stack([case[1] for case in cases])
    loss = EqualizedFocalLoss(K)
    for step in range(2):
        whole = logits[step].clone().requires_grad_()
        loss(whole, targets[step], ignore_index=-1).total.backward()
        loss.update()

    torch.save((logits, targets), tmp_path / "data.pt")
    done = run_pair(learn_a_part, tmp_path / "data.pt")
    assert done.returncode == 0, done.stderr
    balances = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert balances[0] == balances[1] == pytest.approx(loss.balance().tolist(), rel=1e-5)
    assert min(balances[0]) < 1


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="gamma must be above 0 and scale at least 0"):
        EqualizedFocalLoss(K, gamma=0.0)


def test_it_takes_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets = random_case()
    loss = EqualizedFocalLoss(K)
    loss.negative_gradient.copy_(torch.tensor([2.0, 4.0, 3.0]))
    weights = torch.rand(2, 50, dtype=torch.float64)
    results = []
    fused = focal.fused_focal_sums
    calls: list[bool] = []

    def counted(*inputs: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(True)
        return fused(*inputs, **options)

    monkeypatch.setattr(focal, "fused_focal_sums", counted)
    for is_fast in (True, False):
        if not is_fast:
            monkeypatch.setattr(focal, "can_fuse", lambda *_: False)
        x = logits.clone().requires_grad_()
        sums = loss(x, targets, ignore_index=-1, row_weights=weights)
        sums.total.backward()
        results.append((sums.total.detach(), sums.foreground, x.grad, loss._seen.clone()))
        loss._seen.zero_()
    assert calls == [True]
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-6, atol=0)
    assert results[0][3].min() > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nothing_comes_through_from_an_ignored_row(bad: float) -> None:
    logits, targets = random_case()
    loss = EqualizedFocalLoss(K)
    alone = loss(logits, targets, ignore_index=-1).total.item()
    logits[1, -1] = bad
    logits.requires_grad_()
    sums = loss(logits, targets, ignore_index=-1)
    sums.total.backward()
    assert sums.total.item() == alone
    assert logits.grad is not None
    assert logits.grad[1, -1].tolist() == [0] * K
    loss.update()
    assert loss.balance().isfinite().all()


def test_one_row_has_no_other_dimension() -> None:
    logits = torch.zeros(K, requires_grad=True)
    loss = EqualizedFocalLoss(K)
    loss(logits, torch.tensor(1)).total.backward()
    loss.update()
    assert loss.positive_gradient[1] > 0
    assert loss.positive_gradient[0] == 0


def test_options_that_make_no_sense_are_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="alpha=0 would give the foreground no loss"):
        EqualizedFocalLoss(K, alpha=0.0)
    for wrong in (0.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="gamma must be above 0"):
            EqualizedFocalLoss(K, gamma=wrong)
    with pytest.raises(ValueError, match="scale at least 0"):
        EqualizedFocalLoss(K, scale=math.inf)
