import json
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from retina.datasets.loading import collate
from retina.geometry.box_coders import DistributionConfig
from retina.modeling.config import ModelConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.objective.assignment import AnyAssignerConfig
from retina.objective.classification import AnyClassificationConfig
from retina.objective.criterion import ObjectiveConfig
from retina.structures import Batch, Sample, Targets
from retina.training.forward import ForwardPass
from retina.training.step import TrainingStep

MODEL = ModelConfig.model_validate_json(
    """{"backbone": {"kind": "resnet", "name": "resnet18", "norm": "frozen"},
        "pyramid": {"channels": 16},
        "head": {"num_convs": 1, "norm": "group", "num_groups": 4},
        "anchors": {"sizes": [16, 32, 64, 128, 256]}}"""
)
DISTRIBUTION_MODEL = MODEL.model_copy(
    update={
        "box_coder": DistributionConfig(),
        "head": MODEL.head.model_copy(update={"level_scales": True, "convs": "separable"}),
    }
)


def make_samples(counts: Sequence[int]) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    samples = []
    for number, count in enumerate(counts):
        corner = torch.rand(count, 2, generator=generator) * 40
        targets = Targets(
            boxes=torch.cat([corner, corner + 20], dim=1),
            labels=torch.randint(0, 3, (count,), generator=generator),
            is_crowd=torch.zeros(count, dtype=torch.bool),
        )
        image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8, generator=generator)
        samples.append(Sample(image, targets, number))
    return samples


def weights_after(
    parts: Sequence[Batch], *, steps: int = 2, clip_norm: float | None = None
) -> tuple[dict[str, Tensor], list[float]]:
    torch.manual_seed(0)
    detector = MODEL.build(3)
    forward = ForwardPass(
        detector=detector,
        preprocess=PreprocessConfig().build(),
        criterion=ObjectiveConfig().build(detector.box_coder),
        device=torch.device("cpu"),
        precision="fp32",
    )
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.01, fused=True)
    step = TrainingStep(forward, optimizer, clip_norm=clip_norm)
    losses = [step(parts).losses.total.item() for _ in range(steps)]
    return detector.state_dict(), losses


def test_accumulated_parts_equal_the_whole_batch_with_unequal_foreground() -> None:
    samples = make_samples([9, 0, 1, 3])
    whole, whole_losses = weights_after([collate(samples)])
    parts, part_losses = weights_after([collate(samples[:1]), collate(samples[1:])])
    assert part_losses == pytest.approx(whole_losses, rel=1e-5)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_step_without_any_object_still_learns_the_background() -> None:
    _, losses = weights_after([collate(make_samples([0, 0]))], steps=3)
    assert losses[2] < losses[0]


def test_the_loss_falls_and_clipping_bounds_the_step() -> None:
    batch = collate(make_samples([4, 2]))
    _, losses = weights_after([batch], steps=8)
    assert losses[-1] < losses[0]
    torch.manual_seed(0)
    start = MODEL.build(3).state_dict()
    moved, _ = weights_after([batch], steps=1, clip_norm=1e-3)
    length = sum((moved[n] - start[n]).float().square().sum() for n in start) ** 0.5
    assert float(length) == pytest.approx(0.01 * 1e-3, rel=0.05)


class StillSGD(torch.optim.SGD):
    """An optimizer that does nothing; torch's fused ones know no meta tensors."""

    _step_supports_amp_scaling = True

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        assert closure is None


def kinds_of(field: str, union: Any) -> list[str]:
    """An objective for each kind that the field takes."""
    kinds = [kind.model_fields["kind"].default for kind in get_args(union)[1].kinds]
    return [f'{{"{field}": {{"kind": "{kind}"}}}}' for kind in kinds]


@pytest.mark.parametrize(
    "objective",
    [
        "{}",
        '{"assigner": {"kind": "max_iou", "low_quality": "object"}}',
        *(f'{{"box": {{"kind": "{kind}"}}}}' for kind in ("smooth_l1", "giou", "diou", "ciou")),
        '{"classification": {"kind": "focal", "alpha": [0.2, 0.3, 0.4]}}',
        *kinds_of("assigner", AnyAssignerConfig),
        *kinds_of("classification", AnyClassificationConfig),
        '{"normalizer": "per_image"}',
        '{"normalizer": "moving_average"}',
        '{"box": {"kind": "giou", "weighted_by_score": true}}',
    ],
)
def test_a_step_looks_at_no_value(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta tensors have none. What needs one, to count or to branch, makes the host wait for a GPU.

    The real thing, on a GPU, is in tests/cuda.
    """
    monkeypatch.setattr("retina.training.forward.autocast", lambda *_: nullcontext())
    step_on_meta(MODEL, objective)


@pytest.mark.parametrize("box", ["l1", "giou"])
def test_a_step_with_distributions_looks_at_no_value(
    box: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retina.training.forward.autocast", lambda *_: nullcontext())
    objective = {
        "assigner": {"kind": "atss"},
        "classification": {"kind": "quality_focal"},
        "box": {"kind": box, "weighted_by_score": True},
    }
    step_on_meta(DISTRIBUTION_MODEL, json.dumps(objective))


def step_on_meta(model: ModelConfig, objective: str) -> None:
    """A step with two micro-batches and crowds on tensors without values."""
    device = torch.device("meta")
    detector = model.build(3)
    criterion = ObjectiveConfig.model_validate_json(objective).build(
        detector.box_coder, class_counts=[1, 1, 1]
    )
    forward = ForwardPass(
        detector=detector.to(device),
        preprocess=PreprocessConfig().build().to(device),
        criterion=criterion.to(device),
        device=device,
        precision="fp32",
    )
    step = TrainingStep(forward, StillSGD(detector.parameters(), lr=0.01), clip_norm=None)
    samples = make_samples([9, 0, 1, 3])
    samples[0].targets.is_crowd[:2] = True
    result = step([collate(samples[:2]), collate(samples[2:])])
    assert result.losses.total.device == device
    assert all(parameter.grad is not None for parameter in detector.parameters())
