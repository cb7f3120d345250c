"""The commands as a user runs them, in processes of their own."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open

from retina.evaluation.metrics import METRIC_NAMES
from tests.conftest import (  # type: ignore[import-not-found]
    REPOSITORY,
    Invoke,
    RunRetina,
)
from tests.processes import Launched, small_retina  # type: ignore[import-not-found]

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture(scope="module")
def trained(
    run_retina: RunRetina, tiny_config: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    done = run_retina("train", tiny_config, f"output_dir={folder}", "training.pictures=8")
    assert done.returncode == 0, done.stderr
    return folder


def lines_of(folder: Path, kind: str) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def test_help_names_every_command_and_gives_examples(invoke: Invoke) -> None:
    shown = invoke("--help")
    assert shown.code == 0
    for command in ("train", "evaluate", "predict", "import", "data"):
        assert command in shown.out
    for command in (
        ["train"],
        ["evaluate"],
        ["predict"],
        ["import", "torchvision"],
        ["data", "synth"],
        ["data", "check"],
        ["data", "stats"],
        ["data", "convert"],
    ):
        assert "Example: retina" in invoke(*command, "--help").out


def test_an_output_that_knows_no_greek_is_written_all_the_same() -> None:
    """A pipe on Windows."""
    done = subprocess.run(
        [sys.executable, "-m", "retina", "loss", "lab", "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii", "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr
    assert "Replay any gamma and alpha" in done.stdout


@pytest.mark.parametrize("words", [[], ["data"], ["loss"], ["train"], ["data", "suspects"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        f"import sys, runpy; sys.argv = ['retina', *{words}, '--help']\n"
        "try: runpy.run_module('retina', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'cv2', 'albumentations', 'yaml'} & {*sys.modules}\n"
        "sys.stderr.write(repr(sorted(heavy)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert done.stderr == "[]"


@pytest.mark.slow
def test_a_residual_network_trains_as_a_user_starts_it(tiny_config: Path, tmp_path: Path) -> None:
    resnet = "model.backbone={kind: resnet, name: resnet18, norm: batch, weights: null}"
    options = [f"output_dir={tmp_path / 'run'}", "training.max_steps=1", "dataset.validation=null"]
    done = subprocess.run(
        [sys.executable, "-m", "retina", "train", tiny_config, resnet, *options],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    assert "resnet18, 11." in done.stdout
    assert "done: 1 step," in done.stdout


def test_a_training_leaves_everything_the_contract_names(trained: Path) -> None:
    for name in (
        "config.yaml",
        "metrics.jsonl",
        "checkpoints/last.pt",
        "checkpoints/last.safetensors",
        "checkpoints/best.safetensors",
        "evaluation/metrics.json",
        "evaluation/detections.json",
        "evaluation/ground_truth.json",
    ):
        assert (trained / name).stat().st_size > 0, name
    assert list((trained / "tensorboard").iterdir())
    train = lines_of(trained, "train")
    assert [row["step"] for row in train] == [1, 2, 3, 4, 5, 6]
    assert set(train[0]) >= {
        "loss", "classification", "box_regression", "lr", "images_per_second", "data_wait",
        "num_foreground", "foreground_loss_share", "background_loss_share",
    }  # fmt: skip
    assert train[-1]["loss"] < train[0]["loss"]
    validation = lines_of(trained, "validation")
    assert [row["step"] for row in validation] == [3, 6]
    assert set(validation[0]) >= {"loss", "AP", "AP50", "APs", "ARl"}


def test_tensorboard_holds_scalars_pictures_and_the_config(trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(trained / "tensorboard"))
    board.Reload()
    tags = board.Tags()
    scalars = set(tags["scalars"])
    assert {
        f"train/{name}"
        for name in (
            "loss", "classification", "box_regression", "lr", "images_per_second", "data_wait",
            "num_foreground", "foreground_loss_share", "background_loss_share", "epoch",
        )
    } <= scalars  # fmt: skip
    scored = {*METRIC_NAMES} - {"APl", "ARl"}  # no object of the split is large
    assert {
        f"validation/{name}" for name in ("loss", "classification", "box_regression", *scored)
    } <= scalars
    assert not {"validation/APl", "validation/ARl"} & scalars
    assert any(tag.startswith("validation_AP_per_class/") for tag in scalars)
    assert len(tags["images"]) == 8
    assert "config/text_summary" in tags["tensors"]


def test_the_resolved_config_repeats_the_run(
    run_retina: RunRetina, trained: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    done = run_retina("train", trained / "config.yaml", f"output_dir={again}")
    assert done.returncode == 0, done.stderr
    first, second = lines_of(trained, "train"), lines_of(again, "train")
    assert [row["loss"] for row in first] == [row["loss"] for row in second]
    assert (trained / "evaluation/metrics.json").read_text() == (
        again / "evaluation/metrics.json"
    ).read_text()


def test_training_over_a_run_is_refused_and_nothing_is_lost(
    run_retina: RunRetina, tiny_config: Path, trained: Path
) -> None:
    before = (trained / "checkpoints/last.pt").read_bytes()
    done = run_retina("train", tiny_config, f"output_dir={trained}")
    assert done.returncode == 2
    assert "--resume" in done.stderr
    assert "output_dir" in done.stderr
    assert "Traceback" not in done.stderr
    assert (trained / "checkpoints/last.pt").read_bytes() == before


def test_resume_without_a_checkpoint_starts_and_a_complete_run_stays(
    run_retina: RunRetina, tiny_config: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    first = run_retina(
        "train", tiny_config, f"output_dir={folder}", "training.epochs=1", "--resume"
    )
    assert first.returncode == 0, first.stderr
    state = (folder / "checkpoints/last.pt").read_bytes()
    second = run_retina(
        "train", tiny_config, f"output_dir={folder}", "training.epochs=1", "--resume"
    )
    assert second.returncode == 0, second.stderr
    assert "already complete" in second.stdout
    assert (folder / "checkpoints/last.pt").read_bytes() == state


def test_sigterm_writes_a_checkpoint_and_resume_ends_where_the_whole_run_does(
    run_retina: RunRetina, tiny_config: Path, tmp_path: Path
) -> None:
    options = ["training.epochs=4", "training.evaluate_every_epochs=4", "training.num_workers=1"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run_retina("train", tiny_config, f"output_dir={whole}", *options).returncode == 0
    process = Launched(small_retina, "train", str(tiny_config), f"output_dir={stopped}", *options)
    log = stopped / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not log.exists() or not log.read_text()):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    output, errors = process.communicate()
    assert process.returncode == 143, errors
    assert "stopped by signal 15" in output
    resumed = run_retina("train", tiny_config, f"output_dir={stopped}", *options, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    first, second = lines_of(whole, "train"), lines_of(stopped, "train")
    assert [row["step"] for row in second] == list(range(1, 13))
    assert [row["loss"] for row in second] == [row["loss"] for row in first]


def test_evaluate_gives_the_numbers_of_the_training(
    run_retina: RunRetina, trained: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    validation = synthetic_data / "validation"
    done = run_retina(
        "evaluate", trained / "checkpoints/best.safetensors",
        "--annotations", validation / "annotations.json", "--images", validation / "images",
        "--output", tmp_path / "scores", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "APs" in done.stdout
    mine = json.loads((tmp_path / "scores/metrics.json").read_text())
    training = json.loads((trained / "evaluation/metrics.json").read_text())
    assert mine == training
    by_config = run_retina(
        "evaluate", trained / "checkpoints/best.safetensors", "--config", trained / "config.yaml",
        "--split", "validation", "--output", tmp_path / "again", "--device", "cpu",
    )  # fmt: skip
    assert by_config.returncode == 0, by_config.stderr
    rescored = run_retina(
        "evaluate", "--detections", tmp_path / "again/detections.json",
        "--annotations", validation / "annotations.json", "--output", tmp_path / "rescored",
        "--backend", "pycocotools", "--max-detections", str(mine["max_detections"]),
    )  # fmt: skip
    assert rescored.returncode == 0, rescored.stderr
    assert json.loads((tmp_path / "rescored/metrics.json").read_text()) == mine
    folders = [trained, tmp_path / "scores", tmp_path / "again", tmp_path / "rescored"]
    compared = run_retina("compare", *folders, "--fail-if-worse", "0")
    assert compared.returncode == 0, compared.stderr
    assert compared.stdout.count("AP is the same in every resample") == 3


def test_what_predict_writes_is_scored_by_the_names_of_its_files(
    run_retina: RunRetina, trained: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    """`predict` counts the files, and knows its own classes; the annotations number both anew."""
    folder = synthetic_data / "validation"
    detector = trained / "checkpoints/best.safetensors"
    tree = json.loads((folder / "annotations.json").read_text())
    for record in (*tree["images"], *tree["categories"]):
        record["id"] = 50 - record["id"]
    for record in tree["annotations"]:
        record.update(image_id=50 - record["image_id"], category_id=50 - record["category_id"])
    truth = tmp_path / "turned.json"
    truth.write_text(json.dumps(tree))
    done = run_retina(
        "predict", detector, folder / "images", "--output", tmp_path / "out",
        "--score-threshold", "0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scored, expected = tmp_path / "scored", tmp_path / "expected"
    done = run_retina(
        "evaluate", "--detections", tmp_path / "out/detections.json", "--annotations", truth,
        "--output", scored,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "is not that of the file they name" in done.stdout
    assert "is not that of the class they name" in done.stdout
    run_retina(
        "evaluate", detector, "--annotations", truth, "--images", folder / "images",
        "--output", expected,
    )  # fmt: skip
    metrics, wanted = (json.loads((at / "metrics.json").read_text()) for at in (scored, expected))
    assert metrics["AP"] == pytest.approx(wanted["AP"], abs=1e-6)
    assert metrics["AR100"] == pytest.approx(wanted["AR100"], abs=1e-6) != 0


def test_predict_writes_the_ids_of_an_annotation_file(
    run_retina: RunRetina, trained: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    file = synthetic_data / "validation/annotations.json"
    tree = json.loads(file.read_text())
    for record in tree["images"]:
        record["id"] += 900
    del tree["annotations"]
    listed = tmp_path / "test.json"
    listed.write_text(json.dumps(tree))
    done = run_retina(
        "predict", trained / "checkpoints/best.safetensors", listed, "--images",
        synthetic_data / "validation/images", "--output", tmp_path / "out",
        "--score-threshold", "0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "is taken for COCO, with its image ids" in done.stdout
    ids = {record["file_name"]: record["id"] for record in tree["images"]}
    rows = json.loads((tmp_path / "out/detections.json").read_text())
    assert rows
    assert all(row["image_id"] == ids[Path(row["file_name"]).name] for row in rows)


def test_predict_writes_pictures_goes_on_past_a_broken_image_and_exits_with_1(
    run_retina: RunRetina, trained: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    images = sorted((synthetic_data / "validation/images").iterdir())
    folder = tmp_path / "photos"
    folder.mkdir()
    for image in images[:3]:
        (folder / image.name).write_bytes(image.read_bytes())
    (folder / "broken.jpg").write_bytes(images[0].read_bytes()[:500])
    detector = trained / "checkpoints/best.safetensors"
    done = run_retina(
        "predict", detector, folder, images[3], str(folder / "*.png"), "--output", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 2  # the glob matches nothing
    done = run_retina(
        "predict", detector, folder, images[3], "--output", tmp_path / "out",
        "--score-threshold", "0.0", "--batch-size", "2",
    )  # fmt: skip
    assert done.returncode == 1
    assert "broken.jpg" in done.stderr
    assert "Traceback" not in done.stderr
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == sorted(["detections.json", *(f"{path.stem}.jpg" for path in images[:4])])
    picture = cv2.imread(str(tmp_path / "out" / f"{images[0].stem}.jpg"))
    image = cv2.imread(str(images[0]))
    assert picture.shape == (2 * image.shape[0], 2 * image.shape[1], 3)  # at least 320 pixels
    assert not np.array_equal(picture[::2, ::2], image)
    rows = json.loads((tmp_path / "out/detections.json").read_text())
    assert {row["file_name"] for row in rows} <= {str(p) for p in [*folder.iterdir(), images[3]]}
    assert set(rows[0]) == {
        *("image_id", "category_id", "bbox", "score", "category_name", "file_name")
    }


@pytest.mark.parametrize("variant", [pytest.param("v1", marks=pytest.mark.slow), "v2"])
def test_a_checkpoint_of_torchvisions_training_becomes_a_detector_and_a_start(
    invoke: Invoke,
    variant: str,
    tiny_config: Path,
    tmp_path: Path,
    torchvision_reference: ModuleType,
) -> None:
    network = torchvision_reference.random_torchvision(variant, seed=0)
    plain, kept = tmp_path / "plain.pth", tmp_path / "model_7.pth"
    torch.save(network.state_dict(), plain)
    wrapped = {f"module._orig_mod.{key}": value for key, value in network.state_dict().items()}
    arguments = argparse.Namespace(lr=0.02, output_dir=Path("out"))
    torch.save({"model": wrapped, "args": arguments, "epoch": 7, "scaler": {}}, kept)
    written = []
    for path in (plain, kept):
        output = tmp_path / f"{path.stem}.safetensors"
        done = invoke("import", "torchvision", path, "--variant", variant, "--output", output)
        assert done.code == 0, done.err
        assert ("the weights under 'model'" in done.out) == (path == kept)
        # The file also says what it was made of, and its hash.
        with safe_open(output, "pt") as file:
            names = sorted(file.keys())
            written.append([(name, file.get_tensor(name).numpy().tobytes()) for name in names])
    assert written[0] == written[1]
    started = invoke(
        "train", tiny_config, f"preset=torchvision_{variant}", f"model.initialize_from={kept}",
        f"output_dir={tmp_path / 'run'}", "training.max_steps=1", "dataset.validation=null",
        "model={backbone: {kind: resnet, weights: null}, pyramid: {channels: 256}}",
        "model.head={num_convs: 4}", "training.batch_size=1",
        "optimizer={kind: sgd, momentum: 0.0}",  # keeps nothing that would be saved
    )  # fmt: skip
    assert started.code == 0, started.err
    assert "weights loaded (the weights under 'model')" in started.out
    left = [line for line in started.out.splitlines() if line.startswith("not ")]
    assert not any("backbone" in line for line in left)
    assert any("head.classification.output.weight" in line for line in left)  # of other classes


def test_a_whole_model_is_refused_in_words_of_our_own(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    done = invoke("import", "torchvision", path, "--output", tmp_path / "o.safetensors")
    assert done.code == 2
    assert "it holds 'torch.nn.modules.linear.Linear'" in done.err
    assert "torch.save(model.state_dict(), FILE)" in done.err
    assert "\x1b" not in done.err
    assert len(done.err.splitlines()) == 1
