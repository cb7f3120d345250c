"""One step run again, layer by layer, to see where it stops being finite."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from retina.devices import Precision
from retina.modeling.detector import RetinaNet
from retina.structures import Batch
from retina.training.forward import ForwardPass


@dataclass(frozen=True, slots=True)
class LayerRange:
    """What a layer put out, over all micro-batches and all levels of the pyramid.

    Attributes:
        name: its path in the detector, or ``preprocess``.
        kind: its class.
        smallest, largest: of the finite values; NaN where there are none.
        num_not_finite: values that are NaN or infinite.
        num_values: all values.
    """

    name: str
    kind: str
    smallest: float
    largest: float
    num_not_finite: int
    num_values: int


@dataclass(frozen=True, slots=True)
class LayerCheck:
    """What a step does in one precision.

    Attributes:
        precision: of the network.
        layers: in the order in which they first ran.
        first_layer: the first output that is not finite, or None.
        losses: (classification, box regression) of each micro-batch, summed, not yet divided.
        weights: the parameters that were not finite before the step.
        gradient: the first parameter, on the way back, whose gradient is not finite, or None.
    """

    precision: Precision
    layers: tuple[LayerRange, ...]
    first_layer: LayerRange | None
    losses: tuple[tuple[float, float], ...]
    weights: tuple[str, ...]
    gradient: str | None

    @property
    def has_finite_losses(self) -> bool:
        """Whether every loss is finite."""
        return all(math.isfinite(loss) for part in self.losses for loss in part)

    @property
    def is_finite(self) -> bool:
        """Whether nothing at all is NaN or infinite."""
        return (
            not self.weights
            and self.first_layer is None
            and self.has_finite_losses
            and self.gradient is None
        )

    def describe(self) -> str:
        """Where it breaks, as the end of a sentence that begins with "in fp32"."""
        if self.weights:
            more = f" and {len(self.weights) - 1} more" if len(self.weights) > 1 else ""
            return f"the weights {self.weights[0]}{more} were not finite before the step"
        if self.first_layer is not None:
            layer = self.first_layer
            return (
                f"the first output that is not finite is that of {layer.name} ({layer.kind}: "
                f"{layer.num_not_finite} of {layer.num_values} values)"
            )
        names = ("classification", "box regression")
        for part in self.losses:
            broken = [n for n, loss in zip(names, part, strict=True) if not math.isfinite(loss)]
            if broken:
                return f"every layer is finite, the {' and the '.join(broken)} loss is not"
        if self.gradient is not None:
            return (
                "every layer and loss is finite; going back, the first gradient that is not is "
                f"that of {self.gradient}"
            )
        return "everything is finite"


def check_layers(forward: ForwardPass, micro_batches: Sequence[Batch]) -> LayerCheck:
    """Run the forward and the backward pass of a step on copies, which are then forgotten.

    Args:
        forward: the detector and the criterion as they were before the step.
        micro_batches: of the step.
    """
    detector, criterion = _private(forward.detector), copy.deepcopy(forward.criterion)
    forward = replace(forward, detector=detector, criterion=criterion)
    weights = [
        name for name, weight in detector.named_parameters() if not bool(weight.isfinite().all())
    ]
    layers, gradients, losses = _Layers(), _Gradients(detector), []
    with layers.watching({"preprocess": forward.preprocess, **_leaves(detector)}):
        for batch in micro_batches:
            sums = forward.losses(batch)
            sums.total.backward()  # type: ignore[no-untyped-call]
            losses.append((sums.classification.item(), sums.box_regression.item()))
    return LayerCheck(
        precision=forward.precision,
        layers=layers.ranges(),
        first_layer=layers.first_not_finite(),
        losses=tuple(losses),
        weights=tuple(weights),
        gradient=gradients.first_not_finite(),
    )


def describe_checks(checks: Sequence[LayerCheck]) -> str:
    """Where each run of the step breaks."""
    if not checks:
        return "it could not be run again, for lack of memory or another error"
    return "; ".join(f"in {check.precision} {check.describe()}" for check in checks)


def fix_of_checks(checks: Sequence[LayerCheck]) -> str:
    """What the checks say about a fix, a sentence without its full stop; empty for nothing."""
    if len(checks) > 1 and checks[-1].is_finite:
        wider = "bf16 or fp32" if checks[0].precision == "fp16" else "fp32"
        return f"It is finite in fp32: use training.precision={wider}"
    return ""


def _private(detector: RetinaNet) -> RetinaNet:
    """A copy in training mode that asks no other process for its statistics."""
    copied = copy.deepcopy(detector).train()
    for part in copied.modules():
        if isinstance(part, nn.SyncBatchNorm):
            part.__class__ = nn.BatchNorm2d  # type: ignore[assignment]  # of the same state
    for parameter in copied.parameters():
        parameter.grad = None
    return copied


def _leaves(detector: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in detector.named_modules() if not any(module.children())}


class _Layers:
    """Records the range of each output while it is entered; the host reads them at the end."""

    def __init__(self) -> None:
        self._outputs: list[tuple[str, str, Tensor]] = []

    @contextmanager
    def watching(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        handles = [
            module.register_forward_hook(partial(self._record, name))
            for name, module in modules.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _record(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, Tensor) or not output.numel():
            return
        values = output.detach()
        finite = values.isfinite()
        measured = [
            torch.where(finite, values, math.inf).amin().double(),
            torch.where(finite, values, -math.inf).amax().double(),
            (~finite).sum().double(),
            torch.tensor(float(values.numel()), dtype=torch.float64, device=values.device),
        ]
        self._outputs.append((name, type(module).__name__, torch.stack(measured)))

    def ranges(self) -> tuple[LayerRange, ...]:
        """All calls of a layer taken together, in the order of the first calls."""
        calls: dict[tuple[str, str], list[Tensor]] = {}
        for name, kind, measured in self._outputs:
            calls.setdefault((name, kind), []).append(measured)
        return tuple(_range(*key, torch.stack(measured)) for key, measured in calls.items())

    def first_not_finite(self) -> LayerRange | None:
        """The first call with a value that is not finite."""
        for name, kind, measured in self._outputs:
            if measured[2] > 0:
                return _range(name, kind, measured.unsqueeze(0))
        return None


def _range(name: str, kind: str, calls: Tensor) -> LayerRange:
    """The range of the calls ``(N, 4)`` of a layer."""
    smallest, largest = calls[:, 0].min().item(), calls[:, 1].max().item()
    num_not_finite, num_values = (int(count) for count in calls[:, 2:].sum(0).tolist())
    if num_not_finite == num_values:
        smallest = largest = math.nan
    return LayerRange(name, kind, smallest, largest, num_not_finite, num_values)


class _Gradients:
    """Records, on the way back, which gradients of the weights are finite."""

    def __init__(self, detector: nn.Module) -> None:
        self._seen: list[tuple[str, Tensor]] = []
        for name, parameter in detector.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    partial(self._record, name)
                )

    def _record(self, name: str, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self._seen.append((name, parameter.grad.isfinite().all()))

    def first_not_finite(self) -> str | None:
        """The first in the order in which they became known."""
        return next((name for name, is_finite in self._seen if not bool(is_finite)), None)
