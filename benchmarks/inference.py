r"""From pixels to boxes: ours beside torchvision's RetinaNet with the same weights.

    python benchmarks/inference.py [--eager] [--size 512] [--rounds 15]

One square image, B = 1, uint8 in host memory to detections in its pixels; ResNet-50 with 91 class
outputs, and ResNet-18 with 64 channels (`configs/nano.yaml`) at half the size, each with random
weights that find some twenty objects. Ours runs as `retina predict --precision auto` does: norms
folded, bf16 where it is fast here. Peers: torchvision eager in float32; the same channels-last
under autocast; that with backbone and head compiled, beside which ours is compiled, too; and the
exports of both in ONNX Runtime.

``equal`` in float32: boxes within 1e-2 px, scores within 1e-5. In bf16: every detection above 0.3
has one of its class on the other side that overlaps it by half, with a score within 0.02; one that
the suppression has kept on one side alone, at an overlap just below half, is a tie and counted.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from comparisons import OURS, Row, alternate, machine, parse, parser_of, row, show
from torch import Tensor, nn
from torchvision_detectors import (
    CPU,
    Torchvision,
    example_image,
    make_artifact_of,
    make_nano,
    make_torchvision,
    torchvision_bf16,
    torchvision_compiled,
    torchvision_onnx,
)

from retina.devices import Precision, dtype_of, pick_precision
from retina.experiment import ExperimentConfig
from retina.export.exporting import ExportJob
from retina.export.formats import ExportForm
from retina.geometry.boxes import pairwise_iou
from retina.modeling.detector import RetinaNet
from retina.modeling.inference_form import InferenceForm, in_form, usual_form
from retina.runtime import Runtime, TorchRuntime
from retina.runtime.files import load_export
from retina.structures import Categories, Detections

MAIN_SCORE = 0.3
TIE = 0.05
BOUNDS = {"fp32": (1e-2, 1e-5), "bf16": (None, 0.02)}
"""Pixels and scores by which the same detection may differ."""

MakeOurs = Callable[[InferenceForm, Precision], Runtime]


def compare(
    ours: Detections, theirs: Detections, precision: Precision
) -> tuple[bool, dict[str, Any]]:
    """Whether both are the same, and the numbers that say so."""
    pixels, most = BOUNDS[precision]
    least = 0.0 if precision == "fp32" else MAIN_SCORE
    alone, ties, gaps, apart = 0, 0, [0.0], [0.0]
    for one, other in ((ours, theirs), (theirs, ours)):
        far = (one.boxes[:, None] - other.boxes[None]).abs().amax(dim=2)
        overlap = pairwise_iou(one.boxes, other.boxes)
        overlap = overlap.masked_fill(one.labels[:, None] != other.labels[None], -1.0)
        fits = (overlap >= 0.5) if pixels is None else (overlap >= 0) & (far <= pixels)
        for index in (one.scores > least).nonzero().flatten().tolist():
            partners = fits[index].nonzero().flatten()
            if not len(partners):
                is_tie = pixels is None and bool((overlap[index] >= 0.5 - TIE).any())
                ties, alone = ties + is_tie, alone + (not is_tie)
                continue
            off = (other.scores[partners] - one.scores[index]).abs()
            gaps.append(float(off.min()))
            apart.append(float(far[index, partners[off.argmin()]]))
    agreed = alone == 0 and max(gaps) <= most
    return agreed, {
        "detections": int((ours.scores > least).sum()),
        "without partner": alone,
        "ties": ties,
        "score": max(gaps),
        "score bound": most,
        "pixels": max(apart),
        **({} if pixels is None else {"pixel bound": pixels}),
    }


def measure(
    name: str,
    ours: Mapping[str, tuple[Runtime, Precision]],
    peers: Mapping[str, Runtime],
    image: Tensor,
    rounds: int,
) -> list[Row]:
    """Each of ours beside each of the peers.

    Args:
        name: of the network.
        ours: what it is called in the rows, how it runs, and by which rule it is compared.
        peers: how they run.
        image: what all look at.
        rounds: that are timed.
    """
    runtimes = {f"{OURS} {key}": one for key, (one, _) in ours.items()} | dict(peers)
    found = {key: one.detect([image])[0] for key, one in runtimes.items()}
    times = alternate(
        {key: lambda one=one: one.detect([image]) for key, one in runtimes.items()}, rounds
    )
    about, rows = machine("onnxruntime"), []
    where = getattr(next(iter(peers.values())), "device", CPU).type
    for key, (_, precision) in ours.items():
        for peer in peers:
            mine = f"{OURS} {key}"
            equal, compared = compare(found[mine], found[peer], precision)
            setting = (
                f"{name}, {image.shape[1]}², B = 1, {where}, ours {key or 'eager'} {precision}"
            )
            rows.append(
                row(
                    " ".join(("inference", key)).strip(),
                    peer,
                    times[mine],
                    times[peer],
                    equal=equal,
                    compared=compared,
                    setting=setting,
                    about=about,
                )
            )
    return rows


def measure_network(
    name: str,
    key: str,
    model: nn.Module,
    make: MakeOurs,
    size: int,
    device: torch.device,
    *,
    compiled: bool,
    rounds: int,
) -> list[Row]:
    """The PyTorch forms of one network."""
    auto = pick_precision("auto", device)
    model = model.to(device)
    ours = {key: (make(usual_form(auto), auto), auto)}
    plain = make("plain", "fp32")
    peers: dict[str, Any] = {
        "torchvision fp32": copy.deepcopy(model),
        "torchvision bf16": torchvision_bf16(model),
    }
    if compiled:
        ours[f"{key} compiled".strip()] = (make("compiled", auto), auto)
        peers["torchvision compiled"] = torchvision_compiled(model)
    runtimes = {peer: Torchvision(one, plain, device) for peer, one in peers.items()}
    image = example_image(size)
    rows = measure(name, ours, runtimes, image, rounds)
    exact = {f"{key} fp32".strip(): (plain, "fp32")}
    return rows + measure(
        name, exact, {"torchvision fp32": runtimes["torchvision fp32"]}, image, rounds
    )


def resnet50(
    size: int, device: torch.device, *, compiled: bool, onnx: bool, rounds: int
) -> list[Row]:
    """Torchvision's own model and the same weights here."""
    model = make_torchvision("random_v1", size, size)
    artifact = make_artifact_of("random_v1", model, size, size)

    def make(form: InferenceForm, precision: Precision) -> TorchRuntime:
        return TorchRuntime.from_artifact(artifact, device=device, precision=precision, form=form)

    rows = measure_network(
        "ResNet-50", "", model, make, size, device, compiled=compiled, rounds=rounds
    )
    if onnx:
        model, device = model.cpu(), CPU
        image, plain = example_image(size), make("plain", "fp32")
        with tempfile.TemporaryDirectory() as folder:
            theirs = torchvision_onnx(model, image, Path(folder) / "theirs.onnx")
            output = Path(folder) / "ours.onnx"
            ExportJob(artifact, "detector", ExportForm("onnx", "fp32"), output, None, ()).run()
            exported = load_export(output, device="cpu")
            rows += measure(
                "ResNet-50",
                {"onnx": (exported, "fp32")},
                {"torchvision onnx": Torchvision(theirs, plain)},
                image,
                rounds,
            )
    return rows


