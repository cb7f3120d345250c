"""Any data set written as a COCO annotation file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from retina.datasets.dataset import DetectionDataset
from retina.datasets.exports.exported_images import (
    OnImage,
    Splits,
    common_folder,
    image_folder,
    joined_truths,
    names_below,
    place_images,
    require_images,
    start_folder,
)
from retina.errors import UserError
from retina.storage import write_text
from retina.structures import GroundTruth

_ENTRIES = ("annotations.json", "images")


def to_coco(
    dataset: DetectionDataset, *, images: Path | None = None, truth: GroundTruth | None = None
) -> dict[str, Any]:
    """The content of a COCO annotation file; ids stay, and boxes are those of the ground truth.

    Args:
        dataset: of any format.
        images: the folder that the file names shall be relative to; None takes the innermost
            folder that holds all images.
        truth: its ground truth with other categories; None takes its own.

    Raises:
        UserError: an image lies outside of the folder.
    """
    truth = truth or dataset.ground_truth()
    paths = [Path(dataset.file_path(index)) for index in range(len(dataset))]
    folder = common_folder(dataset) if images is None else images
    categories, originals = truth.categories, truth.original_image_ids
    original_ids = [categories.original_id(label) for label in range(len(categories))]
    occluded = dataset.occluded_fractions()
    annotations: list[dict[str, Any]] = [
        {
            "id": annotation_id,
            "image_id": originals.get(image_id, image_id),
            "category_id": category_id,
            "bbox": box,
            "area": area,
            "iscrowd": int(is_crowd),
        }
        for annotation_id, image_id, category_id, box, area, is_crowd in zip(
            truth.annotation_ids.tolist(),
            truth.annotation_image_ids.tolist(),
            [original_ids[label] for label in truth.category_labels.tolist()],
            truth.boxes_xywh.tolist(),
            truth.areas.tolist(),
            truth.is_crowd.tolist(),
            strict=True,
        )
    ]
    for index in np.flatnonzero(np.isfinite(occluded)):
        annotations[index]["occluded_fraction"] = float(occluded[index])
    return {
        "images": [
            {
                "id": originals.get(image_id, image_id),
                "file_name": _below(path, folder),
                "height": size[0],
                "width": size[1],
            }
            for image_id, path, size in zip(
                truth.image_ids.tolist(), paths, truth.image_sizes.tolist(), strict=True
            )
        ],
        "annotations": annotations,
        "categories": [
            {"id": dataset_id, "name": name}
            for dataset_id, name in zip(original_ids, categories.names, strict=True)
        ],
    }


def write_coco(dataset: DetectionDataset, path: Path, *, images: Path | None = None) -> None:
    """Write `to_coco` into a file, in one step."""
    write_text(path, json.dumps(to_coco(dataset, images=images)))


def write_coco_folder(splits: Splits, folder: Path, on_image: OnImage) -> tuple[str, ...]:
    """Write data sets as ``SPLIT/annotations.json`` and ``SPLIT/images/``; see `place_image`.

    A single data set is written without a folder of its split. Boxes are as annotated; categories
    are the same in all files.

    Args:
        splits: to be written.
        folder: into which.
        on_image: called with 1 after every image.

    Returns:
        Nothing to be told: the format holds all.
    """
    require_images(splits)
    start_folder(folder, [split or entry for split in splits for entry in _ENTRIES])
    _, truths = joined_truths(splits)
    for split, dataset in splits.items():
        names = names_below(dataset)
        place_images(dataset, names, folder / split / "images", on_image)
        tree = to_coco(dataset, images=image_folder(dataset), truth=truths[split])
        write_text(folder / split / "annotations.json", json.dumps(tree))
    return ()


def _below(path: Path, folder: Path) -> str:
    try:
        return path.absolute().relative_to(folder.absolute()).as_posix()
    except ValueError:
        raise UserError(
            f"{path}: lies outside of {folder}; give a folder that holds all images of the set"
        ) from None
