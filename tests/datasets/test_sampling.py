"""Sampling: repeat factors of LVIS by hand, and the sizes of multi-scale training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retina.datasets.folder import FolderDataset
from retina.datasets.sampling import SamplingConfig, repeat_factors, scaled_sizes
from retina.errors import UserError
from tests.reading import read_coco  # type: ignore[import-not-found]


def labelled(
    folder: Path, labels: list[list[int]], crowds: list[list[bool]] | None = None
) -> FolderDataset:
    """A data set whose image files do not exist: sampling must not open them."""
    crowds = crowds or [[False] * len(row) for row in labels]
    annotations = [
        {"image_id": image, "category_id": label, "bbox": [1, 1, 9, 9], "iscrowd": int(is_crowd)}
        for image, (row, flags) in enumerate(zip(labels, crowds, strict=True))
        for label, is_crowd in zip(row, flags, strict=True)
    ]
    tree = {
        "images": [
            {"id": image, "file_name": f"{image}.jpg", "height": 480, "width": 640}
            for image in range(len(labels))
        ],
        "categories": [{"id": label, "name": f"category {label}"} for label in range(3)],
        "annotations": [{"id": number, "area": 81, **a} for number, a in enumerate(annotations)],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(tree))
    return read_coco(folder, path, check_images=False)


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
    config: SamplingConfig, multi_scale: bool, expected: set[int], tmp_path: Path
) -> None:
    sampler = config.build(
        labelled(tmp_path, [[0]] * 100),
        batch_size=1,
        seed=0,
        min_size=800,
        max_size=1333,
        multi_scale=multi_scale,
    )
    sizes = {request.max_size for batch in sampler.epoch(0) for request in batch}
    assert sizes == {(size, 1333) for size in expected}


def test_the_config_repeats_images_of_rare_categories_but_not_for_crowds(tmp_path: Path) -> None:
    labels = [[0]] * 14 + [[1], [2]]
    dataset = labelled(tmp_path, labels, [[False]] * 15 + [[True]])
    sampler = SamplingConfig(repeat_threshold=1.0).build(
        dataset, batch_size=4, seed=0, min_size=8, max_size=8
    )
    counts = np.zeros(16, np.int64)
    for epoch in range(10):
        for batch in sampler.epoch(epoch):
            np.add.at(counts, [request.index for request in batch], 1)
    assert counts[14] == 40  # sqrt(1 / (1 / 16)) = 4 an epoch
    assert counts[15] == 10  # a crowd makes no category of the image


def test_dropping_the_last_batch(tmp_path: Path) -> None:
    sampler = SamplingConfig(drop_last=True).build(
        labelled(tmp_path, [[0]] * 10), batch_size=4, seed=0, min_size=8, max_size=8
    )
    assert [len(batch) for batch in sampler.epoch(0)] == [4, 4]


def test_too_few_images_for_one_batch_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no batch of 4 images can be made of 3 training images"):
        SamplingConfig(drop_last=True).build(
            labelled(tmp_path, [[0]] * 3), batch_size=4, seed=0, min_size=8, max_size=8
        )


@pytest.mark.parametrize(("empty_images", "expected"), [("keep", range(6)), ("drop", [0, 2, 5])])
def test_images_without_objects_are_kept_or_left_out(
    tmp_path: Path, empty_images: Literal["keep", "drop"], expected: list[int]
) -> None:
    dataset = labelled(
        tmp_path, [[0], [], [1, 2], [], [1], [2]], [[False], [], [False] * 2, [], [True], [False]]
    )
    sampler = SamplingConfig(empty_images=empty_images).build(
        dataset, batch_size=2, seed=0, min_size=8, max_size=8
    )
    seen = sorted(request.index for batch in sampler.epoch(0) for request in batch)
    assert seen == list(expected)
