import pytest
import torch

from retina.losses.reduction import check_reduction, reduced


def test_the_three_reductions_by_hand() -> None:
    loss = torch.tensor([1.0, 2.0, 6.0])
    assert reduced(loss, "none", 2) is loss
    assert reduced(loss, "sum", 2).item() == 9
    assert reduced(loss, "mean", 2).item() == 4.5
    assert reduced(loss, "mean", torch.tensor(0.25)).item() == 36
    assert reduced(loss, "mean", torch.tensor(3)).item() == 3


@pytest.mark.parametrize("divisor", [0, torch.tensor(0), torch.tensor(0.0)])
def test_the_mean_of_nothing_is_0(divisor: torch.Tensor | int) -> None:
    assert reduced(torch.zeros(0), "mean", divisor).item() == 0


def test_others_are_refused() -> None:
    with pytest.raises(ValueError, match="reduction must be 'none', 'sum' or 'mean', is 'avg'"):
        check_reduction("avg")
