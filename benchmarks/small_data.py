"""Detectors from little data: our defaults, old and new, beside torchvision's RetinaNet.

    python benchmarks/small_data.py train --data DIR --weights FILE [--sets raccoon …] [--jobs 2]
    python benchmarks/small_data.py train --data DIR --weights FILE --ablation
    python benchmarks/small_data.py time --data DIR --weights FILE
    python benchmarks/small_data.py table

DIR holds the data sets bccd, chess and raccoon; FILE are ImageNet weights of EfficientNet-Lite0 in
timm's names (benchmarks/lite0_weights.py makes them). Every training is a process of its own on
one thread; what is done is written to benchmarks/small_data_results.jsonl and not done again. Of
those that were stopped ours go on where they were, the peer's begin anew. The last weights are
scored on images that nothing was chosen with. ``time`` runs the training steps and the detection
of ours and of the peer in one process, alternating.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from retina.devices import pick_precision

HERE = Path(__file__).parent
RESULTS = HERE / "small_data_results.jsonl"
OLD = HERE / "small_data_old_template.yaml"
NEW = HERE.parent / "configs" / "my_data_cpu.yaml"
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
LEARNING_RATES = {
    "torchvision": (1e-4, 3e-4, 1e-3),
    "torchvision from scratch": (3e-4, 1e-3, 3e-3),
}
"""Of the peer; the best is taken for each set by its first seed. 1e-4 is torchvision's own."""


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        data: the name of the set.
        row: of the table.
        seed: of everything random.
        lr: of the peer; None for ours, whose config has it.
    """

    data: str
    row: str
    seed: int
    lr: float | None = None

    @property
    def name(self) -> str:
        """For its folder."""
        return f"{self.row}{'' if self.lr is None else f' {self.lr:g}'}".replace(" ", "_")


def splits(data: str, folder: Path) -> dict[str, dict[str, Any]]:
    """The training split of a set and the one that is scored, as in a config."""
    root = (folder / data).resolve()
    if data == "chess":
        return {
            "train": {
                "images": str(root / "train"),
                "annotations": str(root / "train" / "_annotations.coco.json"),
                "unused_categories": "drop",
            },
            "validation": {
                "images": str(root / "valid"),
                "annotations": str(root / "valid" / "_annotations.coco.json"),
            },
        }
    images, annotations, train, test = {
        "bccd": (
            "JPEGImages",
            "Annotations",
            "ImageSets/Main/train.txt",
            "ImageSets/Main/test.txt",
        ),
        "raccoon": ("images", "annotations", "splits/train.txt", "splits/test.txt"),
    }[data]
    return {
        name: {
            "kind": "voc",
            "images": str(root / images),
            "annotations": str(root / annotations),
            "split": str(root / listed),
        }
        for name, listed in (("train", train), ("validation", test))
    }


NINE_ANCHORS = {
    "model.anchors": {
        "sizes": [16, 32, 64, 128, 256],
        "scales": [1, 2 ** (1 / 3), 2 ** (2 / 3)],
        "ratios": [0.5, 1, 2],
    },
    "model.box_coder": {"kind": "deltas"},
}
CLASSIC = NINE_ANCHORS | {
    "model.head.level_scales": False,
    "objective.assigner": {"kind": "max_iou"},
    "objective.classification": {"kind": "focal", "alpha": 0.25, "gamma": 2.0},
    "objective.box": {"kind": "giou", "weight": 1.0, "weighted_by_score": False},
}
"""The classic head in the place of the default's."""

SCRATCH = " from scratch"
"""Ends the names of rows without pretrained weights."""

ABLATION: dict[str, dict[str, Any]] = {
    "backbone as fast": {"optimizer.backbone_lr_factor": 1.0},
    "random weights": {},
    "focal loss": {"objective.classification": {"kind": "focal", "alpha": 0.25, "gamma": 2.0}},
    "quality focal loss": {"objective.classification": {"kind": "quality_focal"}},
    "box as deltas": {"model.box_coder": {"kind": "deltas"}},
    "nine anchors": NINE_ANCHORS,
    "nine anchors and max-IoU": NINE_ANCHORS | {"objective.assigner": {"kind": "max_iou"}},
    "GIoU weight 1": {"objective.box": {"weight": 1.0}},
    "mirrored only": {"augmentation": {"preset": "flip"}},
    "no average": {"training.average_decay": None},
    "half the steps": {"training.epochs": 20, "training.min_steps": 500},
}
"""What each row changes in the default; names with a comma between them change both."""

