"""What the pages tell people to write: overrides, YAML, Python; and what they name."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from PIL import Image

import retina
import retina.losses
from retina.artifact import make_artifact
from retina.configuration import parse_yaml
from retina.experiment import load_experiment
from retina.modeling.config import ModelConfig
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.structures import Categories

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
SMALLEST = ["dataset.train.images=x", "dataset.train.annotations=y.json", "output_dir=runs/x"]
COMMAND = re.compile(r"(?:^(?: {4})?|`|-m )retina (?:train|doctor|tune) ([^`\n]*)", re.MULTILINE)
NEW_PAGES = ("first-detector", "own-data", "coming-from", "faq", "commands", "api", "api-losses")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_overrides_of_the_pages_are_keys(path: Path) -> None:
    for line in COMMAND.findall(path.read_text(encoding="utf-8").replace("\\\n", " ")):
        words = shlex.split(line.partition(" #")[0].replace("'", ""))
        overrides = [
            word for word in words if re.fullmatch(r"[a-z_0-9.]+\.?[a-z_0-9]+=[^…]+", word)
        ]
        overrides = [word for word in overrides if word != "key=value"]
        load_experiment("nano.yaml", [*SMALLEST, *overrides])


def test_overrides_are_found_and_wrong_ones_are_refused() -> None:
    text = "    retina train a.yaml training.epochs=3 \\\n  optimizer.lr=0.1  # twice=1"
    (line,) = COMMAND.findall(text.replace("\\\n", " "))
    assert line.split()[:3] == ["a.yaml", "training.epochs=3", "optimizer.lr=0.1"]
    assert COMMAND.findall("`torchrun -m retina train a.yaml` or `retina tune b`") == [
        "a.yaml",
        "b",
    ]
    with pytest.raises(ValueError, match="did you mean 'epochs'"):
        load_experiment("nano.yaml", [*SMALLEST, "training.epoch=3"])


OF_A_CONFIG = [path for path in PAGES if path.stem != "tuning"]  # it has the keys of retina tune


@pytest.mark.parametrize("path", OF_A_CONFIG, ids=lambda path: path.stem)
def test_the_yaml_of_the_pages_is_of_a_config(path: Path) -> None:
    schema = json.loads((REPOSITORY / "configs" / "schema.json").read_text(encoding="utf-8"))
    for block in blocks(path, "yaml"):
        tree = parse_yaml(block, path.name)
        Draft202012Validator(schema).validate({} if tree is None else tree)


def blocks(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples name."""
    folder = tmp_path_factory.mktemp("place")
    model = ModelConfig.model_validate_json(
        '{"backbone": {"kind": "resnet", "name": "resnet18"}, "pyramid": {"channels": 16},'
        '"head": {"num_convs": 0}}'
    )
    artifact = make_artifact(
        model.build(2),
        model=model,
        preprocess=PreprocessConfig(min_size=64, max_size=96),
        postprocess=PostprocessConfig(score_threshold=0.001),
        categories=Categories.from_names(["cat", "dog"]),
    )
    artifact.save(folder / "best.safetensors")
    checkpoints = folder / "runs" / "shapes" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "best.safetensors").symlink_to(folder / "best.safetensors")
    Image.new("RGB", (96, 64), "white").save(folder / "photo.jpg")
    return folder


@pytest.mark.parametrize("name", NEW_PAGES)
def test_the_python_of_the_pages_runs(
    name: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    for block in blocks(REPOSITORY / "docs" / f"{name}.md", "python"):
        names: dict[str, object] = {}
        exec(compile(block, name, "exec"), names)
        assert len(names) > 2


def test_the_api_pages_name_what_is_public() -> None:
    text = "".join(
        (REPOSITORY / "docs" / f"{page}.md").read_text() for page in ("api", "api-losses")
    )
    named = re.findall(r"^::: (\S+)", text, flags=re.MULTILINE)
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__doc__, name
    types = {"BoxLoss"}  # the words that box_loss takes
    missing = {f"retina.{name}" for name in retina.__all__} - {"retina.losses"} - {*named}
    missing |= {f"retina.losses.{name}" for name in {*retina.losses.__all__} - types} - {*named}
    assert not missing


def test_the_defaults_of_the_losses_are_as_told() -> None:
    text = (REPOSITORY / "docs" / "api-losses.md").read_text()
    values = {"focal_parameters": (0.25, 2.0), "equalized_focal": (8.0,), "quality": (2.0,)}
    values |= {"box": (1 / 9,), "class_balance": (0.999,)}
    for name, expected in values.items():
        module = importlib.import_module(f"retina.losses.{name}")
        found = {value for key, value in vars(module).items() if key.startswith("DEFAULT_")}
        assert {*expected} <= found, name
    told = ("`DEFAULT_ALPHA` is 0.25", "`DEFAULT_GAMMA` 2.0", "`DEFAULT_SCALE` 8.0", "1/9", "0.999")
    assert all(words in text for words in told)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_threads_are_cited_by_their_number(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for number, linked in re.findall(r"\[#(\d+)\]\(https://\S+/(?:issues|pull)/(\d+)\)", text):
        assert number == linked
    if path.stem == "faq":
        assert len(re.findall(r"\[#\d+\]\(https://github.com/", text)) > 20


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    commands = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    path = REPOSITORY / "docs" / "notebooks" / "train-and-look.ipynb"
    notebook = nbformat.read(path, 4)
    where = {"metadata": {"path": tmp_path}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert "image/png" in shown[-1]["data"]
    assert "10 steps" in "".join(output.get("text", "") for output in shown)
    assert (tmp_path / "runs" / "shapes" / "checkpoints" / "best.safetensors").is_file()
