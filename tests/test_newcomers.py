"""A new part of each kind is a file and its line; nothing else has to know of it.

The files are those of `tests/newcomers`. They and their lines are put into a copy of the package,
and go through every command together.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.conftest import (  # type: ignore[import-not-found]
    REPOSITORY,
    Done,
    Invoke,
)

# The file, its folder, the file of its line, the line above its own, its own, what it imports.
NEWCOMERS = (
    (
        "toy.py",
        "modeling/backbones",
        "modeling/backbones/__init__.py",
        "    OneOf(\n",
        "        ToyConfig,\n",
        "from retina.modeling.backbones.toy import ToyConfig\n",
    ),
    (
        "cross_entropy.py",
        "objective/classification",
        "objective/classification/__init__.py",
        "    OneOf(\n",
        "        CrossEntropyConfig,\n",
        "from retina.objective.classification.cross_entropy import CrossEntropyConfig\n",
    ),
    (
        "center.py",
        "objective/assignment",
        "objective/assignment/__init__.py",
        "    OneOf(\n",
        "        CenterConfig,\n",
        "from retina.objective.assignment.center import CenterConfig\n",
    ),
    (
        "corners.py",
        "geometry/box_coders",
        "geometry/box_coders/__init__.py",
        "    OneOf(\n",
        "        CornersConfig,\n",
        "from retina.geometry.box_coders.corners import CornersConfig\n",
    ),
    (
        "lines.py",
        "datasets/formats",
        "datasets/formats/__init__.py",
        "FORMATS: tuple[type[FolderConfig], ...] = (\n",
        "    LinesConfig,\n",
        "from retina.datasets.formats.lines import LinesConfig\n",
    ),
    (
        "heartbeat.py",
        "training/hooks",
        "experiment/building.py",
        "        EarlyStopping(training.early_stopping_evaluations, counts_from=settled),\n",
        "        Heartbeat(),\n",
        "from retina.training.hooks.heartbeat import Heartbeat\n",
    ),
    (
        "data_count.py",
        "cli",
        "registry.py",
        "COMMANDS = (\n",
        '    Command(("data", "count"), "retina.cli.data_count"),\n',
        "",
    ),
)

DRIVER = """
import contextlib, io, json, sys
from retina.__main__ import main

for arguments in json.load(sys.stdin):
    sys.argv, code = ["retina", *arguments], 0
    with contextlib.redirect_stdout(io.StringIO()) as out:
        with contextlib.redirect_stderr(io.StringIO()) as err:
            try:
                main()
            except SystemExit as stop:
                code = stop.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
"""Runs commands one after the other in one process, which spares its start."""


def extend(package: Path) -> None:
    """Do to a copy of the package what each newcomer would do."""
    for file, folder, registry, above, line, imported in NEWCOMERS:
        shutil.copy(REPOSITORY / "tests" / "newcomers" / file, package / folder)
        text = (package / registry).read_text()
        assert text.count(above) == 1
        text = text.replace(above, above + line)
        first_import = text.index("\nfrom retina.") + 1 if imported else 0
        (package / registry).write_text(text[:first_import] + imported + text[first_import:])


