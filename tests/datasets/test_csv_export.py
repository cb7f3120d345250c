"""Writing CSV: what comes back through its reader is what went in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from retina.datasets import find_source
from retina.datasets.exports.csv import write_csv
from tests.reading import read_coco  # type: ignore[import-not-found]

Tree = dict[str, Any]
CocoWriter = Callable[..., tuple[Path, Path]]


def nothing(count: int) -> None: ...


def odd(tree: Tree) -> None:
    tree["categories"][0]["name"] = '猫 & "dog", 2'
    tree["annotations"][0].update(bbox=[50.125, 5, 20, 10.0625], iscrowd=1)  # reaches out
    tree["images"].append({"id": 8, "file_name": "sub/a.png", "height": 40, "width": 60})


def test_a_single_set_comes_back(write_coco: CocoWriter, tmp_path: Path) -> None:
    images, path = write_coco(odd)
    (images / "sub").mkdir()
    (images / "sub/a.png").write_bytes((images / "b.png").read_bytes())
    before = read_coco(images, path)
    assert write_csv({"": before}, tmp_path / "out", nothing) == ()
    source = find_source(tmp_path / "out")
    assert source.whole is not None
    after = source.whole.build()
    assert after.categories == before.categories
    names = [Path(after.file_path(index)).name for index in range(len(after))]
    assert sorted(names) == sorted(Path(before.file_path(n)).name for n in range(len(before)))
    old, new = before.ground_truth(), after.ground_truth()
    by_image = np.argsort(old.image_indices, kind="stable")
    for field in ("boxes_xywh", "category_labels", "is_crowd", "image_indices"):
        assert np.array_equal(getattr(old, field)[by_image], getattr(new, field)), field
    assert np.array_equal(old.image_sizes, new.image_sizes)


def test_splits_come_back(write_coco: CocoWriter, tmp_path: Path) -> None:
    before = read_coco(*write_coco())
    write_csv({"train": before, "validation": before}, tmp_path / "out", nothing)
    source = find_source(tmp_path / "out")
    assert sorted(source.splits) == ["train", "validation"]
    after = source.splits["validation"].build()
    assert after.class_counts() == before.class_counts()
