"""What an evaluation leaves in its folder, and how the truth that it was scored against is told.

The folder has ``metrics.json``, ``detections.json`` (or ``detections_1.json`` … for the first of
several annotation files, …), and ``ground_truth.json``, which says what the detections were scored
against: the config of the data set, and a hash of what it says. Two scores can be compared only if
their truths are the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from retina.configuration import Config, validate
from retina.datasets import (
    AnyDatasetConfig,
    ConcatenatedConfig,
    DatasetConfig,
    DetectionDataset,
)
from retina.datasets.subset import SubsetDataset
from retina.errors import UserError
from retina.storage import replacing, write_text
from retina.structures import Categories, FloatArray, GroundTruth, IntArray, OriginalId
from retina.text_files import read_json

EVALUATION = "evaluation"
"""Where a run folder has what was measured of its best detector."""

METRICS = "metrics.json"
DETECTIONS = "detections.json"
GROUND_TRUTH = "ground_truth.json"

_STEPS_PER_PIXEL = 1000
"""Boxes are compared to a thousandth of a pixel: formats that write fractions of the image's width
give the same box but for its last bits."""

_LARGEST = 2**62


class RecordedCategory(Config):
    """A class that was scored."""

    id: int
    """Of its data set, as a number."""

    name: str
    """For people."""


class TruthRecord(Config):
    """What detections were scored against: the content of ``ground_truth.json``."""

    name: str
    """What messages call the data set."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """See `truth_sha256`."""

    num_images: int = Field(ge=0)
    """Those without an object included."""

    num_objects: int = Field(ge=0)
    """Crowd regions not counted."""

    categories: tuple[RecordedCategory, ...]
    """In the order of the labels."""

    dataset: AnyDatasetConfig
    """Reads the data set again; its paths are absolute."""

    image_ids: tuple[OriginalId, ...] | None = None
    """Of the images that were scored, as the data set has them; None for all of it."""

    results_ids: tuple[tuple[int, ...], ...] | None = None
    """The ids of the classes in each of several results files, in the order of the labels; None
    where each has those of its annotation file."""

    def build(self) -> DetectionDataset:
        """Read the data set again; the images need not be there.

        Raises:
            UserError: it cannot be read, or an image that was scored is no longer in it.
        """
        return self.scored_images_of(read_as_scored(self.dataset, self.scored_categories))

    def scored_images_of(self, dataset: DetectionDataset) -> DetectionDataset:
        """Those images of a data set that were scored.

        Raises:
            UserError: one of them is not in it.
        """
        if self.image_ids is None:
            return dataset
        row_of = {image_id: row for row, image_id in enumerate(dataset.ground_truth().ids_in_file)}
        lost = [image_id for image_id in self.image_ids if image_id not in row_of]
        if lost:
            raise UserError(
                f"{self.name}: the image with the id {lost[0]!r} was scored and is not in it now"
            )
        rows = np.array([row_of[image_id] for image_id in self.image_ids], dtype=np.int64)
        return SubsetDataset(dataset, rows, f"{len(rows)} of {len(dataset)} images were scored")

    @property
    def scored_categories(self) -> Categories:
        """The classes, as `DatasetConfig.build` takes them."""
        return Categories(
            tuple(category.name for category in self.categories),
            tuple(category.id for category in self.categories),
        )


@dataclass(frozen=True, slots=True)
class EvaluationFolder:
    """An evaluation that was kept.

    Attributes:
        path: the folder.
        truth: what it was scored against; None where a version of before has written it.
        max_detections: of one category in one image that count.
        ap: the AP that it has on record, -1 where nothing could be scored.
    """

    path: Path
    truth: TruthRecord | None
    max_detections: int
    ap: float

    @property
    def detections(self) -> tuple[Path, ...]:
        """The results file, or one for each annotation file; empty where they are gone."""
        if (self.path / DETECTIONS).is_file():
            return (self.path / DETECTIONS,)
        return tuple(_numbered_results(self.path))


def clear_evaluation(folder: Path, *, keep: Sequence[Path] = ()) -> None:
    """Remove what an earlier evaluation left in a folder, so that nothing there is of another one.

    Args:
        folder: which need not exist.
        keep: files that are still to be read.

    Raises:
        UserError: a file may not be removed.
    """
    names = (METRICS, DETECTIONS, GROUND_TRUTH, "per_image.json", "report.html", "report.json")
    for path in [*(folder / name for name in names), *_numbered_results(folder)]:
        if path.is_file() and not any(path.samefile(one) for one in keep):
            _remove(path)


def results_name(number: int, of: int) -> str:
    """What the results file of an annotation file is called, counted from 0."""
    return DETECTIONS if of == 1 else f"detections_{number + 1}.json"


def _numbered_results(folder: Path) -> list[Path]:
    numbered = [
        (int(path.stem.removeprefix("detections_")), path)
        for path in folder.glob("detections_*.json")
        if path.stem.removeprefix("detections_").isdecimal()
    ]
    return [path for _, path in sorted(numbered)]


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be replaced ({error.strerror}); choose another --output"
        ) from None


def joined_config(parts: Sequence[DatasetConfig]) -> DatasetConfig:
    """What reads one or several data sets as one."""
    return parts[0] if len(parts) == 1 else ConcatenatedConfig(parts=tuple(parts))


def record_truth(
    folder: Path,
    truth: GroundTruth,
    dataset: DatasetConfig,
    *,
    image_ids: Sequence[OriginalId] | None = None,
    results_categories: Sequence[Categories] = (),
) -> None:
    """Write ``ground_truth.json``.

    Args:
        folder: of the evaluation.
        truth: what was scored against.
        dataset: reads it.
        image_ids: of the images that were scored, as the data set has them; None for all.
        results_categories: the classes with the ids of each of several results files, where these
            may be others than those of the annotation files.

    Raises:
        UserError: the file may not be written.
        RunError: the disk is full.
    """
    categories = truth.categories
    tree = {
        "name": dataset.display_name,
        "sha256": truth_sha256(truth),
        "num_images": len(truth.image_ids),
        "num_objects": sum(truth.class_counts()),
        "categories": [
            {"id": number, "name": name}
            for number, name in zip(categories.dataset_ids, categories.names, strict=True)
        ],
        "dataset": _fragment(dataset.model_dump(mode="python", serialize_as_any=True)),
    }
    if image_ids is not None:
        tree["image_ids"] = list(image_ids)
    if results_categories:
        tree["results_ids"] = [list(one.dataset_ids) for one in results_categories]
    text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
    write_text(folder / GROUND_TRUTH, text)


def keep_results(folder: Path, detections: Sequence[Path]) -> None:
    """Keep the results files that were scored, byte for byte.

    Raises:
        UserError: the file may not be written.
        RunError: the disk is full.
    """
    with ExitStack() as stack:  # all are copied before one is replaced: they may lie in the folder
        for number, path in enumerate(detections):
            kept = folder / results_name(number, len(detections))
            if not (kept.exists() and kept.samefile(path)):
                shutil.copyfile(path, stack.enter_context(replacing(kept)))
    if len(detections) > 1 and (folder / DETECTIONS).is_file():  # it is one of those by now
        _remove(folder / DETECTIONS)


def read_evaluation(folder: Path) -> EvaluationFolder:
    """Read what an evaluation folder says about itself; its detections are not read yet.

    Raises:
        UserError: it is not whole; the message names the file.
    """
    metrics = read_json(folder / METRICS, "metrics file")
    if not isinstance(metrics, dict) or not isinstance(metrics.get("AP"), int | float):
        raise UserError(f"{folder / METRICS}: has no AP; evaluate the detector again")
    found = EvaluationFolder(
        path=folder,
        truth=read_truth_record(folder / GROUND_TRUTH),
        max_detections=int(metrics.get("max_detections", 100)),
        ap=float(metrics["AP"]),
    )
    if not found.detections:
        raise UserError(
            f"{folder}: has {METRICS} but no {DETECTIONS}; evaluate the detector again with "
            f"--output {folder}"
        )
    return found


def read_truth_record(path: Path) -> TruthRecord | None:
    """What a ``ground_truth.json`` says; None where there is no such file.

    Raises:
        UserError: it cannot be read.
    """
    if not path.is_file():
        return None
    return validate(read_json(path, "record of the ground truth"), TruthRecord, source=str(path))


def read_as_scored(dataset: DatasetConfig, categories: Categories | None) -> DetectionDataset:
    """A data set as an evaluation has it, without a look at its images.

    Args:
        dataset: reads it.
        categories: those that were scored, the others are left out; None for all of the data set.

    Raises:
        UserError: it cannot be read.
    """
    return dataset.build(categories, check_images=False, unknown_categories="leave_out")


def truth_sha256(truth: GroundTruth) -> str:
    """A hash of all that a score depends on, whatever the format and the order in its files.

    That is the names of the classes, the ids of the images as their files have them, and of every
    annotation the image, the class, the box and the area to a thousandth of a pixel, and whether it
    is a crowd region. The sizes of the images are no part of it: no score depends on them, and not
    every file says them.
    """
    names = truth.categories.names
    spelled = [json.dumps(image_id) for image_id in truth.ids_in_file]
    known = sorted(set(names))
    head = json.dumps({"classes": sorted(names), "images": sorted(spelled)})
    digest = hashlib.sha256(head.encode())
    rank_of_image = _ranks(spelled)
    rank_of_label = np.array([known.index(name) for name in names], dtype=np.int64)
    rows = np.column_stack(
        [
            rank_of_image[truth.image_indices],
            rank_of_label[truth.category_labels],
            _in_steps(truth.boxes_xywh),
            _in_steps(truth.areas[:, None]),
            truth.is_crowd,
        ]
    ).astype("<i8")
    digest.update(rows[np.lexsort(rows.T[::-1])].tobytes())
    return digest.hexdigest()


def _ranks(texts: list[str]) -> IntArray:
    ranks = np.empty(len(texts), dtype=np.int64)
    ranks[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
    return ranks


def _in_steps(pixels: FloatArray) -> IntArray:
    steps = np.rint(np.nan_to_num(pixels) * _STEPS_PER_PIXEL)
    return np.clip(steps, -_LARGEST, _LARGEST).astype(np.int64)


def _fragment(value: Any) -> Any:
    """A config as JSON has it: with absolute paths, and without a cache of decoded images."""
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, Mapping):
        keys = (key for key in value if key not in ("cache_images", "cache_limit_gb"))
        return {key: _fragment(value[key]) for key in keys}
    if isinstance(value, list | tuple):
        return [_fragment(one) for one in value]
    return value
