"""What is shipped beside the package works: configs, scripts, and the commands of the README."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.main import get_command

import retina
from retina.cli.main import make_app
from retina.configuration import PRESETS, preset_names, read_preset, shipped_configs
from retina.experiment import load_experiment
from retina.objective.classification import FocalConfig, QualityFocalConfig, VarifocalConfig
from retina.registry import COMMANDS, Command
from tests.conftest import REPOSITORY  # type: ignore[import-not-found]

OWN_DATA = ("retinanet", "own_data")
"""The presets for one's own data."""

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
SMALLEST = ["dataset.train.images=x", "dataset.train.annotations=y.json", "output_dir=runs/x"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_loads_and_builds(path: Path) -> None:
    names_no_data = path.stem == "nano"
    config = load_experiment(path, SMALLEST if names_no_data else [])
    detector = config.model.without_pretrained_weights().build(3)
    assert detector.num_classes == 3
    expected = {
        "gfl": QualityFocalConfig(beta=2.0),
        "demo": QualityFocalConfig(beta=2.0),
        "my": VarifocalConfig(alpha=0.75, gamma=2.0),
    }
    family = path.stem.split("_")[0]
    assert config.objective.classification == expected.get(
        family, FocalConfig(alpha=0.25, gamma=2.0)
    )
    assert config.optimizer.build(detector).param_groups[0]["lr"] == config.optimizer.lr
    factor = config.schedule.build(1000)
    assert 0 < max(factor(step) for step in range(1000)) <= 1
    augmentation = config.augmentation.build()
    assert (augmentation is None) == (config.augmentation.preset == "none")
    assert config.preprocess.build().min_size == config.preprocess.min_size
    assert config.postprocess.build(detector.box_coder).max_detections >= 100
    head = path.read_text().split("\n\n")[0]
    assert "command" in head
    assert "retina train" in head or "scripts/demo.sh" in head


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_whole_recipe(name: str, tmp_path: Path) -> None:
    path = tmp_path / "preset.yaml"
    path.write_text(f"preset: {name}\n")
    config = load_experiment(path, SMALLEST)
    box, normalizer = {
        "paper": ("smooth_l1", "foreground"),
        "torchvision_v1": ("l1", "per_image"),
        "torchvision_v2": ("giou", "per_image"),
        "detectron2": ("l1", "moving_average"),
        "gfl": ("giou", "foreground"),
        "retinanet": ("giou", "foreground"),
        "own_data": ("giou", "foreground"),
    }[name]
    assert config.objective.box.kind == box
    assert config.objective.normalizer == normalizer
    is_own = name in OWN_DATA
    assert config.optimizer.kind == ("adamw" if name == "torchvision_v2" or is_own else "sgd")
    assert config.training.batch_size == (8 if is_own else 16)


def test_presets_train_as_the_references_do() -> None:
    presets = {name: read_preset(name) for name in preset_names()}
    classic, own = (presets.pop(name) for name in OWN_DATA)
    assert classic["schedule"]["kind"] == "one_cycle"
    focal = presets["paper"]["objective"]["classification"]
    assert classic["objective"]["classification"] == focal
    assert classic["model"]["anchors"] == presets["paper"]["model"]["anchors"]
    varifocal = {"kind": "varifocal", "alpha": 0.75, "gamma": 2.0}
    assert own["objective"] == presets["gfl"]["objective"] | {"classification": varifocal}
    # One word changes the head and nothing else.
    same = ("preprocess", "augmentation", "sampling", "optimizer", "schedule", "training")
    assert {key: classic[key] for key in same} == {key: own[key] for key in same}
    assert classic["model"]["backbone"] == own["model"]["backbone"]
    drops = {
        "paper": [2 / 3, 8 / 9],
        "torchvision_v1": [16 / 26, 22 / 26],
        "torchvision_v2": [16 / 26, 22 / 26],
        "detectron2": [60 / 90, 80 / 90],
        "gfl": [8 / 12, 11 / 12],
    }
    assert {name: preset["schedule"]["drops"] for name, preset in presets.items()} == drops
    smallest = {"torchvision_v2": 480, "detectron2": 640}
    for name, preset in presets.items():
        factors = [side / 800 for side in range(smallest.get(name, 800), 801, 32)]
        assert preset["sampling"]["scale_factors"] == factors
        if name == "gfl":
            continue
        assert preset["model"]["anchors"]["scales"] == [1.0, 2 ** (1 / 3), 2 ** (2 / 3)]
        assert preset["objective"]["classification"] == {
            "kind": "focal",
            "alpha": 0.25,
            "gamma": 2.0,
        }
    pixels = presets["detectron2"]["preprocess"]
    assert pixels["mean"] == [123.675 / 255, 116.28 / 255, 103.53 / 255]
    assert pixels["std"] == [1 / 255] * 3


def test_presets_and_configs_are_in_the_wheel() -> None:
    wheel = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]["wheel"]
    assert wheel["packages"] == ["retina"]  # with all files in it, so with the presets
    assert wheel["force-include"] == {"configs": "retina/configs"}
    assert PRESETS == REPOSITORY / "retina" / "presets"
    assert shipped_configs() == REPOSITORY / "configs"


