import pytest
import torch
from torch import nn

from retina.training.optimization import (
    AdamWConfig,
    CosineConfig,
    MultiStepConfig,
    OneCycleConfig,
    ScheduleConfig,
    SGDConfig,
    WarmUp,
    parameter_groups,
    peak_learning_rate,
    set_learning_rate,
    settling_step,
)


def test_one_cycle_equals_torchs_at_every_step() -> None:
    total = 137
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.3, total_steps=total, pct_start=0.1
    )
    factor = OneCycleConfig(warm_up_fraction=0.1).build(total)
    for step in range(total):
        assert 0.3 * factor(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        if step < total - 1:
            theirs.step()


def test_multi_step_warms_up_and_drops_where_the_paper_does() -> None:
    factor = MultiStepConfig(warm_up=WarmUp(steps=500, start_factor=0.001)).build(90_000)
    assert factor(0) == pytest.approx(0.001)
    assert factor(250) == pytest.approx(0.5005)
    assert factor(500) == 1.0
    assert factor(59_999) == 1.0
    assert factor(60_000) == pytest.approx(0.1)
    assert factor(80_000) == pytest.approx(0.01)


def test_cosine_goes_from_warm_up_to_its_final_factor() -> None:
    factor = CosineConfig(warm_up=WarmUp(steps=10), final_factor=0.01).build(111)
    assert factor(10) == 1.0
    assert factor(60) == pytest.approx(0.505)
    assert factor(110) == pytest.approx(0.01)


def test_warm_up_takes_at_most_half_of_a_short_training() -> None:
    factor = MultiStepConfig(warm_up=WarmUp(steps=1000), drops=()).build(20)
    assert factor(9) < 1
    assert factor(10) == 1


@pytest.mark.parametrize(
    ("schedule", "step"),
    [
        (MultiStepConfig(), 60),  # a plateau before the first drop says nothing
        (MultiStepConfig(drops=()), 45),  # never falls: from the peak on
        (MultiStepConfig(drops=(), warm_up=WarmUp(steps=0)), 0),
        (CosineConfig(warm_up=WarmUp(steps=10)), 50),
        (CosineConfig(warm_up=WarmUp(steps=10), final_factor=0.9), 10),
        (OneCycleConfig(warm_up_fraction=0.1), 49),
    ],
)
def test_a_rate_has_settled_at_half_of_its_peak(schedule: ScheduleConfig, step: int) -> None:
    factor = schedule.build(90)
    assert settling_step(factor, 90) == step
    if schedule.kind == "multi_step" and schedule.drops:
        assert [factor(step - 1), factor(step)] == pytest.approx([1.0, 0.1])


def test_a_training_of_one_step_has_settled_at_once() -> None:
    assert settling_step(OneCycleConfig().build(1), 1) == 0


def test_norms_and_biases_are_a_group_of_their_own() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 2))
    module[2].bias.requires_grad_(False)
    weights, norms = parameter_groups(module, weight_decay=0.05, norm_weight_decay=0.0)
    assert weights["params"] == [module[0].weight, module[2].weight]
    assert norms["params"] == [module[0].bias, module[1].weight, module[1].bias]
    assert (weights["weight_decay"], norms["weight_decay"]) == (0.05, 0.0)


@pytest.mark.parametrize("config", [SGDConfig(lr=0.4), AdamWConfig(lr=0.4)])
def test_optimizers_are_built_with_the_rate_and_follow_it(config: SGDConfig | AdamWConfig) -> None:
    optimizer = config.build(nn.Linear(2, 2))
    assert [group["lr"] for group in optimizer.param_groups] == [0.4, 0.4]
    set_learning_rate(optimizer, 0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]


@pytest.mark.parametrize("kind", [SGDConfig, AdamWConfig])
def test_a_backbone_may_learn_more_slowly(kind: type[SGDConfig | AdamWConfig]) -> None:
    module = nn.Module()
    module.backbone, module.head = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = kind(lr=0.4, backbone_lr_factor=0.25).build(module)
    rates = {
        parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]
    }
    assert [rates[p] for p in module.backbone.parameters()] == [0.1, 0.1]
    assert [rates[p] for p in module.head.parameters()] == [0.4, 0.4]
    set_learning_rate(optimizer, 0.2)
    assert sorted(group["lr"] for group in optimizer.param_groups) == [0.05, 0.05, 0.2, 0.2]
    decays = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays[module.backbone.weight] == decays[module.head.weight] > 0
    assert decays[module.backbone.bias] == decays[module.head.bias] == 0


def test_groups_are_as_ever_where_all_rates_are_equal() -> None:
    module = nn.Module()
    module.backbone, module.head = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = parameter_groups(module, weight_decay=0.05, norm_weight_decay=0.0)
    assert [set(group) for group in groups] == [{"params", "weight_decay"}] * 2
    assert groups[0]["params"] == [module.backbone.weight, module.head.weight]


def test_linear_scaling_is_an_option() -> None:
    assert peak_learning_rate(SGDConfig(lr=0.01), 4) == 0.01
    assert peak_learning_rate(SGDConfig(lr=0.01, reference_batch_size=16), 4) == 0.0025


@pytest.mark.parametrize("total", range(1, 21))
@pytest.mark.parametrize(
    "config",
    [
        OneCycleConfig(),
        MultiStepConfig(),
        MultiStepConfig(warm_up=WarmUp(steps=0)),
        MultiStepConfig(drops=(0.01, 0.3)),  # within the warm-up
        CosineConfig(),
        CosineConfig(warm_up=WarmUp(steps=0)),
    ],
)
def test_a_training_of_few_steps_reaches_its_peak(
    config: OneCycleConfig | MultiStepConfig | CosineConfig, total: int
) -> None:
    factor = config.build(total)
    assert max(factor(step) for step in range(total)) == 1.0


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.5, 0.99])
def test_one_cycle_of_up_to_three_steps(fraction: float) -> None:
    config = OneCycleConfig(warm_up_fraction=fraction, start_factor=0.2, final_factor=0.1)
    factors = [[config.build(total)(step) for step in range(total)] for total in (1, 2, 3)]
    assert factors == [[1.0], pytest.approx([0.2, 1.0]), pytest.approx([0.2, 1.0, 0.1])]
