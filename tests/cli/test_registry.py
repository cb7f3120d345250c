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

# For each copy of the package a forked process, and in it several command lines: one import of
# PyTorch is enough for all of them.
SCRIPT = """
import contextlib, io, json, os, sys, traceback
import albumentations, pycocotools.cocoeval, torch._dynamo, torchvision

def run(words):
    from retina.__main__ import main
    sys.argv = ["retina", *words]
    output, code = io.StringIO(), 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    return code, output.getvalue()

def run_all(folder, lines):
    os.chdir(folder)
    sys.path[:0] = [folder]
    import retina
    assert retina.__file__.startswith(folder), retina.__file__
    from tests.small_detector import small_backbone_listed
    with small_backbone_listed():
        return [run(words) for words in lines]

for folder, lines in json.load(sys.stdin).items():
    assert "retina" not in sys.modules
    if not (pid := os.fork()):
        try:
            with open(os.path.join(folder, "results.json"), "w") as file:
                json.dump(run_all(folder, lines), file)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
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


GROUPS = sorted({command.words[0] for command in COMMANDS if len(command.words) == 2})


@pytest.fixture(scope="module")
def outcomes(
    tiny_config: Path, synthetic_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[tuple[int, str]]]:
    """For each instrument: exit codes and output of command lines of a package without it."""
    images = synthetic_data / "validation" / "images"
    detector = Path("run") / "checkpoints" / "last.safetensors"
    lines: list[list[Any]] = [
        ["--help"],
        *([group, "--help"] for group in GROUPS),
        ["train", tiny_config, "output_dir=run", "training.max_steps=2", "dataset.validation=null"],
        ["init", synthetic_data, "--from-scratch"],
        ["evaluate", detector, "--data", synthetic_data, "--num-workers", "0"],
        ["predict", detector, images, "--output", "found"],
    ]
    folders = {instrument: tmp_path_factory.mktemp(instrument) for instrument in INSTRUMENTS}
    for instrument, folder in folders.items():
        package = folder / "retina"
        shutil.copytree(REPOSITORY / "retina", package, ignore=shutil.ignore_patterns("*.pyc"))
        shutil.rmtree(package / "instruments" / instrument)
        # What stays of a folder that Git removes.
        (package / "instruments" / instrument / "__pycache__").mkdir(parents=True)
    words = [[str(word) for word in line] for line in lines]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps({str(folder): words for folder in folders.values()}),
        cwd=folders["anatomy"].parent,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return {
        instrument: json.loads((folder / "results.json").read_text())
        for instrument, folder in folders.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_without_an_instrument_its_commands_are_gone_and_the_rest_works(
    instrument: str, outcomes: dict[str, list[tuple[int, str]]]
) -> None:
    results = outcomes[instrument]
    expected = {command.words for command in COMMANDS} - set(INSTRUMENTS[instrument])
    assert listed_commands(results[0][1]) == {words[0] for words in expected}
    for group, (code, output) in zip(GROUPS, results[1:], strict=False):
        commands = {words[1] for words in expected if words[0] == group}
        assert code == (0 if commands else 2), output  # a group goes with its last command
        assert listed_commands(output) == commands
    for code, output in results[-4:]:
        assert code == 0, output


def listed_commands(page: str) -> set[str]:
    """The commands of a help page."""
    rows = page.partition("─ Commands ")[2].splitlines()[1:]
    return {row[2:].split()[0] for row in rows if row.startswith("│ ") and row[2] != " "}
