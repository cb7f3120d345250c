"""Validation pictures in the log: small whatever the photos are, never the end of a training."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from retina.prediction.image_grids import draw_comparison
from retina.structures import Categories, Detections, Targets
from retina.training.hooks.validation_images import ValidationImages
from retina.training.metric_log import MetricLog

CATEGORIES = Categories.from_names(["thing"])
BOXES = torch.tensor([[600.0, 400, 3000, 2000]])
TRUTH = Targets(BOXES, torch.tensor([0]), torch.tensor([False]))
FOUND = Detections(BOXES, torch.tensor([0.9]), torch.tensor([0]))


class Photos:
    """Tiles of noise, 6000 × 4000 in all, each photo made when it is asked for."""

    categories = CATEGORIES

    def __init__(self, broken: int = -1) -> None:
        self._broken = broken

    def load(self, index: int) -> Any:
        if index == self._broken:
            raise ValueError("gone")
        generator = np.random.default_rng(index)
        noise = generator.integers(0, 256, (400, 600, 3), np.uint8)
        return SimpleNamespace(image=np.tile(noise, (10, 10, 1)))

    def targets(self, index: int) -> Targets:
        return TRUTH


@pytest.fixture
def log(tmp_path: Path) -> Any:
    log = MetricLog(tmp_path)
    yield log
    log.close()


def log_pictures(dataset: Any, log: MetricLog, count: int = 4) -> list[str]:
    said: list[str] = []
    run: Any = SimpleNamespace(log=log, step=3, progress=SimpleNamespace(message=said.append))
    result: Any = SimpleNamespace(image_ids=[7, 8, 9, 10], detections=[FOUND] * 4)
    ValidationImages(dataset, count).end_epoch(run, result)
    return said


def test_photos_cost_little_space_and_are_held_one_at_a_time(tmp_path: Path, log: Any) -> None:
    tracemalloc.start()
    log_pictures(Photos(), log, count=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 6000 * 4000 * 3  # bytes; the photo itself is one half
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert events.stat().st_size < 2 * 2 * 1024 * 700 * 3  # of noise, which nothing compresses


def test_a_picture_that_fails_is_a_warning(tmp_path: Path, log: Any) -> None:
    assert log_pictures(Photos(broken=1), log) == [
        "warning: validation image 8 could not be drawn: gone"
    ]
    assert "validation image 8" in (tmp_path / "metrics.jsonl").read_text()
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert [f"validation/{n}".encode() in content for n in (7, 8, 9, 10)] == [
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("size", [(16, 4200), (1, 10_000), (10_000, 1), (3, 3), (4000, 6000)])
def test_every_size_has_its_comparison(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 128, dtype=np.uint8)
    picture = draw_comparison(image, TRUTH, FOUND, CATEGORIES)
    assert max(picture.shape[0], picture.shape[1] / 2) < 1100
    assert min(picture.shape[:2]) >= 16


def test_boxes_are_scaled_with_the_picture() -> None:
    image = np.full((4000, 6000, 3), 128, dtype=np.uint8)
    picture = draw_comparison(image, TRUTH, FOUND, CATEGORIES)
    caption = picture.shape[0] - 682
    coloured = np.ptp(picture[caption:, :1024].astype(int), axis=2) > 60
    rows, columns = (
        np.flatnonzero(coloured.mean(axis=1) > 0.3),
        np.flatnonzero(coloured.any(axis=0)),
    )
    scale = 1024 / 6000
    assert abs(rows.max() - 2000 * scale) <= 2
    assert abs(columns.min() - 600 * scale) <= 2
    assert abs(columns.max() - 3000 * scale) <= 2
