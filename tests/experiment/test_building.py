"""What an experiment is made of, by its config; nothing is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from retina.configuration import to_yaml
from retina.errors import UserError
from retina.experiment import Experiment, ExperimentConfig, build_experiment, load_experiment
from retina.experiment.building import decide
from retina.experiment.parts import build_dataset, build_detector, fingerprint
from retina.structures import Categories
from retina.training.checkpoint import save_state
from retina.training.hooks.averaging import WeightAverage
from retina.training.resuming import ResumePoint
from retina.training.run_folder import LAST_STATE
from tests.memory_dataset import MemoryDataset  # type: ignore[import-not-found]
from tests.training.states import make_state  # type: ignore[import-not-found]

Build = Callable[..., Experiment]
Load = Callable[..., ExperimentConfig]
CPU = torch.device("cpu")


@pytest.fixture
def load(tiny_config: Path, tmp_path: Path) -> Load:
    """The tiny config with overrides; its run folder is ``run``."""
    return lambda *overrides: load_experiment(
        tiny_config, [f"output_dir={tmp_path / 'run'}", *overrides]
    )


@pytest.fixture
def build(load: Load) -> Build:
    return lambda *overrides, **options: build_experiment(load(*overrides), quiet=True, **options)


def hooks_of(experiment: Experiment) -> list[str]:
    return [type(hook).__name__ for hook in experiment.trainer.training_run.hooks]


SPINE = ["DivergenceWatch", "UnreadableImages", "EarlyStopping", "ValidationImages"]
INSTRUMENTS = ["DoctorHook", "AnatomyHook", "ReplayHook"]


def test_a_training_has_its_hooks_in_order(build: Build) -> None:
    experiment = build()
    assert hooks_of(experiment) == [*SPINE, *INSTRUMENTS]
    run = experiment.trainer.training_run
    assert run.evaluated is run.detector is experiment.detector
    assert (run.steps_per_epoch, run.total_steps) == (3, 6)  # 24 images, 8 a step, twice
    assert list(experiment.datasets) == ["train", "validation"]
    assert experiment.datasets["train"].report.num_images == 24
    assert experiment.changes == experiment.notes == experiment.differences == ()
    assert experiment.load_report is None


def test_what_is_not_wanted_is_not_there(build: Build) -> None:
    experiment = build(
        "dataset.validation=null", "training.max_steps=5", without=["doctor", "anatomy"]
    )
    assert hooks_of(experiment) == [*SPINE[:-1], "ReplayHook"]
    assert list(experiment.datasets) == ["train"]
    assert experiment.trainer.training_run.total_steps == 5


def test_the_average_is_what_is_scored_and_saved(build: Build) -> None:
    run = build("training.average_decay=0.9", without=["anatomy"]).trainer.training_run
    average = run.hooks[1]
    assert isinstance(average, WeightAverage)
    assert run.evaluated is average.module
    assert run.evaluated is not run.detector
    assert average.decay == 0.9


def test_the_run_folder_says_what_was_decided(build: Build, tmp_path: Path) -> None:
    experiment = build("training.precision=auto")
    assert experiment.config.training.precision in ("fp32", "bf16")
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["training"]["precision"] == experiment.config.training.precision
    again = load_experiment(tmp_path / "run" / "config.yaml")
    assert again == experiment.config


def test_the_same_seed_gives_the_same_weights(build: Build, tmp_path: Path) -> None:
    first, second, other = (
        build(f"output_dir={tmp_path / name}", f"seed={seed}").detector.state_dict()
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    name = "head.classification.output.weight"
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], other[name])


def point_of(training: str) -> ResumePoint:
    state = dataclasses.replace(make_state(), config=f"training: {training}")
    return ResumePoint(state, Path("last.pt"))


def test_what_the_run_began_with_stays_where_the_machine_may_decide(load: Load) -> None:
    point = point_of("{precision: fp16, batch_size: 24}")  # no CPU decides for fp16
    decided = decide(load("training.precision=auto", "training.batch_size=auto"), CPU, point)
    assert (decided.training.precision, decided.training.batch_size) == ("fp16", 24)
    named = decide(load("training.precision=fp32", "training.batch_size=8"), CPU, point)
    assert (named.training.precision, named.training.batch_size) == ("fp32", 8)


def test_a_cpu_decides_the_precision_but_no_batch_size(load: Load) -> None:
    decided = decide(load("training.precision=auto"), CPU, None)
    assert decided.training.precision in ("fp32", "bf16")
    with pytest.raises(UserError, match="'auto' needs a GPU, the device is cpu"):
        decide(load("training.batch_size=auto"), CPU, None)


def test_a_folder_that_holds_a_run_is_refused(build: Build, tmp_path: Path) -> None:
    build()
    with pytest.raises(UserError, match=r"run: holds a run already; .*--resume.*output_dir"):
        build()
    experiment = build(resume=True)  # without a checkpoint yet: from the start
    assert experiment.trainer.training_run.step == 0


def test_another_training_is_refused_before_its_data_is_read(
    build: Build, load: Load, tmp_path: Path
) -> None:
    state = dataclasses.replace(make_state(), config=to_yaml(load()))
    save_state(state, tmp_path / "run" / LAST_STATE)
    with pytest.raises(UserError, match="seed: 0 → 1"):
        build("seed=1", "dataset.train.images=nowhere", resume=True)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["dataset.train.annotations=nowhere.json"], r"nowhere\.json"),
        (["training.batch_size=2", "training.accumulation_steps=3"], "make it at least 3"),
        (["model.backbone.frozen_stages=2"], "stages would stay random"),
        (["objective.classification.alpha=[0.5,0.5]"], "alpha: 2 weights for 10 classes"),
        (["model.initialize_from=none.safetensors"], r"none\.safetensors"),
        (["device=cuda:77"], "device: 'cuda:77'"),
    ],
)
def test_a_refused_config_leaves_no_folder(
    overrides: list[str], words: str, build: Build, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        build(*overrides)
    assert not (tmp_path / "run").exists()


def test_a_split_that_is_not_there_is_named(load: Load) -> None:
    with pytest.raises(UserError, match=r"the config has no dataset\.test"):
        build_dataset(load("dataset.test=null"), "test")


def test_only_the_training_set_may_pass_over_images(load: Load) -> None:
    config = load("loader.unreadable_images=skip", "loader.max_unreadable_images=5")
    assert build_dataset(config, "train").max_unreadable == 5
    assert build_dataset(config, "validation").max_unreadable == 0


def test_the_weights_of_another_detector_and_what_differs_there(
    build: Build, load: Load, tmp_path: Path
) -> None:
    run = build().trainer.training_run
    run.folder.save_detector("last", run.detector, step=0, metrics=None)
    path = tmp_path / "run" / "checkpoints" / "last.safetensors"
    config = load(f"model.initialize_from={path}", "preprocess.min_size=80")
    detector, report, differences = build_detector(config, Categories.from_names(["one", "two"]))
    assert report is not None
    assert differences == ("preprocess.min_size: 64 there, 80 here",)
    assert detector.num_classes == 2
    ours, theirs = detector.state_dict(), run.detector.state_dict()
    assert torch.equal(ours["backbone.conv1.weight"], theirs["backbone.conv1.weight"])
    assert "head.classification.output.weight" in report.describe()


def test_a_fingerprint_tells_training_sets_apart() -> None:
    boxes = [[(0, 4.0, 4.0, 24.0, 34.0)], [(1, 0.0, 0.0, 96.0, 64.0)]]
    own = fingerprint(MemoryDataset(boxes))
    assert fingerprint(MemoryDataset(boxes)) == own
    others = {
        fingerprint(MemoryDataset(boxes[:1])),
        fingerprint(MemoryDataset([*boxes, []])),
        fingerprint(MemoryDataset([boxes[0] * 2, boxes[1]])),
        fingerprint(MemoryDataset(boxes, size=(64, 97))),
        fingerprint(MemoryDataset(boxes, names=("cat", "cow"))),
    }
    assert len(others) == 5
    assert own not in others
