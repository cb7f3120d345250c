"""A step that is not finite changes nothing; a finite one is what it was without the guard."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from retina.datasets.loading import collate
from retina.modeling.detector import RetinaNet
from retina.modeling.preprocess import PreprocessConfig
from retina.objective.criterion import Criterion, ObjectiveConfig
from retina.structures import Batch
from retina.training.finite_guard import GuardedOptimizer, RunningState
from retina.training.forward import ForwardPass
from retina.training.hooks.averaging import WeightAverage
from retina.training.optimization import AdamWConfig, SGDConfig, set_learning_rate
from retina.training.step import StepResult, TrainingStep
from tests.small_detector import small_detector  # type: ignore[import-not-found]
from tests.training.poison import break_on_poison, poisoned  # type: ignore[import-not-found]
from tests.training.test_step import make_samples  # type: ignore[import-not-found]

CPU = torch.device("cpu")
OBJECTIVE = ObjectiveConfig.model_validate_json(
    """{"normalizer": "moving_average", "classification": {"kind": "equalized_focal"}}"""
)
OPTIMIZERS = {
    "sgd": SGDConfig(lr=0.01),
    "nesterov": SGDConfig(lr=0.01, nesterov=True),
    "adamw": AdamWConfig(lr=1e-3),
}


class Run:
    """A small training whose every state can be looked at."""

    def __init__(
        self,
        optimizer: str = "sgd",
        *,
        clip_norm: float | None = None,
        objective: ObjectiveConfig = OBJECTIVE,
    ) -> None:
        self.detector: RetinaNet = small_detector(3)
        break_on_poison(self.detector)
        self.criterion: Criterion = objective.build(self.detector.box_coder, class_counts=[1, 1, 1])
        self.optimizer = OPTIMIZERS[optimizer].build(self.detector)
        self.average = WeightAverage(self.detector, 0.9)
        forward = ForwardPass(
            detector=self.detector,
            preprocess=PreprocessConfig().build(),
            criterion=self.criterion,
            device=CPU,
            precision="fp32",
        )
        self.step = TrainingStep(forward, self.optimizer, clip_norm=clip_norm)
        self.last: StepResult | None = None

    def __call__(self, parts: Sequence[Batch], number: int) -> float:
        set_learning_rate(self.optimizer, 0.01 / (1 + number))
        self.last = self.step(parts)
        self.average.update(self.detector, number, masked=self.last.masked)
        return self.last.losses.total.item()

    @property
    def is_masked(self) -> bool:
        assert self.last is not None
        return bool(self.last.masked)

    def state(self) -> dict[str, Any]:
        return copy.deepcopy(
            {
                "detector": self.detector.state_dict(),
                "average": self.average.module.state_dict(),
                "criterion": self.criterion.state_dict(),
                "optimizer": dict(enumerate(self.optimizer.state_dict()["state"].values())),
            }
        )


def assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    if isinstance(theirs, Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for name in theirs:
            assert_same(ours[name], theirs[name], f"{where}.{name}")
    else:
        assert ours == theirs, where


def make_batch(number: int) -> Batch:
    return collate(make_samples([3 + number, 1, number % 3]))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_masked_step_changes_nothing_and_the_rest_goes_on_without_it(
    optimizer: str, clip_norm: float | None
) -> None:
    guarded, spared = (Run(optimizer, clip_norm=clip_norm) for _ in range(2))
    for number in range(6):
        batch = make_batch(number)
        if number in (0, 3):  # also the first of all, in which the optimizer has no state yet
            before = guarded.state()
            guarded([batch, poisoned(batch)], number)
            assert guarded.is_masked
            for part in ("detector", "average", "criterion"):
                assert_same(guarded.state()[part], before[part], part)
            if number:
                assert_same(guarded.state()["optimizer"], before["optimizer"], "optimizer")
            continue
        guarded([batch], number)
        spared([batch], number)
        assert not guarded.is_masked
        assert_same(guarded.state(), spared.state())


def test_the_buffers_that_a_poisoned_image_would_spoil_are_tested_above() -> None:
    """Without the guard the statistics, the normalizer and the class balance would all move."""
    run = Run()
    names = {name for name, _ in run.criterion.named_buffers()}
    assert "moving_average" in names
    assert any("positive_gradient" in name for name in names)
    assert any(isinstance(part, nn.BatchNorm2d) for part in run.detector.modules())
    before = run.state()
    run([make_batch(1)], 0)
    after = run.state()
    for name in ("backbone.bn1.running_mean", "backbone.bn1.num_batches_tracked"):
        assert not torch.equal(after["detector"][name], before["detector"][name])
    assert not torch.equal(after["criterion"]["moving_average"], torch.tensor(100.0))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_gradient_alone_masks_the_step(bad: float) -> None:
    run = Run("adamw")
    run([make_batch(0)], 0)
    before = run.state()
    bias = run.detector.head.classification.output.bias
    handle = bias.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor(1), bad))
    run([make_batch(1)], 1)
    handle.remove()
    assert_same(run.state(), before)
    assert run.last is not None
    verdict = run.last.verdict.read()
    assert (verdict.is_applied, verdict.is_loss_finite) == (False, True)


def test_an_error_in_the_middle_of_a_step_leaves_no_trace() -> None:
    run = Run()
    run([make_batch(0)], 0)
    before = run.state()

    def fail() -> None:
        raise KeyError("before the update")

    with pytest.raises(KeyError):
        run.step([make_batch(1)], before_update=fail)
    assert_same(run.state(), before)
    other = Run()
    other([make_batch(0)], 0)
    run([make_batch(2)], 2)
    other([make_batch(2)], 2)
    assert_same(run.state(), other.state())


def plain_step(run: Run, parts: Sequence[Batch], clip_norm: float | None) -> None:
    """A step as it was before there was a guard."""
    run.detector.train()
    run.optimizer.zero_grad(set_to_none=True)
    totals = torch.zeros(5)
    for batch in parts:
        sums = run.step.forward.losses(batch)
        (sums.total / 1.0).backward()  # type: ignore[no-untyped-call]
        totals += sums.detach_stack()
    factor = 1.0 / run.criterion.step_divisor(totals[4])
    groups = run.optimizer.param_groups
    gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
    if clip_norm is not None:
        norm = factor * nn.utils.get_total_norm(gradients, foreach=True)
        factor = factor * (clip_norm / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, factor)
    run.optimizer.step()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_finite_steps_are_bit_identical_with_steps_without_a_guard(
    optimizer: str, clip_norm: float | None
) -> None:
    guarded, plain = (Run(optimizer, clip_norm=clip_norm) for _ in range(2))
    for number in range(5):
        parts = [make_batch(number), make_batch(number + 1)]
        guarded(parts, number)
        set_learning_rate(plain.optimizer, 0.01 / (1 + number))
        plain_step(plain, parts, clip_norm)
        plain.average.update(plain.detector, number)
        assert_same(guarded.state(), plain.state())


@pytest.mark.parametrize("masked_first", [False, True])
def test_sgd_keeps_a_whole_momentum_when_its_first_step_is_masked(masked_first: bool) -> None:
    """torch's fused SGD allocates the momentum in its first step and then skips filling it."""
    weight = nn.Parameter(torch.ones(4096))
    junk = [torch.full((4096,), 1e30) for _ in range(8)]
    del junk  # so that what is allocated next is not zero by chance
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, fused=True)
    guarded = GuardedOptimizer(optimizer)
    if masked_first:
        weight.grad = torch.full((4096,), torch.nan)
        masked = guarded.step(torch.tensor(1.0), torch.tensor(True), clip_norm=None)
        assert masked.item() == 1
    for _ in range(2):
        weight.grad = torch.ones(4096)
        guarded.step(torch.tensor(0.5), torch.tensor(True), clip_norm=None)
    # v1 = 0.5, v2 = 0.9 · 0.5 + 0.5 = 0.95; w = 1 - 0.1 (0.5 + 0.95)
    torch.testing.assert_close(weight.detach(), torch.full((4096,), 0.855))


