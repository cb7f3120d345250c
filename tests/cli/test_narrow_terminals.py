"""Help and tables on narrow terminals: names stay whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import retina
from retina.registry import COMMANDS
from tests.conftest import Invoke  # type: ignore[import-not-found]


@pytest.mark.parametrize("words", [one.words for one in COMMANDS], ids=" ".join)
def test_every_option_is_named_in_the_help(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    named = {*re.findall(r"--[a-z-]+", invoke(*words, "--help").out)}
    for width in (40, 50, 60, 64, 80):
        monkeypatch.setenv("COLUMNS", str(width))
        shown = invoke(*words, "--help").out
        assert named <= {*re.findall(r"--[a-z-]+", shown)}, width


@pytest.fixture(scope="module")
def run(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    retina.train(tiny_config, [f"output_dir={folder}", "training.max_steps=1"], quiet=True)
    return folder


@pytest.mark.parametrize("width", [40, 50, 60])
def test_the_tables_of_an_evaluation_and_of_a_data_set(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, run: Path, width: int
) -> None:
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
