"""Images that are in both sets, found by what they show."""

from __future__ import annotations

import numpy as np
import pytest

from retina.evaluation.report.overlap import find_overlap
from tests.memory_dataset import MemoryDataset  # type: ignore[import-not-found]


@pytest.fixture
def sets() -> tuple[MemoryDataset, MemoryDataset]:
    """Six and four images of noise; validation 1 is train 4, and validation 3 its mirror image."""
    train, validation = MemoryDataset([[]] * 6), MemoryDataset([[]] * 4)
    random = np.random.default_rng(7)
    validation._images = random.integers(0, 256, validation._images.shape, dtype=np.uint8)
    validation._images[1] = train._images[4]
    validation._images[3] = train._images[4][:, ::-1]
    return train, validation


def test_copies_and_mirror_images_are_found(sets: tuple[MemoryDataset, MemoryDataset]) -> None:
    overlap = find_overlap(*sets)

    assert (overlap.num_pairs, overlap.num_images) == (2, 2)
    assert (overlap.num_train_compared, overlap.num_validation_compared) == (6, 4)
    assert [(pair.train, pair.validation) for pair in overlap.pairs] == [("4", "1"), ("4", "3")]
    assert overlap.pairs[0].distance == 0
    assert overlap.pairs[1].distance <= 60


def test_copies_within_a_set_are_no_overlap(sets: tuple[MemoryDataset, MemoryDataset]) -> None:
    train, validation = sets
    train._images[0] = train._images[1]
    validation._images[1] = validation._images[3] = validation._images[0]

    assert find_overlap(train, validation).num_pairs == 0


def test_no_image_is_looked_at_when_the_time_is_over(
    sets: tuple[MemoryDataset, MemoryDataset],
) -> None:
    overlap = find_overlap(*sets, seconds=-1.0)

    assert (overlap.num_pairs, overlap.num_train_compared) == (0, 0)


def test_an_empty_set_overlaps_nothing(sets: tuple[MemoryDataset, MemoryDataset]) -> None:
    assert find_overlap(sets[0], MemoryDataset([])).num_pairs == 0
