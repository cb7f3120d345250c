"""From the start of a process to the detections of one photo: ours beside torchvision's RetinaNet.

Ours is `retina predict DETECTOR photo.jpg --output DIR --save json`. The peer is the shortest
script that does the same: it builds `retinanet_resnet50_fpn`, reads the same weights from a file,
the photo with PIL, and prints the detections. Both are processes of their own, on the CPU, and take
turns; the network's input is small (256×341), so that what it computes counts little. It is wall
time, since somebody waits for it: the machine should do nothing else. The weights are random, with
the outputs scaled so that about fifty boxes reach the score of 0.05; the detections are compared.

`start_up help` is `retina --help` beside `import torch`: what it would take at least, if the
command line imported what it does not need.

    python benchmarks/start_up.py
    python benchmarks/start_up.py --image PHOTO.jpg
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comparisons import OURS, Row, alternate, machine, parse, parser_of, row, show
from PIL import Image
from torch import Tensor
from torchvision.models.detection import RetinaNet, retinanet_resnet50_fpn
from torchvision.transforms.functional import pil_to_tensor

from retina.prediction.detectors import torchvision_artifact

NUM_CLASSES, MIN_SIZE, MAX_SIZE = 91, 256, 448
SCORE_THRESHOLD, NUM_CANDIDATES = 0.05, 50
BOX_BOUND, SCORE_BOUND = 1e-2, 1e-5

PEER = f"""
import json, sys
import torch
from PIL import Image
from torchvision.models.detection import retinanet_resnet50_fpn
from torchvision.transforms.functional import pil_to_tensor

weights, photo = sys.argv[1:]
model = retinanet_resnet50_fpn(
    weights=None, weights_backbone=None, num_classes={NUM_CLASSES},
    min_size={MIN_SIZE}, max_size={MAX_SIZE},
)
model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
model.eval()
image = pil_to_tensor(Image.open(photo).convert("RGB")) / 255
with torch.no_grad():
    (found,) = model([image])
print(json.dumps({{name: values.tolist() for name, values in found.items()}}))
"""
"""Its own threshold is 0.05, too."""

Found = Mapping[str, np.ndarray]
"""``boxes`` (N, 4) as x1, y1, x2, y2, ``scores`` (N,) and ``labels`` (N,)."""


def generate_photo(path: Path) -> None:
    """A JPEG of 480×640 with large and small structures."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC), dtype=np.float64)
    noisy = smooth + generator.normal(0, 12, smooth.shape)
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)


@torch.no_grad()
def random_network(photo: Path) -> RetinaNet:
    """torchvision's, with weights that find about fifty boxes in the photo."""
    torch.manual_seed(0)
    network = retinanet_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=NUM_CLASSES,
        min_size=MIN_SIZE,
        max_size=MAX_SIZE,
    ).eval()
    image = pil_to_tensor(Image.open(photo).convert("RGB")) / 255
    levels = list(network.backbone(network.transform([image])[0].tensors).values())
    head = network.head
    for name, layer, spread in (
        ("cls_logits", head.classification_head.cls_logits, 1.0),
        ("bbox_regression", head.regression_head.bbox_reg, 0.2),
    ):
        layer.weight.mul_(spread / head(levels)[name].std())
    logits = head(levels)["cls_logits"].flatten()
    last, next_one = logits.topk(NUM_CANDIDATES + 1).values[-2:].tolist()
    threshold = float(torch.tensor(SCORE_THRESHOLD).logit())
    head.classification_head.cls_logits.bias.add_(threshold - (last + next_one) / 2)
    return network


def run(command: Sequence[str | Path]) -> str:
    """What a process of this Python prints.

    Raises:
        SystemExit: it failed; its last line says why.
    """
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    return done.stdout


