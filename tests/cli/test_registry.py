"""The commands are those of the registry; an instrument that is deleted takes its own along."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from retina.registry import COMMANDS, present_commands
from tests.conftest import REPOSITORY  # type: ignore[import-not-found]

INSTRUMENTS: dict[str, list[tuple[str, ...]]] = {
    "anatomy": [("loss", "anatomy"), ("loss", "lab")],
    "doctor": [("doctor",), ("data", "anchors")],
    "label_errors": [("data", "corrupt"), ("data", "suspects")],
    "replay": [("debug", "replay")],
    "tuning": [("tune",)],
}

# Several command lines in one process, which spares all but one import of PyTorch.
SCRIPT = """
import contextlib, io, json, sys
from retina.__main__ import main

def run(words):
    sys.argv = ["retina", *words]
    output, code = io.StringIO(), 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    return code, output.getvalue()

json.dump([run(words) for words in json.load(sys.stdin)], sys.stdout)
"""


def test_the_table_of_this_test_is_the_registrys() -> None:
    needed: dict[str, list[tuple[str, ...]]] = {}
    for command in COMMANDS:
        if command.needs is not None:
            needed.setdefault(command.needs.rpartition(".")[2], []).append(command.words)
    assert {name: sorted(words) for name, words in needed.items()} == {
        name: sorted(words) for name, words in INSTRUMENTS.items()
    }
    folders = {path.parent.name for path in (REPOSITORY / "retina/instruments").glob("*/*.py")}
    assert folders == set(INSTRUMENTS)


def test_every_file_of_the_registry_has_its_command() -> None:
    assert len(present_commands()) == len(COMMANDS)
    for command in COMMANDS:
        function = import_module(command.module).command
        assert "Example: `retina " + " ".join(command.words) in function.__doc__


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_without_an_instrument_its_commands_are_gone_and_the_rest_works(
    instrument: str, tiny_config: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "retina", tmp_path / "retina", ignore=ignored)
    shutil.rmtree(tmp_path / "retina" / "instruments" / instrument)
    # What stays of a folder that Git removes.
    (tmp_path / "retina" / "instruments" / instrument / "__pycache__").mkdir(parents=True)
    groups = sorted({command.words[0] for command in COMMANDS if len(command.words) == 2})
    detector = tmp_path / "run" / "checkpoints" / "last.safetensors"
    images = synthetic_data / "validation" / "images"
    lines: list[list[Any]] = [
        ["--help"],
        *([group, "--help"] for group in groups),
        ["train", tiny_config, "output_dir=run", "training.max_steps=2", "dataset.validation=null"],
        ["evaluate", detector, "--data", synthetic_data, "--num-workers", "0"],
        ["predict", detector, images, "--output", "found"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([[str(word) for word in words] for words in lines]),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    expected = {command.words for command in COMMANDS} - set(INSTRUMENTS[instrument])
    assert listed_commands(results[0][1]) == {words[0] for words in expected}
    for group, (code, output) in zip(groups, results[1:], strict=False):
        commands = {words[1] for words in expected if words[0] == group}
        assert code == (0 if commands else 2), output  # a group goes with its last command
        assert listed_commands(output) == commands
    for code, output in results[-3:]:
        assert code == 0, output


def listed_commands(page: str) -> set[str]:
    """The commands of a help page."""
    rows = page.partition("─ Commands ")[2].splitlines()[1:]
    return {row[2:].split()[0] for row in rows if row.startswith("│ ") and row[2] != " "}
