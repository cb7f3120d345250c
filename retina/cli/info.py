"""``retina info``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retina.cli.options import Detector
from retina.cli.output import make_console, print_lines
from retina.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retina.artifact import Artifact
    from retina.modeling.thresholds import ReachedConfig, ThresholdsConfig
    from retina.tables import Table


def command(
    detector: Detector,
) -> None:
    """Say what a detector file is: network, classes, input, training, numbers, thresholds.

    Example: `retina info runs/first/checkpoints/best.safetensors`
    """
    from retina.modeling.detector_names import detector_given
    from retina.prediction.detectors import file_of, load_detector, taken_for
    from retina.tables import Column, Table

    console = make_console()
    source = detector_given(detector, "DETECTOR")
    artifact = load_detector(source)
    print_lines(console, *taken_for(source))
    rows = [("file", f"{file_of(source)}, {file_of(source).stat().st_size / 1e6:.1f} MB")]
    facts = Table(
        title="",
        columns=(Column("what", "what", style=lambda _: "bold"), Column("that is", "text")),
        rows=tuple({"what": what, "text": text} for what, text in [*rows, *_described(artifact)]),
        look="lines",
        has_header=False,
    )
    console.print(facts.to_terminal())
    thresholds = artifact.config.thresholds
    if thresholds.per_class is not None or thresholds.origin is not None:
        console.print()
        console.print(_threshold_table(artifact.categories.names, thresholds).to_terminal())


def _described(artifact: Artifact) -> Iterator[tuple[str, str]]:
    config = artifact.config
    model, preprocess, postprocess = config.model, config.preprocess, config.postprocess
    weights = sum(tensor.numel() for tensor in artifact.state_dict.values())
    yield (
        "network",
        f"{model.backbone.kind} {model.backbone.name}, pyramid of {model.pyramid.channels} "
        f"channels, {weights / 1e6:.1f} M weights and statistics",
    )
    names = config.categories.names
    yield "classes", f"{len(names)}: {', '.join(names)}"
    mean, std = (
        ", ".join(f"{value:.4g}" for value in values)
        for values in (preprocess.mean, preprocess.std)
    )
    yield (
        "input",
        f"{preprocess.min_size}–{preprocess.max_size} pixels, {preprocess.channel_order}, mean "
        f"{mean}, std {std}",
    )
    yield (
        "output",
        f"at most {postprocess.max_detections} detections of an image, with scores above "
        f"{postprocess.score_threshold:g}",
    )
    training = {name: _number(value) for name, value in artifact.training.items()}
    numbers = {name: training.pop(name) for name in _metric_names() if name in training}
    numbers = {name: value for name, value in numbers.items() if not value.startswith("-")}
    if training:
        yield "training", ", ".join(f"{name} {value}" for name, value in training.items())
    if numbers:
        yield "numbers", ", ".join(f"{name} {value}" for name, value in numbers.items())
    origin = config.pretrained
    yield "pretrained", "nothing is kept" if origin is None else origin.describe()
    yield "thresholds", _told(config.thresholds)


def _told(thresholds: ThresholdsConfig) -> str:
    """From which scores on detections are shown, and why from there."""
    own = thresholds.per_class
    if own is None:
        shown = f"detections are shown from a score of {thresholds.common:g} on"
    else:
        shown = "detections are shown from the score of their class on"
    origin = thresholds.origin
    if origin is None:
        return f"{shown}; how it was chosen is not kept"
    on = "" if origin.date is None else f" on {origin.date}"
    return (
        f"{shown}: {origin.rule} at IoU {origin.iou:g}, chosen{on} on {origin.data} "
        f"({counted(origin.num_images, 'image')}, {counted(origin.num_objects, 'object')})"
    )


def _threshold_table(names: tuple[str, ...], thresholds: ThresholdsConfig) -> Table:
    """The threshold of each class, and what it reached where it was chosen."""
    from functools import partial

    from retina.tables import Column, Table

    own = thresholds.per_class or (None,) * len(names)
    origin = thresholds.origin
    reached = (None,) * len(names) if origin is None else origin.per_class or (None,) * len(names)
    rows = [
        {
            "name": name,
            "kind": "class",
            "score": f"{thresholds.common:g} for all" if value is None else f"{value:g}",
            **_shares(one),
        }
        for name, value, one in zip(names, own, reached, strict=True)
    ]
    if origin is not None:
        every = {"name": "all of these", "kind": "total", "score": "", **_shares(origin.reached)}
        rows.append(every)
    number = partial(Column, justify="right")
    return Table(
        title="thresholds, and what they reached on the images that they were chosen on",
        columns=(
            Column("class", "name"),
            number("score", "score"),
            number("precision", "precision"),
            number("recall", "recall"),
            number("F1", "f1"),
            number("false/image", "false"),
        ),
        rows=tuple(rows),
        look="lines",
        section="kind",
    )


def _shares(reached: ReachedConfig | None) -> dict[str, str]:
    if reached is None:
        return dict.fromkeys(("precision", "recall", "f1", "false"), "–")
    shares = {"precision": reached.precision, "recall": reached.recall, "f1": reached.f1}
    told = {name: "–" if value is None else f"{value:.3f}" for name, value in shares.items()}
    return {**told, "false": f"{reached.false_alarms_per_image:.2f}"}


def _metric_names() -> tuple[str, ...]:
    from retina.evaluation.metrics import METRIC_NAMES

    return METRIC_NAMES


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