CHANGES = ABLATION | {
    "default": {},
    "old template": {},
    "classic": CLASSIC,
    "860 steps": {"training.epochs": 33, "training.min_steps": 800},  # 858 on chess and bccd
    "input 320": {"preprocess": {"min_size": 320, "max_size": 533}},
}
"""Of every row of ours."""

ROWS = {
    "bccd": (
        "old template",
        "classic from scratch",
        "default from scratch",
        "torchvision from scratch",
        "default",
    ),
    "chess": ("old template", "classic", "default", "torchvision"),
    "raccoon": ("old template", "classic", "default", "torchvision"),
}
STEPS = {"bccd": 1040, "chess": 1040, "raccoon": 1000}
"""Of the peer: as many as the default's."""
SIZE = {"min_size": 240, "max_size": 400}
"""Of the input."""


def parts_of(row: str) -> list[str]:
    """The names that a row of ours joins."""
    return row.removesuffix(SCRATCH).split(", ")


def config_of(job: Job, folder: Path, weights: Path, run: Path) -> dict[str, Any]:
    """The config of one of our trainings."""
    parts = parts_of(job.row)
    is_old = "old template" in parts
    config: dict[str, Any] = {
        "extends": str(OLD if is_old else NEW),
        "output_dir": str(run),
        "seed": job.seed,
        "dataset": splits(job.data, folder),
        "training": {"num_workers": 1, "pictures": 0, "anatomy_every_steps": None},
    }
    changes: dict[str, Any] = {}
    for part in parts:
        changes |= CHANGES[part]
    if not is_old and not job.row.endswith(SCRATCH):
        backbone = {"kind": "timm", "name": "efficientnet_lite0", "weights": str(weights)}
        changes = {"model.backbone": backbone | {"norm": "frozen", "frozen_stages": 2}} | changes
    for key, value in changes.items():
        *parents, name = key.split(".")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return config


def train(job: Job, arguments: argparse.Namespace) -> None:
    """Train and score, unless the results have it."""
    run = arguments.folder / job.data / job.name / f"seed{job.seed}"
    run.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if job.row.startswith("torchvision"):
        command = [sys.executable, str(HERE / "torchvision_peer.py"), "--folder", str(run)]
        is_scratch = job.row.endswith(SCRATCH)
        asked = {
            "dataset": splits(job.data, arguments.data),
            "backbone": "resnet18" if is_scratch else "efficientnet_lite0",
            "weights": None if is_scratch else str(arguments.weights),
            "lr": job.lr,
            "seed": job.seed,
            "steps": STEPS[job.data],
            "preprocess": SIZE | {"antialias": True},
        }
        command += ["--config", json.dumps(asked)]
    else:
        written = run.with_suffix(".yaml")
        config = config_of(job, arguments.data, arguments.weights, run)
        written.write_text(yaml.safe_dump(config, sort_keys=False))
        command = [sys.executable, "-m", "retina", "train", str(written), "--resume"]
        if job.row.endswith(SCRATCH) or "random weights" in parts_of(job.row):
            command.append("--from-scratch")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    (run.parent / f"{run.name}.log").write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        print(f"{job}: failed\n{done.stderr[-2000:]}", flush=True)
        return
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "validation"][-1]
    precision = pick_precision("auto", torch.device("cpu"))
    record = asdict(job) | {"steps": last["step"], "precision": precision}
    # The peer's row has -1 where there are no objects of a size, ours null.
    known = {name: last[name] for name in METRICS if last[name] not in (None, -1)}
    record |= dict.fromkeys(METRICS) | {name: round(value, 4) for name, value in known.items()}
    with RESULTS.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(json.dumps(record), flush=True)


def jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    """All trainings, in an order that fills every table from the first seed on."""
    rows: dict[str, Sequence[str]] = (
        dict.fromkeys(arguments.sets or ("raccoon",), ("default", *ABLATION))
        if arguments.ablation
        else {data: ROWS[data] for data in arguments.sets or ROWS}
    )
    for seed in arguments.seeds:
        for data, names in rows.items():
            for row in names if arguments.rows is None else arguments.rows:
                if not row.startswith("torchvision"):
                    yield Job(data, row, seed)
                elif seed == min(arguments.seeds):
                    yield from (Job(data, row, seed, lr) for lr in LEARNING_RATES[row])
                elif (best := best_rate(data, row, min(arguments.seeds))) is not None:
                    yield Job(data, row, seed, best)


