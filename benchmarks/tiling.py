"""Small objects in large images: our tiles beside SAHI's, with the same detector.

    pip install "retina-detector[benchmarks]"    # SAHI brings opencv-python: in its own environment
    python benchmarks/tiling.py runs/bccd/checkpoints/last.safetensors \
        --images data/bccd/JPEGImages --annotations data/bccd/Annotations \
        --split data/bccd/ImageSets/Main/test.txt

Large images are made of real ones: `--columns` × `--rows` pictures beside each other, each shrunk
to `--shrink` of its size. Contenders, all with tiles of `--tile` pixels and `--overlap`, the same
network in batches of the same size:

    plain             the detector on the whole image, without tiles
    ours, nms         `retina.runtime.TiledRuntime`, with the full-image pass
    ours, weighted    the same, with the mean of boxes
    ours, tiles only  the same as nms, without the full-image pass
    SAHI              `get_sliced_prediction` as it comes, with its full-image pass; detections of
                      low scores, which AP needs, it merges by NMS and IoU
    SAHI, merging     the same, made to merge as it does for high scores: GREEDYNMM by the
                      intersection over the smaller area

They take turns, each round beginning with another; the time is that of the process, image in memory
to detections in memory, the median of the rounds. AP counts `--max-detections` of a class in an
image, for all contenders.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from sahi.models.base import DetectionModel
from sahi.predict import get_sliced_prediction
from sahi.prediction import ObjectPrediction

from retina.artifact import load_artifact
from retina.datasets.dataset import AnnotatedImage, DetectionDataset
from retina.datasets.formats.voc import VocConfig
from retina.evaluation.coco_metrics import CocoMetrics
from retina.runtime import Runtime, TorchRuntime, Views
from retina.structures import Categories, Detections, GroundTruth

Detect = Callable[[AnnotatedImage], Detections]


def main() -> None:
    """Make the images, let everyone find objects in them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detector", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--shrink", type=float, default=0.5)
    parser.add_argument("--tile", type=int, default=240)
    parser.add_argument("--overlap", type=float, default=0.2)
    parser.add_argument("--max-detections", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    artifact = load_artifact(arguments.detector)
    runtime = TorchRuntime.from_artifact(artifact, device=torch.device("cpu"))
    data = VocConfig(
        images=arguments.images, annotations=arguments.annotations, split=arguments.split
    ).build(artifact.categories)
    images = large_images(data, arguments)
    objects = sum(len(image.labels) for image in images)
    height, width = images[0].size
    print(f"{len(images)} images of {width} × {height}, {objects} objects")
    plain = TorchRuntime.from_artifact(
        artifact, device=torch.device("cpu"), max_detections=arguments.max_detections
    )
    truth = truth_of(images, artifact.categories)
    contenders = contenders_of(runtime, plain, arguments)
    report(images, truth, contenders, arguments)


def large_images(data: DetectionDataset, arguments: argparse.Namespace) -> list[AnnotatedImage]:
    """As many as the pictures of the data set are enough for; the same in every run."""
    order = np.random.default_rng(0).permutation(len(data)).tolist()
    number = arguments.columns * arguments.rows
    pictures = [data.load(index) for index in order[: len(order) // number * number]]
    return [
        beside_each_other(pictures[start : start + number], arguments)
        for start in range(0, len(pictures), number)
    ]


def beside_each_other(
    pictures: list[AnnotatedImage], arguments: argparse.Namespace
) -> AnnotatedImage:
    """One image of several of one size, in rows."""
    height, width = (round(side * arguments.shrink) for side in pictures[0].size)
    canvas = np.zeros((arguments.rows * height, arguments.columns * width, 3), dtype=np.uint8)
    boxes = []
    for number, picture in enumerate(pictures):
        row, column = divmod(number, arguments.columns)
        y, x = row * height, column * width
        small = cv2.resize(picture.image, (width, height), interpolation=cv2.INTER_AREA)
        canvas[y : y + height, x : x + width] = small
        scale = [width / picture.size[1], height / picture.size[0]]
        boxes.append(picture.boxes * np.array([*scale, *scale]) + [x, y, x, y])
    return AnnotatedImage(
        image=canvas,
        boxes=np.concatenate(boxes).astype(np.float32),
        labels=np.concatenate([picture.labels for picture in pictures]),
        is_crowd=np.concatenate([picture.is_crowd for picture in pictures]),
    )


def truth_of(images: list[AnnotatedImage], categories: Categories) -> GroundTruth:
    """What the detections are scored against."""
    boxes = np.concatenate([image.boxes for image in images]).astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    counts = [len(image.labels) for image in images]
    ids = np.arange(1, len(images) + 1)
    return GroundTruth(
        categories=categories,
        image_ids=ids,
        image_sizes=np.array([image.size for image in images]),
        annotation_ids=np.arange(1, len(boxes) + 1),
        annotation_image_ids=np.repeat(ids, counts),
        category_labels=np.concatenate([image.labels for image in images]),
        boxes_xywh=np.concatenate([boxes[:, :2], sides], axis=1),
        areas=sides.prod(axis=1),
        is_crowd=np.concatenate([image.is_crowd for image in images]),
    )


class DetectorInSahi(DetectionModel):  # type: ignore[misc]
    """A runtime as SAHI wants one; a batch of slices goes through the network together."""

    def set_model(self, model: Runtime, **_: Any) -> None:
        """Keep the runtime and the names of its classes."""
        self.model = model
        self.category_mapping = {str(at): name for at, name in enumerate(model.categories.names)}

    def perform_inference(self, image: np.ndarray) -> None:
        """Find the objects of one image."""
        self._original_predictions = self._detect([image])

    def perform_batch_inference(self, images: list[np.ndarray]) -> None:
        """Find the objects of several images of one size."""
        self._original_predictions = self._detect(images)

    def _detect(self, images: list[np.ndarray]) -> list[Detections]:
        tensors = [torch.from_numpy(np.ascontiguousarray(image)) for image in images]
        found: list[Detections] = self.model.detect([one.permute(2, 0, 1) for one in tensors])
        return found

    def _create_object_prediction_list_from_original_predictions(
        self, shift_amount_list: Any = None, full_shape_list: Any = None
    ) -> None:
        shifts = [[0, 0]] if shift_amount_list is None else shift_amount_list
        shifts = [shifts] if isinstance(shifts[0], int) else shifts
        shapes = full_shape_list
        if shapes is not None and isinstance(shapes[0], int):
            shapes = [shapes]
        self._object_prediction_list_per_image = [
            [
                ObjectPrediction(
                    bbox=box,
                    category_id=label,
                    category_name=self.model.categories.names[label],
                    score=score,
                    shift_amount=shifts[number],
                    full_shape=None if shapes is None else shapes[number],
                )
                for box, score, label in zip(
                    found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
                )
            ]
            for number, found in enumerate(self._original_predictions)
        ]


def contenders_of(
    runtime: Runtime, plain: Runtime, arguments: argparse.Namespace
) -> dict[str, Detect]:
    """Who finds objects, by the names of the table."""

    def ours(looking: Runtime) -> Detect:
        return lambda image: looking.detect([torch.from_numpy(image.image).permute(2, 0, 1)])[0]

    def tiled(**fields: Any) -> Detect:
        views = Views(tile=arguments.tile, overlap=arguments.overlap, **fields)
        return ours(views.wrap(runtime, batch_size=arguments.batch_size))

    model = DetectorInSahi(model=runtime, confidence_threshold=0.05, device="cpu")

    def sahi(*, force: bool) -> Detect:
        return lambda image: sliced(model, image.image, arguments, force=force)

    return {
        "plain": ours(plain),
        "ours, nms": tiled(),
        "ours, weighted": tiled(merge="weighted"),
        "ours, tiles only": tiled(full_image=False),
        "SAHI": sahi(force=False),
        "SAHI, merging": sahi(force=True),
    }


def sliced(
    model: DetectionModel, image: np.ndarray, arguments: argparse.Namespace, *, force: bool
) -> Detections:
    """What SAHI finds."""
    result = get_sliced_prediction(
        image,
        model,
        slice_height=arguments.tile,
        slice_width=arguments.tile,
        overlap_height_ratio=arguments.overlap,
        overlap_width_ratio=arguments.overlap,
        batch_size=arguments.batch_size,
        force_postprocess_type=force,
        verbose=0,
    )
    found = sorted(result.object_prediction_list, key=lambda one: -one.score.value)
    boxes = [one.bbox.to_xyxy() for one in found]
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor([one.score.value for one in found]),
        torch.tensor([one.category.id for one in found], dtype=torch.int64),
    )


def report(
    images: list[AnnotatedImage],
    truth: GroundTruth,
    contenders: dict[str, Detect],
    arguments: argparse.Namespace,
) -> None:
    """Let all take turns, and print what each has found and how long it took."""
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    found: dict[str, list[Detections]] = {}
    for number in range(arguments.rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.process_time()
            found[name] = [contenders[name](image) for image in images]
            times[name].append((time.process_time() - start) / len(images))
    print("| | AP | AP50 | APs | APm | found | ms an image |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        metrics = CocoMetrics(truth, max_detections=arguments.max_detections)
        metrics.update(truth.image_ids.tolist(), found[name])
        scores = metrics.compute().numbers()
        shown = " | ".join(f"{scores[key]:.4f}" for key in ("AP", "AP50", "APs", "APm"))
        count = sum(map(len, found[name]))
        print(f"| {name} | {shown} | {count} | {1000 * statistics.median(times[name]):.0f} |")


if __name__ == "__main__":
    main()