def write_lines(folder: Path, split: Path, *, without: str) -> None:
    """A split in COCO's format as `boxes.lines` beside its images, without one of the classes."""
    coco = json.loads((split / "annotations.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    lines = []
    for image in coco["images"]:
        lines.append(image["file_name"])
        for one in coco["annotations"]:
            name = names[one["category_id"]]
            if one["image_id"] == image["id"] and not one["iscrowd"] and name != without:
                x, y, width, height = one["bbox"]
                lines.append(f"{image['file_name']} {x} {y} {x + width} {y + height} {name}")
    folder.mkdir(parents=True)
    shutil.copytree(split / "images", folder / "images")
    (folder / "boxes.lines").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def workplace(
    tiny_config: Path, synthetic_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with the copy, data in the new format, and a config that names the newcomers."""
    folder: Path = tmp_path_factory.mktemp("newcomers")
    shutil.copytree(REPOSITORY / "retina", folder / "copy" / "retina")
    extend(folder / "copy" / "retina")
    data = folder / "data"
    write_lines(data / "train", synthetic_data / "train", without="")
    write_lines(data / "validation", synthetic_data / "validation", without="arrow")
    (folder / "all.yaml").write_text(
        f"extends: {tiny_config}\n"
        f"output_dir: {folder / 'run'}\n"
        "dataset:\n"
        + "".join(
            f"  {split}: {{kind: lines, images: {data / split / 'images'}, "
            f"annotations: {data / split / 'boxes.lines'}}}\n"
            for split in ("train", "validation")
        )
        + "model: {backbone: {kind: toy, norm: batch}, box_coder: {kind: corners}}\n"
        "objective: {assigner: {kind: center}, classification: {kind: cross_entropy}}\n"
        "training: {batch_size: 4, evaluate_every_epochs: 2, pictures: 0}\n"
    )
    return folder


def run_all(workplace: Path, commands: Mapping[str, Sequence[str | Path]]) -> dict[str, Done]:
    """How each of the commands ended, in the copy."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps([[str(word) for word in words] for words in commands.values()]),
        cwd=workplace,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(workplace / "copy")},
    )
    assert done.returncode == 0, done.stderr
    results = [Done(*json.loads(line)) for line in done.stdout.splitlines()]
    return dict(zip(commands, results, strict=True))


@pytest.mark.slow
def test_newcomers_go_through_every_command(workplace: Path) -> None:
    config, data, run = workplace / "all.yaml", workplace / "data", workplace / "run"
    images, boxes = data / "validation" / "images", data / "validation" / "boxes.lines"
    coco, finer = workplace / "coco.json", workplace / "finer"
    detector = run / "checkpoints" / "last.safetensors"
    other = finer / "checkpoints" / "last.safetensors"
    few = ("--images-limit", "1", "--num-workers", "0")
    done = run_all(
        workplace,
        {
            "train": ("train", config),
            "evaluate": ("evaluate", detector),
            "by config": ("evaluate", detector, "--config", config, "--split", "validation"),
            "by folder": ("evaluate", detector, "--data", data),
            "by file": ("evaluate", detector, "--images", images, "--annotations", boxes),
            "convert": ("data", "convert", boxes, "--output", coco),
            "as coco": ("evaluate", detector, "--images", images, "--annotations", coco),
            "doctor": ("doctor", config, "--quick", f"output_dir={workplace / 'quick'}"),
            "predict": ("predict", detector, images, "--output", workplace / "found"),
            "anatomy": ("loss", "anatomy", detector, *few),
            "finer": (
                *("train", config, f"output_dir={finer}", "training.epochs=1"),
                "model.backbone.finest_map=c2",
                "model.backbone.frozen_stages=2",
                "model.anchors.sizes=[8, 16, 32, 64, 128, 256]",
                f"model.initialize_from={detector}",
                "objective.classification={kind: focal}",
            ),
            "exact anatomy": ("loss", "anatomy", other, *few),
            "check": ("data", "check", data),
            "count": ("data", "count", data),
            "nothing": ("data", "check", workplace / "copy"),
        },
    )
    codes = {name: one.code for name, one in done.items()}
    assert codes.pop("nothing") == 2
    assert codes.pop("doctor") in (0, 1)  # 1 where something is wrong with the tiny set
    assert not any(codes.values()), done

    # the backbone
    assert "toy5, 0.0 M parameters" in done["train"].out
    assert "toy5 from random weights" in done["doctor"].out
    assert (workplace / "found" / "detections.json").is_file()
    # the assigner and the loss
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "train"]
    assert 0 < sum(row["loss"] for row in steps[-3:]) < sum(row["loss"] for row in steps[:3])
    assert "anchor coverage" in done["doctor"].out
    assert "since it is cross_entropy, which weighs them otherwise" in done["anatomy"].out
    assert "as in the training" in done["exact anatomy"].out
    assert "as in the training" not in done["anatomy"].out
    # the format
    tables = {
        done[name].out for name in ("evaluate", "by config", "by folder", "by file", "as coco")
    }
    assert len({table[table.index("AP ") :] for table in tables}) == 1
    assert "every image can be used" in done["check"].out
    assert "Annotations/ with JPEGImages/; " in done["nothing"].err
    assert "boxes.lines with images/; " in done["nothing"].err
    for name in ("train", "doctor"):  # without the arrow all ids are others, and mean nothing
        assert "validation_categories_permuted" not in done[name].out
    # the hook and the command
    assert [row["done"] for row in steps] == [number / 12 for number in range(1, 13)]
    assert (run / "heartbeat").read_text() == "step 12 of 12\n"
    counts = [line.rsplit(" ", 1) for line in done["count"].out.splitlines()]
    assert sum(int(number) for _, number in counts) == sum(
        len(line.split()) > 1 for line in (data / "train" / "boxes.lines").read_text().splitlines()
    )


def test_a_new_kind_is_unknown_where_it_has_no_line(tiny_config: Path, invoke: Invoke) -> None:
    done = invoke("train", tiny_config, "objective.assigner={kind: center}")
    assert done.code == 2
    assert "objective.assigner.kind: 'center' is none of 'max_iou', 'atss'" in done.err
