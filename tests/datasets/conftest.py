"""Tiny data sets on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

Tree = dict[str, Any]
CocoWriter = Callable[..., tuple[Path, Path]]


@pytest.fixture
def write_coco(tmp_path: Path) -> CocoWriter:
    """Writes a COCO set of two 40 × 60 images with three boxes of two classes.

    ``change`` may alter the tree before it is written; the folder and the file are returned.
    """

    def write(
        change: Callable[[Tree], object] | None = None, name: str = "set"
    ) -> tuple[Path, Path]:
        folder = tmp_path / name / "images"
        folder.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(0)
        for file_name in ("a.png", "b.png"):
            pixels = generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / file_name), pixels)
        tree: Tree = {
            "images": [
                {"id": 7, "file_name": "a.png", "height": 40, "width": 60},
                {"id": 3, "file_name": "b.png", "height": 40, "width": 60},
            ],
            "annotations": [
                annotation(11, 7, 9, [10, 5, 20, 10]),
                annotation(12, 3, 2, [0, 0, 60, 40]),
                annotation(13, 7, 2, [1.5, 2.5, 3.25, 4]),
            ],
            "categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "cat"}],
        }
        if change is not None:
            change(tree)
        path = folder.parent / "annotations.json"
        path.write_text(json.dumps(tree))
        return folder, path

    return write


def annotation(number: int, image_id: int, category_id: int, box: list[float]) -> Tree:
    common = {"id": number, "image_id": image_id, "category_id": category_id, "bbox": box}
    return {**common, "area": box[2] * box[3], "iscrowd": 0}


@pytest.fixture
def write_voc(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Writes a VOC set: names → list of (class, box, difficult); images are 40 × 60."""

    def write(
        objects: dict[str, list[tuple[str, tuple[object, ...], int]]], size: str | None = None
    ) -> tuple[Path, Path]:
        images, annotations = tmp_path / "JPEGImages", tmp_path / "Annotations"
        images.mkdir(exist_ok=True)
        annotations.mkdir(exist_ok=True)
        told = "<size><width>60</width><height>40</height><depth>3</depth></size>"
        for name, boxes in objects.items():
            cv2.imwrite(str(images / f"{name}.jpg"), np.full((40, 60, 3), 90, np.uint8))
            body = "".join(
                f"<object><name>{kind}</name><difficult>{difficult}</difficult><bndbox>"
                f"<xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>"
                f"<ymax>{box[3]}</ymax></bndbox></object>"
                for kind, box, difficult in boxes
            )
            (annotations / f"{name}.xml").write_text(
                f"<annotation><filename>{name}.jpg</filename>"
                f"{told if size is None else size}{body}</annotation>"
            )
        return images, annotations

    return write