def test_an_optimizer_that_cannot_mask_is_refused() -> None:
    plain = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(ValueError, match=r"SGD cannot leave out an update .* fused=True"):
        GuardedOptimizer(plain)


def test_running_state_goes_back_only_where_the_flag_says_so() -> None:
    tensors = [torch.arange(3.0), torch.tensor(7), torch.ones(2, 2), torch.tensor(5)]
    running = RunningState(tensors)
    for flag, expected in ((0.0, [1.0, 8, 2.0, 6]), (1.0, [1.0, 8, 2.0, 6])):
        running.remember()
        if flag:
            tensors[0].fill_(torch.nan)
            tensors[1].fill_(-1)
        else:
            for tensor in tensors:
                tensor += 1
        running.restore_where(torch.tensor(flag))
        assert [tensor.flatten()[0].item() for tensor in tensors] == expected
    assert tensors[0].tolist() == [1.0, 2.0, 3.0]


def test_scaled_gradients_that_overflow_are_masked_until_the_scale_fits() -> None:
    """What fp16 does, in fp32: a CPU takes minutes for convolutions in fp16."""
    run = Run("sgd", objective=ObjectiveConfig())
    run.step.scaler = torch.GradScaler("cpu", init_scale=2.0**126)
    before = run.state()["detector"]
    run([make_batch(0)], 0)
    assert run.is_masked
    assert run.step.scaler.get_scale() == 2.0**125
    assert_same(run.state()["detector"], before)
    num_masked = 1
    while run.is_masked:
        run([make_batch(0)], 1)
        num_masked += int(run.is_masked)
        assert num_masked < 40
    assert run.step.scaler.get_scale() == 2.0 ** (126 - num_masked)
    after = run.state()["detector"]
    assert not torch.equal(after["backbone.conv1.weight"], before["backbone.conv1.weight"])
    assert all(value.isfinite().all() for value in after.values())


def test_what_was_remembered_is_there_for_a_look_and_then_gone() -> None:
    average, count = torch.tensor([1.0, 2.0]), torch.tensor(3)
    state = RunningState([average, count])
    state.remember()
    average += 10
    count += 1
    with state.as_remembered():
        assert average.tolist() == [1.0, 2.0]
        assert count == 3
    assert average.tolist() == [11.0, 12.0]
    assert count == 4
