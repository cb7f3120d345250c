"""Mistakes of a user: each ends with one clear message, exit code 2, no traceback, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from retina.__main__ import main


@dataclass
class Place:
    """A folder of its own for one case, with a copy of a small data set and a config."""

    folder: Path
    config: Path
    images: Path
    annotations: Path

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        tree = json.loads(self.annotations.read_text())
        change(tree)
        self.annotations.write_text(json.dumps(tree))

    def an_image(self) -> Path:
        name = json.loads(self.annotations.read_text())["images"][0]["file_name"]
        return self.images / name


@pytest.fixture
def place(tmp_path: Path, synthetic_data: Path, tiny_config: Path) -> Place:
    data = tmp_path / "data"
    shutil.copytree(synthetic_data, data)
    config = tmp_path / "experiment.yaml"
    text = tiny_config.read_text().replace(str(synthetic_data), str(data))
    config.write_text(f"{text}\noutput_dir: {tmp_path / 'run'}\n")
    return Place(tmp_path, config, data / "train/images", data / "train/annotations.json")


@pytest.fixture
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from retina.artifact import make_artifact
    from retina.modeling.config import ModelConfig
    from retina.modeling.postprocess import PostprocessConfig
    from retina.modeling.preprocess import PreprocessConfig
    from retina.structures import Categories

    model = ModelConfig.model_validate_json(
        '{"backbone": {"kind": "resnet", "name": "resnet18"}, "pyramid": {"channels": 16},'
        '"head": {"num_convs": 0}}'
    )
    artifact = make_artifact(
        model.build(2),
        model=model,
        preprocess=PreprocessConfig(),
        postprocess=PostprocessConfig(),
        categories=Categories.from_names(["cat", "dog"]),
    )
    path = tmp_path_factory.mktemp("detectors") / "detector.safetensors"
    artifact.save(path)
    return path


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 2) -> str:
    """Run the command line in this process; what it printed as its error."""
    before = sys.argv
    sys.argv = ["retina", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as caught:
            main()
    finally:
        sys.argv = before
    error = capsys.readouterr().err
    assert caught.value.code == code, error
    assert "Traceback" not in error
    assert error.count("error:") == 1
    return error


def train(capsys: pytest.CaptureFixture[str], place: Place, *overrides: str) -> str:
    message = fails(capsys, "train", place.config, *overrides)
    assert not (place.folder / "run" / "checkpoints").exists()
    return message


ANNOTATION_MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], object], list[str]]] = {
    "a box for an unknown image": (
        lambda t: t["annotations"][3].update(image_id=987654),
        ["annotations.json", "annotations[3]", "987654"],
    ),
    "a box of an unknown category": (
        lambda t: t["annotations"][5].update(category_id=555),
        ["annotations.json", "annotations[5]", "555"],
    ),
    "an image id that stands for two images": (
        lambda t: t["images"].append({**t["images"][0], "file_name": "another.jpg"}),
        ["annotations.json", "has the id of images[0] too", "another.jpg"],
    ),
    "no images at all": (
        lambda t: t.update(images=[], annotations=[]),
        ["annotations.json", "image"],
    ),
    "no list of categories": (lambda t: t.pop("categories"), ["annotations.json", "categories"]),
    "a box with three numbers": (
        lambda t: t["annotations"][2].update(bbox=[1, 2, 3]),
        ["annotations.json", "annotations[2]", "bbox"],
    ),
    "a file name that leaves the folder": (
        lambda t: t["images"][0].update(file_name="../../secret.jpg"),
        ["../../secret.jpg"],
    ),
}


@pytest.mark.parametrize("mistake", ANNOTATION_MISTAKES)
def test_annotation_mistakes(
    capsys: pytest.CaptureFixture[str], place: Place, mistake: str
) -> None:
    change, words = ANNOTATION_MISTAKES[mistake]
    place.edit(change)
    message = train(capsys, place)
    for word in words:
        assert word in message


OVERRIDE_MISTAKES: dict[str, tuple[str, list[str]]] = {
    "a misspelt key": ("optimizer.lrr=0.1", ["optimizer.lrr", "did you mean 'lr'?"]),
    "a wrong type": ("training.epochs=many", ["training.epochs", "'many'"]),
    "a value out of range": ("training.batch_size=0", ["training.batch_size", "greater than"]),
    "a misspelt kind": ("optimizer.kind=adamv", ["'adamv'", "did you mean 'adamw'?"]),
    "a misspelt transform": (
        "augmentation.transforms=[{name: HorizontalFlipp}]",
        ["augmentation.transforms.0", "HorizontalFlip"],
    ),
    "a misspelt augmentation argument": (
        "augmentation.transforms=[{name: HorizontalFlip, prob: 0.5}]",
        ["augmentation.transforms.0.prob", "it takes p"],
    ),
    "an unknown preset": ("preset=papper", ["'papper'", "did you mean 'paper'?"]),
    "alpha of zero": (
        "objective.classification.alpha=0.0",
        ["objective.classification.alpha", "None for no class weighting"],
    ),
    "an unknown device": ("device=gpu", ["'gpu'", "cuda"]),
    "no such pretrained weights": (
        "model.backbone={kind: resnet, name: resnet18, weights: IMAGENET_V9}",
        ["IMAGENET_V9", "IMAGENET1K_V1"],
    ),
    "a missing file to start from": ("model.initialize_from=old.safetensors", ["old.safetensors"]),
    "missing annotations": ("dataset.train.annotations=nowhere.json", ["nowhere.json"]),
    "a missing image folder": ("dataset.train.images=nowhere", ["nowhere"]),
    "a word that is no override": ("epochs", ["'epochs'", "key=value"]),
    "more parts than images": (
        "training.accumulation_steps=99",
        ["training.accumulation_steps", "99"],
    ),
}


@pytest.mark.parametrize("mistake", OVERRIDE_MISTAKES)
def test_config_mistakes(capsys: pytest.CaptureFixture[str], place: Place, mistake: str) -> None:
    override, words = OVERRIDE_MISTAKES[mistake]
    message = train(capsys, place, override)
    for word in words:
        assert word in message


def test_json_cut_in_half(capsys: pytest.CaptureFixture[str], place: Place) -> None:
    text = place.annotations.read_text()
    place.annotations.write_text(text[: len(text) // 2])
    message = train(capsys, place)
    assert str(place.annotations) in message
    assert "JSON" in message


def test_missing_image(capsys: pytest.CaptureFixture[str], place: Place) -> None:
    image = place.an_image()
    image.unlink()
    assert image.name in train(capsys, place)


@pytest.mark.parametrize("workers", [0, 1])
def test_truncated_jpeg(capsys: pytest.CaptureFixture[str], place: Place, workers: int) -> None:
    image = place.an_image()
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    message = fails(capsys, "train", place.config, f"training.num_workers={workers}")
    assert str(image) in message


def test_missing_config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "none.yaml: no such config file" in fails(capsys, "train", tmp_path / "none.yaml")


def test_config_that_is_no_yaml(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("training: {epochs: 3\n")
    assert "broken.yaml, line" in fails(capsys, "train", path)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_no_write_permission(capsys: pytest.CaptureFixture[str], place: Place) -> None:
    locked = place.folder / "locked"
    locked.mkdir(mode=0o500)
    message = fails(capsys, "train", place.config, f"output_dir={locked / 'run'}")
    assert "may not be written" in message


def test_run_folder_below_a_file(capsys: pytest.CaptureFixture[str], place: Place) -> None:
    message = fails(capsys, "train", place.config, f"output_dir={place.config / 'run'}")
    assert "a file stands where a folder is needed" in message


def test_zero_byte_checkpoint(capsys: pytest.CaptureFixture[str], place: Place) -> None:
    path = place.folder / "empty.safetensors"
    path.touch()
    message = fails(capsys, "predict", path, place.images, "--output", place.folder / "out")
    assert f"{path}: the file is empty (0 bytes)" in message
    assert not (place.folder / "out").exists()


def test_zero_byte_training_state(capsys: pytest.CaptureFixture[str], place: Place) -> None:
    state = place.folder / "run/checkpoints/last.pt"
    state.parent.mkdir(parents=True)
    state.touch()
    message = fails(capsys, "train", place.config, "--resume")
    assert f"{state}: the checkpoint is empty (0 bytes)" in message


def test_a_foreign_safetensors_file(capsys: pytest.CaptureFixture[str], place: Place) -> None:
    from safetensors.torch import save_file

    path = place.folder / "foreign.safetensors"
    save_file({"w": torch.zeros(2)}, path)
    message = fails(capsys, "predict", path, place.images, "--output", place.folder / "out")
    assert "not a detector that retina has saved" in message


def test_a_pickled_checkpoint_where_a_detector_belongs(
    capsys: pytest.CaptureFixture[str], place: Place
) -> None:
    path = place.folder / "last.pt"
    torch.save({"w": torch.zeros(2)}, path)
    message = fails(capsys, "predict", path, place.images, "--output", place.folder / "out")
    assert "last.pt: not a readable detector file" in message
    assert "retina import torchvision" in message


def test_detector_of_other_classes(
    capsys: pytest.CaptureFixture[str], place: Place, detector: Path
) -> None:
    message = fails(
        capsys, "evaluate", detector, "--annotations", place.annotations, "--images", place.images
    )
    assert "categor" in message
    assert "cat" in message


@pytest.mark.parametrize(
    "words",
    [
        ["train", "n" * 300],
        ["evaluate", "--detections", "n" * 300, "--annotations", "n" * 300],
        ["data", "check", "n" * 300],
        ["data", "synth", "n" * 300],
    ],
)
def test_a_name_too_long(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    message = fails(capsys, *words)
    assert "n" * 300 in message
    assert ": no usable path (File name too long)" in message


def test_predict_without_an_image(
    capsys: pytest.CaptureFixture[str], place: Place, detector: Path
) -> None:
    empty = place.folder / "empty"
    empty.mkdir()
    message = fails(capsys, "predict", detector, empty, "--output", place.folder / "out")
    assert "the folder has no image" in message


def test_results_for_other_images(capsys: pytest.CaptureFixture[str], place: Place) -> None:
    results = place.folder / "results.json"
    results.write_text('[{"image_id": 77777, "category_id": 1, "bbox": [0,0,1,1], "score": 1}]')
    message = fails(capsys, "evaluate", "--detections", results, "--annotations", place.annotations)
    assert "77777" in message


def test_unknown_backend(capsys: pytest.CaptureFixture[str], place: Place) -> None:
    message = fails(
        capsys, "evaluate", "--detections", "r.json", "--annotations", place.annotations,
        "--backend", "pycocotool",
    )  # fmt: skip
    assert "did you mean 'pycocotools'?" in message


def test_nothing_to_evaluate(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--detections" in fails(capsys, "evaluate")


def test_import_of_weights_that_are_no_retinanet(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    message = fails(capsys, "import", "torchvision", path, "--output", tmp_path / "out.safetensors")
    assert "not the state dict of a torchvision RetinaNet" in message
