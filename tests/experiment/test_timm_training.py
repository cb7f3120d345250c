"""A training with a backbone of timm, from a file of its weights."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from retina.artifact import load_artifact
from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.faults.run_folders import (  # type: ignore[import-not-found]
    EVERYTHING_ON,
    assert_same_training,
    log_of,
    stop_after,
)
from tests.processes import run_pair, small_retina  # type: ignore[import-not-found]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = timm.create_model("efficientnet_lite0", pretrained=False)
    path = tmp_path / "lite0.safetensors"
    save_file(network.state_dict(), path)
    return path


def options(weights: Path) -> Sequence[str]:
    keys = f"kind: timm, name: efficientnet_lite0, weights: {weights}"
    return f"model.backbone={{{keys}, norm: frozen, frozen_stages: 2}}", "training.batch_size=5"


def test_a_stop_leaves_no_trace_and_going_on_needs_no_weights(
    invoke: Invoke, tiny_config: Path, weights: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    terms = (*options(weights), *EVERYTHING_ON)
    done = invoke("train", tiny_config, f"output_dir={whole}", *terms)
    assert done.code == 0, done.err
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 3, signal.SIGTERM)
        done = invoke("train", tiny_config, f"output_dir={parts}", *terms)
    assert done.code == 143, done.err
    before = weights.read_bytes()
    weights.unlink()
    done = invoke("train", tiny_config, f"output_dir={parts}", *terms, "--resume")
    assert done.code == 0, done.err
    assert_same_training(whole, parts)
    weights.write_bytes(before)
    stem = "backbone.network.conv_stem.weight"
    trained = load_artifact(parts / "checkpoints" / "last.safetensors").state_dict
    start = timm.create_model("efficientnet_lite0", checkpoint_path=str(weights)).state_dict()
    assert torch.equal(trained[stem], start["conv_stem.weight"])  # frozen
    late = "blocks.6.0.conv_pw.weight"
    assert not torch.equal(trained[f"backbone.network.{late}"], start[late])


@pytest.mark.slow
def test_two_processes_train_as_one_does(
    invoke: Invoke, tiny_config: Path, weights: Path, tmp_path: Path
) -> None:
    terms = (
        *options(weights),
        "preprocess.pad_to=[96, 96]",
        "optimizer={kind: sgd, lr: 0.02}",
    )
    one, two = tmp_path / "one", tmp_path / "two"
    done = invoke("train", tiny_config, f"output_dir={one}", *terms)
    assert done.code == 0, done.err
    launched = run_pair(small_retina, "train", str(tiny_config), f"output_dir={two}", *terms)
    assert launched.returncode == 0, launched.stderr
    alone, pair = (
        [row["classification"] for row in log_of(folder) if row["kind"] in ("train", "validation")]
        for folder in (one, two)
    )
    assert alone
    assert pair == pytest.approx(alone, rel=1e-4)
