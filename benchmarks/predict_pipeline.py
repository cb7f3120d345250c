"""How much longer `retina predict` takes than the slowest of its stages.

    python benchmarks/predict_pipeline.py IMAGES [--detector FILE] [--num-images 1000] [--rounds 2]

Decoding, the network, and drawing with writing are timed alone, each with the threads that it has
in the whole, and then the whole; all by turns in one process, over the pictures of a folder that
are repeated up to the number asked for. Without a detector a small one is made that has not learnt
anything, and 20 boxes are drawn into each picture. Threads wait for each other as under the command
line (``GOMP_SPINCOUNT``), unless the environment says otherwise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # before torch reads it, as `retina` does

import torch

from retina.artifact import load_artifact, make_artifact
from retina.datasets.images import decode_image
from retina.modeling.config import ModelConfig
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.prediction.drawing import Picture
from retina.prediction.files import predict_files
from retina.prediction.inputs import ImageFile, free_stems
from retina.prediction.outputs import Place, PredictedImage
from retina.prediction.outputs.pictures import Pictures
from retina.prediction.pipeline import Behind, in_batches, map_ahead, num_threads
from retina.prediction.predictor import Predictor
from retina.structures import Categories, Detections

BATCH_SIZE = 8


def small_predictor() -> Predictor:
    """A ResNet-18 of 320 pixels that finds 20 things anywhere."""
    torch.manual_seed(0)
    model = ModelConfig.model_validate(
        {
            "backbone": {"kind": "resnet", "name": "resnet18", "norm": "frozen"},
            "pyramid": {"channels": 64},
            "head": {"num_convs": 1},
        }
    )
    return Predictor.from_artifact(
        make_artifact(
            model.build(3),
            model=model,
            preprocess=PreprocessConfig(min_size=320, max_size=320),
            postprocess=PostprocessConfig(score_threshold=0.001, max_detections=20),
            categories=Categories.from_names(["red", "white", "platelet"]),
            training={},
        )
    )


def seconds(stage: Callable[[], object]) -> float:
    """How long a stage takes."""
    start = time.perf_counter()
    stage()
    return time.perf_counter() - start


class Stages:
    """The stages alone, over the same images as the whole.

    Args:
        predictor: the detector.
        paths: of the images, repeated.
    """

    def __init__(self, predictor: Predictor, paths: Sequence[Path]) -> None:
        self.predictor = predictor
        self.inputs = [ImageFile(path) for path in paths]
        self.images: dict[Path, Picture] = {path: decode_image(path) for path in set(paths)}
        self.found: list[Detections] = []

    def decode(self) -> None:
        """Read and decode every image."""
        threads = num_threads()
        paths = (one.path for one in self.inputs)
        for _ in map_ahead(decode_image, paths, threads=threads, ahead=BATCH_SIZE + threads):
            pass

    def network(self) -> None:
        """Find the objects in every image."""
        self.found = []
        for batch in in_batches(self.inputs, BATCH_SIZE):
            images = [self.images[one.path] for one in batch]
            self.found += self.predictor.predict(images, 0.0, batch_size=BATCH_SIZE)

    def write(self, folder: Path) -> None:
        """Draw and write every picture."""
        stems = free_stems(self.inputs)
        pictures = Pictures(Place(folder, folder, self.inputs, stems, self.predictor.categories))
        with Behind(
            pictures.write, lambda _: None, threads=num_threads(), depth=BATCH_SIZE
        ) as behind:
            for item, one in enumerate(self.inputs):
                behind.put(PredictedImage(item, self.images[one.path], self.found[item]))

    def whole(self, folder: Path) -> None:
        """Predict, as the command does."""
        from retina.prediction.files import PredictionOptions

        options = PredictionOptions(score_threshold=0.0, batch_size=BATCH_SIZE)
        run = predict_files(self.predictor, self.inputs, folder, options=options)
        assert run is not None
        assert run.num_images == len(self.inputs)


def main() -> None:
    """Time the stages and the whole by turns, and print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--detector", type=Path)
    parser.add_argument("--num-images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    found = sorted(options.images.glob("*.jpg"))
    paths = [found[at % len(found)] for at in range(options.num_images)]
    predictor = (
        small_predictor()
        if options.detector is None
        else Predictor.from_artifact(load_artifact(options.detector))
    )
    stages = Stages(predictor, paths)
    folder = Path(tempfile.mkdtemp())
    times: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, stage in (
            ("decode", stages.decode),
            ("network", stages.network),
            ("draw and write", lambda: stages.write(folder / "stage")),
            ("whole", lambda: stages.whole(folder / "whole")),
        ):
            (folder / "stage").mkdir(exist_ok=True)
            times.setdefault(name, []).append(seconds(stage))
    shutil.rmtree(folder)
    print(f"{len(paths)} images, {num_threads()} threads a stage, load {os.getloadavg()[0]:.1f}")
    best = {name: min(values) for name, values in times.items()}
    for name, values in times.items():
        print(f"{name:15} {' '.join(f'{value:7.1f}' for value in values)} s")
    whole = best.pop("whole")
    slowest = max(best, key=lambda name: best[name])
    print(f"whole ÷ slowest stage ({slowest}) = {whole / best[slowest]:.2f}")
    print(f"all stages one after the other ÷ whole = {sum(best.values()) / whole:.2f}")


if __name__ == "__main__":
    main()
