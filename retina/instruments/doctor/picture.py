"""A batch as the training sees it, drawn with its boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

from retina.instruments.doctor.findings import Examined
from retina.instruments.doctor.subject import Subject
from retina.instruments.doctor.trial import batch_sampler_of
from retina.prediction.drawing import Picture, draw_targets
from retina.prediction.image_grids import enlarged, image_grid
from retina.storage import replacing
from retina.structures import Categories, Sample, Targets

_MOST_PICTURES = 12
_SMALLEST_SIDE = 320
_COLUMNS = 4


def draw_batch(subject: Subject, folder: Path) -> Examined:
    """Write ``batch.png``: the first batch, augmented, with its boxes."""
    requests = batch_sampler_of(subject).epoch(0)[0][:_MOST_PICTURES]
    samples = [subject.train[request] for request in requests]
    pictures = [_drawn(sample, subject.train.categories) for sample in samples]
    ratio = float(np.median([picture.shape[0] / picture.shape[1] for picture in pictures]))
    grid = image_grid(pictures, columns=_COLUMNS, cell=(round(400 * ratio), 400))
    with replacing(folder / "batch.png") as aside:
        PIL.Image.fromarray(grid).save(aside, format="PNG")
    boxes = sum(len(sample.targets) for sample in samples)
    return Examined(
        summary=f"{len(samples)} images with {boxes} boxes: look at batch.png",
        numbers={"images": len(samples), "boxes": boxes},
        pictures=("batch.png",),
    )


def _drawn(sample: Sample, categories: Categories) -> Picture:
    image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())
    large, factor = enlarged(image, _SMALLEST_SIDE)
    targets = Targets(
        boxes=sample.targets.boxes * factor,
        labels=sample.targets.labels,
        is_crowd=sample.targets.is_crowd,
    )
    return draw_targets(large, targets, categories)
