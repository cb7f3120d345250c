"""``retina evaluate``: which data is scored, and what of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Invoke  # type: ignore[import-not-found]


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """An untrained detector of two of the ten classes, in the checkpoints/ of a run."""
    from retina.artifact import make_artifact
    from retina.modeling.config import ModelConfig
    from retina.modeling.postprocess import PostprocessConfig
    from retina.modeling.preprocess import PreprocessConfig
    from retina.structures import Categories

    model = ModelConfig.model_validate(
        {
            "backbone": {"kind": "resnet", "name": "resnet18"},
            "pyramid": {"channels": 16},
            "head": {"num_convs": 0},
        }
    )
    artifact = make_artifact(
        model.build(2),
        model=model,
        preprocess=PreprocessConfig(min_size=64, max_size=96),
        postprocess=PostprocessConfig(),
        categories=Categories.from_names(["disc", "star"]),
    )
    path = tmp_path / "run" / "checkpoints" / "detector.safetensors"
    artifact.save(path)
    return path


def test_a_detector_of_some_of_the_classes_is_scored_on_the_full_file(
    invoke: Invoke, detector: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    done = invoke(
        "evaluate", detector, "--data", synthetic_data, "--num-workers", "0", "--output", tmp_path
    )
    assert done.code == 0, done.err
    assert f"{synthetic_data}, validation: 8 images" in done.out  # there is no test
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert [entry["name"] for entry in metrics["per_category"]] == ["disc", "star"]
    file = synthetic_data / "validation" / "annotations.json"
    tree = json.loads(file.read_text())
    known = {row["id"] for row in tree["categories"] if row["name"] in ("disc", "star")}
    others = sum(row["category_id"] not in known for row in tree["annotations"])
    assert 0 < others < len(tree["annotations"])
    assert f"{others} annotations" in done.out


@pytest.mark.parametrize("command", ["anatomy", "lab"])
def test_the_loss_of_a_detector_of_some_of_the_classes_is_looked_at_on_the_full_file(
    command: str, invoke: Invoke, detector: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    data = ("--data", synthetic_data, "--num-workers", "0", "--output", tmp_path / "out")
    done = invoke("loss", command, detector, *data)
    assert done.code == 0, done.err
    assert f"{synthetic_data}, validation: 8 images" in done.out
    assert "8 of 10 categories left out" in done.out


def test_labels_of_classes_that_the_detector_lacks_are_not_judged_unasked(
    invoke: Invoke, detector: Path, tiny_config: Path, tmp_path: Path
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(f"extends: {tiny_config}\noutput_dir: run\n")
    refused = invoke("data", "suspects", detector, "--config", config)
    assert refused.code == 2
    assert "under 'classes' to leave the others out, in a config that --config names" in refused.err
    with config.open("a") as file:
        file.write("dataset: {train: {classes: [disc, star]}}\n")
    done = invoke("data", "suspects", detector, "--config", config)
    assert done.code == 0, done.err
    assert "8 of 10 categories left out" in done.out


def test_without_data_it_is_that_of_the_run(
    invoke: Invoke, detector: Path, tiny_config: Path
) -> None:
    nothing = invoke("evaluate", detector)
    assert nothing.code == 2
    assert "say what to evaluate on: --data SOURCE, --annotations FILE --images" in nothing.err
    run = detector.parents[1]
    (run / "config.yaml").write_text(f"extends: {tiny_config}\noutput_dir: {run}\n")
    for split in ([], ["--split", "val"]):
        done = invoke("evaluate", detector, *split, "--num-workers", "0")
        assert done.code == 0, done.err
        assert f"{run / 'config.yaml'}, validation: 8 images" in done.out
