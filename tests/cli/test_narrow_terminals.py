"""Help and tables on narrow terminals: names stay whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from retina.registry import COMMANDS
from tests.conftest import Invoke  # type: ignore[import-not-found]


@pytest.mark.parametrize("width", [40, 50, 60, 64, 80])
@pytest.mark.parametrize("words", [one.words for one in COMMANDS], ids=" ".join)
def test_every_option_is_named_in_the_help(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], width: int
) -> None:
    named = {*re.findall(r"--[a-z-]+", invoke(*words, "--help").out)}
    monkeypatch.setenv("COLUMNS", str(width))
    shown = invoke(*words, "--help").out
    assert named <= {*re.findall(r"--[a-z-]+", shown)}


@pytest.mark.parametrize("width", [40, 50, 60])
def test_the_tables_of_an_evaluation_and_of_a_data_set(
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    tiny_config: Path,
    tmp_path: Path,
    width: int,
) -> None:
    run = tmp_path / "run"
    assert invoke("train", tiny_config, f"output_dir={run}", "training.max_steps=1").code == 0
    names = ("triangle", "letter A", "crescent", "digit 8")
    detector = run / "checkpoints/last.safetensors"
    for words in (
        ("evaluate", detector, "--device=cpu", "--num-workers=0"),
        ("loss", "anatomy", detector, "--device=cpu", "--num-workers=0"),
        ("data", "stats", "--config", run / "config.yaml"),
        ("data", "anchors", run / "config.yaml"),
    ):
        monkeypatch.setenv("COLUMNS", str(width))
        out = invoke(*words).out
        assert all(name in out for name in names), words
        assert "…" not in out
        tables = [line for line in out.splitlines() if "│" in line or "─" in line]
        assert all(len(line) <= width for line in tables)
