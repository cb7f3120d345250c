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
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models import detection
from torchvision.ops import FrozenBatchNorm2d

from retina.artifact import Artifact
from retina.datasets.dataset import DetectionDataset
from retina.datasets.subset import SubsetDataset
from retina.devices import autocast
from retina.evaluation.evaluator import Evaluator
from retina.experiment import DataOptions, resolve_data
from retina.export.calibration import calibration_images
from retina.export.exporting import ExportJob
from retina.export.formats import ExportForm
from retina.export.pictures import paint_batches
from retina.modeling.importers.published import (
    ARCHITECTURES,
    UNUSED,
    fetch_published,
    official_norm_eps,
    published,
)
from retina.modeling.preprocess import PreprocessConfig
from retina.prediction.detectors import torchvision_artifact
from retina.runtime import Runtime, TorchRuntime
from retina.runtime.files import load_export
from retina.runtime.splits import spread_indices
from retina.structures import Categories, Detections

CPU = torch.device("cpu")
EXPORTS = (
    ("ONNX Runtime", "onnx", "fp32", ".onnx"),
    ("OpenVINO fp32", "openvino", "fp32", ".xml"),
    ("OpenVINO bf16", "openvino", "bf16", ".xml"),
    ("OpenVINO INT8", "openvino", "int8", ".xml"),
)


class Torchvision(Runtime):
    """torchvision's own model, eager or whatever stands for it.

    Args:
        model: from a list with one image in 0 … 1 to a list with one dictionary.
        ours: the detector with the same weights, whose labels are given.
    """

    def __init__(self, model: Callable[[list[Tensor]], list[dict[str, Tensor]]], ours: Runtime):
        self.model, self.categories = model, ours.categories
        self.preprocess, self.thresholds = ours.preprocess, ours.thresholds
        self.thresholds_config = ours.thresholds_config

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """See `Runtime`."""
        with torch.no_grad():
            found = [self.model([image / 255])[0] for image in images]
        return [self._in_our_labels(one) for one in found]

    def _in_our_labels(self, found: dict[str, Tensor]) -> Detections:
        ids = torch.tensor(self.categories.dataset_ids)
        is_known = torch.isin(found["labels"], ids)
        labels = torch.searchsorted(ids, found["labels"][is_known])
        return Detections(found["boxes"][is_known], found["scores"][is_known], labels)


def make_torchvision(name: str, min_size: int, max_size: int) -> nn.Module:
    """Its own model, with the published weights or random ones."""
    variant = name.rpartition("_")[2]
    build = getattr(detection, ARCHITECTURES[variant])
    torch.manual_seed(0)
    model = build(
        weights=None,
        weights_backbone=None,
        num_classes=91,
        min_size=min_size,
        max_size=max_size,
    )
    if name.startswith("coco"):
        model.load_state_dict(fetch_published(name))
        eps = official_norm_eps(variant)
        for module in model.modules():
            if isinstance(module, FrozenBatchNorm2d) and eps is not None:
                module.eps = eps
    else:
        nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.05)
    return model.eval()


def make_artifact_of(name: str, model: nn.Module, min_size: int, max_size: int) -> Artifact:
    """The same weights as a detector of this project."""
    variant = name.rpartition("_")[2]
    about = published(f"coco_{variant}")
    return torchvision_artifact(
        model.state_dict(),
        about.variant,
        about.categories,
        unused=UNUSED,
        norm_eps=about.norm_eps if name.startswith("coco") else None,
        min_size=min_size,
        max_size=max_size,
    )


def folded_bf16(artifact: Artifact) -> TorchRuntime:
    """Norms folded into the convolutions before them, whose weights are bfloat16."""
    runtime = TorchRuntime.from_artifact(artifact, device=CPU, precision="bf16")
    detector = runtime.detector
    for module in list(detector.backbone.modules()):
        children = list(module.named_children())
        for (_, conv), (name, norm) in itertools.pairwise(children):
            if not isinstance(conv, nn.Conv2d) or not hasattr(norm, "running_var"):
                continue
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps,
                norm.weight, norm.bias,
            )  # fmt: skip
            setattr(module, name, nn.Identity())
    for name, module in detector.named_modules():
        if isinstance(module, nn.Conv2d) and "extra_blocks" not in name:  # P6 and P7 are float32
            module.to(torch.bfloat16, memory_format=torch.channels_last)
    return runtime


def torchvision_bf16(model: nn.Module) -> Callable[[list[Tensor]], list[dict[str, Tensor]]]:
    """Its model under autocast."""

    def run(images: list[Tensor]) -> list[dict[str, Tensor]]:
        with autocast("bf16", CPU):
            found: list[dict[str, Tensor]] = model(images)
        return [{name: value.float() if value.is_floating_point() else value
                 for name, value in one.items()} for one in found]  # fmt: skip

    return run


def torchvision_onnx(
    model: nn.Module, example: Tensor, path: Path
) -> Callable[[list[Tensor]], list[dict[str, Tensor]]]:
    """As its documentation says; a file for images of one size, which is that of the example."""
    import onnxruntime

    torch.onnx.export(
        model,
        ([example / 255],),
        path,
        opset_version=17,
        dynamo=False,
        input_names=["image"],
        output_names=["boxes", "scores", "labels"],
        dynamic_axes={"image": {1: "height", 2: "width"}},
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: list[Tensor]) -> list[dict[str, Tensor]]:
        outputs = session.run(None, {"image": images[0].contiguous().numpy()})
        names = ("boxes", "scores", "labels")
        return [{name: torch.from_numpy(value) for name, value in zip(names, outputs, strict=True)}]

    return run


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

    add("torch bf16, folded", lambda: (folded_bf16(artifact), size))
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
