"""Loads an epoch and looks at the processes: ``watched_epoch.py FILE FOLDER IMAGES STORE``.

The data set has so many images, whose entries share a few small files in FOLDER. STORE is
``arrays``, as the project keeps its annotations, or ``dicts``, the fault that is to be seen.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from retina.datasets import CocoConfig, FolderDataset
from retina.datasets.batch_sampling import BatchStream
from retina.datasets.dataset import AnnotatedImage
from retina.datasets.loading import Collate, LoaderConfig
from retina.datasets.sampling import SamplingConfig
from tests.steady.watching import look, note  # type: ignore[import-not-found]

BATCH_SIZE = 50
NUM_FILES = 10
NUM_MOMENTS = 20


def make_data(folder: Path, num_images: int) -> Path:
    folder.mkdir(parents=True)
    dice = np.random.default_rng(0)
    for number in range(NUM_FILES):
        pixels = dice.integers(0, 256, (16, 16 + 2 * number, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / f"{number}.png"), pixels)
    images = [
        {
            "id": index,
            "file_name": f"{index % NUM_FILES}.png",
            "height": 16,
            "width": 16 + 2 * (index % NUM_FILES),
        }
        for index in range(num_images)
    ]
    annotations = [
        {"id": row, "image_id": row // 3, "category_id": 1 + row % 3, "bbox": [row % 8, 1, 5, 6]}
        for row in range(3 * num_images)
    ]
    categories = [{"id": number, "name": f"class {number}"} for number in (1, 2, 3)]
    file = folder / "annotations.json"
    file.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return file


class DatasetOfDicts(FolderDataset):
    """Keeps a dict an image: to look at one writes its reference count, and copies its page."""

    def keep_dicts(self) -> None:
        self.dicts = [{"row": index, "box": [0.0, 0.0, 1.0, 1.0]} for index in range(len(self))]

    def load(self, index: int) -> AnnotatedImage:
        assert self.dicts[index]["row"] == index
        return super().load(index)


def main(file: Path, folder: Path, num_images: int, store: str) -> None:
    annotations = make_data(folder, num_images)
    dataset = CocoConfig(images=folder, annotations=annotations).build()
    if store == "dicts":
        dataset = DatasetOfDicts(dataset.table, images=folder)
        dataset.keep_dicts()
    batch_sampler = SamplingConfig().build(
        dataset, batch_size=BATCH_SIZE, seed=0, min_size=16, max_size=32
    )
    stream = BatchStream(batch_sampler, first_step=0, stop_step=batch_sampler.num_batches)
    loader = LoaderConfig().build(dataset, stream, Collate(32), num_workers=2)
    seen = np.zeros(num_images, dtype=np.int64)
    every = batch_sampler.num_batches // NUM_MOMENTS
    started = time.monotonic()
    for step, batch in enumerate(loader):
        np.add.at(seen, list(batch.image_ids), 1)
        if step % every == 0:
            workers = sorted(process.pid or 0 for process in multiprocessing.active_children())
            note(file, look(step, workers))
    seconds = time.monotonic() - started
    assert (seen == 1).all()
    table = dataset.table
    stored = [table.image_ids, table.file_names, table.image_sizes]
    stored += [table.annotation_ids, table.image_indices, table.labels, table.boxes_xywh]
    stored += [table.areas, table.is_crowd, table.occluded_fractions]
    objects = dataset._objects
    stored += [objects.starts, objects.boxes, objects.labels, objects.is_crowd]
    bytes_per_image = sum(array.nbytes for array in stored) / num_images
    print(f"{num_images / seconds:.0f} images/s, {bytes_per_image:.0f} bytes of annotations/image")


main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
