"""Which folder is a run's, and which config is the record of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from retina.training.run_folder import holds_run, recorded_run


@pytest.mark.parametrize(
    "left",
    [
        "checkpoints/last.pt",
        "checkpoints/previous.pt",
        "checkpoints/best.safetensors",
        "checkpoints/last.safetensors",
        "metrics.jsonl",
    ],
)
def test_a_config_beside_what_a_training_left_is_the_record_of_that_run(
    tmp_path: Path, left: str
) -> None:
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).touch()
    assert holds_run(tmp_path)
    assert recorded_run(tmp_path / "config.yaml") is None
    for name in ("config.yaml", "mine.yaml"):
        (tmp_path / name).touch()
    assert recorded_run(tmp_path / "config.yaml") == tmp_path
    assert recorded_run(tmp_path / "mine.yaml") is None


def test_a_config_of_a_persons_own_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet50.pth").touch()
    assert not holds_run(tmp_path)
    assert recorded_run(tmp_path / "config.yaml") is None
