"""The bootstrap: its resamples are COCO's AP of sets of images that could have been drawn."""

from collections.abc import Callable
from typing import Any

import hotcoco
import numpy as np
import pytest

from retina.datasets.coco_results import DetectionArrays
from retina.evaluation.bootstrap import (
    average_precisions,
    draw_multiplicities,
    interval,
    match_per_image,
)
from retina.evaluation.coco_metrics import CocoMetrics


@pytest.fixture(scope="module")
def problem(
    random_tree: Callable[..., Any], random_detections: Callable[..., DetectionArrays]
) -> tuple[Any, DetectionArrays]:
    tree = random_tree(3, num_images=40, num_categories=5, num_objects=150)
    found = random_detections(4, tree, per_image=20)
    # No ties: how equal scores of two images are ranked depends on the ids that copies get.
    scores = np.random.default_rng(5).permutation(len(found.scores)) / len(found.scores)
    return tree, DetectionArrays(found.image_ids, found.boxes_xywh, scores, found.labels)


def metrics_of(truth: Any, found: DetectionArrays) -> CocoMetrics:
    metrics = CocoMetrics(truth)
    metrics.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    return metrics


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_image_once_gives_the_ap_of_the_evaluator(
    seed: int,
    random_tree: Callable[..., Any],
    random_detections: Callable[..., DetectionArrays],
    ground_truth_of: Callable[[Any], Any],
) -> None:
    """With crowd regions, tied scores, images without objects, a category without any."""
    tree = random_tree(seed, num_images=30, num_categories=4, num_objects=90)
    metrics = metrics_of(ground_truth_of(tree), random_detections(seed, tree, per_image=15))
    matches = match_per_image(metrics)
    once = np.ones((1, matches.num_images), dtype=np.int64)
    assert average_precisions(matches, once)[0] == pytest.approx(metrics.compute().AP, abs=1e-12)


def test_a_resample_gives_the_ap_that_pycocotools_gives_to_copied_images(
    problem: tuple[Any, DetectionArrays],
    ground_truth_of: Callable[[Any], Any],
    judge: Callable[..., Any],
) -> None:
    tree, found = problem
    matches = match_per_image(metrics_of(ground_truth_of(tree), found))
    drawn = draw_multiplicities(matches.num_images, 3, seed=7)
    assert drawn.sum(axis=1).tolist() == [40, 40, 40]
    assert (drawn == 0).any()
    for times, ap in zip(drawn, average_precisions(matches, drawn), strict=True):
        assert ap == pytest.approx(judge(*copied(tree, found, times)).stats[0], abs=1e-12)


def copied(tree: Any, found: DetectionArrays, times: Any) -> tuple[Any, DetectionArrays]:
    """The data set in which each image, in the order of the ids, stands so many times."""
    images, annotations, rows, row_images = [], [], [], []
    new = 0
    for image, count in zip(sorted(tree["images"], key=lambda row: row["id"]), times, strict=True):
        for _ in range(count):
            new += 1
            images.append({**image, "id": new})
            annotations += [
                {**row, "image_id": new}
                for row in tree["annotations"]
                if row["image_id"] == image["id"]
            ]
            own = np.flatnonzero(found.image_ids == image["id"]).tolist()
            rows += own
            row_images += [new] * len(own)
    annotations = [{**row, "id": number} for number, row in enumerate(annotations, 1)]
    return {**tree, "images": images, "annotations": annotations}, DetectionArrays(
        np.array(row_images), found.boxes_xywh[rows], found.scores[rows], found.labels[rows]
    )


def test_hotcocos_paired_interval_is_that_of_drawn_images_counted_once(
    problem: tuple[Any, DetectionArrays], ground_truth_of: Callable[[Any], Any]
) -> None:
    """hotcoco counts an image that is drawn twice only once, which narrows its interval.

    It then looks at 63 % of the images at a time, without repetition, which has sqrt(1/0.632 - 1)
    = 0.76 of the spread. Both estimates here are good to 1 / sqrt(2 · 2000) = 1.6 %.
    """
    tree, better = problem
    shift = np.random.default_rng(8).normal(0, 3, (len(better.scores), 4))
    worse = DetectionArrays(
        better.image_ids, better.boxes_xywh + shift, better.scores, better.labels
    )
    both = [metrics_of(ground_truth_of(tree), found) for found in (worse, better)]
    theirs = hotcoco.compare(*map(evaluated, both), n_bootstrap=2000)["ci"]["AP"]

    drawn = draw_multiplicities(len(tree["images"]), 2000, seed=0)
    matches = [match_per_image(metrics) for metrics in both]

    def difference(multiplicities: Any) -> Any:
        of_worse, of_better = (average_precisions(one, multiplicities) for one in matches)
        return of_better - of_worse

    once = difference((drawn > 0).astype(np.int64))
    assert np.std(once) == pytest.approx(theirs["std_err"], rel=0.06)
    low, high = interval(once, 0.95)
    assert (low, high) == pytest.approx((theirs["lower"], theirs["upper"]), abs=0.003)
    assert np.std(once) / np.std(difference(drawn)) == pytest.approx(0.76, abs=0.05)


def evaluated(metrics: CocoMetrics) -> Any:
    from retina.evaluation.engines import _hotcoco_evaluation

    evaluation = _hotcoco_evaluation(metrics.problem())
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def test_images_without_objects_can_be_all_that_is_drawn(
    problem: tuple[Any, DetectionArrays], ground_truth_of: Callable[[Any], Any]
) -> None:
    tree, found = problem
    truth = ground_truth_of(tree)
    matches = match_per_image(metrics_of(truth, found))
    is_empty = ~np.isin(np.sort(truth.image_ids), truth.annotation_image_ids[~truth.is_crowd])
    assert average_precisions(matches, is_empty[None].astype(np.int64)).tolist() == [-1.0]


def test_no_detection_at_all_is_an_ap_of_zero(
    problem: tuple[Any, DetectionArrays], ground_truth_of: Callable[[Any], Any]
) -> None:
    matches = match_per_image(CocoMetrics(ground_truth_of(problem[0])))
    drawn = draw_multiplicities(matches.num_images, 4, seed=0)
    assert average_precisions(matches, drawn).tolist() == [0.0] * 4


def test_the_interval_leaves_out_both_tails() -> None:
    assert interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))
