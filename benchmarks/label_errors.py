"""Planted label errors: how many does each tool find first?

    pip install "retina-detector[benchmarks]"
    python benchmarks/label_errors.py --config benchmarks/bccd_small.yaml \
        --images data/bccd/JPEGImages --annotations data/bccd/Annotations \
        --split data/bccd/ImageSets/Main/train.txt --folder runs/label_errors/bccd

For each rate, errors are planted in the training labels (`retina data corrupt`), a detector is
trained on them, and its last weights are run over the same images. Ours is given that detector; the
peers are given its detections. Every kind of error is a ranking of its own. An item of a ranking is
right if it names the planted annotation, or, for a missing box, a place that overlaps the removed
box by IoU ≥ 0.5 (each removed box counts once); real errors of the data set count as wrong, for
everybody. What is done already is not done again.

The peers have no parameter that fits every detector, so theirs is chosen for each ranking, with
the truth at hand, which flatters them: hotcoco's and ObjectLab's thresholds on the score.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cleanlab.internal.constants import ALPHA
from cleanlab.object_detection import rank
from hotcoco import COCO, COCOeval

THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.95)
KINDS = ("missing", "wrong_class", "shifted", "spurious")
IMAGES = "any, by image"
OURS = {"badly_placed": "shifted"}

Record = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """One entry of a ranking: an annotation, or a place ``[x, y, width, height]``."""

    score: float
    image_id: int
    annotation_id: int | None = None
    place: Sequence[float] | None = None


@dataclass(frozen=True)
class Outcome:
    """How good a ranking is: at k, the number of planted errors, and at 20."""

    average_precision: float
    at_k: float
    at_20: float

    def __str__(self) -> str:
        return f"{self.average_precision:.3f} · {self.at_k:.2f} · {self.at_20:.2f}"


Rankings = dict[str, list[Item]]


def main() -> None:
    """Plant, train and rank at each rate, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--split", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.2])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overrides", nargs="*", default=[], help="KEY=VALUE for the training")
    arguments = parser.parse_args()
    for rate in arguments.rates:
        folder = arguments.folder / f"{rate:g}"
        plant(arguments, rate, folder)
        train(arguments, folder)
        report(arguments.images, folder, f"{arguments.config.stem}, {rate:.0%} planted")


