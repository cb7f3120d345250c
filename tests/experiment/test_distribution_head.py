"""A detector whose boxes are distributions goes through everything that one with deltas does."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch

from retina.artifact import load_artifact
from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.faults.run_folders import (  # type: ignore[import-not-found]
    EVERYTHING_ON,
    assert_same_training,
    log_of,
    stop_after,
)
from tests.processes import run_pair, small_retina  # type: ignore[import-not-found]

GFL = (
    "model.anchors={sizes: [32, 64, 128, 256, 512], scales: [1.0], ratios: [1.0]}",
    "model.box_coder={kind: distribution}",
    "model.head={level_scales: true, convs: separable}",
    "model.pyramid={convs: separable}",
    "objective.assigner={kind: atss}",
    "objective.classification={kind: quality_focal}",
    "objective.box={kind: giou, weight: 2.0, weighted_by_score: true}",
)


@pytest.fixture(scope="module")
def run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from retina.experiment import build_experiment, load_experiment

    folder: Path = tmp_path_factory.mktemp("run")
    changes = [*GFL, f"output_dir={folder}", "training.epochs=8"]
    build_experiment(load_experiment(tiny_config, changes), quiet=True).trainer.run()
    return folder


def test_it_learns_and_scores_with_losses(run: Path) -> None:
    boxes = [row["box_regression"] for row in log_of(run) if row["kind"] == "train"]
    assert sum(boxes[-4:]) < 0.97 * sum(boxes[:4])
    validation = [row for row in log_of(run) if row["kind"] == "validation"]
    assert all(0 < row["box_regression"] < 5 for row in validation)


def test_a_detector_file_holds_it(run: Path) -> None:
    artifact = load_artifact(run / "checkpoints" / "last.safetensors")
    tree = artifact.config.model.model_dump()["box_coder"]
    assert tree == {"kind": "distribution", "bins": 16, "unit": 0.125}
    detector = artifact.build_detector()
    assert detector.head.box_regression.num_outputs == 68
    scales = detector.head.level_scales
    assert scales is not None
    assert not torch.equal(scales, torch.ones(5))


def test_it_predicts_and_is_scored(
    run: Path, synthetic_data: Path, tmp_path: Path, invoke: Invoke
) -> None:
    detector, split = run / "checkpoints" / "last.safetensors", synthetic_data / "validation"
    done = invoke("predict", detector, split / "images", "--output", tmp_path)
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "detections.json").read_text())
    assert rows
    assert all(0 < row["score"] <= 1 for row in rows)
    done = invoke(
        *("evaluate", detector, "--images", split / "images"),
        *("--annotations", split / "annotations.json"),
    )
    assert done.code == 0, done.err


def test_the_instruments_read_it(
    run: Path, synthetic_data: Path, tmp_path: Path, invoke: Invoke
) -> None:
    detector, split = run / "checkpoints" / "last.safetensors", synthetic_data / "validation"
    source = ("--images", split / "images", "--annotations", split / "annotations.json")
    few = ("--images-limit", "2", "--num-workers", "0")
    for command in (
        ("loss", "anatomy", detector, *few),
        ("data", "suspects", detector, *source, "--output", tmp_path / "suspects"),
    ):
        done = invoke(*command)
        assert done.code == 0, (command, done.err)


def test_the_doctor_asks_for_no_overlap_where_the_rule_adapts(
    tiny_config: Path, tmp_path: Path, invoke: Invoke
) -> None:
    done = invoke("doctor", tiny_config, *GFL, f"output_dir={tmp_path}", "--quick")
    assert done.code in (0, 1), done.err  # 1 where something is wrong with the tiny set
    assert "0% low-quality" in done.out
    assert "objects_too_small" in done.out  # half of them are smaller than two cells
    assert "anchors_" not in done.out


def test_a_stop_in_mid_epoch_leaves_no_trace(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = [*GFL, *EVERYTHING_ON]
    done = invoke("train", tiny_config, f"output_dir={whole}", *options)
    assert done.code == 0, done.err
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 3, signal.SIGTERM)
        done = invoke("train", tiny_config, f"output_dir={parts}", *options)
    assert done.code == 143, done.err
    done = invoke("train", tiny_config, f"output_dir={parts}", *options, "--resume")
    assert done.code == 0, done.err
    assert_same_training(whole, parts)


def test_two_processes_train_and_score_as_one_does(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    """Five images: two for the one rank and three for the other; each with scores of its own."""
    terms = [
        *GFL,
        "model.backbone.norm=frozen",
        "preprocess.pad_to=[96, 96]",
        "optimizer={kind: sgd, lr: 0.02}",
        "training.batch_size=5",
    ]
    one, two = tmp_path / "one", tmp_path / "two"
    done = invoke("train", tiny_config, f"output_dir={one}", *terms)
    assert done.code == 0, done.err
    launched = run_pair(small_retina, "train", str(tiny_config), f"output_dir={two}", *terms)
    assert launched.returncode == 0, launched.stderr
    kinds = ("train", "validation")
    alone, pair = (
        [row["box_regression"] for row in log_of(folder) if row["kind"] in kinds]
        for folder in (one, two)
    )
    assert len(alone) == 12
    assert pair == pytest.approx(alone, rel=1e-5)
