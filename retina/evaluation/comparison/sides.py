"""The sides of a comparison: where their detections are, and the one truth that all share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from retina.datasets import DetectionDataset
from retina.errors import UserError
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.engines import COCO_MAX_DETECTIONS, ScoringProblem
from retina.evaluation.folder import GROUND_TRUTH, METRICS, TruthRecord, truth_sha256
from retina.evaluation.metrics import DetectionMetrics
from retina.evaluation.results_source import ResultsSource, find_results, read_found
from retina.structures import GroundTruth
from retina.wording import counted

_FIX = "say where it is with --annotations FILE or --data SOURCE"
_RECORDED_AP_DIGITS = 1e-6


@dataclass(frozen=True, slots=True)
class SideSource(ResultsSource):
    """Where the detections of one side are.

    Attributes:
        letter: what it is called: A, B, …
    """

    letter: str


@dataclass(frozen=True, slots=True)
class Side:
    """One side, scored.

    Attributes:
        letter: what it is called: A, B, …
        path: what was named, for people.
        problem: its detections beside the truth.
        metrics: its numbers.
        findings: what reading it found, one sentence each.
    """

    letter: str
    path: str
    problem: ScoringProblem
    metrics: DetectionMetrics
    findings: tuple[str, ...]


def find_sides(paths: Sequence[Path]) -> tuple[SideSource, ...]:
    """What each path is: an evaluation folder, a run folder, or a results file.

    Raises:
        UserError: fewer than two or more than 26 paths, or one of them is none of these.
    """
    if not 2 <= len(paths) <= len(ascii_uppercase):
        raise UserError(
            f"{counted(len(paths), 'evaluation')} given: name two at least, and 26 at most, say "
            "runs/a runs/b"
        )
    return tuple(
        _find_side(letter, path) for letter, path in zip(ascii_uppercase, paths, strict=False)
    )


def _find_side(letter: str, path: Path) -> SideSource:
    found = find_results(path)
    return SideSource(found.given, found.results, found.folder, letter)


def recorded_truth(sides: Sequence[SideSource]) -> TruthRecord | None:
    """What the sides say that they were scored against; None where none of them says it.

    Raises:
        UserError: they were scored against different truths; the message says how these differ.
    """
    records = [(side, side.truth) for side in sides]
    known = [(side, truth) for side, truth in records if truth is not None]
    if not known:
        return None
    (first, wanted), *others = known
    for side, truth in others:
        if truth.sha256 != wanted.sha256:
            raise UserError(
                f"{first.given} and {side.given} were scored against different truths, so no "
                f"difference between them would mean anything: {_differences(wanted, truth)}. "
                "Evaluate both detectors on the same data"
            )
    return wanted


def shared_truth(sides: Sequence[SideSource], given: DetectionDataset | None) -> DetectionDataset:
    """The data set that all sides were scored against.

    Args:
        sides: see `find_sides`.
        given: what the user named; None to read what the sides have on record.

    Raises:
        UserError: the sides differ, nothing says what they were scored against, or the data set is
            gone or has changed since.
    """
    wanted = recorded_truth(sides)
    if given is None:
        silent = next((side for side in sides if side.truth is None), None)
        if silent is not None:
            raise UserError(
                f"{silent.given}: nothing there says what it was scored against (a results file, "
                f"or an evaluation by a version of before); {_FIX}"
            )
        return _read_again(sides)
    if wanted is not None:
        given = wanted.scored_images_of(given)
    if wanted is not None and truth_sha256(given.ground_truth()) != wanted.sha256:
        side = next(side for side in sides if side.truth is not None)
        raise UserError(
            f"{side.given} was scored against another truth than the one that is named: "
            f"{_differences(wanted, _record_of(given))}"
        )
    return given


def _read_again(sides: Sequence[SideSource]) -> DetectionDataset:
    """The data set by the first record whose files are as they were."""
    problems = []
    for side in sides:
        assert side.truth is not None
        record = side.results[0].with_name(GROUND_TRUTH)
        try:
            dataset = side.truth.build()
        except UserError as error:
            problems.append(f"{record}: its data set cannot be read ({error}); {_FIX}")
            continue
        if truth_sha256(dataset.ground_truth()) == side.truth.sha256:
            return dataset
        told = _differences(side.truth, _record_of(dataset))
        problems.append(
            f"{record}: {side.truth.name} has changed since: {told}. Evaluate the detectors again, "
            "or name the old files with --annotations FILE or --data SOURCE"
        )
    raise UserError(problems[0])


def truth_findings(truth: GroundTruth) -> tuple[str, ...]:
    """What must be known of a truth where COCO's numbers are told, one sentence each."""
    if truth.federation is None:
        return ()
    return (
        "in these annotations not every class was looked for in every image (LVIS): COCO's numbers "
        "take what nobody looked for as false, and are far lower than those of retina evaluate "
        "--metrics lvis",
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    name: str
    num_images: int
    num_objects: int
    names: tuple[str, ...]


def _record_of(dataset: DetectionDataset) -> _Counts:
    truth = dataset.ground_truth()
    return _Counts("now", len(truth.image_ids), sum(truth.class_counts()), truth.categories.names)


def _differences(one: TruthRecord, other: TruthRecord | _Counts) -> str:
    """A clause: in what two truths differ, as far as their records tell."""
    names = tuple(category.name for category in one.categories)
    others = (
        other.names
        if isinstance(other, _Counts)
        else tuple(category.name for category in other.categories)
    )
    told = []
    if one.num_images != other.num_images:
        told.append(f"{one.num_images} against {counted(other.num_images, 'image')}")
    if one.num_objects != other.num_objects:
        told.append(f"{one.num_objects} against {counted(other.num_objects, 'object')}")
    if sorted(names) != sorted(others):
        lone = [_some(sorted(set(a) - set(b))) for a, b in ((names, others), (others, names))]
        told.append(f"classes that only one has: {lone[0]} / {lone[1]}")
    if not told:
        told.append("as many images, objects and classes, but other image ids, boxes or labels")
    where = "" if other.name in ("now", one.name) else f" ({one.name} / {other.name})"
    return ", ".join(told) + where


def _some(names: Sequence[str], most: int = 5) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def read_sides(
    sources: Sequence[SideSource],
    dataset: DetectionDataset,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> tuple[Side, ...]:
    """Read and score the detections of all sides against one truth.

    Args:
        sources: see `find_sides`.
        dataset: see `shared_truth`.
        on_progress: called with 1 whenever a side has been scored.

    Raises:
        UserError: a results file does not fit the truth, or the sides count different numbers of
            detections.
    """
    caps = {source.folder.max_detections: source.given for source in sources if source.folder}
    if len(caps) > 1:
        (cap, one), (other_cap, other), *_ = sorted(caps.items())
        raise UserError(
            f"{one} counts {cap} detections of a class in an image, {other} {other_cap}: evaluate "
            "both with the same --max-detections"
        )
    max_detections = next(iter(caps), COCO_MAX_DETECTIONS)
    sides = []
    for source in sources:
        sides.append(_read_side(source, dataset, max_detections))
        if on_progress is not None:
            on_progress(1)
    return tuple(sides)


def _read_side(source: SideSource, dataset: DetectionDataset, max_detections: int) -> Side:
    found = read_found(source, dataset)
    scoring = CocoMetrics(dataset.ground_truth(), max_detections=max_detections)
    scoring.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    metrics = scoring.compute()
    findings = [f"{source.letter}: {finding}" for finding in found.findings]
    if source.folder and abs(source.folder.ap - metrics.AP) > _RECORDED_AP_DIGITS:
        findings.append(
            f"{source.letter}: {source.folder.path / METRICS} says AP {source.folder.ap:.4f}, but "
            f"its {_names(source)} gives {metrics.AP:.4f}, which is taken: they are not of one "
            "evaluation"
        )
    return Side(source.letter, str(source.given), scoring.problem(), metrics, tuple(findings))


def _names(source: ResultsSource) -> str:
    return " and ".join(path.name for path in source.results)
