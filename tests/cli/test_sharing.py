"""`predict` and `evaluate` in two processes: each image once, the files of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retina.artifact import make_artifact
from retina.modeling.config import ModelConfig
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.runtime.detection_log import DetectionLog, LoggedImage
from retina.structures import Categories, Detections
from tests.conftest import REPOSITORY, Invoke  # type: ignore[import-not-found]
from tests.processes import run_pair, small_retina  # type: ignore[import-not-found]

MODEL = ModelConfig.model_validate_json(
    """{"backbone": {"kind": "resnet", "name": "resnet18", "norm": "frozen"},
        "pyramid": {"channels": 16}, "head": {"num_convs": 1},
        "anchors": {"sizes": [16, 32, 64, 128, 256]}}"""
)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory, synthetic_data: Path) -> Path:
    tree = json.loads((synthetic_data / "validation/annotations.json").read_text())
    names = tuple(category["name"] for category in tree["categories"])
    torch.manual_seed(0)
    artifact = make_artifact(
        MODEL.build(len(names)),
        model=MODEL,
        preprocess=PreprocessConfig(min_size=64, max_size=96),
        postprocess=PostprocessConfig(score_threshold=0.001, max_detections=20),
        categories=Categories(names, tuple(category["id"] for category in tree["categories"])),
        training={},
    )
    path = tmp_path_factory.mktemp("detector") / "detector.safetensors"
    artifact.save(path)
    return path


@pytest.fixture
def data(synthetic_data: Path) -> list[str]:
    folder = synthetic_data / "validation"
    annotations, images = str(folder / "annotations.json"), str(folder / "images")
    return ["--annotations", annotations, "--images", images, "--device", "cpu", "--no-report"]


def test_two_processes_evaluate_as_one_does_and_go_on(
    invoke: Invoke, detector: Path, data: list[str], tmp_path: Path
) -> None:
    terms = [*data, "--batch-size=1", "--num-workers=0"]
    alone = invoke("evaluate", detector, *terms, "--output", tmp_path / "one")
    assert alone.code == 0, alone.err
    two = str(tmp_path / "two")
    done = run_pair(small_retina, "evaluate", str(detector), *terms, "--output", two)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == 1
    for name in ("metrics.json", "detections.json", "ground_truth.json"):
        assert (tmp_path / "one" / name).read_text() == (Path(two) / name).read_text()
    assert not (tmp_path / "two/unfinished").exists()


def test_an_evaluation_goes_on_where_it_was_stopped(
    invoke: Invoke,
    detector: Path,
    data: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, out = tmp_path / "one", tmp_path / "out"
    words = ["evaluate", detector, *data, "--batch-size=1", "--num-workers=0"]
    assert invoke(*words, "--output", one).code == 0
    add, added = DetectionLog.add, []

    def failing(log: DetectionLog, image: LoggedImage) -> None:
        if len(added) == 5:
            raise OSError(28, "No space left on device")
        added.append(image.item)
        add(log, image)

    monkeypatch.setattr(DetectionLog, "add", failing)
    assert invoke(*words, "--output", out).code == 3
    assert added == [0, 1, 2, 3, 4]
    added.clear()
    done = invoke(*words, "--output", out, "--resume")
    assert done.code == 0, done.err
    assert "holds a run that was stopped, 5 images done: going on" in done.out
    assert added == [5, 6, 7]
    assert (out / "detections.json").read_text() == (one / "detections.json").read_text()
    assert (out / "metrics.json").read_text() == (one / "metrics.json").read_text()
    message = invoke(*words, "--resume").err
    assert message == "error: --resume goes on in the folder of --output: name it\n"


@pytest.mark.slow
def test_torchrun_predicts_as_one_process_does(
    invoke: Invoke, detector: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    images = synthetic_data / "validation/images"
    words = [str(detector), str(images), "--device=cpu", "--score-threshold=0", "--batch-size=1"]
    assert invoke("predict", *words, "--output", tmp_path / "one").code == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, "-m", "retina", "predict", *words, "--output", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("in 8 images; pictures and json in") == 1
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert [path.name for path in one] == [path.name for path in two]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))


def test_results_files_are_scored_by_one_process(
    invoke: Invoke, data: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = invoke("evaluate", "--detections", "found.json", *data[:2])
    assert "retina evaluate --detections was started in 2 processes" in done.err


def test_what_is_logged_is_read_to_the_last_bit(tmp_path: Path) -> None:
    found = Detections(torch.rand(3, 4) * 1000, torch.rand(3), torch.tensor([2, 0, 1]))
    log = DetectionLog.begin(tmp_path / "log", {}, resume=False)
    log.add(LoggedImage(4, (30, 40), found))
    log.close()
    (read,) = log.images()
    assert torch.equal(read.found.boxes, found.boxes)
    assert torch.equal(read.found.scores, found.scores)
    assert torch.equal(read.found.labels, found.labels)
