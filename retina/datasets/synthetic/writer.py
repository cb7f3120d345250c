"""The embedded data set as a COCO data set on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from retina.datasets.dataset import Image
from retina.datasets.formats.coco import CocoConfig
from retina.datasets.statistics import DatasetStatistics, dataset_statistics
from retina.datasets.synthetic.folder import (
    DESCRIPTION,
    held_parameters,
    is_complete,
    staging,
)
from retina.datasets.synthetic.painter import SceneObject
from retina.datasets.synthetic.planning import (
    BLOCK,
    CATEGORIES,
    SIZES,
    SPLITS,
    image_generator,
    plan_block,
)
from retina.datasets.synthetic.scene import Scene, paint_scene
from retina.errors import UserError
from retina.structures import Size

GENERATOR_VERSION = 1
"""Goes up with every change that draws other pictures from the same parameters."""

JPEG_QUALITY = 92
SMALLEST_SIDE, LARGEST_SIDE = 128, 4096


@dataclass(frozen=True, slots=True)
class GenerationReport:
    """What `generate_dataset` did.

    Attributes:
        folder: where the data set is.
        outcome: "created"; "kept" where the folder held this very data set already; "replaced"
            where it held one of other parameters, or an incomplete one.
        statistics: of each split, by its name.
    """

    folder: Path
    outcome: Literal["created", "kept", "replaced"]
    statistics: Mapping[str, DatasetStatistics]


def generate_dataset(
    folder: str | Path,
    *,
    num_images: int = 500,
    num_validation_images: int = 100,
    seed: int = 0,
    sizes: Sequence[Size] = SIZES,
    on_image: Callable[[int, int], None] | None = None,
) -> GenerationReport:
    """Make the embedded data set: ``{train,validation}/images/*.jpg`` and ``annotations.json``.

    Image ``i`` of a split is a function of the seed, the split, ``i`` and ``sizes`` alone: the same
    parameters give the same bytes (with the same versions of NumPy and OpenCV), and a larger data
    set begins with the images of a smaller one.

    Args:
        folder: where to; created with its parents if it is not there.
        num_images: images to train on.
        num_validation_images: images to validate on.
        seed: the only source of randomness.
        sizes: the (height, width) that images are drawn from, in pixels.
        on_image: called after each image with how many are done, and of how many.

    Raises:
        UserError: a parameter makes no sense, or the folder holds something else or is not
            writable.
        RunError: the disk is full or failing. Nothing half-written is left.
    """
    folder = Path(folder)
    counts = {"train": num_images, "validation": num_validation_images}
    _check_parameters(counts, seed, sizes)
    parameters = {
        "generator_version": GENERATOR_VERSION,
        "num_images": num_images,
        "num_validation_images": num_validation_images,
        "seed": seed,
        "sizes": [list(size) for size in sizes],
    }
    held = held_parameters(folder)
    if held == parameters and is_complete(folder):
        return GenerationReport(folder, "kept", _statistics(folder))
    with staging(folder) as aside:
        total, done = sum(counts.values()), 0
        for split, count in counts.items():
            entries = []
            (aside / split / "images").mkdir(parents=True)
            for index, scene in enumerate(_scenes(seed, split, count, sizes)):
                name = f"{index:06d}.jpg"
                (aside / split / "images" / name).write_bytes(_encode(scene.image))
                entries.append((name, scene))
                done += 1
                if on_image is not None:
                    on_image(done, total)
            annotations = json.dumps(_annotations(entries, parameters, split), indent=1)
            (aside / split / "annotations.json").write_text(annotations + "\n", encoding="utf-8")
    return GenerationReport(folder, "created" if held is None else "replaced", _statistics(folder))


def _statistics(folder: Path) -> dict[str, DatasetStatistics]:
    configs = {
        split: CocoConfig(
            images=folder / split / "images", annotations=folder / split / "annotations.json"
        )
        for split in SPLITS
    }
    return {
        split: dataset_statistics(config.build(check_images=False))
        for split, config in configs.items()
    }


def _check_parameters(counts: Mapping[str, int], seed: int, sizes: Sequence[Size]) -> None:
    for split, count in counts.items():
        if count < 1:
            raise UserError(f"the {split} split needs at least 1 image, not {count}")
    if seed < 0:
        raise UserError(f"the seed must be 0 or more, not {seed}")
    if not sizes:
        raise UserError("no image size was given; give at least one (height, width)")
    for size in sizes:
        if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in size):
            raise UserError(
                f"image size {size[0]} × {size[1]}: each side must be {SMALLEST_SIDE} to "
                f"{LARGEST_SIDE} pixels"
            )


def _scenes(seed: int, split: str, count: int, sizes: Sequence[Size]) -> Iterator[Scene]:
    for index in range(count):
        if index % BLOCK == 0:
            plans = plan_block(seed, split, index // BLOCK, sizes)
        yield paint_scene(image_generator(seed, split, index), plans[index % BLOCK])


def _encode(image: Image) -> bytes:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    ok, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert ok, "OpenCV cannot encode a JPEG"
    return np.asarray(encoded).tobytes()


def _annotations(
    entries: Sequence[tuple[str, Scene]], parameters: Mapping[str, Any], split: str
) -> dict[str, Any]:
    """A split as COCO JSON. Areas count the visible pixels, as COCO's do, and boxes hold them."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, scene) in enumerate(entries, start=1):
        height, width = scene.image.shape[:2]
        images.append(
            {"id": image_id, "file_name": name, "width": width, "height": height, "license": 1}
        )
        for thing in scene.objects:
            annotations.append(_annotation(len(annotations) + 1, image_id, thing))
    return {
        "info": {
            "description": DESCRIPTION,
            "version": str(GENERATOR_VERSION),
            "split": split,
            "parameters": dict(parameters),
        },
        "licenses": [
            {
                "id": 1,
                "name": "CC0 1.0 Universal",
                "url": "https://creativecommons.org/publicdomain/zero/1.0/",
            }
        ],
        "categories": [
            {
                "id": dataset_id,
                "name": name,
                "supercategory": "glyph" if name in ("letter A", "digit 8") else "shape",
            }
            for name, dataset_id in zip(CATEGORIES.names, CATEGORIES.dataset_ids, strict=True)
        ],
        "images": images,
        "annotations": annotations,
    }


def _annotation(annotation_id: int, image_id: int, thing: SceneObject) -> dict[str, Any]:
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": CATEGORIES.dataset_ids[thing.label],
        "bbox": list(thing.box),
        "area": thing.area,
        "iscrowd": int(thing.is_crowd),
        "occluded_fraction": round(thing.occluded_fraction, 4),
        "truncated_fraction": round(thing.truncated_fraction, 4),
    }
