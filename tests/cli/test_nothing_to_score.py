"""A validation set without an object has no AP: not -1, and no best one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retina.artifact import load_artifact
from retina.training.checkpoint import load_state
from tests.conftest import Invoke  # type: ignore[import-not-found]


@pytest.fixture(params=["empty", "crowd"])
def truth(request: pytest.FixtureRequest, synthetic_data: Path, tmp_path: Path) -> Path:
    tree = json.loads((synthetic_data / "validation" / "annotations.json").read_text())
    kept = [] if request.param == "empty" else tree["annotations"][:2]
    tree["annotations"] = [{**one, "iscrowd": 1} for one in kept]
    path = tmp_path / "validation.json"
    path.write_text(json.dumps(tree))
    return path


def test_a_training_says_so_and_counts_nothing_as_a_best(
    invoke: Invoke, tiny_config: Path, truth: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = invoke(
        "train", tiny_config, f"output_dir={run}", f"dataset.validation.annotations={truth}",
        "training.epochs=3", "training.early_stopping_evaluations=1",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.out.count("nothing could be scored") == 3
    assert "-1" not in done.out.replace(str(tmp_path), "")
    assert "best" not in done.out.replace(str(tmp_path), "")
    assert "early stop" not in done.out
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [line for line in lines if line["kind"] == "validation"]
    assert [(row["AP"], row["APs"]) for row in rows] == [(None, None)] * 3
    assert all(row["loss"] > 0 for row in rows)
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    assert "validation/loss" in board.Tags()["scalars"]
    assert "validation/AP" not in board.Tags()["scalars"]
    last, best = (run / "checkpoints" / f"{name}.safetensors" for name in ("last", "best"))
    assert last.read_bytes() == best.read_bytes()
    assert "AP" not in load_artifact(best).training
    assert load_state(run / "checkpoints/last.pt").best_metric is None
    # Once there is something to score, the first score is the best.
    real = synthetic_data / "validation" / "annotations.json"
    more = invoke(
        "train", run / "config.yaml", f"dataset.validation.annotations={real}",
        "training.epochs=4", "--resume",
    )  # fmt: skip
    assert more.code == 0, more.err
    assert "best so far" in more.out
    assert load_artifact(best).training["AP"] >= 0


def test_an_evaluation_says_so(
    invoke: Invoke, tiny_config: Path, truth: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = [f"output_dir={run}", "training.max_steps=1"]
    assert invoke("train", tiny_config, *options).code == 0
    done = invoke(
        "evaluate", run / "checkpoints/last.safetensors", "--device=cpu",
        "--annotations", truth, "--images", synthetic_data / "validation/images",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "nothing could be scored: the annotations have no object" in done.out
    assert "-1" not in done.out.replace(str(tmp_path), "")
