"""``retina loss anatomy``: the options, the table, the files and the messages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

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
    assert "validation: 8 images" in done.out
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
        ([], "no config.yaml of a run lies beside its folder; say what to look at: --config"),
        (["--annotations", "a.json"], "a.json: say where its images are with --images FOLDER"),
        (["--images", "photos"], "--images needs --annotations"),
        (["--data", "a.yaml", "--config", "b.yaml"], "--data stands for --config or"),
        (["--config", "a.yaml", "--images", "photos"], "give either a config or an annotation"),
        (["--split", "valid"], "--split: 'valid' is none of train, validation, test, did you"),
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