def detections_of_ours(path: Path) -> Found:
    """Of the one image of a ``detections.json``."""
    rows: Any = json.loads(path.read_text())
    boxes = np.array([one["bbox"] for one in rows]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return {
        "boxes": boxes,
        "scores": np.array([one["score"] for one in rows]),
        "labels": np.array([one["category_id"] for one in rows]),
    }


def detections_of_peer(printed: str) -> Found:
    """Of what it prints."""
    found = {name: np.array(values) for name, values in json.loads(printed).items()}
    return {**found, "boxes": found["boxes"].reshape(-1, 4)}


def differences(ours: Found, theirs: Found) -> dict[str, Any]:
    """Between the detections of one image, each with the peer's nearest of its class.

    Returns:
        the counts, the largest difference of a box in pixels, and of a score; both are None where
        the two are not the same set.
    """
    counts = {"detections": len(ours["labels"]), "detections_of_peer": len(theirs["labels"])}
    apart = np.abs(ours["boxes"][:, None] - theirs["boxes"][None]).max(axis=2)  # (N, N of peer)
    apart[ours["labels"][:, None] != theirs["labels"][None]] = np.inf
    nearest = apart.argmin(axis=1) if apart.size else np.zeros(0, dtype=np.int64)
    if sorted(nearest.tolist()) != list(range(len(theirs["labels"]))) or not apart.size:
        return {**counts, "box_px": None, "score": None}
    return {
        **counts,
        "box_px": float(apart[np.arange(len(nearest)), nearest].max()),
        "score": float(np.abs(ours["scores"] - theirs["scores"][nearest]).max()),
    }


def compare_predict(folder: Path, photo: Path, rounds: int) -> Row:
    """`retina predict` beside the script."""
    network = random_network(photo)
    weights, detector, output = folder / "weights.pth", folder / "d.safetensors", folder / "found"
    torch.save(network.state_dict(), weights)
    names = [f"class {label}" for label in range(NUM_CLASSES)]
    state: Mapping[str, Tensor] = network.state_dict()
    artifact = torchvision_artifact(state, "v1", names, min_size=MIN_SIZE, max_size=MAX_SIZE)
    artifact.save(detector)
    command = ["-m", "retina", "predict", detector, photo, "--output", output, "--save", "json"]
    command += ["--score-threshold", str(SCORE_THRESHOLD), "--device", "cpu"]
    printed = [run(["-c", PEER, weights, photo])]
    times = alternate(
        {
            OURS: partial(run, command),
            "torchvision": lambda: printed.append(run(["-c", PEER, weights, photo])),
        },
        rounds,
        warm_up=1,
    )
    found = differences(
        detections_of_ours(output / "detections.json"), detections_of_peer(printed[-1])
    )
    same = found["box_px"] is not None
    return row(
        "start_up",
        "torchvision",
        times[OURS],
        times["torchvision"],
        equal=same and found["box_px"] <= BOX_BOUND and found["score"] <= SCORE_BOUND,
        compared={**found, "box_px_bound": BOX_BOUND, "score_bound": SCORE_BOUND},
        setting=f"one photo to {MIN_SIZE} pixels, ResNet-50, ms of wall time of a process",
        about=machine("pillow"),
    )


def compare_help(rounds: int) -> Row:
    """`retina --help` beside the import of torch."""
    commands = {OURS: ["-m", "retina", "--help"], "import torch": ["-c", "import torch"]}
    runs = {name: partial(run, command) for name, command in commands.items()}
    times = alternate(runs, rounds, warm_up=1)
    return row(
        "start_up help",
        "import torch",
        times[OURS],
        times["import torch"],
        equal=True,  # else `run` would have ended this
        compared={"exit_code": 0, "exit_code_of_peer": 0},
        setting="ms of wall time of a process",
        about=machine(),
    )


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, rounds=11)
    parser.add_argument("--image", type=Path, help="a photo; a generated one by default")
    options = parse(parser)
    rounds = min(options.rounds, 2) if options.quick else options.rounds
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of the processes that are started
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photo = options.image or folder / "photo.jpg"
        if options.image is None:
            generate_photo(photo)
        rows = [compare_predict(folder, photo, rounds), compare_help(rounds)]
    show(rows, as_json=options.json)


if __name__ == "__main__":
    main()