def test_pins_fit_the_declared_ranges() -> None:
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*declared["dependencies"], *declared["optional-dependencies"]["dev"]]
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    pins = {canonicalize_name(name): version for name, version in pairs}
    for text in wanted:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), text


def command_lines(text: str) -> list[str]:
    """What follows ``retina`` in the code of a page; ``a\\|b`` gives a line for each."""
    code = r"^(?: {4}|\$ )?(?:torchrun .*-m )?retina (.*)|`(?:torchrun [^`]*-m )?retina ([^`]*)`"
    found = re.findall(code, text.replace("\\\n", " "), flags=re.MULTILINE)
    lines = []
    for line in (block or inline for block, inline in found):
        group, _, rest = line.partition(" ")
        names, _, arguments = rest.partition(" ")
        lines += [f"{group} {name} {arguments}" for name in names.split("\\|")]
    return lines


def test_the_commands_of_the_pages_exist_with_their_options() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    assert "@@" not in readme
    options = {command.words: options_of(command) for command in COMMANDS}
    told = set()
    for page in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]:
        for line in command_lines(page.read_text()):
            words = tuple(line.split())
            name = words[:2] if words[:2] in options else words[:1]
            assert name in options, f"{page.name}: retina {line}"
            named = set(re.findall(r"(?<![\w-])--[\w-]+", line.partition(" #")[0]))
            assert named <= options[name], f"{page.name}: retina {line}"
            if page.name == "README.md":
                told.add(name)
    assert told == set(options)


def options_of(command: Command) -> set[str]:
    """The options of a command, as its help lists them."""
    found: Any = get_command(make_app(command.words))
    for word in command.words:
        found = found.commands[word]
    names = (name for one in found.params for name in (*one.opts, *one.secondary_opts))
    return {"--help", *names}


def test_the_links_of_the_readme_lead_somewhere() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (REPOSITORY / link).exists(), link


def test_the_python_of_the_readme_uses_the_public_api() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        compile(block, "README.md", "exec")
        assert set(re.findall(r"\bretina\.(\w+)", block)) <= set(retina.__all__)


def test_the_version_is_the_same_everywhere() -> None:
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d.*)\] - (.*)$", changelog, flags=re.MULTILINE)
    assert retina.__version__ == declared
    assert released[0] == (citation["version"], str(citation["date-released"]))
    assert citation["version"] == declared
    assert changelog.index("[Unreleased]") < changelog.index(f"[{declared}]")


def test_what_the_public_workflow_calls_is_there() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    scripts = re.findall(r"scripts/\w+\.\w+", " ".join(step.get("run", "") for step in steps))
    assert set(scripts) == {"scripts/test.sh", "scripts/smoke.py"}
    assert all((REPOSITORY / script).is_file() for script in scripts)
    assert all(re.search(r"@v\d+$", step["uses"]) for step in steps if "uses" in step)


def test_the_release_publishes_what_was_tested_and_only_by_a_tag() -> None:
    path = REPOSITORY / ".github" / "workflows" / "release.yml"
    workflow = yaml.safe_load(path.read_text())
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert workflow["permissions"] == {"contents": "read"}
    jobs = workflow["jobs"]
    assert jobs["publish"]["if"] == "github.ref_type == 'tag'"
    assert jobs["publish"]["needs"] == ["build", "test"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert f"/{declared['name']}/" in jobs["publish"]["environment"]["url"]
    (tested,) = [step["run"] for step in jobs["test"]["steps"] if "run" in step]
    assert tested == "scripts/test.sh --all tests/test_distribution.py"
    assert (REPOSITORY / "tests" / "test_distribution.py").is_file()


def test_the_hooks_of_git_take_the_environment_that_is_active() -> None:
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"][0][
        "hooks"
    ]
    assert {hook["id"] for hook in hooks} > {"ruff-check", "ruff-format", "mypy"}
    assert all(hook["entry"].startswith(("python -m ", "lint-imports")) for hook in hooks)


@pytest.mark.parametrize("script", sorted((REPOSITORY / "scripts").glob("*.sh")), ids=str)
def test_shell_scripts_parse(script: Path) -> None:
    checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
