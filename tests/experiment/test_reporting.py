"""The report at the end of a training, and that of the command that evaluates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import retina
from retina.artifact import load_artifact


@pytest.fixture(scope="module")
def run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training with its report."""
    folder = tmp_path_factory.mktemp("reported") / "run"
    outcome = retina.train(
        tiny_config,
        [f"output_dir={folder}", "evaluation.report=true", "training.max_steps=3"],
        quiet=True,
    )
    assert outcome.report == folder / "evaluation" / "report.html"
    return folder


@pytest.fixture(scope="module")
def content(run: Path) -> Any:
    """Its ``report.json``."""
    return json.loads((run / "evaluation" / "report.json").read_text())


def test_a_training_ends_with_a_report_of_its_best_detector(run: Path, content: Any) -> None:
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    found = json.loads((run / "evaluation" / "detections.json").read_text())

    assert content["head"]["num_images"] == 8
    assert content["head"]["num_detections"] == len(found)
    assert content["head"]["detector"] == str(run / "checkpoints" / "best.safetensors")
    assert content["metrics"]["AP"]["value"] == pytest.approx(metrics["AP"], abs=1e-12)
    assert content["operating_points"][0]["tp"] + content["operating_points"][0]["fn"] == sum(
        category["num_ground_truth"] for category in metrics["per_category"]
    )


def test_it_knows_the_training_set_and_the_machine(content: Any) -> None:
    assert content["overlap"]["num_train_compared"] == 24
    assert content["overlap"]["num_validation_compared"] == 8
    assert content["speed"]["device"].startswith("cpu")
    assert content["speed"]["network_ms"] > 0


def test_the_page_shows_pictures_of_its_images(run: Path, content: Any) -> None:
    page = (run / "evaluation" / "report.html").read_text()

    assert len(content["images"]) > 0
    assert page.count("data:image/jpeg;base64,") == len(content["images"])


def test_tensorboard_has_its_curves_and_confusion_matrix(run: Path) -> None:
    log = EventAccumulator(str(run / "tensorboard"))
    log.Reload()

    assert {"evaluation/curves", "evaluation/confusion"} <= set(log.Tags()["images"])


def test_no_report_where_none_is_wanted(tiny_config: Path, tmp_path: Path) -> None:
    outcome = retina.train(
        tiny_config, [f"output_dir={tmp_path / 'run'}", "training.max_steps=1"], quiet=True
    )

    assert outcome.report is None
    assert not (tmp_path / "run" / "evaluation" / "report.html").exists()


def test_no_report_without_a_validation_set(tiny_config: Path, tmp_path: Path) -> None:
    outcome = retina.train(
        tiny_config,
        [
            f"output_dir={tmp_path / 'run'}",
            "training.max_steps=1",
            "evaluation.report=true",
            "dataset.validation=null",
        ],
        quiet=True,
    )

    assert outcome.report is None


def test_the_report_suggests_the_score_that_is_in_the_detector(run: Path, content: Any) -> None:
    kept = load_artifact(run / "checkpoints" / "best.safetensors").config.thresholds.common

    assert content["suggested_score"] == int(kept * 100 + 1e-9) / 100


def test_a_report_that_cannot_be_made_costs_no_training(
    tiny_config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The page's place is taken by a folder."""
    folder = tmp_path / "run"
    options = [f"output_dir={folder}", "training.max_steps=1", "evaluation.report=true"]

    def block(_: Any) -> None:
        (folder / "evaluation" / "report.html").mkdir(parents=True)

    outcome = retina.train(tiny_config, options, on_start=block)

    assert outcome.step == 1
    assert outcome.report is None
    assert "warning: no report was written: " in "".join(capfd.readouterr())
    assert (folder / "checkpoints" / "best.safetensors").exists()


def test_evaluate_leaves_nothing_of_an_earlier_evaluation(
    run: Path, invoke: Any, synthetic_data: Path, tmp_path: Path
) -> None:
    detector, folder = run / "checkpoints" / "best.safetensors", tmp_path / "scores"
    some = tmp_path / "some.txt"
    images = sorted((synthetic_data / "validation" / "images").iterdir())
    some.write_text(images[0].name + "\n")

    whole = invoke("evaluate", detector, "--output", folder)
    listed = invoke("evaluate", detector, "--image-list", some, "--no-report", "--output", folder)

    assert (whole.code, listed.code) == (0, 0), whole.err + listed.err
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["detections.json", "ground_truth.json", "metrics.json"]
    refused = invoke("compare", folder, run)
    assert refused.code == 2
    assert f"1 against {len(images)} images" in refused.err
    assert invoke("compare", folder, folder).code == 0


def test_evaluate_writes_the_report_of_a_detector(
    run: Path, content: Any, invoke: Any, tmp_path: Path
) -> None:
    detector = run / "checkpoints" / "best.safetensors"

    done = invoke("evaluate", detector, "--output", tmp_path / "scores")

    assert done.code == 0, done.err
    again = json.loads((tmp_path / "scores" / "report.json").read_text())
    assert again["head"]["annotations_sha256"] == content["head"]["annotations_sha256"]
    assert again["operating_points"] == content["operating_points"]
    assert again["overlap"] == content["overlap"]
    assert again["head"]["command"].startswith("retina")


def test_a_report_has_the_threshold_of_each_class(run: Path, invoke: Any, tmp_path: Path) -> None:
    artifact = load_artifact(run / "checkpoints" / "best.safetensors")
    per_class = (0.25, *[None] * (len(artifact.categories) - 1))
    chosen = artifact.config.thresholds.model_copy(update={"per_class": per_class, "common": 0.4})
    artifact.with_thresholds(chosen).save(tmp_path / "chosen.safetensors")
    data = ("--config", run / "config.yaml")

    done = invoke("evaluate", tmp_path / "chosen.safetensors", *data, "--output", tmp_path / "out")

    assert done.code == 0, done.err
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    shown = [category["threshold"] for category in content["categories"]]
    assert shown == [0.25, *[0.4] * (len(shown) - 1)]


def test_evaluate_writes_the_report_of_a_results_file_on_blank_canvases(
    run: Path, content: Any, invoke: Any, synthetic_data: Path, tmp_path: Path
) -> None:
    options = [
        *("--detections", run / "evaluation" / "detections.json"),
        *("--annotations", synthetic_data / "validation" / "annotations.json"),
    ]

    blank = invoke("evaluate", *options, "--output", tmp_path / "blank")
    images = synthetic_data / "validation" / "images"
    drawn = invoke("evaluate", *options, "--images", images, "--output", tmp_path / "drawn")

    assert (blank.code, drawn.code) == (0, 0), blank.err + drawn.err
    again = json.loads((tmp_path / "blank" / "report.json").read_text())
    assert again["operating_points"] == content["operating_points"]
    assert again["speed"] is None
    pages = [(tmp_path / name / "report.html").read_text() for name in ("blank", "drawn")]
    assert ["data:image/jpeg" in page for page in pages] == [False, True]
