"""What wrong labels cost at each γ, and what noise-aware training gives back.

    python benchmarks/label_noise_training.py --config benchmarks/bccd_small.yaml \
        --images data/bccd/JPEGImages --annotations data/bccd/Annotations \
        --split data/bccd/ImageSets/Main/train.txt --folder runs/label_noise --seeds 0 1 --jobs 2

Errors of four kinds (missing, wrong class, shifted, spurious, in equal parts) are planted in the
training set; the detector is trained on it for a fixed budget, and its last weights are scored on
the clean ``dataset.validation``. Nothing is selected.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from training_grid import Cell, mean_and_spread, train_grid

LOSSES = {0: "alpha: 0.75, gamma: 0.0", 2: "alpha: 0.25, gamma: 2.0", 5: "alpha: 0.25, gamma: 5.0"}
"""γ, with the α that Lin et al. 2017 found best for it."""


def corrupt(arguments: argparse.Namespace, percent: int) -> Path:
    """The annotation file with so many errors per 100 objects, made where it is missing."""
    folder = arguments.folder / f"labels{percent}"
    if not (folder / "annotations.json").exists():
        command = [sys.executable, "-m", "retina", "data", "corrupt", "--seed", "0"]
        command += ["--images", str(arguments.images), "--annotations", str(arguments.annotations)]
        command += ["--split", str(arguments.split)] if arguments.split else []
        command += ["--output", str(folder), "--rate", str(percent / 100)]
        subprocess.run(command, check=True)
    return folder / "annotations.json"


def cells_of(arguments: argparse.Namespace, percent: int) -> list[Cell]:
    """Every γ at one level of noise, with and without noise-aware training."""
    data = ""
    if percent:
        labels = corrupt(arguments, percent)
        data = f"dataset.train={{kind: coco, images: {arguments.images}, annotations: {labels}}}"
    return [
        Cell(
            name=f"noise {percent} %, γ={gamma}, {'aware' if aware else 'plain'}",
            overrides=(
                *([data] if data else []),
                f"objective.classification={{kind: focal, {loss}}}",
                *(["objective.label_noise={}"] if aware else []),
            ),
        )
        for gamma, loss in LOSSES.items()
        for aware in (False, True)
    ]


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--split", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--noise", type=int, nargs="+", default=[0, 10, 20], help="percent")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    cells = [cell for percent in arguments.noise for cell in cells_of(arguments, percent)]
    table = train_grid(
        arguments.config, cells, seeds=arguments.seeds, folder=arguments.folder, jobs=arguments.jobs
    )
    print("\n| planted errors | γ | plain AP | noise-aware AP |\n|---|---|---|---|")
    for percent in arguments.noise:
        for gamma in LOSSES:
            plain, aware = (
                mean_and_spread(table[f"noise {percent} %, γ={gamma}, {kind}"], "AP")
                for kind in ("plain", "aware")
            )
            print(f"| {percent} % | {gamma} | {plain} | {aware} |")


if __name__ == "__main__":
    main()
