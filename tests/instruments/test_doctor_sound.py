"""Set-ups of many kinds that train well: the doctor has nothing to say against them.

What it says wrongly costs more than what it overlooks: at a rate that it once demanded, a training
came to an AP of 0.25 in the place of 0.45.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml

from retina.configuration import PRESETS, merge
from retina.experiment import ExperimentConfig, load_experiment
from retina.instruments.doctor.checks import Report, run_checks, short_form
from retina.instruments.doctor.context import CheckContext, read_context
from retina.instruments.doctor.learning_rate import check_learning_rate, probe_learning_rate
from retina.instruments.doctor.overfit import check_overfit
from retina.instruments.doctor.speed_and_memory import check_memory
from tests.conftest import REPOSITORY  # type: ignore[import-not-found]

Tree = dict[str, Any]
CONFIGS = REPOSITORY / "configs"

SLOW = partial(pytest.param, marks=pytest.mark.slow)
"""A kind that differs little from one that the normal tests have already."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a whole ResNet-18, whose statistics are those of some inputs, as after training."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None).train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(4, 3, 64, 64))
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from retina.datasets.synthetic import generate_dataset

    folder = tmp_path_factory.mktemp("sound") / "data"
    generate_dataset(folder, num_images=32, num_validation_images=16, seed=0)
    return folder


def coco(folder: Path, images: str, annotations: str) -> Tree:
    return {"images": str(folder / images), "annotations": str(folder / annotations)}


def voc(folder: Path, images: str, annotations: str, split: str) -> Tree:
    keys = {"split": str(folder / split)}
    return {"kind": "voc", **coco(folder, images, annotations), **keys}


def splits_of(name: str, shared: Path) -> Tree:
    folder = shared / name
    if name == "bccd":
        parts = ("JPEGImages", "Annotations")
        lists = [f"ImageSets/Main/{split}.txt" for split in ("train", "val")]
        train, validation = (voc(folder, *parts, split) for split in lists)
    elif name == "raccoon":
        lists = ["splits/train.txt", "splits/test.txt"]
        train, validation = (voc(folder, "images", "annotations", split) for split in lists)
    elif name == "chess":
        names = ("train", "valid")
        train, validation = (coco(folder, one, f"{one}/_annotations.coco.json") for one in names)
    else:
        names = ("train2017", "val2017")
        train, validation = (
            coco(folder, one, f"annotations/instances_{one}.json") for one in names
        )
    return {"train": train, "validation": validation}


ADAPTIVE: Tree = {
    "objective": {
        "assigner": {"kind": "atss"},
        "classification": {"kind": "quality_focal"},
        "box": {"kind": "giou", "weight": 2.0},
    },
    "model": {"anchors": {"sizes": [32, 64, 128, 256, 512], "scales": [1.0], "ratios": [1.0]}},
}
"""ATSS, quality focal loss and one anchor a cell."""

PRETRAINED: Tree = {"model": {"backbone": {"weights": "FILE"}}}
FROZEN: Tree = {"model": {"backbone": {"weights": "FILE", "norm": "frozen", "frozen_stages": 2}}}


def rate(kind: str, lr: float) -> Tree:
    return {"optimizer": {"kind": kind, "lr": lr}}


def with_weights(tree: Tree, weights: Path) -> Tree:
    backbone = tree.get("model", {}).get("backbone", {})
    if backbone.get("weights") != "FILE":
        return tree
    return merge(tree, {"model": {"backbone": {"weights": str(weights)}}})


def read(base: str, data: Tree, folder: Path, *changes: Tree) -> ExperimentConfig:
    tree: Tree = {
        "extends": str(CONFIGS / base),
        "output_dir": str(folder / "run"),
        "device": "cpu",
        "dataset": data,
        "training": {"num_workers": 0},
    }
    for change in changes:
        tree = merge(tree, change)
    path = folder / "sound.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_experiment(path)


def told(report: Report) -> list[str]:
    return [finding.line() for finding in report.findings if finding.level != "note"]


def codes_at_start(config: ExperimentConfig) -> list[str]:
    context, _ = read_context(config)
    assert context is not None
    return [one.code for one in short_form(config, context.train, context.validation)]


@pytest.mark.parametrize(
    ("base", "name", "changes"),
    [
        ("bccd.yaml", "bccd", [ADAPTIVE]),
        ("bccd.yaml", "bccd", [FROZEN, {"training": {"batch_size": 2, "precision": "fp32"}}]),
        ("my_data_cpu.yaml", "raccoon", [PRETRAINED]),
        ("my_data_cpu.yaml", "raccoon", [PRETRAINED, ADAPTIVE]),
        SLOW("my_data_cpu.yaml", "raccoon", [FROZEN, rate("adamw", 1e-4)]),
        SLOW("my_data_cpu.yaml", "raccoon", [FROZEN, rate("sgd", 0.01)]),
        SLOW("my_data_cpu.yaml", "raccoon", [FROZEN, rate("sgd", 0.002)]),
        SLOW("my_data_cpu.yaml", "chess", [FROZEN, ADAPTIVE, {"training": {"batch_size": 4}}]),
        SLOW("my_data.yaml", "bccd", []),
    ],
)
def test_nothing_is_said_against_what_trains_well_on_public_sets(
    base: str, name: str, changes: list[Tree], shared_data: Path, weights: Path, tmp_path: Path
) -> None:
    """The sets from random weights are in `test_doctor_sabotage`."""
    changes = [with_weights(change, weights) for change in changes]
    config = read(base, splits_of(name, shared_data), tmp_path, *changes)
    assert told(run_checks(config, tmp_path, quick=True)) == []
    assert codes_at_start(config) == []


