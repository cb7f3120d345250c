"""Where detections lie that were kept, and reading them beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retina.datasets import ConcatenatedDataset, DetectionDataset, FolderDataset
from retina.datasets.annotations import AnnotationTable
from retina.datasets.coco_results import DetectionArrays, read_results
from retina.datasets.joining import join_tables
from retina.datasets.subset import SubsetDataset
from retina.errors import UserError
from retina.evaluation.folder import (
    DETECTIONS,
    EVALUATION,
    GROUND_TRUTH,
    METRICS,
    EvaluationFolder,
    TruthRecord,
    read_as_scored,
    read_evaluation,
    truth_sha256,
)
from retina.evaluation.scored_images import read_each, taken_detections
from retina.structures import Categories


@dataclass(frozen=True, slots=True)
class ResultsSource:
    """Where the detections of one detector are.

    Attributes:
        given: the path that was named.
        results: the results file, or one for each of several annotation files.
        folder: the evaluation that they belong to; None for a results file alone.
    """

    given: Path
    results: tuple[Path, ...]
    folder: EvaluationFolder | None

    @property
    def truth(self) -> TruthRecord | None:
        """What it says that it was scored against."""
        return None if self.folder is None else self.folder.truth


def find_results(path: Path) -> ResultsSource:
    """What a path is: an evaluation folder, a run folder, or a results file.

    Raises:
        UserError: it is none of these.
    """
    if path.is_dir():
        for folder in (path, path / EVALUATION):
            if (folder / METRICS).is_file():
                evaluation = read_evaluation(folder)
                return ResultsSource(path, evaluation.detections, evaluation)
            if (folder / DETECTIONS).is_file():
                return ResultsSource(path, (folder / DETECTIONS,), None)
        raise UserError(
            f"{path}: has no {METRICS} and no {EVALUATION}/{METRICS}; write them with "
            "retina evaluate DETECTOR --output FOLDER, and name that folder"
        )
    if not path.is_file():
        raise UserError(
            f"{path}: no such folder or file; name an evaluation, a run or a results file"
        )
    if path.suffix != ".json":
        raise UserError(
            f"{path}: is no results file; a detector is evaluated first: retina evaluate {path} "
            "--output FOLDER, and FOLDER is named here"
        )
    if path.name == DETECTIONS and (path.with_name(GROUND_TRUTH)).is_file():
        return ResultsSource(path, (path,), read_evaluation(path.parent))
    return ResultsSource(path, (path,), None)


def truth_of(source: ResultsSource, categories: Categories | None = None) -> DetectionDataset:
    """The data set that detections have on record, with the images that were scored.

    Args:
        source: which has a record.
        categories: those of a detector, which the labels follow; None for those that were scored.

    Raises:
        UserError: the data set is gone or has changed since.
    """
    record = source.truth
    assert record is not None
    fix = "say where it is with --annotations FILE or --data SOURCE"
    path = source.results[0].with_name(GROUND_TRUTH)
    try:
        dataset = record.build()
    except UserError as error:
        raise UserError(f"{path}: its data set cannot be read ({error}); {fix}") from None
    if truth_sha256(dataset.ground_truth()) != record.sha256:
        raise UserError(
            f"{path}: {record.name} has changed since; evaluate the detector again, or {fix}"
        )
    if categories is None or categories.names == record.scored_categories.names:
        return dataset
    return record.scored_images_of(read_as_scored(record.dataset, categories))


def read_found(source: ResultsSource, dataset: DetectionDataset) -> DetectionArrays:
    """The detections in the images of a data set.

    Args:
        source: see `find_results`.
        dataset: what they were scored against; of one that some images were taken of, the results
            may have more.

    Raises:
        UserError: a results file does not fit.
    """
    whole = dataset.whole if isinstance(dataset, SubsetDataset) else dataset
    parts = whole.parts if isinstance(whole, ConcatenatedDataset) else (whole,)
    tables = [part.table for part in parts if isinstance(part, FolderDataset)]
    truth = whole.ground_truth()
    if len(source.results) == 1:
        joined = join_tables(tables) if len(tables) == len(parts) else None
        numbered = replace(truth, categories=_categories_of(source, truth.categories))
        found = read_results(source.results[0], numbered, joined)
    elif len(source.results) == len(tables):
        found = read_each(source.results, _with_ids_of(source, tables), truth)
    else:
        raise UserError(
            f"{source.given}: has {len(source.results)} results files, one for each annotation "
            "file: name all of these in the same order, --annotations once for each"
        )
    return taken_detections(found, dataset.ground_truth())


def _categories_of(source: ResultsSource, categories: Categories) -> Categories:
    """The classes with the ids of the data set that was scored on.

    Truths are the same where their classes have the same names; another format numbers them
    otherwise.
    """
    if source.truth is None:
        return categories
    recorded = source.truth.scored_categories
    return _with_ids(categories, recorded, recorded.dataset_ids)


def _with_ids_of(
    source: ResultsSource, tables: Sequence[AnnotationTable]
) -> Sequence[AnnotationTable]:
    """The annotations with the ids that their results files have."""
    record = source.truth
    if record is None or record.results_ids is None or len(record.results_ids) != len(tables):
        return tables
    return [
        replace(table, categories=_with_ids(table.categories, record.scored_categories, ids))
        for table, ids in zip(tables, record.results_ids, strict=True)
    ]


def _with_ids(categories: Categories, recorded: Categories, ids: Sequence[int]) -> Categories:
    """The categories with the recorded ids, where the names are the same and say one thing each."""
    own = dict(zip(recorded.names, ids, strict=True))
    if set(own) != set(categories.names) or len(own) != len(categories):
        return categories
    wanted = tuple(own[name] for name in categories.names)
    return categories if wanted == categories.dataset_ids else Categories(categories.names, wanted)
