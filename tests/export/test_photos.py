"""Which folders are taken for images without annotations."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from retina.errors import UserError
from retina.export.photos import photos_in


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((40, 60, 3), np.uint8))


def test_images_alone_are_photos(tmp_path: Path) -> None:
    _image(tmp_path / "a.jpg")
    _image(tmp_path / "below" / "b.jpg")
    assert sorted(path.name for path in photos_in(tmp_path)) == ["a.jpg", "b.jpg"]


def test_images_beside_annotations_that_nothing_reads_are_not(tmp_path: Path) -> None:
    _image(tmp_path / "a.jpg")
    (tmp_path / "labels.json").write_text('{"boxes": 3}')
    with pytest.raises(UserError, match="holds no data set that can be read"):
        photos_in(tmp_path)


def test_several_data_sets_are_not(tmp_path: Path) -> None:
    for name in ("first", "second"):
        _image(tmp_path / name / "train" / "a.jpg")
        image = {"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}
        tree = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "x"}]}
        annotations = tmp_path / name / "train" / "_annotations.coco.json"
        annotations.write_text(json.dumps(tree))
    with pytest.raises(UserError, match="several data sets"):
        photos_in(tmp_path)
