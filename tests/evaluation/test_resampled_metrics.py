"""The bootstrap of all twelve numbers: pycocotools' numbers of sets that could have been drawn."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retina.datasets.coco_results import DetectionArrays
from retina.evaluation.bootstrap import draw_multiplicities
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.metrics import METRIC_NAMES
from retina.evaluation.pairs import overlapping_pairs
from retina.evaluation.resampled_metrics import (
    metric_intervals,
    num_resamples_for,
    resampled_metrics,
)


def metrics_of(truth: Any, found: DetectionArrays, **options: Any) -> CocoMetrics:
    metrics = CocoMetrics(truth, **options)
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    return metrics


def resampled(metrics: CocoMetrics, multiplicities: Any) -> dict[str, Any]:
    problem = metrics.problem()
    return resampled_metrics(problem, overlapping_pairs(problem, at_least=0.1), multiplicities)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_detections", [100, 5])
def test_every_image_once_gives_the_numbers_of_the_evaluator(
    seed: int,
    max_detections: int,
    random_tree: Callable[..., Any],
    random_detections: Callable[..., DetectionArrays],
    ground_truth_of: Callable[[Any], Any],
) -> None:
    tree = random_tree(seed, num_images=20, num_categories=4, num_objects=90)
    metrics = metrics_of(
        ground_truth_of(tree),
        random_detections(seed, tree, per_image=30),
        max_detections=max_detections,
    )

    once = resampled(metrics, np.ones((1, 20), dtype=np.int64))

    assert list(once) == list(METRIC_NAMES)
    numbers = metrics.compute().numbers()
    assert {name: float(values[0]) for name, values in once.items()} == {
        name: pytest.approx(value, abs=1e-12) for name, value in numbers.items()
    }


def test_resamples_give_what_pycocotools_gives_to_copied_images(
    random_tree: Callable[..., Any],
    random_detections: Callable[..., DetectionArrays],
    ground_truth_of: Callable[[Any], Any],
    judge: Callable[..., Any],
    copied: Callable[..., Any],
) -> None:
    tree = random_tree(6, num_images=25, num_categories=4, num_objects=120)
    found = random_detections(7, tree, per_image=15)
    scores = np.random.default_rng(5).permutation(len(found.scores)) / len(found.scores)
    found = DetectionArrays(found.image_ids, found.boxes_xywh, scores, found.labels)
    drawn = draw_multiplicities(25, 3, seed=7)

    samples = resampled(metrics_of(ground_truth_of(tree), found), drawn)

    for row, times in enumerate(drawn):
        expected = judge(*copied(tree, found, times)).stats
        assert [samples[name][row] for name in METRIC_NAMES] == pytest.approx(expected, abs=1e-12)


@pytest.fixture(scope="module")
def copied() -> Callable[..., Any]:
    """The data set in which each image stands so many times, as the test of the AP makes it."""
    path = Path(__file__).with_name("test_bootstrap.py")
    spec = importlib.util.spec_from_file_location("bootstrap_of_the_ap", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[..., Any] = module.copied
    return function


def test_an_interval_lies_around_its_number_and_is_as_wide_as_the_resamples() -> None:
    samples = {"AP": np.linspace(0.4, 0.6, 1001), "APs": np.full(1001, -1.0)}

    found = metric_intervals({"AP": 0.45, "APs": 0.3}, samples)

    assert found == {"AP": (pytest.approx(0.355), pytest.approx(0.545)), "APs": None}
    low, high = metric_intervals({"AP": 0.95}, {"AP": samples["AP"]})["AP"] or (0.0, 0.0)
    assert (low, high) == (pytest.approx(0.855), 1.0)


def test_large_sets_get_fewer_resamples(
    random_tree: Callable[..., Any],
    random_detections: Callable[..., DetectionArrays],
    ground_truth_of: Callable[[Any], Any],
) -> None:
    tree = random_tree(0, num_images=20, num_categories=4, num_objects=20)
    problem = metrics_of(ground_truth_of(tree), random_detections(0, tree, per_image=10)).problem()
    many = np.zeros(2_000_000)

    assert num_resamples_for(problem, 1000) == 1000
    assert num_resamples_for(replace(problem, images=many.astype(np.int64)), 1000) == 100
