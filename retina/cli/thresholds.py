"""``retina thresholds``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retina.cli.options import (
    DETECTOR,
    Annotations,
    BatchSize,
    Data,
    DataConfig,
    Device,
    Images,
    NumWorkers,
    Precision,
    ScoredSplit,
    chosen_precision,
    output_option,
)
from retina.cli.output import describe_truth, make_console, print_lines, progress

if TYPE_CHECKING:
    from rich.console import Console

    from retina.artifact import Artifact
    from retina.datasets import DetectionDataset
    from retina.evaluation.engines import ScoringProblem
    from retina.evaluation.results_source import ResultsSource
    from retina.evaluation.thresholds import Rule, ThresholdStudy
    from retina.experiment import DataOptions, ResolvedData
    from retina.runtime import Runtime
    from retina.structures import Categories


def command(
    detector: Annotated[str | None, typer.Argument(metavar="DETECTOR", help=DETECTOR)] = None,
    data: Data = None,
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: ScoredSplit = None,
    detections: Annotated[
        Path | None,
        typer.Option(
            "--detections",
            help="Take this COCO results file, or evaluation folder; nothing is run.",
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            help="f1 (the best), precision or recall (at least --at), false-alarms (per image, at "
            "most --at), cost (the least).",
        ),
    ] = "f1",
    at: Annotated[
        float | None,
        typer.Option("--at", help="What --by precision, recall or false-alarms demands."),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option("--beta", help="Of f1: how many times as much recall counts (1)."),
    ] = None,
    cost_fp: Annotated[
        float | None, typer.Option("--cost-fp", help="What a false alarm costs.")
    ] = None,
    cost_fn: Annotated[
        float | None, typer.Option("--cost-fn", help="What a missed object costs.")
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class/--common", help="One for each class, or one for all.")
    ] = True,
    iou: Annotated[
        float,
        typer.Option("--iou", min=0.01, max=1.0, help="From this overlap on an object is found."),
    ] = 0.5,
    resamples: Annotated[
        int, typer.Option("--resamples", min=20, help="Of the images, for the intervals.")
    ] = 1000,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the resamples and the halves.")
    ] = 0,
    apply: Annotated[
        bool, typer.Option("--apply", help="Keep the thresholds in the detector file.")
    ] = False,
    output: Annotated[
        Path | None, output_option("Write all numbers to this .json file, or into this folder.")
    ] = None,
    batch_size: BatchSize = 8,
    num_workers: NumWorkers = 2,
    device: Device = "auto",
    precision: Precision = "fp32",
) -> None:
    """Choose from which score on detections are shown: for each class, or one for all.

    Every score that a detection has is tried. How sure the choice is, is told by resampling the
    images, and by choosing on one half of them and counting on the other. Where no data is named,
    it is that which the detections of an evaluation were scored on, else that of the run that the
    detector lies in.

    Example: `retina thresholds runs/demo/checkpoints/best.safetensors --data photos --apply`

    Example: `retina thresholds best.safetensors --data photos --by precision --at 0.95`

    Example: `retina thresholds --detections results.json --annotations val.json --by false-alarms
    --at 0.1 --common`
    """
    from retina.errors import UserError
    from retina.evaluation.results_source import find_results
    from retina.evaluation.thresholds import match_split, study_thresholds
    from retina.experiment import DataOptions
    from retina.modeling.detector_names import detector_given
    from retina.prediction.detectors import load_detector, load_runtime, taken_for
    from retina.runtime import TorchRuntime

    console = make_console()
    rule = _rule(by, at=at, beta=beta, cost_fp=cost_fp, cost_fn=cost_fn)
    if detector is None and (apply or detections is None):
        missing = "--apply needs a" if apply else "give a detector file, or --detections with a"
        raise UserError(f"{missing} {'detector file' if apply else 'results file'}")
    artifact, runtime, file = None, None, None
    if detector is not None:
        source = detector_given(detector, "DETECTOR")
        file = source if isinstance(source, Path) else None
        if apply and file is None:
            raise UserError(
                f"--apply: {source} is a published detector, not a file of yours; make one of it "
                "with 'retina import torchvision'"
            )
        if apply:
            artifact = load_detector(source)
        runtime = load_runtime(source, device=device, precision=chosen_precision(precision))
        print_lines(console, *taken_for(source))
    options = DataOptions(
        source=data,
        annotations=annotations,
        images=images,
        config=config,
        split=split,
        detector=file,
    )
    categories = None if runtime is None else runtime.categories
    kept = None if detections is None else find_results(detections)
    dataset, name = _data(options, categories, kept)
    print_lines(console, *describe_truth(name, dataset))
    if kept is not None:
        problem = _read(kept, dataset, console)
    else:
        assert runtime is not None
        problem = _detect(runtime, dataset, console, batch_size, num_workers)
    if apply and len(problem.scores):
        least, most = problem.scores.min(), problem.scores.max()
        if least < 0 or most > 1:
            raise UserError(
                f"{detections}: scores from {least:g} to {most:g}, but a detector's lie between 0 "
                "and 1: they are of something else, and --apply cannot keep their thresholds"
            )
    study = study_thresholds(
        match_split(problem, dataset.categories, iou=iou),
        rule,
        per_class=per_class,
        num_resamples=resamples,
        seed=seed,
    )
    _print(console, study)
    if output is not None:
        print_lines(console, f"written to {_write(output, study, name)}")
    if apply:
        assert artifact is not None
        assert file is not None
        _apply(artifact, file, study, name)
        print_lines(console, f"kept in {file}: 'retina predict' shows detections from there on")
    elif isinstance(runtime, TorchRuntime) and file is not None:
        print_lines(console, "not kept in the detector file; --apply does that")


def _rule(
    by: str,
    *,
    at: float | None,
    beta: float | None,
    cost_fp: float | None,
    cost_fn: float | None,
) -> Rule:
    """What the options ask for.

    Raises:
        UserError: an option is missing, belongs to another rule, or has a senseless value.
    """
    from retina.errors import UserError, one_of
    from retina.evaluation.thresholds import (
        BestF,
        LeastCost,
        LeastPrecision,
        LeastRecall,
        MostFalseAlarms,
    )

    kind = one_of(by, ("f1", "precision", "recall", "false-alarms", "cost"), "--by")
    given = {"--at": at, "--beta": beta, "--cost-fp": cost_fp, "--cost-fn": cost_fn}
    wanted = {"f1": ["--beta"], "cost": ["--cost-fp", "--cost-fn"]}.get(kind, ["--at"])
    strange = [name for name, value in given.items() if value is not None and name not in wanted]
    if strange:
        raise UserError(f"{strange[0]} does not belong to --by {kind}; leave it away")
    missing = [name for name in wanted if given[name] is None and name != "--beta"]
    if missing:
        raise UserError(f"--by {kind} needs {' and '.join(missing)}: {_ASKED[kind]}")
    try:
        if kind == "f1":
            return BestF(1.0 if beta is None else beta)
        if kind == "cost":
            assert cost_fp is not None
            assert cost_fn is not None
            return LeastCost(false_alarm=cost_fp, missed=cost_fn)
        assert at is not None
        demands = {"precision": LeastPrecision, "recall": LeastRecall}
        return demands[kind](at) if kind in demands else MostFalseAlarms(at)
    except ValueError as error:
        raise UserError(f"--by {kind}: {error}") from None


_ASKED = {
    "precision": "the least precision, say --at 0.95",
    "recall": "the least recall, say --at 0.9",
    "false-alarms": "the most false alarms per image, say --at 0.1",
    "cost": "what each of the two costs, say --cost-fp 1 --cost-fn 5",
}


def _data(
    options: DataOptions, categories: Categories | None, kept: ResultsSource | None
) -> tuple[DetectionDataset, str]:
    """The data set that is meant, with the detector's labels, and what it is called.

    Of detections that say what they were scored on, the images that were scored: in the others
    nobody has looked for anything.
    """
    from retina.evaluation.results_source import truth_of
    from retina.experiment import resolve_data

    record = None if kept is None else kept.truth
    named = (options.source, options.annotations, options.images, options.config, options.split)
    if kept is not None and record is not None and all(one is None for one in named):
        return truth_of(kept, categories), record.name
    resolved: ResolvedData = resolve_data(
        options,
        purpose="on which data to choose",
        categories=categories,
        check_images=kept is None,
        unknown_categories="leave_out",
    )
    dataset = resolved.dataset if record is None else record.scored_images_of(resolved.dataset)
    return dataset, resolved.full_name


def _read(kept: ResultsSource, dataset: DetectionDataset, console: Console) -> ScoringProblem:
    from retina.evaluation.coco_metrics import CocoMetrics
    from retina.evaluation.results_source import read_found
    from retina.wording import counted

    found = read_found(kept, dataset)
    metrics = CocoMetrics(dataset.ground_truth())
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    lines = [
        f"{kept.given}: {len(found.scores)} detections",
        *(f"  {one}" for one in found.findings),
    ]
    bare = len(dataset) - len(set(found.image_ids.tolist()))
    if bare and (kept.truth is None or kept.truth.num_images != len(dataset)):
        lines.append(
            f"  {counted(bare, 'image')} of {len(dataset)} without a detection: where the detector "
            "was not run, --detections has too few, and the objects there count as missed"
        )
    print_lines(console, *lines)
    return metrics.problem()


def _detect(
    runtime: Runtime,
    dataset: DetectionDataset,
    console: Console,
    batch_size: int,
    num_workers: int,
) -> ScoringProblem:
    from retina.experiment import build_evaluator

    evaluator = build_evaluator(runtime, dataset, batch_size=batch_size, num_workers=num_workers)
    with progress(console, "detecting", len(dataset)) as advance:
        result = evaluator.run(runtime, on_progress=advance)
    assert result.problem is not None
    return result.problem


def _print(console: Console, study: ThresholdStudy) -> None:
    from retina.evaluation.thresholds.tables import check_table, threshold_table

    console.print(threshold_table(study).to_terminal())
    if study.check is not None:
        console.print()
        console.print(check_table(study, study.check).to_terminal())
    if study.notes():
        console.print()
        for note in study.notes():
            console.print(f"- {note}", markup=False)


def _write(output: Path, study: ThresholdStudy, data: str) -> Path:
    import json

    from retina.evaluation.thresholds.tables import study_json
    from retina.storage import write_text

    path = output if output.suffix == ".json" else output / "thresholds.json"
    text = json.dumps(study_json(study, data=data), indent=2, allow_nan=False)
    write_text(path, text + "\n")
    return path


def _apply(artifact: Artifact, file: Path, study: ThresholdStudy, data: str) -> None:
    from datetime import UTC, datetime

    today = datetime.now(UTC).date().isoformat()
    artifact.with_thresholds(study.to_config(data=data, date=today)).save(file)
