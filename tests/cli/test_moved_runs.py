"""A run folder is where it lies, whatever the config in it says."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

import retina
from retina.training.checkpoint import load_state
from tests.conftest import Invoke  # type: ignore[import-not-found]

OPTIONS = (
    "training.average_decay=0.9",
    # A rate that does not depend on the length, so that a shorter run is a part of the longer.
    "schedule={kind: multi_step, drops: [], warm_up: {steps: 0}}",
)


def content_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def trained(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of two steps, where its config says, and a copy of it."""
    run = tmp_path_factory.mktemp("moved") / "runs" / "first"
    retina.train(tiny_config, [f"output_dir={run}", *OPTIONS, "training.max_steps=2"], quiet=True)
    kept = run.parents[1] / "kept"
    shutil.copytree(run, kept)
    return run, kept


@pytest.fixture
def first(trained: tuple[Path, Path]) -> Path:
    """A run of two steps, whose config names its folder; nothing else is beside it."""
    run, kept = trained
    shutil.rmtree(run.parent)
    shutil.copytree(kept, run)
    return run


def resume(invoke: Invoke, run: Path, *changes: str) -> str:
    done = invoke("train", run / "config.yaml", "training.max_steps=null", *changes, "--resume")
    assert done.code == 0, done.err
    out: str = done.out
    return out


def losses_of(run: Path) -> list[str]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [line.split('"images_per_second"')[0] for line in lines if '"train"' in line]


