import pytest
import torch
from torch import nn

from retina.training.hooks.averaging import WeightAverage


def test_the_average_follows_the_weights_by_its_decay() -> None:
    module = nn.Linear(1, 1)
    with torch.no_grad():
        module.weight.fill_(0.0)
    average = WeightAverage(module, decay=0.9)
    with torch.no_grad():
        module.weight.fill_(1.0)
    average.update(module, step=10_000)
    assert average.module.weight.item() == pytest.approx(0.1)
    average.update(module, step=10_000)
    assert average.module.weight.item() == pytest.approx(0.19)
    assert not average.module.weight.requires_grad


def test_early_steps_leave_the_random_start_behind() -> None:
    module = nn.Linear(1, 1)
    average = WeightAverage(module, decay=0.999)
    with torch.no_grad():
        module.weight.fill_(5.0)
    before = average.module.weight.item()
    average.update(module, step=0)  # decay (1 + 0) / (10 + 0)
    assert average.module.weight.item() == pytest.approx(0.1 * before + 0.9 * 5.0)


def test_running_statistics_are_averaged_and_counters_copied() -> None:
    module = nn.BatchNorm1d(2)
    average = WeightAverage(module, decay=0.5)
    module.train()(torch.tensor([[10.0, 0.0], [30.0, 0.0]]))
    average.update(module, step=10_000)
    assert average.module.running_mean is not None
    torch.testing.assert_close(average.module.running_mean, torch.tensor([1.0, 0.0]))
    assert average.module.num_batches_tracked.item() == 1


def test_a_masked_step_leaves_the_average_and_others_move_it_to_the_last_bit() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5))
    masked, plain = (WeightAverage(module, decay=0.9) for _ in range(2))
    for step in range(20):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += torch.randn_like(parameter)
        plain.update(module, step)
        masked.update(module, step, masked=torch.tensor(0.0))
        masked.update(module, step, masked=torch.tensor(1.0))
        for name, value in plain.module.state_dict().items():
            assert torch.equal(masked.module.state_dict()[name], value), name
