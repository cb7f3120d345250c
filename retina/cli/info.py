"""``retina info``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retina.cli.options import Detector
from retina.cli.output import make_console, print_lines
from retina.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retina.artifact import Artifact


def command(
    detector: Detector,
) -> None:
    """Say what a detector file holds: network, classes, input, training, and its first weights.

    Example: `retina info runs/first/checkpoints/best.safetensors`
    """
    from retina.modeling.detector_names import detector_given
    from retina.prediction.detectors import load_detector, taken_for

    source = detector_given(detector, "DETECTOR")
    artifact = load_detector(source)
    print_lines(make_console(), *taken_for(source), *_described(artifact))


def _described(artifact: Artifact) -> Iterator[str]:
    config = artifact.config
    backbone, preprocess = config.model.backbone, config.preprocess
    weights = sum(tensor.numel() for tensor in artifact.state_dict.values())
    yield f"network: {backbone.kind} {backbone.name}, {weights / 1e6:.1f} M weights and statistics"
    names = config.categories.names
    yield f"{counted(len(names), 'class')}: {', '.join(names)}"
    sides = f"{preprocess.min_size}–{preprocess.max_size} pixels"
    mean, std = (
        ", ".join(f"{value:.4g}" for value in values)
        for values in (preprocess.mean, preprocess.std)
    )
    yield f"input: {sides}, {preprocess.channel_order}, mean {mean}, std {std}"
    yield f"detections are shown from a score of {config.display_threshold:.2f} on"
    if artifact.training:
        facts = (f"{name} {_number(value)}" for name, value in artifact.training.items())
        yield f"training: {', '.join(facts)}"
    origin = config.pretrained
    yield f"pretrained: {'nothing is kept' if origin is None else origin.describe()}"


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
