"""Sampling: repeat factors of LVIS by hand, and the sizes of multi-scale training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retina.datasets.dataset import AnnotatedImage, DatasetReport, DetectionDataset
from retina.datasets.sampling import SamplingConfig, repeat_factors, scaled_sizes
from retina.structures import Categories, GroundTruth, IntArray, Targets


class Labelled(DetectionDataset):
    """Sizes and labels only: planning must not ask for more."""

    def __init__(self, labels: list[list[int]], crowds: list[list[bool]] | None = None) -> None:
        self._labels = labels
        self._crowds = crowds or [[False] * len(row) for row in labels]

    categories = Categories.from_names(["a", "b", "c"])
    report = DatasetReport(num_images=0, num_boxes=0, num_crowd=0, num_empty_images=0)

    @property
    def image_ids(self) -> IntArray:
        return np.arange(len(self._labels))

    @property
    def image_sizes(self) -> IntArray:
        return np.array([[480, 640]] * len(self._labels))

    def __len__(self) -> int:
        return len(self._labels)

    def file_path(self, index: int) -> str:
        raise AssertionError("planning names no file")

    def load(self, index: int) -> AnnotatedImage:
        raise AssertionError("planning must not decode an image")

    def ground_truth(self) -> GroundTruth:
        raise AssertionError("planning needs no ground truth")

    def targets(self, index: int) -> Targets:
        import torch

        count = len(self._labels[index])
        boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0]]).expand(count, 4)
        return Targets(
            boxes, torch.tensor(self._labels[index]), torch.tensor(self._crowds[index]).bool()
        )


def test_repeat_factors_by_hand() -> None:
    # Of 16 images, category 0 is in all but the last, 1 in four, 2 in one; 3 nowhere.
    labels = [[0, 0]] * 11 + [[0, 1]] * 3 + [[1, 0, 2, 2]] + [[]]
    factors = repeat_factors([np.array(row, np.int64) for row in labels], 4, threshold=0.5)
    expected = [1.0] * 11 + [np.sqrt(0.5 / 0.25)] * 3 + [np.sqrt(0.5 / (1 / 16))] + [1.0]
    np.testing.assert_allclose(factors, expected, rtol=1e-12)


@settings(deadline=None)
@given(
    labels=st.lists(st.lists(st.integers(0, 4), max_size=5), max_size=30),
    threshold=st.floats(0.001, 1.0),
)
def test_repeat_factors_are_those_of_the_paper(labels: list[list[int]], threshold: float) -> None:
    expected = []
    for row in labels:
        fractions = [sum(c in other for other in labels) / len(labels) for c in row]
        expected.append(max([1.0, *(float(np.sqrt(threshold / f)) for f in fractions)]))
    factors = repeat_factors([np.array(row, np.int64) for row in labels], 5, threshold)
    np.testing.assert_allclose(factors, expected, rtol=1e-9)


def test_sizes_scale_the_shortest_side_or_both_when_stretching() -> None:
    assert scaled_sizes(800, 1333, (0.8, 1.0), stretch=False) == ((640, 1333), (800, 1333))
    assert scaled_sizes(240, 320, (0.8, 1.0), stretch=True) == ((192, 256), (240, 320))


@pytest.mark.parametrize(
    ("config", "multi_scale", "expected"),
    [
        (SamplingConfig(), False, {800}),
        (SamplingConfig(), True, {640, 672, 704, 736, 768, 800}),
        (SamplingConfig(scale_factors=(0.5, 1.5)), True, {400, 1200}),
    ],
)
def test_the_config_builds_the_sizes(
    config: SamplingConfig, multi_scale: bool, expected: set[int]
) -> None:
    plan = config.build(
        Labelled([[0]] * 100),
        batch_size=1,
        seed=0,
        min_size=800,
        max_size=1333,
        multi_scale=multi_scale,
    )
    sizes = {request.target_size for batch in plan.epoch(0) for request in batch}
    assert sizes == {(size, 1333) for size in expected}


def test_the_config_repeats_images_of_rare_categories_but_not_for_crowds() -> None:
    labels = [[0]] * 14 + [[1], [2]]
    dataset = Labelled(labels, [[False]] * 15 + [[True]])
    plan = SamplingConfig(repeat_threshold=1.0).build(
        dataset, batch_size=4, seed=0, min_size=8, max_size=8
    )
    counts = np.zeros(16, np.int64)
    for epoch in range(10):
        for batch in plan.epoch(epoch):
            np.add.at(counts, [request.index for request in batch], 1)
    assert counts[14] == 40  # sqrt(1 / (1 / 16)) = 4 an epoch
    assert counts[15] == 10  # a crowd makes no category of the image


def test_dropping_the_last_batch() -> None:
    plan = SamplingConfig(drop_last=True).build(
        Labelled([[0]] * 10), batch_size=4, seed=0, min_size=8, max_size=8
    )
    assert [len(batch) for batch in plan.epoch(0)] == [4, 4]
