"""``retina data anchors``."""

import json
from pathlib import Path

import pytest
import yaml

from retina.experiment import load_experiment
from tests.conftest import Invoke  # type: ignore[import-not-found]


@pytest.fixture
def config(tiny_config: Path, tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {tiny_config}\noutput_dir: {tmp_path / 'run'}\n")
    return path


def test_proposes_p2_and_writes_what_a_config_can_use(
    invoke: Invoke, config: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    done = invoke("data", "anchors", config, "--output", folder)
    assert done.code == 0, done.err
    assert "take 'fitted with P2'" in done.out
    assert "P2 costs" in done.out
    assert (folder / "anchors.png").read_bytes()[:4] == b"\x89PNG"

    result = json.loads((folder / "anchors.json").read_text())
    matched = {entry["name"]: entry["coverage"]["all"]["matched"] for entry in result["sets"]}
    assert list(matched) == ["current", "fitted", "fitted with P2"]
    assert matched["current"] < matched["fitted"] < matched["fitted with P2"]
    assert result["input_sizes"] == [[64, 96]]

    patch = yaml.safe_load((folder / "anchors.yaml").read_text())
    (tmp_path / "better.yaml").write_text(yaml.safe_dump({"extends": "mine.yaml", **patch}))
    better = load_experiment(tmp_path / "better.yaml", ())
    assert better.model.backbone.finest_map == "c2"
    assert better.model.build(10).pyramid.strides[0] == 4

    trained = invoke("train", tmp_path / "better.yaml", "training.max_steps=1")
    assert trained.code == 0, trained.err
    again = invoke("data", "anchors", tmp_path / "better.yaml")
    assert "keep the anchors as they are" in again.out


def test_reads_files_without_a_config(invoke: Invoke, synthetic_data: Path) -> None:
    split = synthetic_data / "train"
    done = invoke(
        "data", "anchors", "--images", split / "images",
        "--annotations", split / "annotations.json", "--min-size", "192", "--max-size", "288",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "objects matched / only by a low-quality match / unmatched" in done.out
    assert "32, 64, 128, 256, 512" in done.out


def test_a_config_named_by_option_can_be_changed(
    invoke: Invoke, config: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    changes = ["preprocess.min_size=80", "preprocess.max_size=120"]
    done = invoke("data", "anchors", "--config", config, *changes, "--output", tmp_path / "out")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "out/anchors.json").read_text())["input_sizes"] == [[80, 120]]
    file = synthetic_data / "train" / "annotations.json"
    files = ("--images", file.parent / "images", "--annotations", file)
    refused = invoke("data", "anchors", *files, changes[0])
    assert refused.code == 2
    assert f"{changes[0]}: changes a config, and no config was given" in refused.err


def test_needs_either_a_config_or_files(invoke: Invoke, config: Path, synthetic_data: Path) -> None:
    nothing = invoke("data", "anchors")
    assert nothing.code == 2
    assert "say which data: SOURCE, --annotations FILE --images FOLDER" in nothing.err
    file = synthetic_data / "train" / "annotations.json"
    both = invoke("data", "anchors", config, "--images", file.parent, "--annotations", file)
    assert both.code == 2
    assert "SOURCE stands for --config or --annotations" in both.err