def test_a_moved_run_goes_on_where_it_lies_and_to_the_same_bits(
    invoke: Invoke, tiny_config: Path, first: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    assert invoke("train", tiny_config, f"output_dir={whole}", *OPTIONS).code == 0
    old = first.with_name("old")
    first.rename(old)
    said = resume(invoke, old)
    assert f"moved: its last checkpoint was written in {first}, it goes on in {old}" in said
    assert f"resumed at step 2 from {old / 'checkpoints' / 'last.pt'}" in said
    assert "output_dir:" not in said
    assert not first.exists()
    assert losses_of(old) == losses_of(whole)
    assert len(list((old / "tensorboard").iterdir())) == 2
    ours, theirs = (load_state(run / "checkpoints/last.pt") for run in (old, whole))
    assert all(torch.equal(ours.detector[name], theirs.detector[name]) for name in theirs.detector)
    average, expected = ours.hooks["average"], theirs.hooks["average"]
    assert all(torch.equal(average[name], expected[name]) for name in expected)
    for name in ("last", "best"):
        path = f"checkpoints/{name}.safetensors"
        assert (old / path).read_bytes() == (whole / path).read_bytes()
    assert f"output_dir: {old}" in (old / "config.yaml").read_text()
    assert "the run was moved" not in resume(invoke, old)


def test_a_copy_leaves_the_original_alone(invoke: Invoke, first: Path) -> None:
    copy = first.with_name("copy")
    shutil.copytree(first, copy)
    before = content_of(first)
    resume(invoke, copy)
    assert content_of(first) == before
    assert load_state(copy / "checkpoints/last.pt").step == 6
    assert retina.load_experiment(copy / "config.yaml").output_dir == copy


def test_relative_paths_links_and_the_folder_that_one_stands_in(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("train", tiny_config, "output_dir=runs/first", *OPTIONS, "training.max_steps=1")
    assert done.code == 0, done.err
    (tmp_path / "latest").symlink_to("runs/first")
    assert "moved" not in resume(invoke, Path("latest"), "training.max_steps=2")
    assert load_state(tmp_path / "runs/first/checkpoints/last.pt").step == 2
    monkeypatch.chdir(tmp_path / "runs/first")
    resume(invoke, Path(), "training.max_steps=3")
    assert load_state(tmp_path / "runs/first/checkpoints/last.pt").step == 3
    assert not (tmp_path / "runs/first/runs").exists()


def test_nothing_to_resume_is_said(invoke: Invoke, tiny_config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("train", tiny_config, f"output_dir={run}", "training.max_steps=1", "--resume")
    done = invoke(*words)
    assert done.code == 0, done.err
    assert f"nothing to resume: {run} holds no checkpoint" in done.out
    assert "starts at step 0" in done.out
    assert "nothing to resume" not in invoke(*words).out


def test_a_run_whose_states_are_gone_begins_anew_where_it_lies(invoke: Invoke, first: Path) -> None:
    old = first.with_name("old")
    first.rename(old)
    for state in (old / "checkpoints").glob("*.pt"):
        state.unlink()
    assert f"nothing to resume: {old} holds no checkpoint" in resume(invoke, old)
    assert not first.exists()


def test_a_run_is_refused_where_it_lies_and_another_folder_wins(
    invoke: Invoke, first: Path, tmp_path: Path
) -> None:
    old, new = first.with_name("old"), tmp_path / "new"
    first.rename(old)
    before = content_of(old)
    refused = invoke("train", old / "config.yaml")
    assert refused.code == 2
    assert f"{old}: holds a run already; go on with it with --resume" in refused.err
    assert "output_dir=FOLDER" in refused.err
    said = resume(invoke, old, f"output_dir={new}")
    assert f"output_dir={new} is given: the run in {old}, whose config this is, stays" in said
    assert f"nothing to resume: {new}" in said
    assert content_of(old) == before
    assert not first.exists()


def test_a_folder_with_checkpoints_and_no_config_is_a_run_too(
    invoke: Invoke, tiny_config: Path, first: Path
) -> None:
    (first / "config.yaml").unlink()
    before = content_of(first)
    refused = invoke("train", tiny_config, f"output_dir={first}")
    assert refused.code == 2
    assert "holds a run already" in refused.err
    assert content_of(first) == before


def test_a_config_that_a_person_wrote_is_not_written_over(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"extends: {tiny_config}\noutput_dir: {tmp_path}\n")
    refused = invoke("train", config)
    assert refused.code == 2
    assert "config.yaml stands there, which would be written over" in refused.err
    run = tmp_path / "run"
    done = invoke("train", config, f"output_dir={run}", "training.max_steps=1")
    assert done.code == 0, done.err
    assert "stays as it is" not in done.out
    assert f"extends: {tiny_config}" in config.read_text()


def test_the_weights_that_a_run_started_from_may_be_gone(
    invoke: Invoke, tiny_config: Path, first: Path, tmp_path: Path
) -> None:
    fine, start = tmp_path / "fine", first / "checkpoints/last.safetensors"
    done = invoke(
        "train", tiny_config, f"output_dir={fine}", f"model.initialize_from={start}",
        "training.max_steps=1",
    )  # fmt: skip
    assert done.code == 0, done.err
    shutil.rmtree(first)
    said = resume(invoke, fine, "training.max_steps=2")
    assert "resumed at step 1" in said
    assert "weights loaded" not in said
    assert f"initialize_from: {start}" in (fine / "config.yaml").read_text()


def test_other_commands_find_a_moved_run(
    invoke: Invoke, tiny_config: Path, first: Path, synthetic_data: Path
) -> None:
    old = first.with_name("old")
    first.rename(old)
    # Another run where the config says: it must be left alone.
    assert invoke("train", tiny_config, f"output_dir={first}", "training.max_steps=1").code == 0
    before = content_of(first)
    best = old / "checkpoints/best.safetensors"
    scored = invoke("evaluate", best, "--device=cpu")
    assert scored.code == 0, scored.err
    assert f"{old / 'config.yaml'}, validation" in scored.out
    lab = invoke("loss", "lab", best, "--device=cpu", "--num-workers=0")
    assert lab.code == 0, lab.err
    assert (old / "lab/lab.json").is_file()
    doctor = invoke("doctor", old / "config.yaml", "--quick")
    assert doctor.code in (0, 1), doctor.err
    assert (old.with_name("old_doctor") / "doctor.json").is_file()
    assert content_of(first) == before
    assert sorted(path.name for path in first.parent.iterdir()) == ["first", "old", "old_doctor"]