def retina(*words: object) -> None:
    """Run a command on one thread, in silence."""
    command = [sys.executable, "-m", "retina", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def plant(arguments: argparse.Namespace, rate: float, folder: Path) -> None:
    """Plant the errors, each kind a quarter of them."""
    if not (folder / "annotations.json").exists():  # the last that is written
        split = ["--split", arguments.split] if arguments.split else []
        source = ["--images", arguments.images, "--annotations", arguments.annotations, *split]
        chance = ["--rate", rate, "--seed", arguments.seed]
        retina("data", "corrupt", *source, *chance, "--output", folder)


def train(arguments: argparse.Namespace, folder: Path) -> None:
    """Train on the corrupted labels; detect and rank with the last weights."""
    checkpoint = folder / "run" / "checkpoints" / "last.safetensors"
    data = ["--images", arguments.images, "--annotations", folder / "annotations.json"]
    if not (folder / "run" / "evaluation" / "metrics.json").exists():
        split = f"images: {arguments.images}, annotations: {folder / 'annotations.json'}"
        changes = [f"dataset.train={{kind: coco, {split}}}", f"output_dir={folder / 'run'}"]
        retina("train", arguments.config, *arguments.overrides, *changes, "--resume")
    if not (folder / "detections.json").exists():
        retina("evaluate", checkpoint, *data, "--output", folder)
    if not (folder / "suspects.json").exists():
        retina("data", "suspects", checkpoint, *data, "--output", folder, "--minimum-score", 0)


def report(images: Path, folder: Path, title: str) -> None:
    """Print one line for each kind of error, and one for whole images."""
    labels = json.loads((folder / "annotations.json").read_text())
    detections = json.loads((folder / "detections.json").read_text())
    planted = json.loads((folder / "corruption.json").read_text())["corruptions"]
    print(f"\n{title}: AP · precision at k · precision at 20\n")
    print("| kind | k | retina | hotcoco | ObjectLab |\n|---|---|---|---|---|")
    peers = [
        [(threshold, ranked(threshold)) for threshold in THRESHOLDS]
        for ranked in (hotcoco(labels, detections), objectlab(labels, detections))
    ]
    ours = our_rankings(folder / "suspects.json")
    for kind in (*KINDS, IMAGES):
        truth = [one for one in planted if one["kind"] == kind or kind not in KINDS]
        judge = judge_images if kind not in KINDS else judge_items
        cells = [str(judge(ours[kind], truth))]
        for peer in peers:
            outcomes = [
                (judge(rankings[kind], truth), threshold)
                for threshold, rankings in peer
                if kind in rankings
            ]
            best = max(outcomes, key=lambda one: one[0].average_precision, default=None)
            cells.append("does not look for it" if best is None else f"{best[0]} ({best[1]:g})")
        k = len({one["image_id"] for one in truth}) if kind not in KINDS else len(truth)
        print(f"| {kind.replace('_', ' ')} | {k} | {' | '.join(cells)} |", flush=True)


def judge_items(ranking: Iterable[Item], planted: Sequence[Record]) -> Outcome:
    """Average precision over all planted errors, those that are nowhere in the ranking included."""
    ids = {one["annotation_id"] for one in planted if one["kind"] != "missing"}
    removed = [one for one in planted if one["kind"] == "missing"]
    free = {one["annotation_id"] for one in removed}

    def is_right(item: Item) -> bool:
        if item.place is None:
            return item.annotation_id in ids
        for one in removed:
            if (
                one["annotation_id"] in free
                and one["image_id"] == item.image_id
                and overlap(one["before"]["bbox"], item.place) >= 0.5
            ):
                free.remove(one["annotation_id"])
                return True
        return False

    ordered = sorted(ranking, key=lambda item: -item.score)
    # A tool that names an annotation twice has named it once.
    named: set[int] = set()
    once = []
    for item in ordered:
        if item.annotation_id is None or item.annotation_id not in named:
            once.append(item)
            named |= {item.annotation_id} - {None}
    return outcome([is_right(item) for item in once], len(planted))


def judge_images(ranking: Iterable[Item], planted: Sequence[Record]) -> Outcome:
    """The same for images: right is one with any planted error."""
    wrong = {one["image_id"] for one in planted}
    ordered = sorted(ranking, key=lambda item: -item.score)
    return outcome([item.image_id in wrong for item in ordered], len(wrong))


def outcome(is_right: Sequence[bool], num_planted: int) -> Outcome:
    """Of a ranking, best first."""
    right = np.array(is_right, dtype=float)
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    return Outcome(
        float((precision * right).sum() / num_planted),
        float(right[:num_planted].sum() / num_planted),
        float(right[:20].sum() / 20),
    )


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """IoU of two ``[x, y, width, height]``."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0.0, across) * max(0.0, down)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def our_rankings(path: Path) -> Rankings:
    """What ``retina data suspects`` wrote."""
    rankings: Rankings = {kind: [] for kind in KINDS}
    images: dict[int, float] = {}
    for one in json.loads(path.read_text())["suspects"]:
        place = one["suggestion"]["bbox"] if one["kind"] == "missing" else None
        item = Item(one["score"], one["image_id"], one["annotation_id"], place)
        rankings[OURS.get(one["kind"], one["kind"])].append(item)
        # The expected number of errors: an image with two likely ones goes before one with one.
        images[item.image_id] = images.get(item.image_id, 0.0) + item.score
    rankings[IMAGES] = [Item(score, image_id) for image_id, score in images.items()]
    return rankings


def hotcoco(labels: Record, detections: list[Record]) -> Callable[[float], Rankings]:
    """Its label-error candidates by score, and its images by F1."""
    truth = COCO(labels)

    def ranked(threshold: float) -> Rankings:
        # F1 is about detections that are shown, so it needs the threshold beforehand.
        kept = [one for one in detections if one["score"] >= threshold]
        rankings: Rankings = {"missing": [], "wrong_class": [], IMAGES: []}
        if not kept:
            return rankings
        evaluation = COCOeval(truth, truth.load_res(kept), "bbox")
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.evaluate()
        found = evaluation.image_diagnostics(iou_thr=0.5, score_thr=threshold)
        for one in found["label_errors"]:
            kind = "missing" if one["type"] == "missing_annotation" else "wrong_class"
            place = kept[one["dt_id"] - 1]["bbox"] if kind == "missing" else None
            rankings[kind].append(Item(one["dt_score"], one["image_id"], one["gt_id"], place))
        rankings[IMAGES] = [
            Item(1 - one["f1"], int(image_id)) for image_id, one in found["img_summary"].items()
        ]
        return rankings

    return ranked


def objectlab(labels: Record, detections: list[Record]) -> Callable[[float], Rankings]:
    """Its per-box scores of overlooked, swapped and badly located boxes, and its image scores."""
    ids = sorted({one["id"] for one in labels["categories"]})
    images = [one["id"] for one in labels["images"]]
    own: dict[int, list[Record]] = {image: [] for image in images}
    for one in labels["annotations"]:
        own[one["image_id"]].append(one)
    seen: dict[int, list[list[list[float]]]] = {image: [[] for _ in ids] for image in images}
    for one in detections:
        row = [*corners(one["bbox"]), one["score"]]
        seen[one["image_id"]][ids.index(one["category_id"])].append(row)
    given = [
        {
            "bboxes": np.array([corners(one["bbox"]) for one in own[image]]).reshape(-1, 4),
            "labels": np.array([ids.index(one["category_id"]) for one in own[image]], dtype=int),
        }
        for image in images
    ]
    predictions = [[np.array(rows).reshape(-1, 5) for rows in seen[image]] for image in images]
    # Once for all thresholds; each call would do it again.
    data = rank._get_valid_inputs_for_compute_scores(ALPHA, given, predictions)

    def ranked(threshold: float) -> Rankings:
        high = {"auxiliary_inputs": data, "high_probability_threshold": threshold}
        swapped = rank.compute_swap_box_scores(**high)
        overlooked = rank.compute_overlooked_box_scores(**high)
        located = rank.compute_badloc_box_scores(
            auxiliary_inputs=data, low_probability_threshold=threshold
        )
        rankings: Rankings = {"missing": [], "wrong_class": [], "shifted": []}
        for row, image in enumerate(images):
            for kind, scores in (("wrong_class", swapped[row]), ("shifted", located[row])):
                rankings[kind] += [
                    Item(-score, image, one["id"])
                    for one, score in zip(own[image], scores, strict=True)
                ]
            boxes = [box for rows in seen[image] for box in rows]
            rankings["missing"] += [
                Item(-score, image, None, [box[0], box[1], box[2] - box[0], box[3] - box[1]])
                for box, score in zip(boxes, overlooked[row], strict=True)
                if np.isfinite(score)
            ]
        quality = np.zeros(len(images))  # pooled as its get_label_quality_scores does
        for scores in (swapped, located, overlooked):
            quality += np.log(rank.pool_box_scores_per_image(scores) + 1e-100) / 3
        rankings[IMAGES] = [Item(-s, i) for s, i in zip(quality.tolist(), images, strict=True)]
        return rankings

    return ranked


def corners(box: Sequence[float]) -> list[float]:
    """``[x1, y1, x2, y2]`` of ``[x, y, width, height]``."""
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


if __name__ == "__main__":
    main()
