"""``retina info``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from retina.cli.options import Detector
from retina.cli.output import make_console, print_lines
from retina.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from retina.artifact import ArtifactConfig
    from retina.modeling.thresholds import ReachedConfig, ThresholdsConfig
    from retina.runtime.description import ExportDescription
    from retina.tables import Table


def command(
    detector: Detector,
) -> None:
    """Say what a detector file is: network, classes, input, training, numbers, thresholds.

    Of an export also how it was made and what its verification found.

    Example: `retina info runs/first/checkpoints/best.safetensors`
    """
    from retina.modeling.detector_names import detector_given
    from retina.prediction.detectors import file_of, load_detector, taken_for
    from retina.runtime.files import files_of, is_export, load_export
    from retina.tables import Column, Table

    console = make_console()
    source = detector_given(detector, "DETECTOR")
    rows: list[tuple[str, str]] = []
    if isinstance(source, Path) and is_export(source):
        description = load_export(source, device="cpu").description
        training: Mapping[str, Any] = description.training
        config, weights = description.detector, ""
        rows += _exported(description)
    else:
        artifact = load_detector(source)
        config, training = artifact.config, artifact.training
        number = sum(tensor.numel() for tensor in artifact.state_dict.values())
        weights = f", {number / 1e6:.1f} M weights and statistics"
    print_lines(console, *taken_for(source))
    files = files_of(file_of(source))
    size = sum(one.stat().st_size for one in files)
    file = ("file", f"{' and '.join(map(str, files))}, {size / 1e6:.1f} MB")
    rows = [file, *rows, *_described(config, training, weights)]
    facts = Table(
        title="",
        columns=(Column("what", "what", style=lambda _: "bold"), Column("that is", "text")),
        rows=tuple({"what": what, "text": text} for what, text in rows),
        look="lines",
        has_header=False,
    )
    console.print(facts.to_terminal())
    thresholds = config.thresholds
    if thresholds.per_class is not None or thresholds.origin is not None:
        console.print()
        console.print(
            _threshold_table(config.categories.build().distinct_names, thresholds).to_terminal()
        )


def _exported(description: ExportDescription) -> Iterator[tuple[str, str]]:
    form = "candidates, without suppression" if description.raw else "detections"
    yield (
        "export",
        f"{description.format}, {description.precision}, of {description.source}, by retina "
        f"{description.version}; {description.licence}",
    )
    for names in (description.inputs, description.outputs):
        for name, tensor in names.items():
            shape = " × ".join(map(str, tensor.shape))
            yield name, f"{shape} {tensor.dtype}: {tensor.meaning}"
    yield "gives", form
    found = description.verification
    if found is None:
        yield "verified", "no: --no-verify was asked for"
        return
    text = f"on {counted(found.num_images, 'image')} ({found.images}), "
    text += f"{counted(found.num_detections, 'detection')}"
    if found.max_box_difference is not None and found.max_score_difference is not None:
        text += (
            f"; boxes within {found.max_box_difference:.1g} pixels, scores within "
            f"{found.max_score_difference:.1g}, {counted(found.num_ties, 'tie')}"
        )
    if found.source_ap is not None and found.ap is not None:
        text += f"; AP {found.source_ap:.4f} before, {found.ap:.4f} after"
    if found.score_shift is not None:
        text += f"; mean change of score {found.score_shift:.4f}"
    yield "verified", text


def _described(
    config: ArtifactConfig, facts: Mapping[str, Any], weights: str
) -> Iterator[tuple[str, str]]:
    model, preprocess, postprocess = config.model, config.preprocess, config.postprocess
    yield (
        "network",
        f"{model.backbone.kind} {model.backbone.name}, pyramid of {model.pyramid.channels} "
        f"channels{weights}",
    )
    names = config.categories.build().distinct_names
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
    training = {name: _number(value) for name, value in facts.items()}
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