def nano(size: int, device: torch.device, *, compiled: bool, rounds: int) -> list[Row]:
    """`configs/nano.yaml`, and the same of torchvision's parts."""
    model, config, detector = make_nano(10, size)
    make = partial(nano_runtime, config, detector, 10, device=device)
    return measure_network(
        "nano", "nano", model, make, size, device, compiled=compiled, rounds=rounds
    )


def nano_runtime(
    config: ExperimentConfig,
    detector: RetinaNet,
    num_classes: int,
    form: InferenceForm,
    precision: Precision,
    device: torch.device = CPU,
) -> TorchRuntime:
    """What runs the detector that `make_nano` gives."""
    return TorchRuntime(
        in_form(detector, form, dtype_of(precision), device),
        categories=Categories(tuple(map(str, range(num_classes))), tuple(range(num_classes))),
        preprocess=config.preprocess.build().to(device),
        postprocess=config.postprocess.build(detector.box_coder),
        device=device,
        precision=precision,
        memory_fix="",
    )


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, rounds=15)
    parser.add_argument("--size", type=int, help="of the image's side: 512, on a GPU 1024")
    parser.add_argument("--eager", action="store_true", help="nothing compiled or exported")
    options = parse(parser)
    more = not (options.eager or options.quick)
    device, usual = options.device, 512 if options.device.type == "cpu" else 1024
    size = 256 if options.quick else options.size or usual
    with torch.no_grad():
        rows = resnet50(
            size, device, compiled=more, onnx=more and device.type == "cpu", rounds=options.rounds
        )
        rows += nano(size // 2, device, compiled=more, rounds=options.rounds)
    show(rows, as_json=options.json)


if __name__ == "__main__":
    main()
