"""Training and evaluating from Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import retina
from retina.configuration import ConfigError
from retina.errors import UserError
from retina.experiment import Experiment
from retina.training.checkpoint import load_state
from retina.training.run_folder import LAST_STATE
from retina.training.trainer import TrainingOutcome
from tests.conftest import Invoke  # type: ignore[import-not-found]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("python") / "run"


@pytest.fixture(scope="module")
def outcome(tiny_config: Path, run: Path) -> TrainingOutcome:
    """One step, and another one after a resume."""
    overrides = [f"output_dir={run}", "training.pictures=0", "dataset.test=null"]
    started: list[Experiment] = []
    first = retina.train(
        tiny_config, [*overrides, "training.max_steps=1"], quiet=True, on_start=started.append
    )
    assert first.step == 1
    assert [experiment.config.output_dir for experiment in started] == [run]
    config = retina.load_experiment(tiny_config, [*overrides, "training.max_steps=2"])
    return retina.train(config, resume=True, quiet=True)


@pytest.fixture(scope="module")
def detector(outcome: TrainingOutcome, run: Path) -> Path:
    return run / "checkpoints" / "last.safetensors"


def test_a_training_goes_on_and_says_how_it_ended(outcome: TrainingOutcome, run: Path) -> None:
    assert (outcome.step, outcome.signal) == (2, None)
    assert outcome.best_ap is not None
    assert load_state(run / LAST_STATE).step == 2


def test_that_there_is_nothing_to_resume_is_said(
    tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [f"output_dir={tmp_path / 'new'}", "training.max_steps=1", "dataset.validation=null"]
    retina.train(tiny_config, options, resume=True)
    said = capsys.readouterr().out
    assert f"nothing to resume: {tmp_path / 'new'} holds no checkpoint" in said.splitlines()[0]


def test_an_evaluation_gives_what_the_command_gives(
    detector: Path, synthetic_data: Path, tiny_config: Path, tmp_path: Path, invoke: Invoke
) -> None:
    where = synthetic_data / "validation"
    data = {"annotations": where / "annotations.json", "images": where / "images"}
    counts: list[int] = []
    result = retina.evaluate(detector, **data, device="cpu", on_progress=counts.append)
    assert sum(counts) == len(result.image_ids) == 8
    options = [f"--{name}={path}" for name, path in data.items()]
    done = invoke("evaluate", detector, *options, "--device=cpu", "--output", tmp_path)
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "metrics.json").read_text()) == result.metrics.to_json()
    predictor = retina.load(detector, device="cpu")
    config = detector.parents[1] / "config.yaml"
    named_by: list[dict[str, Any]] = [{"config": config, "split": "validation"}, {"data": where}]
    for name in named_by:
        again = retina.evaluate(predictor, **name)
        assert again.metrics == result.metrics
        assert again.image_ids == result.image_ids


def test_mistakes_are_told(tiny_config: Path, tmp_path: Path, run: Path, detector: Path) -> None:
    config = retina.load_experiment(tiny_config, [f"output_dir={tmp_path}"])
    with pytest.raises(ValueError, match="load_experiment"):
        retina.train(config, ["seed=1"])
    with pytest.raises(ConfigError, match="sead: unknown key, did you mean 'seed'"):
        retina.train(tiny_config, [f"output_dir={tmp_path}", "sead=1"])
    with pytest.raises(UserError, match="holds a run already"):
        retina.train(tiny_config, [f"output_dir={run}"])
    with pytest.raises(UserError, match=r"none\.safetensors"):
        retina.evaluate(tmp_path / "none.safetensors", data=tmp_path)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["images"], "needs --annotations"),
        (["annotations"], "its images"),
        (["annotations", "images", "config"], "not both"),
        (["data", "config"], "give only one of them"),
    ],
)
def test_the_data_is_named_in_one_way(given: list[str], words: str, detector: Path) -> None:
    named: dict[str, Any] = dict.fromkeys(given, Path("somewhere"))
    with pytest.raises(UserError, match=words):
        retina.evaluate(detector, **named)


def test_without_data_it_is_that_of_the_run(run: Path, detector: Path) -> None:
    found = retina.evaluate(detector, device="cpu")
    named = retina.evaluate(detector, config=run / "config.yaml", device="cpu")
    assert found.image_ids == named.image_ids
    assert found.metrics == named.metrics
    with pytest.raises(UserError, match="data, annotations with images, or a config"):
        retina.evaluate(retina.load(detector, device="cpu"))
