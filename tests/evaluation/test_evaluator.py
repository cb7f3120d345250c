"""The evaluator with data sets and detectors in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from retina.evaluation import evaluator as module
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.engines import ScoringProblem
from retina.evaluation.evaluator import Evaluator
from retina.evaluation.metrics import DetectionMetrics
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.objective.criterion import Criterion, LossSums, ObjectiveConfig
from retina.runtime import Runtime, TorchRuntime
from retina.structures import BatchedTargets, Detections
from tests.conftest import REPOSITORY  # type: ignore[import-not-found]
from tests.memory_dataset import MemoryDataset  # type: ignore[import-not-found]
from tests.small_detector import small_detector  # type: ignore[import-not-found]

DATA = MemoryDataset(
    [
        [(0, 4, 4, 24, 34), (1, 40, 10, 90, 50)],
        [],
        [(1, 0, 0, 96, 64)],
        [(0, 10, 20, 30, 40), (0, 50, 5, 80, 60), (1, 2, 2, 12, 12)],
    ]
)


class Seer(Runtime):
    """Finds what is annotated, in images that it knows by their pixels."""

    def __init__(self, dataset: MemoryDataset, *, shift: float = 0.0) -> None:
        self.categories = dataset.categories
        self.preprocess = PreprocessConfig().build()
        self.thresholds = torch.full((len(self.categories),), 0.5).double()
        self.batch_sizes: list[int] = []
        self._dataset = dataset
        self._shift = shift

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        self.batch_sizes.append(len(images))
        return [self._detect(image) for image in images]

    def _detect(self, image: Tensor) -> Detections:
        (index,) = [
            index
            for index in range(len(self._dataset))
            if torch.equal(image, torch.from_numpy(self._dataset.load(index).image).movedim(2, 0))
        ]
        targets = self._dataset.targets(index)
        return Detections(targets.boxes + self._shift, torch.ones(len(targets)), targets.labels)


@pytest.mark.slow
def test_a_batch_of_many_images_takes_few_open_files(synthetic_data: Path) -> None:
    """A worker hands over a few tensors for all of them; each tensor is an open file."""
    program = REPOSITORY / "tests" / "evaluation" / "few_files.py"
    done = subprocess.run(
        [sys.executable, str(program), str(synthetic_data / "train")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 24


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_who_finds_everything_scores_one(batch_size: int) -> None:
    seer, done = Seer(DATA), list[int]()
    result = Evaluator(DATA, batch_size=batch_size).run(seer, on_progress=done.append)
    assert result.metrics.AP == result.metrics.AP50 == result.metrics.AR100 == 1
    assert result.losses is None
    assert result.image_ids == (100, 99, 98, 97)
    assert [len(found) for found in result.detections] == [2, 0, 1, 3]
    assert torch.equal(result.detections[3].boxes, DATA.targets(3).boxes)
    assert done == seer.batch_sizes == {1: [1, 1, 1, 1], 3: [3, 1], 8: [4]}[batch_size]


def test_boxes_beside_the_objects_score_less() -> None:
    near = Evaluator(DATA).run(Seer(DATA, shift=2.0)).metrics
    assert 0 < near.AP < near.AP50 <= 1
    far = Evaluator(DATA).run(Seer(DATA, shift=500.0)).metrics
    assert far.AP == 0


def test_the_engines_agree_and_detections_are_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    class Noted(CocoMetrics):
        def numbers_of(self, problem: ScoringProblem) -> DetectionMetrics:
            used.append(self.backend)
            return super().numbers_of(problem)

    monkeypatch.setattr(module, "CocoMetrics", Noted)
    fast, slow = (
        Evaluator(DATA, backend=backend, max_detections=1).run(Seer(DATA)).metrics
        for backend in ("hotcoco", "pycocotools")
    )
    assert used == ["hotcoco", "pycocotools"]
    assert fast.numbers() == slow.numbers()
    assert fast.max_detections == 1
    assert fast.AP < 1  # one image has two cats


def torch_runtime() -> TorchRuntime:
    detector = small_detector()
    return TorchRuntime(
        detector,
        categories=DATA.categories,
        preprocess=PreprocessConfig(min_size=64, max_size=96).build(),
        postprocess=PostprocessConfig(score_threshold=0.001).build(detector.box_coder),
        device=torch.device("cpu"),
        precision="fp32",
        memory_fix="take fewer",
    )


def criterion_of(runtime: TorchRuntime) -> Criterion:
    return ObjectiveConfig().build(runtime.detector.box_coder)


def by_hand(runtime: TorchRuntime, dataset: MemoryDataset) -> list[LossSums]:
    """The losses of each image; none is resized."""
    criterion, sums = criterion_of(runtime), []
    for index in range(len(dataset)):
        output = runtime.forward([torch.from_numpy(dataset.load(index).image).movedim(2, 0)])
        targets = BatchedTargets.from_targets([dataset.targets(index)])
        with torch.no_grad():
            sums.append(criterion.sums(output.predictions, output.anchors, targets))
    return sums


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_losses_are_those_of_the_whole_split(batch_size: int) -> None:
    runtime = torch_runtime()
    evaluator = Evaluator(DATA, batch_size=batch_size)
    result = evaluator.run_with_losses(runtime, criterion_of(runtime))
    assert result.losses is not None
    sums = by_hand(runtime, DATA)
    num_foreground = sum(one.num_foreground.item() for one in sums)
    assert num_foreground > 6
    for name in ("classification", "box_regression"):
        wanted = sum(getattr(one, name).item() for one in sums) / num_foreground
        assert result.losses[name] == pytest.approx(wanted, rel=1e-5)
    parts = result.losses["classification"] + result.losses["box_regression"]
    assert result.losses["loss"] == pytest.approx(parts)


def test_the_losses_do_not_change_what_is_found() -> None:
    runtime = torch_runtime()
    with_losses = Evaluator(DATA).run_with_losses(runtime, criterion_of(runtime))
    without = Evaluator(DATA).run(runtime)
    assert with_losses.metrics == without.metrics
    assert sum(map(len, without.detections)) > 0
    for one, other in zip(with_losses.detections, without.detections, strict=True):
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)


def test_a_split_without_objects_divides_by_one() -> None:
    runtime, empty = torch_runtime(), MemoryDataset([[], []])
    losses = Evaluator(empty).run_with_losses(runtime, criterion_of(runtime)).losses
    assert losses is not None
    wanted = sum(one.classification.item() for one in by_hand(runtime, empty))
    assert losses["classification"] == pytest.approx(wanted, rel=1e-5)
    assert losses["box_regression"] == 0


def test_a_rank_without_images_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of eight ranks has no share of four images."""
    monkeypatch.setattr(module, "world_size", lambda: 8)
    runtime = torch_runtime()
    result = Evaluator(DATA).run_with_losses(runtime, criterion_of(runtime))
    assert result.image_ids == result.detections == ()
    assert result.metrics.AP == 0
    assert result.losses == {"loss": 0, "classification": 0, "box_regression": 0}


def test_the_ranks_share_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "world_size", lambda: 3)
    seen = []
    for number in range(3):
        monkeypatch.setattr(module, "rank", lambda number=number: number)
        seen.append(Evaluator(DATA).run(Seer(DATA)).image_ids)
    assert seen == [(100,), (99,), (98, 97)]
