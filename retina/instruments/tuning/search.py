"""The search: γ first with α fixed, then α at the γ that was chosen."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from retina.configuration import ConfigError, differences, parse_yaml, to_yaml, validate
from retina.datasets.coco_results import read_results
from retina.errors import RunError, UserError
from retina.evaluation.bootstrap import ImageMatches, draw_multiplicities, match_per_image
from retina.evaluation.coco_metrics import CocoMetrics
from retina.experiment import ExperimentConfig, build_dataset
from retina.instruments.number_formatting import shown
from retina.instruments.tuning.comparison import CellScores, Stage, compare, score_cell
from retina.instruments.tuning.grid import Cell, GridConfig
from retina.instruments.tuning.runs import RunRecord, base_config, run_config, run_once
from retina.storage import make_folder, write_text
from retina.structures import GroundTruth, IntArray


@dataclass(frozen=True, slots=True)
class TuningResult:
    """What a tuning has found.

    Attributes:
        stages: of γ, and of α where the first came through.
        chosen: the loss to train with.
        grid: what was tried.
        seeds: that every cell was trained with.
        num_images: of the validation set.
        num_images_with_objects: of these; where they are few, there are no intervals.
    """

    stages: tuple[Stage, ...]
    chosen: Cell
    grid: GridConfig
    seeds: tuple[int, ...]
    num_images: int
    num_images_with_objects: int


@dataclass
class Tuning:
    """One search in one folder; what is done is taken from there.

    Attributes:
        config: the experiment; its ``output_dir`` is the folder.
        grid: what to try.
        on_run: called with a line about each run before it starts.
        on_stage: called with each stage when it is complete.
        on_warning: called with what the user should know.
    """

    config: ExperimentConfig
    grid: GridConfig
    on_run: Callable[[str], None] = lambda text: None
    on_stage: Callable[[Stage], None] = lambda stage: None
    on_warning: Callable[[str], None] = lambda text: None
    _truth: GroundTruth = field(init=False)
    _scores: dict[Cell, CellScores] = field(init=False, default_factory=dict)
    _num_with_objects: int = field(init=False, default=0)
    _multiplicities: IntArray | None = field(init=False, default=None)

    @property
    def folder(self) -> Path:
        """Where everything is kept."""
        return self.config.output_dir

    @property
    def seeds(self) -> tuple[int, ...]:
        """That every cell is trained with."""
        return self.grid.seeds or (self.config.seed,)

    def run(self) -> TuningResult:
        """Train what is missing and compare.

        Raises:
            UserError: the config cannot be tuned, or the folder holds something else.
            RunError: no run of a stage came through, or the machine failed; the same call goes on
                from there.
            TuningStoppedError: a signal came; the same call goes on from there.
        """
        base = base_config(self.config, self.grid)
        categories = build_dataset(base, "train").categories
        self._truth = build_dataset(base, "validation", categories=categories).ground_truth()
        with_objects = self._truth.annotation_image_ids[~self._truth.is_crowd]
        self._num_with_objects = len(np.unique(with_objects))
        if not self._num_with_objects:
            raise UserError("the validation set has no object: there is nothing to compare by")
        self._claim_folder(base)
        first = self._stage("γ", base, self.grid.gamma_cells())
        second = self._stage("α", base, self.grid.alpha_cells(first.chosen.gamma))
        return TuningResult(
            stages=(first, second),
            chosen=second.chosen,
            grid=self.grid,
            seeds=self.seeds,
            num_images=len(self._truth.image_ids),
            num_images_with_objects=self._num_with_objects,
        )

    def _claim_folder(self, base: ExperimentConfig) -> None:
        for change in claim_folder(base, seeds_are_named=self.grid.seeds is not None):
            if change.startswith("device:"):
                self.on_warning(
                    f"{change} since this tuning began: another device rounds otherwise, and the "
                    "runs of one can differ a little from those of the other"
                )

    def _stage(self, symbol: str, base: ExperimentConfig, cells: Sequence[Cell]) -> Stage:
        missing = [cell for cell in cells if cell not in self._scores]
        runs = [(cell, seed) for cell in missing for seed in self.seeds]
        configs = [run_config(base, cell, seed, self.folder) for cell, seed in runs]
        records = []
        for number, ((cell, seed), config) in enumerate(zip(runs, configs, strict=True), start=1):
            done = " (done before)" if (config.output_dir / "outcome.json").exists() else ""
            self.on_run(
                f"run {number} of {len(runs)}: γ = {shown(cell.gamma)}, α = {shown(cell.alpha)}, "
                f"seed {seed}{done}"
            )
            records.append(run_once(config))
        for number, cell in enumerate(missing):
            at = slice(number * len(self.seeds), (number + 1) * len(self.seeds))
            self._scores[cell] = self._score(cell, configs[at], records[at])
        scores = [self._scores[cell] for cell in cells]
        stage = compare(symbol, scores, self.grid, num_images=self._num_with_objects)
        if stage is None:
            reasons = "; ".join(
                f"{cell.name}: {self._scores[cell].failures[0]}" for cell in cells[:3]
            )
            raise RunError(f"no run of the search for {symbol} came through ({reasons})")
        self.on_stage(stage)
        return stage

    def _score(
        self, cell: Cell, configs: Sequence[ExperimentConfig], records: Sequence[RunRecord]
    ) -> CellScores:
        failures = tuple(record.reason for record in records if record.failed)
        if failures:
            return CellScores(cell, failures)
        matches = [self._matches(config.output_dir) for config in configs]
        ap50 = float(np.mean([_metrics(config.output_dir)["AP50"] for config in configs]))
        if self._multiplicities is None:
            self._multiplicities = self._draw(matches[0])
        return score_cell(cell, matches, ap50, self._multiplicities)

    def _matches(self, run: Path) -> ImageMatches:
        found = read_results(run / "evaluation" / "detections.json", self._truth)
        metrics = CocoMetrics(self._truth)
        metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
        return match_per_image(metrics)

    def _draw(self, matches: ImageMatches) -> IntArray:
        """``(S, I)`` for all cells; draws without any object have no AP and are left out."""
        objects = sum(category.num_objects for category in matches.categories)
        drawn = draw_multiplicities(matches.num_images, self.grid.resamples, seed=0)
        return drawn[drawn @ objects > 0]


def _metrics(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (run / "evaluation" / "metrics.json").read_text(encoding="utf-8")
    )
    return content


_WITHOUT_EFFECT = ("output_dir:", "device:", "training.num_workers:", "loader.")
"""How the keys begin that change where and how a run is computed, not what it is."""


def claim_folder(base: ExperimentConfig, *, seeds_are_named: bool) -> list[str]:
    """Write what all runs have in common, or find that the folder was made for the same.

    Values may be added to the grid, and its seeds; what each run is must stay as it was.

    Args:
        base: what all runs have in common.
        seeds_are_named: by the grid, so that the experiment's own has no effect.

    Returns:
        What differs and does no harm, as ``key: old → new``.

    Raises:
        UserError: the folder holds a training, a tuning of something else, or what stands where a
            tuning writes.
    """
    folder = base.output_dir
    if (folder / "config.yaml").exists():
        raise UserError(f"{folder}: holds a training; give a folder of its own with --output")
    make_folder(folder)
    path = folder / "base.yaml"
    if not path.exists():
        if (folder / "runs").exists():
            raise UserError(
                f"{folder}: holds 'runs' that are no tuning's, since no base.yaml lies beside "
                "them; give a folder of its own with --output"
            )
        write_text(path, to_yaml(base))
        return []
    before, now = (parse_yaml(to_yaml(config), "") for config in (_claimed(path), base))
    harmless = (*_WITHOUT_EFFECT, *(("seed:",) if seeds_are_named else ()))
    told = [f"{key}: {old} → {new}" for key, (old, new) in sorted(differences(before, now).items())]
    changed = [one for one in told if not one.startswith(harmless)]
    if changed:
        first = ", ".join(changed[:5]) + (" …" if len(changed) > 5 else "")
        raise UserError(
            f"{folder}: holds a tuning with other settings ({first}); its runs could not be "
            "compared with new ones. Take the same settings, or another folder with --output"
        )
    return told


def _claimed(path: Path) -> ExperimentConfig:
    """What the runs of a tuning were begun with."""
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"), str(path))
        return validate(tree, ExperimentConfig, source=str(path))
    except (ConfigError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: is not what a tuning wrote here; give a folder of its own with --output\n"
            f"{error}"
        ) from None
