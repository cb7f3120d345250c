"""A small truth on disk, and results files of which it is known what they find."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

Box = tuple[float, float, float, float]

NAMES = ("cat", "dog", "<b>bird</b>")
"""The last one has no object."""


def _truth(num_images: int) -> dict[str, Any]:
    """A small cat and a large dog in every image; a crowd of cats in the first."""
    annotations = []
    for image in range(1, num_images + 1):
        annotations += [
            {"image_id": image, "category_id": 1, "bbox": [10, 10, 20, 20], "area": 400},
            {"image_id": image, "category_id": 2, "bbox": [100, 100, 200, 100], "area": 20_000},
        ]
    annotations.append(
        {"image_id": 1, "category_id": 1, "bbox": [300, 0, 90, 90], "area": 8_100, "iscrowd": 1}
    )
    return {
        "images": [
            {"id": image, "file_name": f"{image}.jpg", "width": 400, "height": 300}
            for image in range(1, num_images + 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)],
        "annotations": [
            {"id": number, "iscrowd": 0, **one} for number, one in enumerate(annotations, 1)
        ],
    }


@pytest.fixture
def write_truth(tmp_path: Path) -> Callable[..., Path]:
    """Writes the truth with so many images, changed by a function."""

    def write(
        num_images: int = 30,
        *,
        name: str = "val.json",
        change: Callable[[dict[str, Any]], None] | None = None,
    ) -> Path:
        tree = _truth(num_images)
        if change is not None:
            change(tree)
        path = tmp_path / name
        path.write_text(json.dumps(tree))
        return path

    return write


@pytest.fixture
def write_results(tmp_path: Path) -> Callable[..., Path]:
    """Writes a results file.

    ``cats`` and ``dogs`` are the images in which they are found; ``false`` those with a false alarm
    of a dog; ``move`` pixels to the right; ``score`` of all that is true.
    """

    def write(
        name: str,
        *,
        cats: Sequence[int] = (),
        dogs: Sequence[int] = (),
        false: Sequence[int] = (),
        move: float = 0.0,
        score: float = 0.9,
        false_score: float = 0.5,
    ) -> Path:
        rows = [(image, 1, [10 + move, 10, 20, 20], score) for image in cats]
        rows += [(image, 2, [100 + move, 100, 200, 100], score) for image in dogs]
        rows += [(image, 2, [0, 200, 50, 50], false_score) for image in false]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps(
                [
                    {"image_id": image, "category_id": number, "bbox": box, "score": at}
                    for image, number, box, at in rows
                ]
            )
        )
        return path

    return write


@pytest.fixture
def compared(write_truth: Callable[..., Path]) -> Callable[..., Any]:
    """The comparison of results files on a truth."""
    from retina.datasets import CocoConfig
    from retina.evaluation.comparison import compare, find_sides, read_sides, shared_truth
    from retina.evaluation.folder import read_as_scored

    def run(*paths: Path, truth: Path, num_resamples: int = 200) -> Any:
        config = CocoConfig(images=truth.parent, annotations=truth)
        sources = find_sides(paths)
        dataset = shared_truth(sources, read_as_scored(config, None))
        sides = read_sides(sources, dataset)
        return compare(sides, dataset, truth_name="val", num_resamples=num_resamples)

    return run
