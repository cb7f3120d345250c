"""One optimizer step: what it waits for, and what it does to a batch that is not finite."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from retina.devices import Precision
from retina.experiment import build_experiment, load_experiment
from retina.structures import Batch
from retina.training.finite_guard import Verdict
from retina.training.optimization import AdamWConfig, SGDConfig
from retina.training.trainer import Trainer
from tests.cuda.check import Check, Setting  # type: ignore[import-not-found]
from tests.cuda.small import (  # type: ignore[import-not-found]
    assert_equal,
    make_batch,
    make_step,
    state_of,
    write_config,
)
from tests.training.poison import break_on_poison, poisoned  # type: ignore[import-not-found]


@dataclass(frozen=True)
class Case:
    """A kind of step."""

    precision: Precision = "fp32"
    objective: str = "{}"
    clip_norm: float | None = None
    num_parts: int = 1
    num_crowd: int = 0
    optimizer: SGDConfig | AdamWConfig | None = None


CASES = {
    "fp32": Case(),
    "bf16": Case("bf16"),
    "fp16": Case("fp16"),
    "atss": Case(objective='{"assigner": {"kind": "atss"}}'),
    "crowd": Case(num_crowd=2),
    "quality_focal": Case("bf16", '{"classification": {"kind": "quality_focal"}}'),
    "varifocal": Case("bf16", '{"classification": {"kind": "varifocal"}}'),
    "equalized_focal": Case("bf16", '{"classification": {"kind": "equalized_focal"}}'),
    "alpha_per_class": Case(
        objective='{"classification": {"kind": "focal", "alpha": [0.2, 0.3, 0.4]}}'
    ),
    "giou": Case(objective='{"box": {"kind": "giou"}}'),
    "ciou": Case(objective='{"box": {"kind": "ciou"}}'),
    "per_image": Case(objective='{"normalizer": "per_image"}'),
    "accumulation_clip": Case("bf16", '{"normalizer": "moving_average"}', 1.0, num_parts=2),
    "accumulation_clip_fp16": Case("fp16", clip_norm=1.0, num_parts=2),
    "adamw": Case("bf16", clip_norm=1.0, optimizer=AdamWConfig(lr=1e-3)),
}


def check_no_wait(case: Case, setting: Setting) -> str:
    """A step after the first one gives the host no reason to wait."""
    step = make_step(
        setting.device,
        precision=case.precision,
        objective=case.objective,
        optimizer=case.optimizer,
        clip_norm=case.clip_norm,
    )
    batch = make_batch([9, 0, 1, 3], num_crowd=case.num_crowd).pin_memory()
    parts = [batch] * case.num_parts
    first = step(parts)  # anchors, kernels and allocations of the first time
    torch.cuda.synchronize()
    read: list[Verdict] = []
    torch.cuda.set_sync_debug_mode("error")
    try:
        # The verdict on the step before is read from memory of the host.
        result = step(parts, before_update=lambda: read.append(first.verdict.read()))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(read) == 1
    assert result.losses.total.isfinite()
    return f"loss {result.losses.total.item():.4g}"


def check_loop_does_not_wait(setting: Setting) -> str:
    """Neither do the hooks of the training loop, in a step without a log line or an anatomy."""
    config = write_config(setting.folder, setting.device)
    options = (
        *(f"output_dir={setting.folder / 'run'}", "training.max_steps=8", "training.epochs=4"),
        *("training.log_every_steps=1000", "training.anatomy_every_steps=1000"),
        *("training.average_decay=0.9", "training.precision=bf16", "training.num_workers=2"),
        "preprocess={stretch: true, min_size: 64, max_size: 64}",  # one size, anchors of one
    )
    experiment = build_experiment(load_experiment(config, options), quiet=True)
    advance, watched = Trainer._advance, []

    def strict(trainer: Trainer, micro_batches: list[Batch]) -> None:
        is_watched = trainer.training_run.step in (4, 7)  # not right after an evaluation
        torch.cuda.set_sync_debug_mode("error" if is_watched else "default")
        try:
            advance(trainer, micro_batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        watched.append(is_watched)

    Trainer._advance = strict  # type: ignore[method-assign]
    try:
        outcome = experiment.trainer.run()
    finally:
        Trainer._advance = advance  # type: ignore[method-assign]
    assert outcome.step == 8, outcome
    assert sum(watched) == 2
    return "2 of 8 steps watched"


def check_nan_guard(precision: Precision, optimizer: str, setting: Setting) -> str:
    """A poisoned batch changes nothing, also as the first of all; the next ones are learned."""
    step = make_step(
        setting.device,
        precision=precision,
        objective='{"normalizer": "moving_average", "classification": {"kind": "equalized_focal"}}',
        optimizer=AdamWConfig(lr=1e-3) if optimizer == "adamw" else SGDConfig(lr=0.01),
        clip_norm=1.0,
    )
    break_on_poison(step.forward.detector)
    bad, good = poisoned(make_batch([3, 1], seed=1)), make_batch([2, 4], seed=2)

    before = {name: value for name, value in state_of(step).items() if "optimizer" not in name}
    verdict = step([good, bad]).verdict.read()
    assert not verdict.is_applied, "a poisoned first step was applied"
    assert not verdict.is_loss_finite
    after = {name: value for name, value in state_of(step).items() if "optimizer" not in name}
    assert_equal(after, before)  # the optimizer has made its state, with nothing in it

    overflows = _until_applied(step, good)
    before = state_of(step)
    assert all(value.isfinite().all() for value in before.values()), "a state is not finite"
    assert not step([bad]).verdict.read().is_applied, "a poisoned step was applied"
    assert_equal(state_of(step), before)
    overflows += _until_applied(step, good)
    after = state_of(step)
    assert all(value.isfinite().all() for value in after.values()), "a state is not finite"
    weight = ".detector.backbone.conv1.weight"
    assert not torch.equal(after[weight], before[weight]), "nothing is learned any more"
    return f"{len(before)} tensors" + (f", {overflows} overflows" if precision == "fp16" else "")


def _until_applied(step: Callable[..., object], batch: Batch) -> int:
    """Repeat a step while fp16's gradients overflow; returns how often they did."""
    for overflows in range(20):
        verdict = step([batch]).verdict.read()  # type: ignore[attr-defined]
        if verdict.is_applied:
            return overflows
        assert verdict.is_loss_finite, "the loss of a good batch is not finite"
    raise AssertionError("20 steps in a row were not applied")


