"""A data set that is named by its folder or file alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retina.configuration import ConfigError
from retina.datasets import CocoConfig, SourceConfig, VocConfig, find_source
from retina.errors import UserError
from retina.experiment import load_experiment
from retina.experiment.parts import build_dataset

Writer = Callable[..., tuple[Path, Path]]


@pytest.fixture
def splits(write_coco: Writer, tmp_path: Path) -> Path:
    """A folder with `train/` and `val/` in COCO's format."""
    for name in ("train", "val"):
        write_coco(name=f"both/{name}")
    return tmp_path / "both"


def experiment(path: Path, dataset: str, *overrides: str) -> Any:
    path.write_text(f"output_dir: runs/x\ndataset:\n{dataset}")
    return load_experiment(path, overrides)


def test_each_split_of_a_source_is_the_one_that_it_is_in_the_config(
    splits: Path, tmp_path: Path
) -> None:
    text = f"  train: {{source: {splits}, classes: [dog]}}\n  validation: {{source: {splits}}}\n"
    config = experiment(tmp_path / "a.yaml", text)
    assert isinstance(config.dataset.train, SourceConfig)
    found = config.dataset.train.found
    assert found == CocoConfig(
        images=splits / "train/images", annotations=splits / "train/annotations.json",
        classes=("dog",),
    )  # fmt: skip
    assert config.dataset.validation.found.images == splits / "val/images"
    assert config.dataset.train.display_name == f"{splits}, train"
    dataset = build_dataset(config, "train")
    assert dataset.categories.names == ("dog",)
    assert dataset.report.findings[0] == f"{splits} is taken for COCO: train, validation"
    with pytest.raises(UserError, match=r"the key 'split' .*: 'test' is none of train, validation"):
        build_dataset(
            experiment(tmp_path / "b.yaml", text + f"  test: {{source: {splits}}}\n"), "test"
        )


def test_another_split_may_be_named(splits: Path, tmp_path: Path) -> None:
    text = f"  train: {{source: {splits}, split: valid}}\n"
    config = experiment(tmp_path / "a.yaml", text)
    assert config.dataset.train.found.images == splits / "val/images"


def test_the_guess_can_be_overridden(splits: Path, tmp_path: Path) -> None:
    text = f"  train: {{kind: voc, source: {splits}}}\n"
    config = experiment(tmp_path / "a.yaml", text)
    with pytest.raises(UserError, match=r"holds no data set that can be read: Annotations/ with"):
        build_dataset(config, "train")
    text = f"  train: {{kind: vox, source: {splits}}}\n"
    with pytest.raises(UserError, match=r"kind: 'vox' is none of .*coco.*did you mean 'voc'"):
        build_dataset(experiment(tmp_path / "b.yaml", text), "train")
    dataset = build_dataset(
        experiment(tmp_path / "c.yaml", f"  train: {{kind: coco, source: {splits}}}\n"), "train"
    )
    assert not any("is taken for" in finding for finding in dataset.report.findings)


def test_a_file_with_its_images(write_coco: Writer, write_voc: Writer, tmp_path: Path) -> None:
    folder, path = write_coco()
    assert find_source(path).whole == CocoConfig(images=folder, annotations=path)
    other = tmp_path / "photos"
    folder.rename(other)
    with pytest.raises(UserError, match=r"say where its images are with --images FOLDER"):
        find_source(path)
    assert find_source(path, images=other).whole == CocoConfig(images=other, annotations=path)
    images, annotations = write_voc({"a": []})
    assert find_source(tmp_path).whole == VocConfig(images=images, annotations=annotations)
    with pytest.raises(UserError, match="is a folder that holds its own images"):
        find_source(tmp_path, images=images)
    with pytest.raises(UserError, match="no such file or folder"):
        find_source(tmp_path / "gone")


def test_options_and_mistakes_of_a_source(splits: Path, tmp_path: Path) -> None:
    text = f"  train: {{source: {splits}}}\n"
    config = experiment(tmp_path / "a.yaml", text, "dataset.train.max_images=1")
    assert len(build_dataset(config, "train")) == 1
    with pytest.raises(ConfigError, match=r"dataset.train.max_imges: unknown key, did you mean"):
        experiment(tmp_path / "a.yaml", f"  train: {{source: {splits}, max_imges: 1}}\n")
    with pytest.raises(ConfigError, match=r"dataset.train.source: this key is required"):
        experiment(tmp_path / "a.yaml", "  train: {kind: auto}\n")
    with pytest.raises(ConfigError, match=r"dataset.train.annotations: unknown key"):
        experiment(tmp_path / "a.yaml", f"  train: {{source: {splits}, annotations: x.json}}\n")


def test_parts_may_be_sources(splits: Path, tmp_path: Path) -> None:
    part = f"{{source: {splits}, split: train}}"
    text = f"  train: {{kind: concatenated, parts: [{part}, {part}]}}\n"
    assert len(build_dataset(experiment(tmp_path / "a.yaml", text), "train")) == 4
