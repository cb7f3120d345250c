"""``retina debug replay``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from retina.training.trainer import Trainer
from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.training.poison import poison_trainings  # type: ignore[import-not-found]

_KEPT: list[bytes] = []
"""The replay file, which is made once."""

OPTIONS = ["training.max_steps=2", "dataset.validation=null"]


@pytest.fixture
def replay_file(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Of the second step of a training whose first convolution breaks on an image."""
    poison_trainings(monkeypatch.setattr, {2: 1})
    file = tmp_path / "run" / "divergence" / "step_000002.pt"
    if not _KEPT:
        assert invoke("train", tiny_config, f"output_dir={tmp_path / 'run'}", *OPTIONS).code == 3
        _KEPT.append(file.read_bytes())
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_KEPT[0])
    return file


def test_it_shows_layer_by_layer_where_the_step_breaks(invoke: Invoke, replay_file: Path) -> None:
    done = invoke("debug", "replay", replay_file)
    assert done.code == 0, done.err
    assert "step 2 of rank 0 in fp32" in done.out
    assert "batch 8 × 3 × " in done.out
    assert "the step in fp32" in done.out
    rows = [line.split("│")[1:-1] for line in done.out.splitlines() if line.startswith("│")]
    names = [row[0].strip() for row in rows]
    assert names[:3] == ["preprocess", "backbone.conv1", "backbone.bn1"]
    broken = {row[0].strip(): row[4].strip() for row in rows}
    assert broken["preprocess"] == "0"
    count, total = map(int, broken["backbone.conv1"].split(" of "))
    assert count * 8 == total  # one of eight images
    assert any(name.startswith("… ") for name in names)
    assert "In fp32 the first output that is not finite is that of backbone.conv1" in done.out


def test_without_the_fault_it_says_that_nothing_breaks(
    invoke: Invoke, replay_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the network no longer breaks on the image
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.argv", [])
    done = invoke("debug", "replay", replay_file, "--device", "cpu")
    assert done.code == 0, done.err
    assert "In fp32 everything is finite." in done.out
    assert "Nothing breaks here" in done.out
    assert "more layers" not in done.out


def test_where_only_the_precision_is_too_narrow_it_says_so(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights near the end of bf16's sums: the products of two overflow in fp16, not in fp32."""
    advance = Trainer._advance

    def loud(trainer: Trainer, *arguments: object) -> None:
        with torch.no_grad():
            trainer.training_run.detector.backbone.bn1.weight.fill_(1e6)  # type: ignore[union-attr,operator]
        advance(trainer, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_advance", loud)
    run = tmp_path / "run"
    narrow = ["training.precision=fp16", "training.batch_size=2", *OPTIONS]
    done = invoke("train", tiny_config, f"output_dir={run}", *narrow)
    assert done.code == 3
    assert "in fp16 the first output that is not finite is that of backbone.bn1" in done.err
    assert "in fp32 everything is finite" in done.err
    assert "use training.precision=bf16 or fp32" in done.err
    done = invoke("debug", "replay", run / "divergence" / "step_000001.pt")
    assert done.code == 0, done.err
    assert "in fp32 everything is finite" in done.out
    assert "It is finite in fp32: use training.precision=bf16 or fp32." in done.out


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("missing", "cannot be read (No such file or directory)"),
        ("empty", "not a readable replay file"),
        ("torn", "not a readable replay file"),
        ("checkpoint", "not a replay file; a training writes them to divergence/"),
        ("fields", "not a whole replay file"),
        ("kind", "its 'step' is no int"),
        ("version", "another version of retina (format 99, this one reads 2)"),
        ("batch", "its batch is not as it should be"),
        ("labels", "its batch does not fit its config"),
        ("weights", "its weights do not fit its config"),
        ("config", "its config"),
    ],
)
def test_a_bad_file_gives_one_clear_error(
    damage: str, words: str, invoke: Invoke, replay_file: Path
) -> None:
    values = torch.load(replay_file, weights_only=True)
    content = replay_file.read_bytes()
    part = values["micro_batches"][0]
    if damage == "missing":
        replay_file.unlink()
    elif damage == "empty":
        replay_file.write_bytes(b"")
    elif damage == "torn":
        replay_file.write_bytes(content[: len(content) // 2])
    else:
        if damage == "checkpoint":
            values = {"detector": values["detector"]}
        elif damage == "fields":
            del values["lr"]
        elif damage == "kind":
            values["step"] = "three"
        elif damage == "version":
            values["format_version"] = 99
        elif damage == "batch":
            part["targets"]["boxes"] = part["targets"]["boxes"][:, :, :3]
        elif damage == "labels":
            part["targets"]["labels"] = torch.full_like(part["targets"]["labels"], 99)
        elif damage == "weights":
            values["detector"].popitem()
        elif damage == "config":
            values["config"] = "model: {backbone: {layers: 18}}"
        torch.save(values, replay_file)
    done = invoke("debug", "replay", replay_file)
    assert done.code == 2
    assert done.err.startswith(f"error: {replay_file}: ")
    assert words in done.err
    assert "Traceback" not in done.err
