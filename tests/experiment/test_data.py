"""Which data set is meant."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from retina.errors import UserError
from retina.experiment import DataOptions, ResolvedData, load_experiment, resolve_data


def resolve(*, default_split: str = "validation", **options: Any) -> ResolvedData:
    return resolve_data(
        DataOptions(**options),
        purpose="which data",
        default_split=default_split,
        check_images=False,
    )


@pytest.fixture
def voc(shared_data: Path) -> Path:
    return shared_data / "bccd"


def test_a_config_and_its_split(tiny_config: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(f"extends: {tiny_config}\noutput_dir: run\n")
    for resolved in (resolve(config=config), resolve(source=config)):
        assert len(resolved.dataset) == 8
        assert (resolved.name, resolved.full_name) == ("validation", f"{config}, validation")
        assert resolved.config == load_experiment(config, [])
    assert len(resolve(default_split="train", config=config).dataset) == 24
    resolved = resolve(config=config, split="train", overrides=["dataset.train.max_images=5"])
    assert len(resolved.dataset) == 5
    assert resolved.images is None
    assert resolve(default_split="train", config=config, split="val").name == "validation"


def test_a_file_whose_images_are_named_or_lie_beside_it(
    synthetic_data: Path, tmp_path: Path
) -> None:
    split = synthetic_data / "train"
    file = split / "annotations.json"
    ways: tuple[dict[str, Any], ...] = (
        {"annotations": file, "images": split / "images"},
        {"source": file, "images": split / "images"},
        {"source": file},
    )
    for options in ways:
        resolved = resolve(**options)
        assert len(resolved.dataset) == 24
        assert resolved.name == resolved.full_name == str(file)
        assert resolved.images == split / "images"
        assert resolved.config is None
    alone = Path(shutil.copy(file, tmp_path))
    with pytest.raises(UserError, match="say where its images are with --images FOLDER"):
        resolve(source=alone)


@pytest.mark.parametrize(
    ("folders", "split", "default", "found"),
    [
        (["train", "validation"], None, "validation", "validation"),
        (["train", "val"], None, "validation", "val"),
        (["train", "validation", "test"], None, "validation", "test"),
        (["train", "validation", "test"], None, "train", "train"),
        (["train", "valid"], "validation", "train", "valid"),
        (["train", "val"], "val", "train", "val"),
        (["train", "val"], "valid", "train", "val"),
    ],
)
def test_a_folder_with_splits(
    folders: list[str],
    split: str | None,
    default: str,
    found: str,
    synthetic_data: Path,
    tmp_path: Path,
) -> None:
    for folder in folders:
        (tmp_path / folder).symlink_to(synthetic_data / "validation")
    resolved = resolve(default_split=default, source=tmp_path, split=split)
    assert resolved.images == tmp_path / found / "images"
    name = {"val": "validation", "valid": "validation"}.get(found, found)
    assert resolved.name == f"{tmp_path}, {name}"


def test_a_folder_of_one_data_set(synthetic_data: Path) -> None:
    folder = synthetic_data / "train"
    assert len(resolve(source=folder).dataset) == 24
    with pytest.raises(UserError, match="holds a single data set"):
        resolve(source=folder, split="test")


def test_pascal_voc_by_its_folders_and_lists(voc: Path) -> None:
    folders: dict[str, Any] = {"images": voc / "JPEGImages", "annotations": voc / "Annotations"}
    assert len(resolve(**folders).dataset) == 364
    listed = voc / "ImageSets" / "Main" / "test.txt"
    resolved = resolve(**folders, split=str(listed))
    assert len(resolved.dataset) == 72
    assert resolved.name == f"{voc / 'Annotations'}, {listed}"
    assert len(resolve(source=voc).dataset) == 72  # test comes first
    assert len(resolve(source=voc, split="validation").dataset) == 87
    assert len(resolve(source=voc, split="val").dataset) == 87
    assert resolve(default_split="train", source=voc).name == f"{voc}, train"


def test_the_run_that_a_detector_lies_in(tiny_config: Path, tmp_path: Path) -> None:
    detector = tmp_path / "checkpoints" / "best.safetensors"
    with pytest.raises(
        UserError, match=r"lies in no checkpoints/ folder .*; say which data: --data"
    ):
        resolve(detector=detector)
    (tmp_path / "config.yaml").write_text(f"extends: {tiny_config}\noutput_dir: run\n")
    resolved = resolve(detector=detector)
    assert resolved.name == "validation"
    assert resolved.config is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "say which data: --data SOURCE, --annotations FILE --images FOLDER, or --config"),
        ({"source_option": "SOURCE"}, "say which data: SOURCE, --annotations FILE"),
        ({"source": "a", "annotations": "b"}, "--data stands for --config or --annotations"),
        ({"source": "a.yaml", "images": "b"}, "give either a config or --annotations with"),
        ({"config": "a.yaml", "annotations": "b"}, "give either a config or --annotations with"),
        ({"images": "b"}, "--images needs --annotations"),
        ({"annotations": "a.json"}, "a.json: no such annotation file or folder"),
        ({"annotations": "a.json", "images": "b"}, "a.json: no such annotation file or folder"),
        ({"source": "nowhere"}, "nowhere: no such file or folder"),
        ({"source": "."}, "holds no data set that can be read"),
        ({"source": ".", "images": "b"}, "is a folder that holds its own images"),
        ({"config": "a.yaml", "split": "tran"}, "--split: 'tran' is none of train, validation"),
        ({"source": "nowhere", "overrides": ["seed=1"]}, "seed=1: changes a config, and no config"),
    ],
)
def test_what_contradicts_itself_or_is_missing(
    options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {key for key in options if key in ("source", "annotations", "images", "config")}
    given: dict[str, Any] = {
        key: Path(str(value)) if key in paths else value for key, value in options.items()
    }
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        resolve(**given)


def test_a_split_that_a_folder_does_not_have(synthetic_data: Path) -> None:
    with pytest.raises(UserError, match="'test' is none of train, validation"):
        resolve(source=synthetic_data, split="test")
