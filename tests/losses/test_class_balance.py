import pytest
import torch

from retina.losses import (
    class_balanced_alpha,
    class_balanced_weights,
    effective_numbers,
    sigmoid_focal_loss,
)


def test_effective_numbers_are_geometric_sums() -> None:
    # 1 + 0.9 + 0.81 = 2.71 for three examples; the limit is 1/(1 - 0.9) = 10.
    numbers = effective_numbers([1, 3, 10_000, 0], beta=0.9)
    assert numbers.tolist() == pytest.approx([1.0, 2.71, 10.0, 1.0], rel=1e-12)
    assert effective_numbers([1, 7, 500], beta=0.0).tolist() == [1, 1, 1]
    assert effective_numbers([5, 70], beta=1 - 1e-9).tolist() == pytest.approx([5, 70], rel=1e-6)


def test_weights_are_the_inverse_and_sum_to_the_number_of_classes() -> None:
    weights = class_balanced_weights([1, 3], beta=0.9)
    assert weights.tolist() == pytest.approx([2 * 2.71 / 3.71, 2 / 3.71], rel=1e-12)
    assert weights.sum().item() == pytest.approx(2)


def test_alpha_moves_the_odds_by_the_weights() -> None:
    counts, beta = [1, 3], 0.9
    alpha = class_balanced_alpha(counts, beta=beta, alpha=0.25)
    # 1/E = 1 and 1/2.71; mean over the four examples: (1 + 3/2.71) / 4
    mean = (1 + 3 / 2.71) / 4
    odds = [1 / mean / 3, 1 / 2.71 / mean / 3]
    assert alpha.tolist() == pytest.approx([o / (1 + o) for o in odds], rel=1e-12)
    assert alpha[0] > 0.25 > alpha[1]


def test_classes_of_equal_frequency_keep_alpha() -> None:
    for counts in ([40, 40, 40], [0, 0, 0], torch.tensor([7, 7])):
        alpha = class_balanced_alpha(counts, alpha=0.3)
        assert alpha.tolist() == pytest.approx([0.3] * len(counts), rel=1e-12)
    assert class_balanced_alpha([1, 100], beta=0.0, alpha=0.3).tolist() == pytest.approx([0.3] * 2)


def test_a_long_tail_stays_within_what_an_alpha_may_be() -> None:
    alpha = class_balanced_alpha([1_000_000, 1000, 1, 0], beta=0.9999)
    assert (alpha > 0).all()
    assert (alpha.float() < 1).all()
    assert alpha.tolist() == sorted(alpha.tolist())
    assert alpha[0].item() == pytest.approx(0.25, abs=0.05)  # nearly all objects are of it
    extreme = class_balanced_alpha([10**9, 1], beta=1 - 1e-9).float()
    assert extreme[1].item() == pytest.approx(1 - 1e-6)
    sigmoid_focal_loss(torch.zeros(1, 2), torch.tensor([0]), alpha=extreme)  # is no error


@pytest.mark.parametrize("counts", [[], [3, -1], [[1, 2]], [float("nan")]])
def test_counts_that_make_no_sense_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="counts must be one number ≥ 0 per class"):
        effective_numbers(counts)


def test_parameters_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="beta must be at least 0 and below 1, is 1"):
        effective_numbers([1, 2], beta=1)
    with pytest.raises(ValueError, match="alpha must be between 0 and 1, is 1"):
        class_balanced_alpha([1, 2], alpha=1)