def check_same_step_as_cpu(setting: Setting) -> str:
    """In fp32, losses and gradients are those of the CPU."""
    results = []
    for device in (setting.device, torch.device("cpu")):
        step = make_step(device, objective='{"box": {"kind": "giou"}}')
        losses = step([make_batch([9, 0, 1, 3], num_crowd=1)]).losses.detach_stack().cpu()
        weights = step.forward.detector.parameters()
        results.append((losses, [w.grad.cpu() for w in weights if w.grad is not None]))
    (losses, gradients), (wanted_losses, wanted_gradients) = results
    torch.testing.assert_close(losses, wanted_losses, rtol=1e-4, atol=1e-4)
    worst = 0.0
    for ours, theirs in zip(gradients, wanted_gradients, strict=True):
        scale = theirs.abs().max().item()
        if scale > 1e-6:  # else it is a sum that cancels
            worst = max(worst, (ours - theirs).abs().max().item() / scale)
    assert worst < 1e-2, f"a gradient is {worst:.2g} of its largest entry away"
    return f"gradients within {worst:.1e} of the largest entry"


def check_memory_is_steady(setting: Setting) -> str:
    """A step leaves no memory of the GPU behind."""
    step = make_step(setting.device, precision="bf16", clip_norm=1.0)
    batch = make_batch([9, 0, 1, 3])
    seen = []
    for number in range(60):
        step([batch, batch]).verdict.read()
        if number in (9, 59):
            gc.collect()
            seen.append(torch.cuda.memory_allocated(setting.device))
    assert seen[0] == seen[1], f"{seen[1] - seen[0]} bytes more after 50 steps"
    return f"{seen[0] / 2**20:.1f} MiB"


STEP_CHECKS = [
    *(
        Check(f"no wait in a step: {name}", partial(check_no_wait, case), needs_gpu=True)
        for name, case in CASES.items()
    ),
    Check("no wait in the training loop", check_loop_does_not_wait, needs_gpu=True),
    *(
        Check(
            f"NaN guard: {precision} {optimizer}",
            partial(check_nan_guard, precision, optimizer),
            needs_gpu=precision == "fp16",
        )
        for precision, optimizer in (
            ("fp32", "sgd"),
            ("bf16", "sgd"),
            ("bf16", "adamw"),
            ("fp16", "sgd"),
            ("fp16", "adamw"),
        )
    ),
    Check("a step in fp32 is the CPU's", check_same_step_as_cpu),
    Check("memory of the GPU is steady", check_memory_is_steady, needs_gpu=True),
]
