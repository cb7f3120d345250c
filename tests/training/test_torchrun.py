import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, RunRetina  # type: ignore[import-not-found]

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


@pytest.mark.parametrize(("batch_size", "steps"), [(8, 6), (5, 10)])
def test_two_processes_train_and_score_as_one_does(
    run_retina: RunRetina, tiny_config: Path, tmp_path: Path, batch_size: int, steps: int
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    # Five images: two for the one rank and three for the other.
    terms = [*EQUAL_TERMS, f"training.batch_size={batch_size}"]
    done = run_retina("train", tiny_config, f"output_dir={one}", *terms)
    assert done.returncode == 0, done.stderr
    launched = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "-m", "retina", "train", str(tiny_config)),
            *(f"output_dir={two}", *terms),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.count(f"done: {steps} steps") == 1  # only one process speaks
    assert losses_of(two) == pytest.approx(losses_of(one), rel=1e-5)
    assert first_anatomy_of(two) == pytest.approx(first_anatomy_of(one), rel=1e-5)
    scores = [json.loads((run / "evaluation/metrics.json").read_text()) for run in (one, two)]
    assert scores[1]["AR100"] == pytest.approx(scores[0]["AR100"], abs=0.02)
    rows = json.loads((two / "evaluation/detections.json").read_text())
    assert len({row["image_id"] for row in rows}) == 8  # the images of both ranks
