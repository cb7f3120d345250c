"""Ground truths to score against, and pycocotools used in its own way as the judge."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retina.datasets.coco_results import DetectionArrays
from retina.structures import Categories, GroundTruth


def _ground_truth(tree: dict[str, Any]) -> GroundTruth:
    categories = Categories(
        tuple(row["name"] for row in tree["categories"]),
        tuple(row["id"] for row in tree["categories"]),
    )
    annotations = tree["annotations"]
    return GroundTruth(
        categories=categories,
        image_ids=np.array([row["id"] for row in tree["images"]], dtype=np.int64),
        image_sizes=np.array([[row["height"], row["width"]] for row in tree["images"]]),
        annotation_ids=np.array([row["id"] for row in annotations], dtype=np.int64),
        annotation_image_ids=np.array([row["image_id"] for row in annotations], dtype=np.int64),
        category_labels=np.array(
            [categories.label_of(row["category_id"]) for row in annotations], dtype=np.int64
        ),
        boxes_xywh=np.array([row["bbox"] for row in annotations], dtype=np.float64).reshape(-1, 4),
        areas=np.array([row["area"] for row in annotations], dtype=np.float64),
        is_crowd=np.array([row["iscrowd"] for row in annotations], dtype=np.bool_),
    )


def _random_tree(seed: int, *, num_images: int, num_categories: int, num_objects: int) -> Any:
    """Ids with gaps in no order, crowds, boxes without area, images without objects."""
    rng = np.random.default_rng(seed)
    image_ids = rng.permutation(num_images * 3)[:num_images] + 1
    category_ids = rng.permutation(num_categories * 3)[:num_categories] + 1
    boxes = np.column_stack(
        [rng.uniform(0, 400, (num_objects, 2)), np.exp(rng.uniform(1, 6, (num_objects, 2)))]
    ).round(2)
    boxes[rng.random(num_objects) < 0.03, 2] = 0.0
    return {
        "images": [{"id": int(id_), "height": 480, "width": 640} for id_ in image_ids],
        "categories": [{"id": int(id_), "name": f"class {id_}"} for id_ in category_ids],
        "annotations": [
            {
                "id": row + 1,
                # Half of the images have no object; the last category has none either.
                "image_id": int(rng.choice(image_ids[: num_images // 2 + 1])),
                "category_id": int(rng.choice(category_ids[:-1])),
                "bbox": box.tolist(),
                "area": float(box[2] * box[3] * rng.uniform(0.3, 1.0)),
                "iscrowd": int(rng.random() < 0.1),
            }
            for row, box in enumerate(boxes)
        ],
    }


def _random_detections(seed: int, tree: Any, *, per_image: int) -> DetectionArrays:
    """Some near the truth, most not; two digits of score give many ties."""
    rng = np.random.default_rng(seed)
    truth = _ground_truth(tree)
    images = np.repeat(truth.image_ids[: -max(1, len(truth.image_ids) // 5)], per_image)
    boxes = np.column_stack(
        [rng.uniform(0, 400, (len(images), 2)), np.exp(rng.uniform(1, 6, (len(images), 2)))]
    )
    labels = rng.integers(0, len(truth.categories), len(images))
    for row in range(len(images)):
        own = np.flatnonzero(truth.annotation_image_ids == images[row])
        if len(own) and rng.random() < 0.6:
            picked = rng.choice(own)
            labels[row] = truth.category_labels[picked]
            box = truth.boxes_xywh[picked]
            boxes[row] = box + rng.normal(0, 0.07, 4) * box[[2, 3, 2, 3]]
    return DetectionArrays(images, boxes, rng.random(len(images)).round(2), labels)


def _judge(tree: Any, found: DetectionArrays) -> Any:
    """An evaluated ``COCOeval`` fed with dicts, as pycocotools' demo does it."""
    truth = _ground_truth(tree)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(tree))
        coco.createIndex()
        results = coco.loadRes(
            [
                {
                    "image_id": int(found.image_ids[row]),
                    "category_id": truth.categories.dataset_ids[found.labels[row]],
                    "bbox": found.boxes_xywh[row].tolist(),
                    "score": float(found.scores[row]),
                }
                for row in range(len(found.scores))
            ]
        )
        evaluation = COCOeval(coco, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.fixture(scope="session")
def ground_truth_of() -> Callable[[Any], GroundTruth]:
    return _ground_truth


@pytest.fixture(scope="session")
def random_tree() -> Callable[..., Any]:
    return _random_tree


@pytest.fixture(scope="session")
def random_detections() -> Callable[..., DetectionArrays]:
    return _random_detections


@pytest.fixture(scope="session")
def judge() -> Callable[..., Any]:
    return _judge


@pytest.fixture(scope="session")
def oracle_folder(shared_data: Path) -> Path:
    return shared_data / "coco_eval_oracle"


@pytest.fixture(scope="session")
def oracle(oracle_folder: Path) -> GroundTruth:
    return _ground_truth(json.loads((oracle_folder / "instances_val2014_100.json").read_text()))
