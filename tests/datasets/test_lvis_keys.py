"""What LVIS's keys say, carried through what becomes of a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from retina.datasets.combined import ConcatenatedDataset
from retina.datasets.formats.coco import read_coco_annotations
from tests.reading import read_coco  # type: ignore[import-not-found]

CocoWriter = Callable[..., tuple[Path, Path]]


def federated(tree: dict[str, Any]) -> None:
    """No cat in image a, where 4711 is no class of the file; not every dog of b is annotated."""
    tree["images"][0].update(neg_category_ids=[2, 4711], not_exhaustive_category_ids=[])
    tree["images"][1].update(neg_category_ids=[], not_exhaustive_category_ids=[9])
    dog, cat = tree["categories"]
    dog.update(frequency="f", image_count=1)
    cat.update(image_count=11)


def test_they_are_read(write_coco: CocoWriter) -> None:
    table = read_coco_annotations(write_coco(federated)[1])
    federation = table.federation
    assert federation is not None
    assert table.categories.names == ("cat", "dog")
    assert federation.absent.tolist() == [[0, 0]]
    assert federation.not_exhaustive.tolist() == [[1, 1]]
    assert federation.frequencies == ("c", "f")
    only = table.take_images(np.array([1])).ground_truth().federation
    assert only is not None
    assert only.absent.tolist() == []
    assert only.not_exhaustive.tolist() == [[0, 1]]


def test_a_file_without_them_has_none(write_coco: CocoWriter) -> None:
    assert read_coco_annotations(write_coco()[1]).federation is None


def test_two_files_in_one(write_coco: CocoWriter) -> None:
    first, second = read_coco(*write_coco(federated)), read_coco(*write_coco(federated, "other"))
    ordinary = read_coco(*write_coco(name="third"))
    both = ConcatenatedDataset([first, second]).ground_truth().federation
    assert both is not None
    assert both.absent[:, 0].tolist() == [0, 2]
    assert both.not_exhaustive[:, 0].tolist() == [1, 3]
    assert ConcatenatedDataset([first, ordinary]).ground_truth().federation is None
