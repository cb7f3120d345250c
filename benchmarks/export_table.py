r"""One RetinaNet in every engine: milliseconds for an image, AP, and the size of the file.

    python benchmarks/export_table.py coco_v2 --data coco --images 100 --rounds 5
    python benchmarks/export_table.py random_v1 --min-size 128 --max-size 200 --images 2 --rounds 1

The detector is torchvision's, with its published weights (``coco_v1``, ``coco_v2``) or random ones
(``random_v1``, ``random_v2``: to try the program). Rows, all from a uint8 image in host memory to
detections in its pixels:

    torch fp32            TorchRuntime
    torch bf16, folded    the same in bfloat16, norms folded into the convolutions, channels last
    ONNX Runtime          retina export
    OpenVINO fp32, bf16, INT8   the same; INT8 where there is data to calibrate on
    torchvision fp32, bf16      torchvision's own model, eager
    torchvision's ONNX    torch.onnx.export of that model, with its transform and suppression

All take turns in one process, image by image, each round beginning with another; the median of all
is printed, and the fastest. Threads are torch's (``OMP_NUM_THREADS``) for every engine. AP is that
of the images that are run, where ``--data`` has annotations. Exports are written without the gate:
the table is what shows their differences.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision_detectors import (
    Torchvision,
    make_artifact_of,
    make_torchvision,
    torchvision_bf16,
    torchvision_onnx,
)

from retina.datasets.dataset import DetectionDataset
from retina.datasets.subset import SubsetDataset
from retina.evaluation.evaluator import Evaluator
from retina.experiment import DataOptions, resolve_data
from retina.export.calibration import calibration_images
from retina.export.exporting import ExportJob
from retina.export.formats import ExportForm
from retina.export.pictures import paint_batches
from retina.modeling.importers.published import (
    UNUSED,
    published,
)
from retina.modeling.preprocess import PreprocessConfig
from retina.runtime import Runtime, TorchRuntime
from retina.runtime.files import load_export
from retina.runtime.splits import spread_indices
from retina.structures import Categories

CPU = torch.device("cpu")
EXPORTS = (
    ("ONNX Runtime", "onnx", "fp32", ".onnx"),
    ("OpenVINO fp32", "openvino", "fp32", ".xml"),
    ("OpenVINO bf16", "openvino", "bf16", ".xml"),
    ("OpenVINO INT8", "openvino", "int8", ".xml"),
)


def megabytes(*paths: Path) -> float:
    """Of files together."""
    return sum(path.stat().st_size for path in paths) / 1e6


def build_rows(
    options: argparse.Namespace, folder: Path, images: Sequence[Tensor],
    dataset: DetectionDataset | None,
) -> tuple[dict[str, tuple[Runtime, float]], dict[str, str]]:  # fmt: skip
    """The runtimes with their sizes in MB, and why others are missing."""
    model = make_torchvision(options.detector, options.min_size, options.max_size)
    artifact = make_artifact_of(options.detector, model, options.min_size, options.max_size)
    artifact.save(folder / "detector.safetensors")
    size = megabytes(folder / "detector.safetensors")
    eager = TorchRuntime.from_artifact(artifact, device=CPU)
    rows: dict[str, tuple[Runtime, float]] = {"torch fp32": (eager, size)}
    failures: dict[str, str] = {}

    def add(name: str, make: Callable[[], tuple[Runtime, float]]) -> None:
        if options.only not in name:
            return
        try:
            rows[name] = make()
        except Exception as error:  # a peer that fails is a result, too
            failures[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"

    add(
        "torch bf16, folded",
        lambda: (
            TorchRuntime.from_artifact(artifact, device=CPU, precision="bf16", form="folded"),
            size,
        ),
    )
    for name, form, precision, suffix in EXPORTS:
        if precision == "int8" and dataset is None and options.only in name:
            failures[name] = "needs --data to calibrate on"
            continue

        def export(form: str = form, precision: Any = precision, suffix: str = suffix) -> Any:
            output = folder / f"{form}_{precision}{suffix}"
            calibration = calibration_images(dataset) if dataset is not None else ()
            ExportJob(
                artifact, "detector", ExportForm(form, precision), output, None, calibration
            ).run()
            files = [output, *([output.with_suffix(".bin")] if suffix == ".xml" else [])]
            return load_export(output, device="cpu"), megabytes(*files)

        add(name, export)
    path = folder / "torchvision.onnx"
    add("torchvision fp32", lambda: (Torchvision(model, eager), size))
    add("torchvision bf16", lambda: (Torchvision(torchvision_bf16(model), eager), size))
    add(
        "torchvision's ONNX",
        lambda: (
            Torchvision(torchvision_onnx(model, images[0], path), eager),
            megabytes(path),
        ),
    )
    return rows, failures


def time_rows(
    rows: dict[str, tuple[Runtime, float]], images: Sequence[Tensor], rounds: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Milliseconds of each run of an image."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    failures: dict[str, str] = {}
    names = list(rows)
    for number in range(rounds + 1):  # the first is a warm-up
        for index, image in enumerate(images):
            start_at = (number + index) % len(names)
            for name in names[start_at:] + names[:start_at]:
                if name in failures:
                    continue
                start = time.perf_counter()
                try:
                    rows[name][0].detect([image])
                except Exception as error:
                    failures[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                    continue
                if number:
                    times[name].append(1000 * (time.perf_counter() - start))
    return times, failures


def read_data(path: Path, split: str | None, count: int, categories: Categories) -> Any:
    """Some images of a data set, with the detector's labels."""
    resolved = resolve_data(
        DataOptions(source=path, split=split), purpose="what to run on", categories=categories,
        unknown_categories="leave_out",
    )  # fmt: skip
    rows = spread_indices(len(resolved.dataset), count)
    return SubsetDataset(resolved.dataset, np.array(rows), f"{len(rows)} images")


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("detector", choices=["coco_v1", "coco_v2", "random_v1", "random_v2"])
    parser.add_argument("--data", type=Path, help="annotated images of COCO's classes")
    parser.add_argument("--split")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--only", default="", help="rows whose name has this in it, and the first")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--min-size", type=int, default=800)
    parser.add_argument("--max-size", type=int, default=1333)
    options = parser.parse_args()
    about = published("coco_v1")
    known = [(i, name) for i, name in enumerate(about.categories) if name not in UNUSED]
    categories = Categories(tuple(name for _, name in known), tuple(i for i, _ in known))
    rule = PreprocessConfig(min_size=options.min_size, max_size=options.max_size).build()
    dataset, images = None, [image for batch in paint_batches(rule) for image in batch]
    if options.data is not None:
        dataset = read_data(options.data, options.split, options.images, categories)
        images = [
            torch.from_numpy(dataset.load(row).image).permute(2, 0, 1)
            for row in range(len(dataset))
        ]
    images = images[: options.images]
    with tempfile.TemporaryDirectory() as folder:
        rows, failures = build_rows(options, Path(folder), images, dataset)
        times, stopped = time_rows(rows, images, options.rounds)
        failures |= stopped
        print(f"{options.detector}, {options.min_size} to {options.max_size} pixels, "
              f"{len(images)} images × {options.rounds}, {torch.get_num_threads()} threads, "
              f"torch {torch.__version__}\n")  # fmt: skip
        print("| | ms, median | ms, fastest | AP | MB |\n|---|---|---|---|---|")
        for name, (runtime, size) in rows.items():
            if name in failures:
                continue
            ap = "–"
            if dataset is not None:
                ap = f"{Evaluator(dataset, batch_size=1).run(runtime).metrics.AP:.4f}"
            middle, least = statistics.median(times[name]), min(times[name])
            print(f"| {name} | {middle:.1f} | {least:.1f} | {ap} | {size:.1f} |")
    for name, why in failures.items():
        print(f"\n{name}: {why}")


if __name__ == "__main__":
    main()
