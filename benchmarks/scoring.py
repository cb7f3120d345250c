"""Scoring a split: ours beside pycocotools and faster-coco-eval, on the same detections.

    python benchmarks/scoring.py                   # 5,000 images × 100 detections
    python benchmarks/scoring.py --images 500
    python benchmarks/scoring.py --images 20000 --command

Prints the time of each, the ratios, and whether the twelve numbers are equal bit for bit. The time
of each starts with detections per image as float32 tensors in host memory, as a detector leaves
them, and ends with the twelve numbers; building the ground truth is part of it. The peers are used
in the usual way: one dict per detection. It is wall time, since some of them use several cores;
``--threads`` limits ours. Where faster-coco-eval is not installed (it is in the extra
``benchmarks``), its row is left out. Where it is, the row may well say that they are not equal:
with some data a number or two of faster-coco-eval 1.8.0 differ from pycocotools' in the last bits
(by up to 1.1e-16 as seen), where ours do not. ``largest_difference`` says by how much.

With ``--command`` it runs ``retina evaluate --detections`` on files of the same, in a process of
one thread for each kind of numbers, and prints its wall time, its time on a core (which other work
on the machine does not change), and the most memory that it held.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comparisons import OURS, Row, alternate, machine, parse, parser_of, row, show
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from retina.datasets.written_results import write_results
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.metrics import METRIC_NAMES
from retina.structures import Categories, Detections, GroundTruth

NUM_CATEGORIES = 80


def make_ground_truth(rng: np.random.Generator, num_images: int) -> GroundTruth:
    """Objects as many, as large and as unevenly spread over classes as COCO val2017 has them."""
    num_objects = int(7.3 * num_images)
    sizes = np.exp(rng.uniform(np.log(8), np.log(300), (num_objects, 2)))
    boxes = np.concatenate([rng.uniform(0, 1, (num_objects, 2)) * (640 - sizes), sizes], axis=1)
    share = 1 / np.arange(1, NUM_CATEGORIES + 1)
    return GroundTruth(
        categories=Categories.from_names([f"class {label}" for label in range(NUM_CATEGORIES)]),
        image_ids=np.arange(1, num_images + 1),
        image_sizes=np.full((num_images, 2), 640),
        annotation_ids=np.arange(1, num_objects + 1),
        annotation_image_ids=rng.integers(1, num_images + 1, num_objects),
        category_labels=rng.choice(NUM_CATEGORIES, num_objects, p=share / share.sum()),
        boxes_xywh=boxes.round(2),
        areas=(sizes.prod(axis=1) * 0.6).round(2),
        is_crowd=rng.random(num_objects) < 0.01,
    )


def make_detections(
    rng: np.random.Generator, truth: GroundTruth, per_image: int
) -> list[Detections]:
    """For each image its objects a little displaced, filled up with false alarms."""
    found = []
    by_image = np.argsort(truth.annotation_image_ids, kind="stable")
    starts = np.searchsorted(truth.annotation_image_ids[by_image], truth.image_ids)
    for own in np.split(by_image, starts[1:]):
        rows = own[:per_image]
        num_false = per_image - len(rows)
        boxes = truth.boxes_xywh[rows]
        boxes = boxes + rng.normal(0, 0.06, boxes.shape) * boxes[:, [2, 3, 2, 3]]
        false = np.exp(rng.uniform(np.log(8), np.log(300), (num_false, 2)))
        false = np.concatenate([rng.uniform(0, 500, (num_false, 2)), false], axis=1)
        x, y, width, height = torch.from_numpy(np.concatenate([boxes, false])).float().unbind(1)
        scores = np.concatenate([rng.beta(3, 2, len(rows)), rng.beta(1, 5, num_false)])
        labels = np.concatenate(
            [truth.category_labels[rows], rng.integers(0, NUM_CATEGORIES, num_false)]
        )
        found.append(
            Detections(
                boxes=torch.stack([x, y, x + width, y + height], dim=1),
                scores=torch.from_numpy(scores).float(),
                labels=torch.from_numpy(labels),
            )
        )
    return found


def tree_of(truth: GroundTruth) -> dict[str, Any]:
    """The ground truth as a COCO file has it."""
    ids = truth.categories.dataset_ids
    return {
        "images": [
            {"id": image_id, "file_name": f"{image_id:012}.jpg", "height": 640, "width": 640}
            for image_id in truth.image_ids.tolist()
        ],
        "categories": [{"id": id_, "name": str(id_)} for id_ in ids],
        "annotations": [
            {
                "id": int(truth.annotation_ids[row]),
                "image_id": int(truth.annotation_image_ids[row]),
                "category_id": ids[truth.category_labels[row]],
                "bbox": truth.boxes_xywh[row].tolist(),
                "area": float(truth.areas[row]),
                "iscrowd": int(truth.is_crowd[row]),
            }
            for row in range(len(truth.annotation_ids))
        ],
    }


def score_with_peer(
    coco_class: Any, evaluation_class: Any, truth: GroundTruth, detections: Sequence[Detections]
) -> list[float]:
    """What most evaluation scripts do: one dict per detection, then the peer's own summary."""
    ids = truth.categories.dataset_ids
    tree = tree_of(truth)
    results = []
    for image_id, found in zip(truth.image_ids.tolist(), detections, strict=True):
        columns = (found.boxes.double().tolist(), found.scores.tolist(), found.labels.tolist())
        results += [
            {
                "image_id": image_id,
                "category_id": ids[label],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for (x1, y1, x2, y2), score, label in zip(*columns, strict=True)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_class()
        coco.dataset = tree
        coco.createIndex()
        evaluation = evaluation_class(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats[: len(METRIC_NAMES)]]


Score = Callable[[GroundTruth, Sequence[Detections]], list[float]]


def peers() -> dict[str, Score]:
    """The packages that are installed, by name."""
    found: dict[str, Score] = {"pycocotools": partial(score_with_peer, COCO, COCOeval)}
    try:
        import faster_coco_eval
    except ImportError:
        print("faster-coco-eval is not installed: its row is left out", file=sys.stderr)
    else:
        found["faster-coco-eval"] = partial(
            score_with_peer, faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster
        )
    return found


def score_with_ours(truth: GroundTruth, detections: Sequence[Detections]) -> list[float]:
    """In batches of 16 images, as an evaluation loop gives them."""
    metrics = CocoMetrics(truth)
    for start in range(0, len(detections), 16):
        batch = slice(start, start + 16)
        metrics.update(truth.image_ids[batch].tolist(), detections[batch])
    return list(metrics.compute().numbers().values())


def compare(truth: GroundTruth, detections: Sequence[Detections], rounds: int) -> list[Row]:
    """Every peer beside ours; the numbers are those of the last round."""
    contenders = {OURS: score_with_ours, **peers()}
    numbers: dict[str, list[float]] = {}

    def keep(name: str) -> None:
        numbers[name] = contenders[name](truth, detections)

    warm_up = np.random.default_rng(0)
    few = make_ground_truth(warm_up, 50)
    for score in contenders.values():
        score(few, make_detections(warm_up, few, 20))
    runs = {name: partial(keep, name) for name in contenders}
    times = alternate(runs, rounds, warm_up=0)
    names = [name for name in contenders if name != OURS]
    rows = []
    for peer in names:
        pairs = list(zip(numbers[OURS], numbers[peer], strict=True))
        num_equal = sum(mine == other for mine, other in pairs)
        rows.append(
            row(
                "scoring",
                peer,
                times[OURS],
                times[peer],
                equal=num_equal == len(METRIC_NAMES),
                compared={
                    "numbers": len(METRIC_NAMES),
                    "equal_to_the_bit": num_equal,
                    "largest_difference": max(abs(mine - other) for mine, other in pairs),
                    "AP": numbers[OURS][0],
                    "AP_of_peer": numbers[peer][0],
                },
                setting=f"{len(detections)} images × {len(detections[0])} detections, "
                f"{len(truth.annotation_ids)} objects, ms of wall time, {os.cpu_count()} cores",
                about=machine("hotcoco", *names),
            )
        )
    return rows


COMMANDS = (
    (),
    ("--metrics", "voc"),
    ("--metrics", "lvis"),
    ("--ious", "0.5,0.75,0.9"),
    ("--output", "FOLDER"),
    ("--output", "FOLDER", "--per-image"),
)
"""Without ``--output`` the numbers alone; with it the report as well."""


def time_the_command(truth: GroundTruth, detections: Sequence[Detections]) -> None:
    """Run ``retina evaluate --detections`` for each kind of numbers, and print what it took."""
    tree = tree_of(truth)
    for image in tree["images"]:  # LVIS's keys, which the other kinds pass over
        image.update(neg_category_ids=list(range(1, 11)), not_exhaustive_category_ids=[])
    with tempfile.TemporaryDirectory() as folder:
        annotations, results = Path(folder) / "annotations.json", Path(folder) / "results.json"
        annotations.write_text(json.dumps(tree))
        write_results(results, truth.image_ids.tolist(), detections, truth.categories)
        del tree
        print(f"results file of {results.stat().st_size / 1e6:.0f} MB")
        for options in COMMANDS:
            command = ["evaluate", "--detections", str(results), "--annotations", str(annotations)]
            given = [folder if option == "FOLDER" else option for option in options]
            wall, core, peak = run_alone([*command, *given])
            name = " ".join(options) or "(COCO)"
            print(f"{name:30} {wall:6.1f} s, {core:6.1f} s on a core, {peak:.2f} GB", flush=True)


def run_alone(arguments: Sequence[str]) -> tuple[float, float, float]:
    """Wall time, core time and peak memory (GB) of the command line in a process of one thread."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "retina", *arguments],
        env={**os.environ, **one},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"retina {' '.join(arguments)} failed")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, else KiB
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e9


def main() -> None:
    """Run all and print."""
    parser = parser_of(__doc__, rounds=3)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=100, help="detections per image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", action="store_true", help="time retina evaluate on files")
    options = parse(parser)
    if options.threads:
        os.environ["RAYON_NUM_THREADS"] = str(options.threads)  # of hotcoco, not yet started
    rng = np.random.default_rng(options.seed)
    truth = make_ground_truth(rng, 100 if options.quick else options.images)
    detections = make_detections(rng, truth, options.detections)
    if options.command:
        time_the_command(truth, detections)
    else:
        show(compare(truth, detections, options.rounds), as_json=options.json)


if __name__ == "__main__":
    main()
