"""``retina tune`` in small: real runs from one start, resumed, compared, reported."""

import csv
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from retina.errors import DivergedError, RunError
from retina.experiment import load_experiment
from retina.instruments.tuning import Tuning, runs
from retina.instruments.tuning.grid import BudgetConfig, GridConfig
from retina.training import checkpointing
from retina.training.trainer import Trainer
from retina.training.validation import Validation
from tests.conftest import Invoke  # type: ignore[import-not-found]

GRID = """
gammas: [1, 2]
alphas: [0.25, 0.5]
budget: {max_steps: 2}
resamples: 100
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return path


def lines_of(run: Path, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def test_gamma_then_alpha_from_one_start_stopped_and_gone_on_with(
    invoke: Invoke,
    tiny_config: Path,
    grid: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "tune"
    command = ("tune", tiny_config, "--grid", grid, "--output", folder)

    advance, steps = Trainer._advance, []

    def stop_in_the_second_run(trainer: Trainer, *arguments: Any) -> None:
        advance(trainer, *arguments)
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_advance", stop_in_the_second_run)
        stopped = invoke(*command)
    assert stopped.code == 143
    assert "the same command goes on from there" in stopped.out
    first, second = folder / "runs" / "gamma1_alpha0.25", folder / "runs" / "gamma2_alpha0.25"
    assert (first / "seed0" / "outcome.json").exists()
    assert not (second / "seed0" / "outcome.json").exists()
    assert not (folder / "tune.json").exists()
    before = (first / "seed0" / "metrics.jsonl").read_bytes()

    done = invoke(*command)
    assert done.code == 0, done.err
    assert "run 1 of 2: γ = 1, α = 0.25, seed 0 (done before)" in done.out
    assert "resumed at step 1" in done.out
    assert (first / "seed0" / "metrics.jsonl").read_bytes() == before

    result = json.loads((folder / "tune.json").read_text())
    assert [stage["searched"] for stage in result["stages"]] == ["gamma", "alpha"]
    gammas, alphas = (stage["rows"] for stage in result["stages"])
    assert [(row["gamma"], row["alpha"]) for row in gammas] == [(1.0, 0.25), (2.0, 0.25)]
    chosen = result["stages"][0]["chosen"]["gamma"]
    assert [(row["gamma"], row["alpha"]) for row in alphas] == [(chosen, 0.25), (chosen, 0.5)]
    assert len(list((folder / "runs").iterdir())) == 3  # the shared cell is trained once
    for row in gammas + alphas:
        run = folder / row["runs"][0]
        metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
        assert row["AP"] == pytest.approx(metrics["AP"], abs=1e-12)
        assert row["AP_interval"] is None  # 8 images are too few
        assert [line["step"] for line in lines_of(run, "validation")] == [2]
        assert (run / "checkpoints" / "last.safetensors").exists()
        assert (run / "config.yaml").exists()
        # From the same weights, the first batch has the same boxes wrong by as much.
        step = lines_of(run, "train")[0]
        assert step["step"] == 1
        assert step["box_regression"] == lines_of(first / "seed0", "train")[0]["box_regression"]
    start = load_file(folder / "start_seed0.safetensors")
    ours = load_file(first / "seed0" / "checkpoints" / "last.safetensors")
    assert start.keys() == ours.keys()

    table = list(csv.DictReader((folder / "tune.csv").read_text().splitlines()))
    assert [row["searched"] for row in table] == ["gamma", "gamma", "alpha", "alpha"]
    assert "| γ | α | AP | interval |" in (folder / "tune.md").read_text()
    assert (folder / "tune.png").read_bytes().startswith(b"\x89PNG")
    assert "Validation images with objects: 8." in done.out
    assert "an interval means nothing" in " ".join(done.out.split())


def test_a_run_that_diverges_is_a_row_of_the_table(
    invoke: Invoke,
    tiny_config: Path,
    grid: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = runs.build_experiment

    def diverging(config: Any, **options: Any) -> Any:
        if config.objective.classification.gamma == 1.0:
            raise DivergedError("the loss is not finite at step 2")
        return build(config, **options)

    monkeypatch.setattr(runs, "build_experiment", diverging)
    grid.write_text(GRID.replace("[0.25, 0.5]", "[0.25]"))
    done = invoke("tune", tiny_config, "--grid", grid, "--output", tmp_path / "tune")
    assert done.code == 0, done.err
    assert "failed" in done.out
    assert "gamma1_alpha0.25: 1 failed: the loss is not finite at step 2" in done.out
    rows = json.loads((tmp_path / "tune" / "tune.json").read_text())["stages"][0]["rows"]
    assert [row["AP"] is None for row in rows] == [True, False]
    assert rows[0]["failures"] == ["the loss is not finite at step 2"]
    assert (tmp_path / "tune" / "tune.png").exists()


def test_where_every_run_fails_there_is_nothing_to_choose(
    invoke: Invoke,
    tiny_config: Path,
    grid: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def diverging(config: Any, **options: Any) -> Any:
        raise DivergedError("the loss is not finite at step 2")

    monkeypatch.setattr(runs, "build_experiment", diverging)
    done = invoke("tune", tiny_config, "--grid", grid, "--output", tmp_path / "tune")
    assert done.code == 3
    assert "no run of the search for γ came through (gamma1_alpha0.25: the loss" in done.err


def test_a_folder_holds_one_tuning(
    invoke: Invoke,
    tiny_config: Path,
    grid: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(config: Any, **options: Any) -> Any:
        raise DivergedError("no")

    monkeypatch.setattr(runs, "build_experiment", failing)
    command = ["tune", tiny_config, "--grid", grid, "--output", tmp_path / "tune"]
    assert invoke(*command).code == 3
    grid.write_text(GRID.replace("[1, 2]", "[1, 2, 5]"))
    assert invoke(*command).code == 3  # more values are no other tuning
    other = invoke(*command, "optimizer.lr=0.1", "seed=3")
    assert other.code == 2
    assert "holds a tuning with other settings (optimizer.lr: 0.002 → 0.1, seed: 0 → 3)" in (
        other.err
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("")
    taken = invoke("tune", tiny_config, "--output", tmp_path / "run")
    assert taken.code == 2
    assert "holds a training; give a folder of its own with --output" in taken.err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.validation=null", "give dataset.validation in the config"),
        (
            "objective.classification={kind: varifocal}",
            "this is 'varifocal'; set objective.classification.kind=focal",
        ),
        ("model.backbone.frozen_stages=2", "2 stages would stay random for ever"),
    ],
)
def test_what_cannot_be_tuned_is_told_before_anything_starts(
    override: str, message: str, invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    done = invoke("tune", tiny_config, override, "--output", tmp_path / "tune")
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "tune").exists()


def test_a_bad_grid_is_a_mistake_of_the_user(
    invoke: Invoke, tiny_config: Path, grid: Path, tmp_path: Path
) -> None:
    grid.write_text("gammas: [1, -1]\nalfas: [0.5]\n")
    done = invoke("tune", tiny_config, "--grid", grid, "--output", tmp_path / "tune")
    assert done.code == 2
    assert f"{grid}: 2 problems" in done.err
    assert "alfas: unknown key, did you mean 'alphas'?" in done.err
    missing = invoke("tune", tiny_config, "--grid", tmp_path / "no.yaml", "--output", tmp_path)
    assert missing.code == 2
    assert "no.yaml: no such config file" in missing.err


def test_help_gives_examples(invoke: Invoke) -> None:
    assert "Example: retina tune configs/my_data.yaml" in invoke("tune", "--help").out
    assert "Example: retina loss lab runs/demo" in invoke("loss", "lab", "--help").out


def test_a_signal_during_the_last_evaluation_stops_the_search(
    invoke: Invoke, tiny_config: Path, grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, end_epoch = tmp_path / "tune", Validation.end_epoch

    def interrupted(validation: Validation, *arguments: Any, **options: Any) -> Any:
        result = end_epoch(validation, *arguments, **options)
        signal.raise_signal(signal.SIGINT)
        return result

    command = ("tune", tiny_config, "--grid", grid, "--output", folder)
    with monkeypatch.context() as patch:
        patch.setattr(Validation, "end_epoch", interrupted)
        stopped = invoke(*command)
    assert stopped.code == 130
    assert "run 2 of 2" not in stopped.out
    assert [path.name for path in (folder / "runs").iterdir()] == ["gamma1_alpha0.25"]
    done = invoke(*command)
    assert done.code == 0, done.err
    assert "the training is already complete" in done.out


def test_a_fault_of_the_machine_is_no_outcome_and_the_run_is_tried_again(
    invoke: Invoke, tiny_config: Path, grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(config: Any, **options: Any) -> Any:
        raise RunError("the disk is full; free some space and go on")

    grid.write_text("gammas: [2]\nalphas: [0.25]\nbudget: {max_steps: 2}\n")
    command = ("tune", tiny_config, "--grid", grid, "--output", tmp_path / "tune")
    with monkeypatch.context() as patch:
        patch.setattr(runs, "build_experiment", failing)
        broken = invoke(*command)
    assert broken.code == 3
    assert broken.err.startswith("failed: the disk is full")
    assert not list((tmp_path / "tune").rglob("outcome.json"))
    done = invoke(*command)
    assert done.code == 0, done.err
    assert len(list((tmp_path / "tune").rglob("outcome.json"))) == 1


def test_what_is_not_finite_is_an_outcome(
    invoke: Invoke, tiny_config: Path, grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trainer's own error, not one made here."""
    monkeypatch.setattr(checkpointing, "weights_are_finite", lambda detector: False)
    grid.write_text("gammas: [2]\nalphas: [0.25]\nbudget: {max_steps: 1}\n")
    done = invoke("tune", tiny_config, "--grid", grid, "--output", tmp_path / "tune")
    assert done.code == 3
    assert "no run of the search for γ came through" in done.err
    outcome = json.loads(next((tmp_path / "tune").rglob("outcome.json")).read_text())
    assert outcome["reason"].startswith("the weights are not finite after step 1")