def times(data: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Steps and detection of the default beside the peer's, in the precisions of this machine."""
    from small_data_time import compare
    from torchvision_peer import PeerConfig

    row = "default from scratch" if data == "bccd" else "default"
    written = arguments.folder / f"time_{data}.yaml"
    written.parent.mkdir(parents=True, exist_ok=True)
    config = config_of(Job(data, row, 0), arguments.data, arguments.weights, written.parent / "x")
    written.write_text(yaml.safe_dump(config, sort_keys=False))
    peers = [
        PeerConfig(
            backbone="resnet18" if data == "bccd" else "efficientnet_lite0",
            weights=None if data == "bccd" else arguments.weights,
            min_size=SIZE["min_size"],
            max_size=SIZE["max_size"],
            steps=10_000,
            lr=1e-4,
            precision=precision,
        )
        for precision in sorted({"fp32", pick_precision("auto", torch.device("cpu"))})
    ]
    return compare(
        written,
        peers,
        from_scratch=row.endswith(SCRATCH),
        threads=arguments.threads,
        rounds=arguments.rounds,
    )


def results() -> list[dict[str, Any]]:
    """All that was ever trained."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return [json.loads(line) for line in lines]


def best_rate(data: str, row: str, seed: int) -> float | None:
    """The peer's learning rate with the highest AP; None until all were tried."""
    tried = {
        one["lr"]: one["AP"]
        for one in results()
        if (one["data"], one["row"], one["seed"]) == (data, row, seed)
    }
    return max(tried, key=tried.__getitem__) if set(LEARNING_RATES[row]) <= set(tried) else None


def is_done(job: Job) -> bool:
    """Whether the results have it."""
    return any(asdict(job).items() <= one.items() for one in results())


def train_all(arguments: argparse.Namespace) -> None:
    """Train what is missing, a few at a time, until nothing is."""
    tried: set[Job] = set()
    while missing := [job for job in jobs(arguments) if not is_done(job) and job not in tried]:
        tried |= set(missing)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(lambda job: train(job, arguments), missing))


def table() -> None:
    """Print mean and spread over the seeds of every row, and of every learning rate of the peer."""
    groups: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    for one in results():
        groups.setdefault((one["data"], one["row"], one["lr"] or 0.0), []).append(one)
    print("| set | row | seeds | precision | " + " | ".join(METRICS) + " |")
    print("|---|---|---|---|" + "---|" * len(METRICS))
    for (data, row, lr), ones in sorted(groups.items()):
        name = f"{row}, learning rate {lr:g}" if lr else row
        numbers = [_spread([one[metric] for one in ones]) for metric in METRICS]
        precision = ", ".join(sorted({one["precision"] for one in ones}))
        print(f"| {data} | {name} | {len(ones)} | {precision} | " + " | ".join(numbers) + " |")


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return f"{known[0]:.3f}" if known else "–"
    return f"{statistics.mean(known):.3f} ± {statistics.stdev(known):.3f}"


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("train", "time", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs/small_data"))
    parser.add_argument("--sets", nargs="+", choices=tuple(ROWS))
    parser.add_argument(
        "--rows", nargs="+", help="on each set; of the table if not given. 'A, B' is both"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="of what is timed")
    parser.add_argument("--rounds", type=int, default=7, help="of what is timed")
    arguments = parser.parse_args()
    if arguments.what == "table":
        table()
        return
    if arguments.data is None or arguments.weights is None:
        parser.error("--data and --weights are needed")
    for row in arguments.rows or ():
        if row not in LEARNING_RATES and not set(parts_of(row)) <= set(CHANGES):
            parser.error(f"no row {row!r}; there are {', '.join((*LEARNING_RATES, *CHANGES))}")
    arguments.weights = arguments.weights.resolve()
    if arguments.what == "time":
        for data in arguments.sets or ROWS:
            for row in times(data, arguments):
                print(json.dumps({"data": data} | row), flush=True)
        return
    train_all(arguments)


if __name__ == "__main__":
    main()
