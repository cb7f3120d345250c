"""Several sets in one: lookups, ids, ground truth, and classes that must agree."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retina.datasets.combined import ConcatenatedDataset
from retina.errors import UserError
from retina.structures import SampleRequest
from tests.reading import read_coco  # type: ignore[import-not-found]

CocoWriter = Callable[..., tuple[Path, Path]]


def other_ids(tree: dict[str, Any]) -> None:
    for image in tree["images"]:
        image["id"] += 100
    for annotation in tree["annotations"]:
        annotation["id"] += 50
        annotation["image_id"] += 100
        annotation["bbox"] = [1, 2, 3, annotation["id"] % 10 + 1]


def test_parts_follow_each_other(write_coco: CocoWriter) -> None:
    first = read_coco(*write_coco())
    second = read_coco(*write_coco(other_ids, "other"))
    both = ConcatenatedDataset([first, second])
    assert len(both) == 4
    assert both.image_ids.tolist() == [7, 3, 107, 103]
    assert both.image_sizes.tolist() == [[40, 60]] * 4
    assert both.categories == first.categories
    assert both.file_path(2) == second.file_path(0)
    assert torch.equal(both.targets(3).boxes, second.targets(1).boxes)
    assert np.array_equal(both.load(2).image, second.load(0).image)
    request = SampleRequest(index=3, seed=0, max_size=None)
    assert both[request].image_id == 103
    truth = both.ground_truth()
    assert truth.annotation_ids.tolist() == [11, 12, 13, 61, 62, 63]
    assert truth.annotation_image_ids.tolist() == [7, 3, 7, 107, 103, 107]
    assert truth.areas.tolist() == [200, 2400, 13] * 2
    assert both.report.num_boxes == 6
    assert first.class_counts() == (2, 1)
    assert both.class_counts() == (4, 2)
    assert both.report.findings == ()
    assert both.occluded_fractions().shape == (6,)


def test_ids_that_coincide_are_numbered_anew(write_coco: CocoWriter) -> None:
    first = read_coco(*write_coco())
    both = ConcatenatedDataset([first, first])
    assert both.image_ids.tolist() == [1, 2, 3, 4]
    truth = both.ground_truth()
    assert truth.image_ids.tolist() == [1, 2, 3, 4]
    assert truth.annotation_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert truth.annotation_image_ids.tolist() == [1, 2, 1, 3, 4, 3]
    assert both.report.findings == (
        "image ids of the parts coincide: all images are numbered anew from 1",
    )


def test_findings_name_their_part(write_coco: CocoWriter) -> None:
    def no_area(tree: dict[str, Any]) -> None:
        other_ids(tree)
        del tree["annotations"][0]["area"]

    both = ConcatenatedDataset([read_coco(*write_coco()), read_coco(*write_coco(no_area, "other"))])
    assert both.report.findings[0].startswith("part 1: 1 annotation without an area")


def test_other_classes_are_an_error(write_coco: CocoWriter) -> None:
    paths = write_coco()
    parts = [read_coco(*paths), read_coco(*paths, classes=("dog",))]
    with pytest.raises(UserError, match=r"part 1 .* has the classes dog, but part 0 has cat, dog"):
        ConcatenatedDataset(parts)
    with pytest.raises(UserError, match="at least one part"):
        ConcatenatedDataset([])


def test_pickled_copies_are_equal(write_coco: CocoWriter) -> None:
    both = ConcatenatedDataset([read_coco(*write_coco())])
    copy = pickle.loads(pickle.dumps(both))
    assert np.array_equal(copy.load(1).image, both.load(1).image)