def test_where_and_how_a_run_is_computed_may_change(
    invoke: Invoke, tiny_config: Path, grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(config: Any, **options: Any) -> Any:
        raise DivergedError("no")

    monkeypatch.setattr(runs, "build_experiment", failing)
    monkeypatch.chdir(tmp_path)
    command = ("tune", tiny_config, "--grid", grid, "--output")
    assert invoke(*command, "tn", "--device", "auto").code == 3
    again = invoke(
        *command, tmp_path / "tn", "--device", "cpu", "training.num_workers=1",
        "loader.prefetch_factor=3",
    )  # fmt: skip
    assert again.code == 3, again.err
    assert "warning: device: auto → cpu since this tuning began" in again.out
    assert "seed: 0 → 3" in invoke(*command, "tn", "seed=3").err
    grid.write_text(GRID + "seeds: [0, 1]\n")
    assert invoke(*command, "tn", "seed=3").code == 3  # the grid names the seeds


def test_a_tuning_is_one_process(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = invoke("tune", tiny_config, "--output", tmp_path / "tune")
    assert done.code == 2
    assert "started in 2 processes (WORLD_SIZE); it trains in one: start it without" in done.err
    assert not (tmp_path / "tune").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a list\n", "base.yaml: is not what a tuning wrote here; give a folder of its own"),
        ("{half: ", "base.yaml: is not what a tuning wrote here; give a folder of its own"),
        ("a: 1\n", "  a: unknown key"),
        (None, "holds 'runs' that are no tuning's, since no base.yaml lies beside them; give a"),
    ],
)
def test_a_folder_of_something_else_is_refused_untouched(
    content: str | None, message: str, invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "taken"
    (folder / "runs" / "mine").mkdir(parents=True)
    if content is not None:
        (folder / "base.yaml").write_text(content)
    done = invoke("tune", tiny_config, "--output", folder)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert [path.name for path in (folder / "runs").iterdir()] == ["mine"]
    assert (folder / "base.yaml").exists() == (content is not None)


def test_a_file_is_no_folder(invoke: Invoke, tiny_config: Path, tmp_path: Path) -> None:
    (tmp_path / "tune").write_text("mine")
    done = invoke("tune", tiny_config, "--output", tmp_path / "tune")
    assert done.code == 2
    assert f"{tmp_path / 'tune'}: a file stands where a folder is needed" in done.err


def test_a_signal_between_two_runs_stops_the_search(
    invoke: Invoke, tiny_config: Path, grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tuning, "_score", lambda *arguments: signal.raise_signal(signal.SIGINT))
    command = ("tune", tiny_config, "--grid", grid, "--output", tmp_path / "tune")
    assert invoke(*command).code == 130
    assert not (tmp_path / "tune" / "tune.json").exists()


def test_where_nothing_is_detected_in_a_single_image_nothing_breaks(
    invoke: Invoke, tiny_config: Path, synthetic_data: Path, grid: Path, tmp_path: Path
) -> None:
    tree = json.loads((synthetic_data / "validation" / "annotations.json").read_text())
    number = tree["annotations"][0]["image_id"]
    tree["images"] = [image for image in tree["images"] if image["id"] == number]
    tree["annotations"] = [one for one in tree["annotations"] if one["image_id"] == number]
    (tmp_path / "one.json").write_text(json.dumps(tree))
    folder = tmp_path / "tune"
    command = ("tune", tiny_config, "--grid", grid, "--output", folder)
    done = invoke(
        *command, f"dataset.validation.annotations={tmp_path / 'one.json'}",
        "postprocess.score_threshold=0.99",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "nothing was learned, so there is nothing to choose by" in done.out
    result = json.loads((folder / "tune.json").read_text())
    assert [row["AP"] for stage in result["stages"] for row in stage["rows"]] == [0.0] * 4
    tree["annotations"] = []
    (tmp_path / "one.json").write_text(json.dumps(tree))
    done = invoke(*command, f"dataset.validation.annotations={tmp_path / 'one.json'}")
    assert done.code == 2
    assert "the validation set has no object: there is nothing to compare by" in done.err


def test_the_folder_lies_beside_the_run_folder(
    invoke: Invoke, tiny_config: Path, grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(config: Any, **options: Any) -> Any:
        raise DivergedError("no")

    monkeypatch.setattr(runs, "build_experiment", failing)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    command = ("tune", tiny_config, "--grid", grid)
    assert invoke(*command, "output_dir=.").code == 3
    assert (tmp_path / "here_tune" / "base.yaml").exists()
    root = invoke(*command, "output_dir=/")
    assert root.code == 2
    assert "output_dir=/: nothing lies beside it; give a folder with --output" in root.err


@pytest.mark.parametrize(("budget", "steps"), [({}, 12), ({"epochs": 2}, 6), ({"max_steps": 4}, 4)])
def test_a_budget_of_epochs_is_that_long_and_scored_once(
    tiny_config: Path, tmp_path: Path, budget: dict[str, int], steps: int
) -> None:
    """The config is for at least 12 steps, four epochs, and counts its evaluations."""
    options = ["training.min_steps=12", "training.evaluations=3", f"output_dir={tmp_path}"]
    config = load_experiment(tiny_config, options)
    training = runs.base_config(config, GridConfig(budget=BudgetConfig(**budget))).training
    assert training.total_steps(3) == steps
    num_epochs = -(-steps // 3)
    epochs = range(1, num_epochs + 1)
    due = [epoch for epoch in epochs if training.evaluates_after(epoch, num_epochs)]
    assert due == [num_epochs]