def test_a_part_of_coco_is_called_small_and_its_smallest_objects_are_told(
    shared_data: Path, weights: Path, tmp_path: Path
) -> None:
    """Both warnings are true: 12 classes are in no training image, 95 objects below 8 pixels."""
    data = splits_of("coco_permissive", shared_data)
    anchors = {"sizes": [16, 32, 64, 128, 256]}  # as the head of the template says
    classic: Tree = {"preset": "retinanet", "model": {"anchors": anchors}}
    start = with_weights(PRETRAINED, weights)
    config = read("my_data_cpu.yaml", data, tmp_path, classic, start)
    context, _ = read_context(config)
    assert context is not None
    found = short_form(config, context.train, context.validation)
    assert {finding.code for finding in found} == {"classes_untrained", "anchors_unfit"}
    assert {finding.level for finding in found} == {"warning"}


def generated_splits(generated: Path) -> Tree:
    names = ("train", "validation")
    return {one: coco(generated, f"{one}/images", f"{one}/annotations.json") for one in names}


@pytest.mark.parametrize(
    "changes",
    [
        [FROZEN],
        [PRETRAINED, rate("adamw", 1e-4)],
        [FROZEN, rate("sgd", 0.0025), {"training": {"precision": "fp32", "batch_size": 4}}],
        [FROZEN, {"training": {"batch_size": 2}}],
        [
            PRETRAINED,
            {"model": {"backbone": {"norm": "batch", "frozen_stages": 5}}},  # none is live
            {"training": {"batch_size": 2}},
        ],
        [FROZEN, {"dataset": {"train": {"fraction": 0.63}}}],  # twenty images
    ],
)
def test_nothing_is_said_against_a_few_images_with_pretrained_weights(
    changes: list[Tree], generated: Path, weights: Path, tmp_path: Path
) -> None:
    changes = [with_weights(change, weights) for change in changes]
    config = read("my_data_cpu.yaml", generated_splits(generated), tmp_path, *changes)
    assert told(run_checks(config, tmp_path, quick=True)) == []
    assert codes_at_start(config) == []


@pytest.mark.parametrize("images", [205, 1000])
def test_many_boxes_from_random_weights_are_worth_a_note_at_most(
    images: int, generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `configs/bccd.yaml` (205 images, 780 steps, AP 0.587) and `configs/demo.yaml` (0.611)."""
    config = read("demo.yaml", generated_splits(generated), tmp_path)
    context, _ = read_context(config)
    assert context is not None
    report = replace(context.train.report, num_images=images, num_boxes=2804)
    monkeypatch.setattr(type(context.train), "report", property(lambda _: report))
    length = config.training.model_copy(update={"min_steps": 780})
    config = config.model_copy(update={"training": length})
    assert short_form(config, context.train, context.validation) == []


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_rates_of_the_shipped_configs_are_known_to_work(path: Path, generated: Path) -> None:
    overrides = [
        "output_dir=runs/none",
        *(
            f"dataset.{split}={{kind: coco, images: {keys['images']}, "
            f"annotations: {keys['annotations']}}}"
            for split, keys in generated_splits(generated).items()
        ),
    ]
    assert rate_findings(load_experiment(path, overrides)) == []


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_the_rates_of_the_presets_are_known_to_work(
    preset: str, generated: Path, tmp_path: Path
) -> None:
    tree = {"preset": preset, "output_dir": "runs/none", "dataset": generated_splits(generated)}
    path = tmp_path / "preset.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert rate_findings(load_experiment(path)) == []


def rate_findings(config: ExperimentConfig) -> list[str]:
    context, _ = read_context(config)
    assert context is not None
    found = check_learning_rate(context).findings
    return [one.code for one in found if one.code.startswith("learning_rate")]


SMALL: Tree = {
    "preprocess": {"min_size": 64, "max_size": 96},
    "training": {"precision": "fp32", "batch_size": 4},
}


@pytest.mark.parametrize(
    "changes",
    [
        [FROZEN],
        SLOW([PRETRAINED, ADAPTIVE]),  # a loss that starts high, and may rise as the boxes improve
        SLOW([FROZEN, rate("adamw", 1e-4)]),
        SLOW([FROZEN, rate("sgd", 0.01)]),
        SLOW([FROZEN, {"training": {"batch_size": 2}}]),
        SLOW([{"model": {"backbone": {"weights": None, "norm": "batch", "frozen_stages": 0}}}]),
    ],
)
def test_real_steps_go_well(
    changes: list[Tree], generated: Path, weights: Path, tmp_path: Path
) -> None:
    context = small_context(changes, generated, weights, tmp_path)
    assert probe_learning_rate(context).findings == ()
    assert check_memory(context).findings == ()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [[FROZEN], [PRETRAINED, ADAPTIVE]])
def test_a_batch_is_learned(
    changes: list[Tree], generated: Path, weights: Path, tmp_path: Path
) -> None:
    """A few pixels off are worth a note. Below this input the smallest objects are too small."""
    size = {"preprocess": {"min_size": 192, "max_size": 288}}
    context = small_context([*changes, size], generated, weights, tmp_path)
    assert [one.level for one in check_overfit(context).findings if one.level != "note"] == []


def small_context(
    changes: list[Tree], generated: Path, weights: Path, folder: Path
) -> CheckContext:
    changes = [SMALL, *(with_weights(change, weights) for change in changes)]
    context, _ = read_context(
        read("my_data_cpu.yaml", generated_splits(generated), folder, *changes)
    )
    assert context is not None
    return context
