import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import REPOSITORY, RunRetina  # type: ignore[import-not-found]
from tests.processes import (  # type: ignore[import-not-found]
    Launched,
    run_pair,
    small_retina,
)
from tests.training.rank_dump import train  # type: ignore[import-not-found]

# Frozen norms and one padded size: what a rank computes then depends on its own images only. SGD,
# since AdamW turns the rounding of a gradient near zero into a whole step of either sign.
EQUAL_TERMS = [
    "model.backbone.norm=frozen",
    "preprocess.pad_to=[96, 96]",
    "optimizer={kind: sgd, lr: 0.02}",
    "device=cpu",
]


def losses_of(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["kind"] in ("train", "validation")]


def first_anatomy_of(folder: Path) -> dict[str, float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["kind"] == "anatomy")
    return {name: value for name, value in row.items() if name != "kind"}


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``retina`` as a user starts two processes of it."""
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    return subprocess.run(
        [*launcher, "--nproc-per-node", "2", "-m", "tests.small_retina", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )


def pair(*arguments: str) -> subprocess.CompletedProcess[str]:
    done: subprocess.CompletedProcess[str] = run_pair(small_retina, *arguments)
    return done


@pytest.mark.parametrize(
    ("launch", "batch_size", "steps"),
    [(torchrun, 8, 6), pytest.param(pair, 5, 10, marks=pytest.mark.slow)],
    ids=["8-6", "5-10"],
)
def test_two_processes_train_and_score_as_one_does(
    run_retina: RunRetina,
    tiny_config: Path,
    tmp_path: Path,
    launch: Callable[..., subprocess.CompletedProcess[str]],
    batch_size: int,
    steps: int,
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    # Five images: two for the one rank and three for the other.
    terms = [*EQUAL_TERMS, f"training.batch_size={batch_size}"]
    done = run_retina("train", tiny_config, f"output_dir={one}", *terms)
    assert done.returncode == 0, done.stderr
    reported = "evaluation.report=true"
    launched = launch("train", str(tiny_config), f"output_dir={two}", *terms, reported)
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.count(f"done: {steps} steps") == 1  # only one process speaks
    assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-5)
    assert first_anatomy_of(two) == pytest.approx(first_anatomy_of(one), rel=1e-5)
    scores = [json.loads((run / "evaluation/metrics.json").read_text()) for run in (one, two)]
    assert scores[1]["AR100"] == pytest.approx(scores[0]["AR100"], abs=0.02)
    rows = json.loads((two / "evaluation/detections.json").read_text())
    assert len({row["image_id"] for row in rows}) == 8  # the images of both ranks
    report = json.loads((two / "evaluation/report.json").read_text())
    assert report["head"]["num_detections"] == len(rows)


Ends = dict[str, dict[str, torch.Tensor]]


def train_on(processes: int, config: Path, folder: Path, *options: str) -> list[Ends]:
    """Train, and give what each rank ended with."""
    folder.mkdir()
    arguments = (folder, "train", str(config), f"output_dir={folder / 'run'}", *options)
    done = Launched(train, *arguments).complete() if processes == 1 else run_pair(train, *arguments)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(processes)]


@pytest.mark.parametrize(
    ("batch_size", "num_empty", "epochs"),
    [
        pytest.param(4, 0, 4, marks=pytest.mark.slow),
        # One image for each rank, mostly without an object.
        pytest.param(2, 15, 2, marks=pytest.mark.slow),
    ],
)
def test_two_processes_end_with_the_weights_of_one(
    batch_size: int,
    num_empty: int,
    epochs: int,
    tiny_config: Path,
    synthetic_data: Path,
    tmp_path: Path,
) -> None:
    """Images of different sizes, a size drawn for every batch, mosaics, and an average."""
    tree = json.loads((synthetic_data / "train" / "annotations.json").read_text())
    empty = {image["id"] for image in tree["images"][:num_empty]}
    tree["annotations"] = [one for one in tree["annotations"] if one["image_id"] not in empty]
    (tmp_path / "annotations.json").write_text(json.dumps(tree))
    sizes = {(image["height"], image["width"]) for image in tree["images"]}
    assert len(sizes) == 3
    options = [
        "device=cpu",
        "model.backbone={kind: resnet, name: resnet18, norm: frozen}",
        # The gradient of L1 jumps where a box is met; rounding alone decides on which side it is.
        "objective.box={kind: smooth_l1, beta: 1.0}",
        # So does that of ReLU, which cannot be left out: on an AVX512 CPU two flips in 24 steps at
        # a rate of 0.01 moved weights by 1.7e-5. At this one the head's move by 4e-3 in all, so
        # that a share of the gradient that is wrong by a third of a percent is still seen.
        "optimizer={kind: sgd, lr: 0.002}",
        "augmentation.preset=strong",
        "training.average_decay=0.9",
        "objective.normalizer=moving_average",
        f"training.epochs={epochs}",
        f"training.evaluate_every_epochs={epochs}",
        f"training.batch_size={batch_size}",
        f"dataset.train.annotations={tmp_path / 'annotations.json'}",
    ]
    (alone,) = train_on(1, tiny_config, tmp_path / "one", *options)
    first, second = train_on(2, tiny_config, tmp_path / "two", *options)
    one, two = (losses_of(tmp_path / name / "run") for name in ("one", "two"))
    assert len(one) >= 20
    assert two == pytest.approx(one, rel=1e-5)
    for part, tensors in alone.items():
        for name, value in tensors.items():
            torch.testing.assert_close(first[part][name], value, rtol=1e-5, atol=1e-5)
            assert torch.equal(first[part][name], second[part][name]), (part, name)
