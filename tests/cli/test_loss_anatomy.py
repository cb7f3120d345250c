"""``retina loss anatomy``: the options, the table, the files and the messages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from retina.losses.class_balance import class_balanced_alpha
from tests.conftest import Invoke, RunRetina  # type: ignore[import-not-found]


@pytest.fixture(scope="module")
def run_folder(
    run_retina: RunRetina, tiny_config: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    done = run_retina("train", tiny_config, f"output_dir={folder}", "training.epochs=1")
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_folder_is_all_it_needs(invoke: Invoke, run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "anatomy"
    done = invoke(
        *("loss", "anatomy", run_folder / "checkpoints" / "best.safetensors"),
        *("--output", out, "--num-workers", 0),
    )
    assert done.code == 0, done.err
    assert "focal loss with γ = 2, α = 0.25, as in the training" in done.out
    assert f"{run_folder / 'config.yaml'}, validation: 8 images" in done.out
    for word in ("everything", "P3", "P7", "easy neg.", "positives"):
        assert word in done.out
    about = json.loads((out / "anatomy.json").read_text())
    assert about["num_images"] == 8
    assert about["data"] == "validation"
    assert (about["gamma"], about["alpha"], about["loss"]) == (2.0, 0.25, "focal")
    assert len(about["per_class"]) == 10
    whole = about["overall"]
    assert sum(part["loss_share"] for part in whole.values()) == pytest.approx(1.0)
    for level in ("per_level", "per_class"):
        total = sum(row["positives"]["loss"] for row in about[level])
        assert total == pytest.approx(whole["positives"]["loss"])
    bars = about["p_t_histogram"]
    assert sum(bars["overall"]["positives"]) == whole["positives"]["count"]
    assert len(bars["logit_edges"]) == len(bars["overall"]["negatives"]) + 1
    curves = about["cumulative_loss"]
    for side in ("background", "foreground"):
        assert list(curves[side]["values"]) == ["0", "0.5", "1", "2", "5"]
        for values in curves[side]["values"].values():
            assert len(values) == len(curves["fractions"])
            assert values[0] == 0.0
            assert values[-1] == 1.0
            assert np.all(np.diff(values) >= 0)
    assert about["loss_curves"]["loss"]["0"][99] == pytest.approx(np.log(2), abs=1e-6)
    for name in ("shares", "p_t", "cumulative_loss", "loss_curves"):
        picture = cv2.imread(str(out / f"{name}.png"))
        assert picture is not None
        assert min(picture.shape[:2]) > 500
        assert picture.std() > 10  # something is drawn


def test_gamma_alpha_and_the_number_of_images_can_be_chosen(
    invoke: Invoke, run_folder: Path, tmp_path: Path
) -> None:
    options = ("--gamma", 0, "--alpha", "none", "--images-limit", 3, "--split", "train")
    done = invoke(
        *("loss", "anatomy", run_folder / "checkpoints" / "last.safetensors", *options),
        *("--output", tmp_path, "--num-workers", 0),
    )
    assert done.code == 0, done.err
    assert "focal loss with γ = 0, α = none, as the options say" in done.out
    about = json.loads((tmp_path / "anatomy.json").read_text())
    assert (about["gamma"], about["alpha"], about["num_images"]) == (0.0, None, 3)
    assert about["data"] == "train"


def test_data_may_be_a_config_or_an_annotation_file(
    invoke: Invoke, run_folder: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.safetensors"
    shutil.copy(run_folder / "checkpoints" / "last.safetensors", alone)
    split = synthetic_data / "validation"
    common = ("--images-limit", 2, "--num-workers", 0, "--output")

    def overall(*options: object, name: str) -> object:
        done = invoke("loss", "anatomy", alone, *options, *common, tmp_path / name)
        assert done.code == 0, done.err
        return json.loads((tmp_path / name / "anatomy.json").read_text())["overall"]

    by_config = overall("--data", run_folder / "config.yaml", name="a")
    by_file = overall("--data", split / "annotations.json", "--images", split / "images", name="b")
    by_annotations = overall(
        "--annotations", split / "annotations.json", "--images", split / "images", name="c"
    )
    assert by_config == by_file == by_annotations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "lies in no checkpoints/ folder with a run's config.yaml beside it; say what to look"),
        (["--annotations", "a.json"], "a.json: say where its images are with --images FOLDER"),
        (["--images", "photos"], "--images needs --annotations"),
        (["--data", "a.yaml", "--config", "b.yaml"], "--data stands for --config or"),
        (["--config", "a.yaml", "--images", "photos"], "give either a config or --annotations"),
        (
            ["--annotations", "a.json", "--images", "photos", "--split", "train"],
            "--split train: an annotation file has no splits; leave it away",
        ),
        (["--split", "valida"], "--split: 'valida' is none of train, validation, test, did you"),
    ],
)
def test_mistakes_get_one_clear_message(
    invoke: Invoke, run_folder: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    alone = tmp_path / "alone.safetensors"
    shutil.copy(run_folder / "checkpoints" / "last.safetensors", alone)
    done = invoke("loss", "anatomy", alone, *options)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_alpha_must_make_sense(invoke: Invoke, run_folder: Path) -> None:
    checkpoint = run_folder / "checkpoints" / "last.safetensors"
    done = invoke("loss", "anatomy", checkpoint, "--alpha", "1.5")
    assert done.code == 2
    assert "--alpha: write a number in (0, 1), or none" in done.err


@pytest.mark.parametrize(
    ("command", "part", "what"),
    [
        ("anatomy", "classification", "logits"),
        ("lab", "classification", "logits"),
        ("lab", "box_regression", "box codes"),
    ],
)
def test_a_diverged_detector_is_told(
    command: str, part: str, what: str, invoke: Invoke, run_folder: Path, tmp_path: Path
) -> None:
    with safe_open(run_folder / "checkpoints" / "last.safetensors", "pt") as file:
        metadata = file.metadata()
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    weights[f"head.{part}.output.bias"].fill_(float("nan"))
    save_file(weights, tmp_path / "nan.safetensors", metadata)
    data = ("--config", run_folder / "config.yaml", "--num-workers", 0, "--output", tmp_path / "o")
    done = invoke("loss", command, tmp_path / "nan.safetensors", *data)
    assert done.code == 2
    assert f"the detector's {what} are not finite (among the images 1, 2, 3, 4)" in done.err
    assert "take an earlier checkpoint" in done.err


def test_gamma_must_be_finite(invoke: Invoke, run_folder: Path, tmp_path: Path) -> None:
    checkpoint = run_folder / "checkpoints" / "last.safetensors"
    done = invoke("loss", "anatomy", checkpoint, "--gamma", "inf", "--output", tmp_path / "out")
    assert done.code == 2
    assert "--gamma inf: write a finite number from 0 on" in done.err
    assert not (tmp_path / "out").exists()
    for gamma in ("nan", "-1"):
        done = invoke("loss", "anatomy", checkpoint, "--gamma", gamma)
        assert done.code == 2
        assert "Invalid value for '--gamma'" in done.err
        assert "Traceback" not in done.err


def test_an_output_that_is_a_file_is_refused_before_the_work(
    invoke: Invoke, run_folder: Path, tmp_path: Path
) -> None:
    occupied = tmp_path / "anatomy"
    occupied.write_text("kept")
    checkpoint = run_folder / "checkpoints" / "last.safetensors"
    done = invoke("loss", "anatomy", checkpoint, "--output", occupied, "--num-workers", 0)
    assert done.code == 2
    assert "a file stands where a folder is needed" in done.err
    assert "everything" not in done.out  # the table, which comes after the computing
    assert occupied.read_text() == "kept"


def copied_run(run_folder: Path, to: Path, folder: str = "checkpoints", **changes: object) -> Path:
    """A detector in a run folder of its own, whose config is changed; returns its path."""
    tree = yaml.safe_load((run_folder / "config.yaml").read_text())
    for key, value in changes.items():
        tree[key] |= value
    (to / folder).mkdir(parents=True)
    (to / "config.yaml").write_text(yaml.safe_dump(tree))
    return Path(shutil.copy(run_folder / "checkpoints" / "last.safetensors", to / folder))


def test_a_config_above_a_folder_of_another_name_is_no_runs(
    invoke: Invoke, run_folder: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    model = copied_run(run_folder, tmp_path, folder="models")
    done = invoke("loss", "anatomy", model)
    assert done.code == 2
    assert "lies in no checkpoints/ folder with a run's config.yaml beside it" in done.err
    (tmp_path / "config.yaml").write_text("database: {host: example.org}\n")
    split = synthetic_data / "validation"
    data = ("--annotations", split / "annotations.json", "--images", split / "images")
    done = invoke("loss", "anatomy", model, *data, "--images-limit", 1, "--num-workers", 0)
    assert done.code == 0, done.err
    assert "the defaults: no config.yaml tells the training's" in done.out


def test_a_runs_unreadable_config_does_not_stop_who_names_the_data(
    invoke: Invoke, run_folder: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    model = copied_run(run_folder, tmp_path)
    (tmp_path / "config.yaml").write_text("database: {host: example.org}\n")
    split = synthetic_data / "validation"
    data = ("--annotations", split / "annotations.json", "--images", split / "images")
    done = invoke("loss", "anatomy", model, *data, "--images-limit", 1, "--num-workers", 0)
    assert done.code == 0, done.err
    assert f"the defaults: {tmp_path / 'config.yaml'} cannot be read" in done.out
    by_config = ("--config", run_folder / "config.yaml", "--images-limit", 1, "--num-workers", 0)
    assert invoke("loss", "anatomy", model, *by_config).code == 0
    assert invoke("loss", "anatomy", model).code == 2


def test_a_detector_of_the_working_directory_finds_its_run(
    invoke: Invoke, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_folder / "checkpoints")
    done = invoke("loss", "anatomy", "last.safetensors", "--images-limit", 1, "--num-workers", 0)
    assert done.code == 0, done.err
    assert "as in the training" in done.out


def test_class_balance_is_counted_in_the_training_set(
    invoke: Invoke, run_folder: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    balanced = {"classification": {"kind": "class_balanced_focal", "beta": 0.9, "alpha": 0.3}}
    model = copied_run(run_folder, tmp_path / "a", objective=balanced)
    options = ("--images-limit", 1, "--num-workers", 0, "--output")
    done = invoke("loss", "anatomy", model, *options, tmp_path / "out")
    assert done.code == 0, done.err
    assert "as in the training" in done.out
    train = json.loads((synthetic_data / "train" / "annotations.json").read_text())
    counts = [
        sum(o["category_id"] == c["id"] and not o.get("iscrowd") for o in train["annotations"])
        for c in sorted(train["categories"], key=lambda category: category["id"])
    ]
    expected = class_balanced_alpha(counts, beta=0.9, alpha=0.3).tolist()
    found = json.loads((tmp_path / "out" / "anatomy.json").read_text())["alpha"]
    assert found == pytest.approx(expected, rel=1e-6)  # the loss keeps its weights in float32

    gone = {"train": {"kind": "coco", "images": "gone", "annotations": "gone.json"}}
    model = copied_run(run_folder, tmp_path / "b", objective=balanced, dataset=gone)
    done = invoke("loss", "anatomy", model, *options, tmp_path / "fallback")
    assert done.code == 0, done.err
    assert "needs the class counts, which are not known: " in done.out
    assert "gone.json" in done.out
    assert json.loads((tmp_path / "fallback" / "anatomy.json").read_text())["alpha"] == 0.3
