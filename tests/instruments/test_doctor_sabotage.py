"""Set-ups that are wrong on purpose: the doctor finds each of them and calls it by its name."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import yaml

from retina.configuration import merge
from retina.experiment import load_experiment
from retina.instruments.doctor.checks import Report, run_checks
from retina.instruments.doctor.findings import Finding
from retina.instruments.doctor.report import write_fixed_config
from tests.conftest import REPOSITORY  # type: ignore[import-not-found]

Tree = dict[str, Any]
Spoil = Callable[[Tree], None]

SLOW = partial(pytest.param, marks=pytest.mark.slow)
"""A variant of a case that the normal tests have already."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from retina.datasets.synthetic import generate_dataset

    folder = tmp_path_factory.mktemp("doctor") / "data"
    generate_dataset(folder, num_images=32, num_validation_images=24, seed=3)
    return folder


class Setup:
    """A config for generated data, whose files a test may spoil."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self.folder = data, folder
        self.tree: Tree = {
            "extends": str(REPOSITORY / "configs" / "nano.yaml"),
            "output_dir": str(folder / "run"),
            "device": "cpu",
            "dataset": {
                split: {
                    "images": str(data / split / "images"),
                    "annotations": str(data / split / "annotations.json"),
                }
                for split in ("train", "validation")
            },
            "preprocess": {"min_size": 192, "max_size": 288},
            "training": {"num_workers": 0, "precision": "fp32", "min_steps": 1500},
        }

    def spoil(self, split: str, change: Spoil) -> "Setup":
        tree = json.loads((self.data / split / "annotations.json").read_text())
        change(tree)
        path = self.folder / f"{split}.json"
        path.write_text(json.dumps(tree))
        self.tree["dataset"][split]["annotations"] = str(path)
        return self

    def configure(self, **keys: Any) -> "Setup":
        self.tree = merge(self.tree, keys)
        return self

    def write(self) -> Path:
        path = self.folder / "setup.yaml"
        path.write_text(yaml.safe_dump(self.tree))
        return path

    def check(self) -> Report:
        return run_checks(load_experiment(self.write(), ()), self.folder, quick=True)

    def check_fixed(self, report: Report) -> Report:
        """Apply the patches, and check again."""
        fixed = write_fixed_config(self.write(), (), report.findings)
        assert fixed is not None
        return run_checks(load_experiment(fixed, ()), self.folder, quick=True)


@pytest.fixture
def setup(data: Path, tmp_path: Path) -> Setup:
    return Setup(data, tmp_path)


def wrong(report: Report) -> list[Finding]:
    """What is spoiled: that 32 images are few for random weights is true of each of them."""
    worse = [finding for finding in report.findings if finding.level != "note"]
    return [finding for finding in worse if finding.code != "from_scratch_small_set"]


def codes(report: Report) -> list[str]:
    return [finding.code for finding in wrong(report)]


def only(report: Report) -> Finding:
    (finding,) = wrong(report)
    return finding


def boxes_of(change: Callable[[list[float], Tree], list[float]]) -> Spoil:
    def spoil(tree: Tree) -> None:
        images = {image["id"]: image for image in tree["images"]}
        for annotation in tree["annotations"]:
            annotation["bbox"] = change(annotation["bbox"], images[annotation["image_id"]])

    return spoil


def test_a_sound_setup_has_no_finding(setup: Setup) -> None:
    report = setup.check()
    assert codes(report) == []
    (few,) = (finding for finding in report.findings if finding.level != "note")
    assert few.code == "from_scratch_small_set"
    assert not report.has_errors
    assert (setup.folder / "batch.png").stat().st_size > 10_000


def test_x_and_y_swapped(setup: Setup) -> None:
    setup.spoil("train", boxes_of(lambda b, _: [b[1], b[0], b[3], b[2]]))
    finding = next(f for f in setup.check().findings if f.code == "boxes_swapped")
    assert finding.level == "error"
    assert "look like (y, x, height, width)" in finding.what
    assert finding.patch is None
    assert finding.numbers["outside"] > 0.05
    assert finding.numbers["outside_in_that_format"] < 0.005


def test_corners_written_as_width_and_height(setup: Setup) -> None:
    for split in ("train", "validation"):
        setup.spoil(split, boxes_of(lambda b, _: [b[0], b[1], b[0] + b[2], b[1] + b[3]]))
    found = [f for f in setup.check().findings if f.code == "boxes_xyxy"]
    assert [f.what.split(" boxes")[0] for f in found] == ["the train", "the validation"]
    assert "width = x2 - x1 and height = y2 - y1" in found[0].fix


def test_centers_written_as_corners(setup: Setup) -> None:
    setup.spoil("train", boxes_of(lambda b, _: [b[0] + b[2] / 2, b[1] + b[3] / 2, b[2], b[3]]))
    found = [f for f in setup.check().findings if f.code == "boxes_centered"]
    assert [f.level for f in found] == ["error"]


def test_relative_boxes(setup: Setup) -> None:
    def relative(box: list[float], image: Tree) -> list[float]:
        width, height = image["width"], image["height"]
        return [box[0] / width, box[1] / height, box[2] / width, box[3] / height]

    setup.spoil("train", boxes_of(relative))
    finding = next(f for f in setup.check().findings if f.code == "boxes_relative")
    assert finding.level == "error"
    assert 0.5 < finding.numbers["largest"] <= 1  # type: ignore[operator]


@pytest.mark.parametrize(
    ("code", "turn"),
    [
        ("boxes_mirrored", lambda b, image: [image["width"] - b[0] - b[2], *b[1:]]),
        SLOW("boxes_upside_down", lambda b, image: [b[0], image["height"] - b[1] - b[3], *b[2:]]),
    ],
)
def test_another_origin_is_seen_in_the_pictures(
    setup: Setup, code: str, turn: Callable[[list[float], Tree], list[float]]
) -> None:
    finding = only(setup.spoil("train", boxes_of(turn)).check())
    assert (finding.code, finding.level) == (code, "error")
    assert finding.numbers["sigma"] > 5  # type: ignore[operator]
    assert finding.numbers["other"] > 1.5 * finding.numbers["as_read"]  # type: ignore[operator]


def test_x_and_y_swapped_in_square_images(setup: Setup) -> None:
    """No box reaches out of a square image: only the pictures can tell."""
    images = setup.folder / "square"
    images.mkdir()

    def spoil(tree: Tree) -> None:
        for image in tree["images"]:
            image["height"] = image["width"] = side = max(image["height"], image["width"])
            with PIL.Image.open(setup.data / "train" / "images" / image["file_name"]) as picture:
                square = PIL.ImageOps.pad(picture, (side, side), centering=(0, 0))
            square.save(images / image["file_name"])

    setup.spoil("train", spoil)
    setup.tree["dataset"]["train"]["images"] = str(images)
    assert codes(setup.check()) == []
    tree = json.loads((setup.folder / "train.json").read_text())
    boxes_of(lambda b, _: [b[1], b[0], b[3], b[2]])(tree)
    (setup.folder / "train.json").write_text(json.dumps(tree))
    finding = only(setup.check())
    assert (finding.code, finding.level) == ("boxes_swapped", "error")
    assert finding.numbers["sigma"] > 5  # type: ignore[operator]


def move_ids(by: int) -> Spoil:
    def spoil(tree: Tree) -> None:
        for number, category in enumerate(tree["categories"], start=1):
            for annotation in tree["annotations"]:
                if annotation["category_id"] == category["id"]:
                    annotation["new_id"] = number + by
            category["id"] = number
        for annotation in tree["annotations"]:
            annotation["category_id"] = annotation.pop("new_id")

    return spoil


@pytest.mark.parametrize("shift", [-1, 1])
def test_category_ids_off_by_one(setup: Setup, shift: int) -> None:
    report = setup.spoil("train", move_ids(shift)).check()
    finding = only(report)
    assert finding.code == "category_ids_off_by_one"
    assert finding.numbers["shift"] == shift
    assert f"Add {-shift:+d} to every category_id" in finding.fix
    assert report.results[0].name == "reading"
    assert len(report.results) == 1  # there is nothing more to look at


@pytest.mark.parametrize("shift", [SLOW(-1), 1])
def test_labels_of_validation_off_by_one_in_a_circle(setup: Setup, shift: int) -> None:
    def spoil(tree: Tree) -> None:
        ids = [category["id"] for category in tree["categories"]]
        for annotation in tree["annotations"]:
            place = ids.index(annotation["category_id"])
            annotation["category_id"] = ids[(place + shift) % len(ids)]

    finding = only(setup.spoil("validation", spoil).check())
    assert finding.code == "labels_off_by_one"
    assert finding.numbers["shift"] == shift


def test_categories_of_validation_permuted(setup: Setup) -> None:
    def spoil(tree: Tree) -> None:
        names = [category["name"] for category in tree["categories"]]
        for category, name in zip(tree["categories"], reversed(names), strict=True):
            category["name"] = name

    finding = only(setup.spoil("validation", spoil).check())
    assert finding.code == "validation_categories_permuted"
    assert finding.level == "error"
    assert "in training" in finding.what
    assert finding.numbers["by_id"] < finding.numbers["by_name"] / 2  # type: ignore[operator]


def test_ids_that_are_texts_contradict_no_names(setup: Setup) -> None:
    def spoil(tree: Tree) -> None:
        names = {category["id"]: category["name"] for category in tree["categories"]}
        tree["categories"] = [{"id": f"#{name}", "name": name} for name in names.values()][::-1]
        for annotation in tree["annotations"]:
            annotation["category_id"] = f"#{names[annotation['category_id']]}"

    assert codes(setup.spoil("validation", spoil).check()) == []


@pytest.mark.slow
def test_the_same_names_under_other_ids_are_only_worth_a_warning(setup: Setup) -> None:
    def spoil(tree: Tree) -> None:
        old = [category["id"] for category in tree["categories"]]
        new = dict(zip(old, reversed(old), strict=True))
        for category in tree["categories"]:
            category["id"] = new[category["id"]]
        for annotation in tree["annotations"]:
            annotation["category_id"] = new[annotation["category_id"]]

    finding = only(setup.spoil("validation", spoil).check())
    assert (finding.code, finding.level) == ("validation_categories_permuted", "warning")


def test_categories_that_training_does_not_know(setup: Setup) -> None:
    def spoil(tree: Tree) -> None:
        tree["categories"][0]["name"] = "disk"

    finding = only(setup.spoil("validation", spoil).check())
    assert finding.code == "validation_categories_unknown"
    assert "disk" in finding.what


def test_a_background_class(setup: Setup) -> None:
    def listed(tree: Tree) -> None:
        tree["categories"].insert(0, {"id": 0, "name": "background"})

    for split in ("train", "validation"):
        setup.spoil(split, listed)
    finding = only(setup.check())
    assert finding.code == "background_listed"
    assert codes(setup.check_fixed(setup.check())) == []


def test_a_background_class_with_objects(setup: Setup) -> None:
    def spoil(tree: Tree) -> None:
        tree["categories"][0]["name"] = "Background"

    for split in ("train", "validation"):
        setup.spoil(split, spoil)
    finding = only(setup.check())
    assert (finding.code, finding.level) == ("background_has_objects", "error")
    assert finding.patch is None


def test_images_without_a_box_for_the_most(setup: Setup) -> None:
    def spoil(tree: Tree) -> None:
        kept = {image["id"] for image in tree["images"][:12]}
        tree["annotations"] = [a for a in tree["annotations"] if a["image_id"] in kept]

    report = setup.spoil("train", spoil).check()
    finding = only(report)
    assert finding.code == "images_mostly_empty"
    assert finding.patch == {"sampling": {"empty_images": "drop"}}
    assert codes(setup.check_fixed(report)) == []


def test_a_file_merged_with_itself(setup: Setup) -> None:
    def spoil(tree: Tree) -> None:
        last = max(annotation["id"] for annotation in tree["annotations"])
        again = [{**a, "id": a["id"] + last + 1} for a in tree["annotations"]]
        tree["annotations"] += again

    finding = only(setup.spoil("train", spoil).check())
    assert (finding.code, finding.level) == ("boxes_repeated", "error")
    assert finding.numbers["share"] == 0.5


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]}, "normalisation_scale"),
        ({"mean": [0.406, 0.456, 0.485], "std": [0.225, 0.224, 0.229]}, "normalisation_order"),
        SLOW(
            {"mean": [0.229, 0.224, 0.225], "std": [0.485, 0.456, 0.406]},
            "normalisation_mean_and_std_swapped",
        ),
        ({"std": [0.01, 0.01, 0.01]}, "normalisation_far_off"),
    ],
)
def test_normalisation(setup: Setup, keys: Tree, code: str) -> None:
    report = setup.configure(preprocess=keys).check()
    assert only(report).code == code
    assert codes(setup.check_fixed(report)) == []


@pytest.mark.parametrize("keys", [{"channel_order": "bgr"}, {"mean": [0.5] * 3, "std": [0.25] * 3}])
def test_pixels_that_pretrained_weights_do_not_expect(setup: Setup, keys: Tree) -> None:
    setup.configure(preprocess=keys, optimizer={"lr": 1e-4})
    assert codes(setup.check()) == []  # from scratch any order is as good
    setup.configure(model={"backbone": {"weights": "IMAGENET1K_V1"}})
    report = setup.check()
    finding = only(report)
    assert (finding.code, finding.level) == ("normalisation_not_of_weights", "error")
    assert codes(setup.check_fixed(report)) == []


@pytest.mark.parametrize(
    ("optimizer", "batch_size", "usual"),
    [
        ({"lr": 0.02}, 8, 0.002),
        SLOW({"kind": "sgd", "lr": 0.1}, 16, 0.01),
        ({"kind": "sgd", "lr": 0.01}, 1, 0.01 / 16),
        SLOW({"kind": "sgd", "lr": 0.16, "reference_batch_size": 16}, 1, 0.01 / 16),
    ],
)
def test_learning_rate_too_high(
    setup: Setup, optimizer: Tree, batch_size: int, usual: float
) -> None:
    base = {"optimizer": {"kind": "adamw", **optimizer}, "training": {"batch_size": batch_size}}
    setup.configure(**base, model={"backbone": {"norm": "sync"}})
    report = setup.check()
    finding = only(report)
    assert (finding.code, finding.level) == ("learning_rate_high", "error")
    assert finding.numbers["usual"] == pytest.approx(usual)
    assert finding.numbers["ratio"] >= 10 - 1e-9  # type: ignore[operator]
    assert codes(setup.check_fixed(report)) == []


@pytest.mark.parametrize(
    ("optimizer", "batch_size", "usual"),
    [
        ({"kind": "adamw", "lr": 1e-5}, 16, 1e-4),
        ({"kind": "sgd", "lr": 1e-4}, 8, 0.001),
        ({"kind": "sgd", "lr": 1e-3, "momentum": 0.0}, 8, 0.01),
    ],
)
def test_learning_rate_too_low(
    setup: Setup, optimizer: Tree, batch_size: int, usual: float
) -> None:
    setup.configure(optimizer=optimizer, training={"batch_size": batch_size})
    report = setup.check()
    finding = only(report)
    assert (finding.code, finding.level) == ("learning_rate_low", "warning")
    assert finding.numbers["usual"] == pytest.approx(usual)
    assert codes(setup.check_fixed(report)) == []


def test_random_weights_and_few_images(setup: Setup) -> None:
    report = setup.check()
    (finding,) = (f for f in report.findings if f.code == "from_scratch_small_set")
    assert finding.level == "warning"
    assert "with 32 images and " in finding.what
    assert finding.patch == {"model": {"backbone": {"weights": "IMAGENET1K_V1"}}}
    fixed = setup.check_fixed(report)
    assert [f.code for f in fixed.findings if f.level != "note"] == []


@pytest.mark.parametrize(
    ("training", "level", "steps"),
    [
        ({"min_steps": None, "epochs": 30}, "warning", 120),
        ({"min_steps": 1499}, "warning", 1499),
        ({"max_steps": 100}, "note", 100),
        ({"min_steps": 1500}, None, 1500),
    ],
)
def test_a_training_that_is_too_short(
    setup: Setup, training: Tree, level: str | None, steps: int
) -> None:
    report = setup.configure(training=training).check()
    found = [f for f in report.findings if f.code == "too_few_steps"]
    assert [f.level for f in found] == ([] if level is None else [level])
    (length,) = (r for r in report.results if r.name == "length")
    assert length.numbers["steps"] == steps
    if level == "warning":
        assert found[0].patch == {"training": {"min_steps": 1500}}
        assert codes(setup.check_fixed(report)) == []


def test_pretrained_weights_need_fewer_steps(setup: Setup) -> None:
    setup.configure(model={"backbone": {"weights": "IMAGENET1K_V1"}})
    report = setup.configure(training={"min_steps": 299}).check()
    assert codes(report) == ["too_few_steps"]
    assert codes(setup.configure(training={"min_steps": 300}).check()) == []


def test_a_detectors_weights_are_no_start_from_nothing(setup: Setup) -> None:
    """The file is not there: its pixels cannot be compared, all else can be checked."""
    setup.configure(model={"initialize_from": "missing.safetensors"})
    report = setup.configure(training={"min_steps": 200}).check()
    finding = only(report)
    assert finding.code == "too_few_steps"
    assert "missing.safetensors" in str(report.stopped_by)
    assert "from the weights of a detector it should have 300 at least" in finding.what
    assert "nothing" not in finding.why


def test_anchors_far_too_large(setup: Setup) -> None:
    setup.configure(model={"anchors": {"sizes": [128, 256, 512, 1024, 2048]}})
    report = setup.check()
    finding = only(report)
    assert (finding.code, finding.level) == ("anchors_too_large", "error")
    assert finding.numbers["matched"] < 0.2  # type: ignore[operator]
    assert codes(setup.check_fixed(report)) == []


@pytest.mark.slow
def test_anchors_far_too_small(setup: Setup) -> None:
    setup.configure(model={"anchors": {"sizes": [1, 2, 3, 4, 5]}})
    report = setup.check()
    assert only(report).code == "anchors_too_small"
    assert codes(setup.check_fixed(report)) == []


def test_an_input_too_small_for_the_objects(setup: Setup) -> None:
    setup.configure(preprocess={"min_size": 64, "max_size": 96})
    report = setup.check()
    finding = only(report)
    assert (finding.code, finding.level) == ("objects_too_small", "error")
    assert "on a grid of 8" in finding.what
    assert finding.patch is not None
    assert finding.patch["preprocess"]["min_size"] in (128, 192)
    assert codes(setup.check_fixed(report)) == []


def test_a_random_backbone_frozen(setup: Setup) -> None:
    setup.configure(model={"backbone": {"frozen_stages": 2, "norm": "frozen"}})
    report = setup.check()
    assert codes(report) == ["frozen_random", "frozen_norm_random"]
    for finding in wrong(report):
        assert finding.patch == {"model": {"backbone": {"weights": "IMAGENET1K_V1"}}}
        assert "--from-scratch" in finding.fix
    fixed = setup.check_fixed(report)
    assert [f.code for f in fixed.findings if f.level != "note"] == []


@pytest.mark.slow
def test_all_at_once_are_told_apart(setup: Setup) -> None:
    """Ten things wrong at once: each has its own name."""

    def spoil(tree: Tree) -> None:
        tree["categories"].insert(0, {"id": 0, "name": "background"})
        last = max(annotation["id"] for annotation in tree["annotations"])
        again = [{**a, "id": a["id"] + last + 1} for a in tree["annotations"]]
        tree["annotations"] += again

    setup.spoil("train", spoil)
    setup.configure(
        preprocess={"mean": [123.7, 116.3, 103.5]},
        optimizer={"lr": 0.03},
        model={"backbone": {"frozen_stages": 1}, "anchors": {"sizes": [256] * 5}},
    )
    assert set(codes(setup.check())) == {
        "background_listed",
        "boxes_repeated",
        "normalisation_scale",
        "learning_rate_high",
        "frozen_random",
        "anchors_too_large",
    }


def public_configs(shared_data: Path) -> Iterator[tuple[Path, list[str]]]:
    bccd, chess = shared_data / "bccd", shared_data / "chess"
    names = {"train": "train", "validation": "val"}
    overrides = [
        f"dataset.{split}.{key}={bccd / value}"
        for split, name in names.items()
        for key, value in (
            ("images", "JPEGImages"),
            ("annotations", "Annotations"),
            ("split", f"ImageSets/Main/{name}.txt"),
        )
    ]
    yield REPOSITORY / "configs" / "bccd.yaml", overrides
    overrides = [
        f"dataset.{split}.{key}={chess / folder / value}"
        for split, folder in (("train", "train"), ("validation", "valid"))
        for key, value in (("images", ""), ("annotations", "_annotations.coco.json"))
    ]
    for name in ("my_data_cpu", "my_data"):
        yield REPOSITORY / "configs" / f"{name}.yaml", overrides


@pytest.mark.parametrize("number", [0, 1, SLOW(2)])
def test_public_data_sets_have_no_finding(shared_data: Path, tmp_path: Path, number: int) -> None:
    path, overrides = list(public_configs(shared_data))[number]
    config = load_experiment(path, [*overrides, f"output_dir={tmp_path}"])
    report = run_checks(config, tmp_path, quick=True)
    assert codes(report) == []
    (coverage,) = (r for r in report.results if r.name == "anchor coverage")
    # The augmentation of my_data_cpu.yaml draws sizes down to 0.8: there a few pawns are small.
    assert coverage.numbers["matched"] > 0.98  # type: ignore[operator]
    assert np.isfinite([v for v in coverage.numbers.values() if isinstance(v, float)]).all()
