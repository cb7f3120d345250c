"""Options of a training, each seen at work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from retina.artifact import load_artifact
from retina.training.checkpoint import load_state
from tests.conftest import Invoke  # type: ignore[import-not-found]


def lines_of(folder: Path, kind: str = "train") -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def test_max_steps_ends_the_training_there(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    done = invoke("train", tiny_config, f"output_dir={tmp_path / 'run'}", "training.max_steps=2")
    assert done.code == 0, done.err
    assert [row["step"] for row in lines_of(tmp_path / "run")] == [1, 2]
    assert "done: 2 steps" in done.out


def test_min_steps_lengthens_a_short_training_and_max_steps_wins(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    """24 images in batches of 8, two epochs: six steps."""
    run = tmp_path / "run"
    options = ["training.min_steps=8", "training.evaluations=2"]
    done = invoke("train", tiny_config, f"output_dir={run}", *options)
    assert done.code == 0, done.err
    assert "8 steps, 2.667 passes over the images, for training.min_steps; those of" in done.out
    assert "step 8/8  epoch 3" in done.out
    rows = lines_of(run)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert [row["epoch"] for row in rows] == [1, 1, 1, 2, 2, 2, 3, 3]
    assert rows[-1]["lr"] < 1e-7  # the schedule ends where the training does
    assert [row["step"] for row in lines_of(run, "validation")] == [6, 8]
    short = invoke("train", tiny_config, f"output_dir={tmp_path / 'short'}", "training.min_steps=5")
    assert "done: 6 steps" in short.out
    assert "passes" not in short.out
    capped = invoke(
        "train", tiny_config, f"output_dir={tmp_path / 'cap'}", *options, "training.max_steps=2"
    )
    assert "done: 2 steps" in capped.out


def test_a_length_in_steps_resumes_to_the_same_end_also_where_it_grows(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    steady = "schedule={kind: multi_step, drops: [], warm_up: {steps: 0}}"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = [steady, "training.evaluations=3", "training.average_decay=0.9"]
    longer = [*options, "training.min_steps=11"]
    assert invoke("train", tiny_config, f"output_dir={whole}", *longer).code == 0
    # The first end lies within an epoch.
    first = [*options, "training.min_steps=7"]
    assert "done: 7 steps" in invoke("train", tiny_config, f"output_dir={parts}", *first).out
    grown = invoke("train", tiny_config, f"output_dir={parts}", *longer, "--resume")
    assert grown.code == 0, grown.err
    assert "changed since the last checkpoint: training.min_steps: 7 → 11" in grown.out
    assert [row["loss"] for row in lines_of(parts)] == [row["loss"] for row in lines_of(whole)]
    states = [load_state(run / "checkpoints/last.pt") for run in (whole, parts)]
    for ours, theirs in (
        [state.detector for state in states],
        [state.hooks["average"] for state in states],
    ):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_keys_that_say_when_to_evaluate_are_refused(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    both = ["training.evaluations=3", "training.evaluate_every_epochs=2"]
    done = invoke("train", tiny_config, f"output_dir={tmp_path / 'run'}", *both)
    assert done.code == 2
    assert "evaluations (3) and evaluate_every_epochs (2) both say when to evaluate" in done.err


def test_everything_on_at_once_resumes_to_the_same_end(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    options = [
        "training.average_decay=0.9",
        "training.accumulation_steps=2",
        "training.checkpoint_every_steps=2",
        "augmentation.preset=strong",
        "sampling.repeat_threshold=0.5",
        "objective.normalizer=moving_average",
        # A rate that does not depend on the length, so that a shorter run is a part of the longer.
        "schedule={kind: multi_step, drops: [], warm_up: {steps: 0}}",
    ]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert invoke("train", tiny_config, f"output_dir={whole}", *options).code == 0
    steps = len(lines_of(whole))
    assert steps > 4
    # The checkpoint of step 2 is what a crash in step 3 would leave.
    first = invoke("train", tiny_config, f"output_dir={parts}", *options, "training.max_steps=2")
    assert first.code == 0, first.err
    second = invoke("train", tiny_config, f"output_dir={parts}", *options, "--resume")
    assert second.code == 0, second.err
    assert "resumed at step 2" in second.out
    assert [row["step"] for row in lines_of(parts)] == list(range(1, steps + 1))
    assert [row["loss"] for row in lines_of(parts)] == [row["loss"] for row in lines_of(whole)]
    states = [load_state(run / "checkpoints/last.pt") for run in (whole, parts)]
    averages = [state.hooks["average"] for state in states]
    for part, (ours, theirs) in {
        "detector": [state.detector for state in states],
        "average": averages,
        "criterion": [state.criterion for state in states],
    }.items():
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), part


def test_early_stopping_stops_and_stays_stopped(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    options = [
        f"output_dir={tmp_path / 'run'}",
        "training.epochs=9",
        "training.early_stopping_evaluations=1",
        "optimizer.lr=1e-12",  # nothing can get better,
        "model.backbone.norm=frozen",  # not even by running statistics
    ]
    done = invoke("train", tiny_config, *options)
    assert done.code == 0, done.err
    assert "early stop" in done.out
    # A one-cycle rate of 27 steps is below half of its peak first at the end of the fifth epoch.
    assert len(lines_of(tmp_path / "run", "validation")) == 5
    again = invoke("train", tiny_config, *options, "--resume")
    assert "already complete" in again.out


def test_a_run_without_validation_keeps_its_last_detector_as_best(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = invoke(
        "train", tiny_config, f"output_dir={run}", "dataset.validation=null", "training.max_steps=1"
    )
    assert done.code == 0, done.err
    last, best = (run / "checkpoints" / f"{name}.safetensors" for name in ("last", "best"))
    assert last.read_bytes() == best.read_bytes()


def test_fine_tuning_says_exactly_what_was_not_loaded(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    first = tmp_path / "first"
    options = ["training.max_steps=1", "dataset.validation=null"]
    invoke("train", tiny_config, f"output_dir={first}", *options)
    start = f"model.initialize_from={first / 'checkpoints/last.safetensors'}"
    same = invoke("train", tiny_config, f"output_dir={tmp_path / 'same'}", start, *options)
    assert same.code == 0, same.err
    assert "not loaded" not in same.out
    assert "differs" not in same.out
    other = invoke(
        "train", tiny_config, f"output_dir={tmp_path / 'other'}", start, *options,
        "model.backbone.norm_eps=1e-3",
    )  # fmt: skip
    assert "model.backbone.norm_eps: 1e-05 there, 0.001 here" in other.out
    fewer = invoke(
        "train", tiny_config, f"output_dir={tmp_path / 'fewer'}", start, *options,
        "dataset.train.classes=[disc, star]",
    )  # fmt: skip
    assert fewer.code == 0, fewer.err
    assert fewer.out.count("not loaded") == 2
    assert "head.classification.output.weight is (18, 16, 3, 3) here, (90, 16, 3, 3)" in fewer.out
    artifact = load_artifact(tmp_path / "fewer/checkpoints/last.safetensors")
    assert artifact.categories.names == ("disc", "star")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("model.pyramid.channels=32", ["last.pt: cannot be resumed", "16 → 32", "config.yaml"]),
        ("optimizer={kind: sgd}", ["optimizer.kind: adamw → sgd (its state"]),
        ("training.batch_size=4", ["8 → 4 (the position in the epoch", "output_dir"]),
        ("dataset.train.classes=[disc, star]", ["last.pt: an epoch of that run", "have changed"]),
        (
            "training.average_decay=0.9",
            ["training.average_decay: None → 0.9 (the average of the weights would begin"],
        ),
    ],
)
def test_resuming_another_experiment_is_refused_and_its_config_stays(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, change: str, words: list[str]
) -> None:
    run = tmp_path / "run"
    options = [f"output_dir={run}", "training.max_steps=1", "dataset.validation=null"]
    assert invoke("train", tiny_config, *options).code == 0
    before = (run / "config.yaml").read_text(), (run / "checkpoints/last.pt").read_bytes()
    done = invoke("train", tiny_config, *options, change, "--resume")
    assert done.code == 2
    for word in words:
        assert word in done.err
    assert ((run / "config.yaml").read_text(), (run / "checkpoints/last.pt").read_bytes()) == before


def test_a_loss_that_is_not_finite_leaves_the_checkpoint_intact(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = [
        "training.epochs=4",
        "training.checkpoint_every_steps=1",
        "training.log_every_steps=9",
    ]
    done = invoke(
        "train", tiny_config, f"output_dir={run}", "training.clip_norm=null", *options,
        "optimizer={kind: sgd, lr: 1e30, momentum: 0.0}",
    )  # fmt: skip
    assert done.code == 3
    assert "not finite" in done.err
    assert "optimizer.lr" in done.err
    for path in (run / "checkpoints").glob("last.pt"):
        state = load_state(path)
        assert all(value.isfinite().all() for value in state.detector.values())


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("objective.classification.alpha=[0.2, 0.3]", ["2 weights for 10 classes"]),
        ("model.backbone.frozen_stages=2", ["2 stages would stay random"]),
        (
            "model.backbone={kind: resnet, name: resnet18, weights: null, frozen_stages: 2}",
            ["2 stages would stay random", "model.backbone.weights (IMAGENET1K_V1)"],
        ),
        ("sampling={drop_last: true}", []),
    ],
)
def test_what_fits_no_data_is_told_before_the_training(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, override: str, words: list[str]
) -> None:
    batch = ["training.batch_size=99"] if "drop_last" in override else []
    done = invoke("train", tiny_config, f"output_dir={tmp_path / 'run'}", override, *batch)
    assert done.code == 2
    for word in [*words, "error:"]:
        assert word in done.err


def test_strange_class_names_go_through_everything(
    invoke: Invoke, tiny_config: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    names = ["no", "on", "[/b]", "[red]", "step", "kind", "1e3", "Ä ö", "null", "x: y"]
    for split in ("train", "validation"):
        tree = json.loads((synthetic_data / split / "annotations.json").read_text())
        for category, name in zip(tree["categories"], names, strict=True):
            category["name"] = name
        (tmp_path / f"{split}.json").write_text(json.dumps(tree))
    run = tmp_path / "run"
    done = invoke(
        "train", tiny_config, f"output_dir={run}", "training.max_steps=1",
        *(f"dataset.{s}.annotations={tmp_path / s}.json" for s in ("train", "validation")),
        "dataset.train.classes=[no, on, '[/b]', '[red]', step, kind, '1e3', Ä ö, 'null', 'x: y']",
    )  # fmt: skip
    assert done.code == 0, done.err
    checkpoint = run / "checkpoints/best.safetensors"
    assert load_artifact(checkpoint).categories.names == tuple(names)
    scored = invoke("evaluate", checkpoint, "--config", run / "config.yaml", "--device", "cpu")
    assert scored.code == 0, scored.err
    shown = invoke(
        "data", "stats", "--images", synthetic_data / "train/images",
        "--annotations", tmp_path / "train.json",
    )  # fmt: skip
    for name in names:
        assert name in scored.out
        assert name in shown.out
    (row,) = lines_of(run, "validation_per_class")
    assert set(row["AP"]) <= set(names)  # type: ignore[call-overload]


@pytest.mark.slow
def test_spawned_workers_train_and_validate(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    forked, spawned = tmp_path / "forked", tmp_path / "spawned"
    options = ["training.epochs=1", "training.num_workers=1"]
    assert invoke("train", tiny_config, f"output_dir={forked}", *options).code == 0
    done = invoke(
        "train", tiny_config, f"output_dir={spawned}", *options, "loader.start_method=spawn"
    )
    assert done.code == 0, done.err
    assert [row["loss"] for row in lines_of(forked)] == [row["loss"] for row in lines_of(spawned)]


def test_bf16_trains_close_to_fp32(invoke: Invoke, tiny_config: Path, tmp_path: Path) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        run = tmp_path / precision
        done = invoke(
            "train", tiny_config, f"output_dir={run}", f"training.precision={precision}",
            "dataset.validation=null",
        )  # fmt: skip
        assert done.code == 0, done.err
        losses[precision] = [row["loss"] for row in lines_of(run)]
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


def test_another_preset_shows_which_keys_of_the_file_stay(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    options = (f"output_dir={tmp_path / 'run'}", "training.max_steps=1")
    done = invoke("train", tiny_config, "preset=paper", *options)
    assert done.code == 0, done.err
    assert f"{tiny_config} has keys of its own, which stay; the preset has others:" in done.out
    assert "  preprocess.min_size: 64, the preset 800\n" in done.out
    assert "  optimizer.kind: adamw, the preset sgd\n" in done.out
    assert "training.max_steps: " not in done.out
