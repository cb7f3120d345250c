"""``retina init``, and ``retina train`` on data in the place of a config."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import yaml
from PIL import Image

from retina.experiment import build_dataset, is_config, load_experiment
from retina.experiment.recipe import look_at, make_recipe
from tests.conftest import Done, Invoke  # type: ignore[import-not-found]

QUICK = (  # the backbone of `tiny_config`, on small pictures
    "model.backbone={kind: small, norm: batch}", "model.pyramid.channels=16",
    "model.head.num_groups=4", "preprocess={min_size: 64, max_size: 96}",
    "training.num_workers=0", "training.batch_size=4",
)  # fmt: skip

WriteData = Callable[..., Path]


@pytest.fixture
def write_data(tmp_path: Path) -> WriteData:
    """Writes a folder in COCO's format with a few pictures, and gives it."""

    def write(
        *splits: str,
        names: tuple[str, ...] = ("cat",),
        count: int = 5,
        side: int | tuple[int, ...] = 20,
        size: tuple[int, int] = (64, 96),
    ) -> Path:
        folder = tmp_path / "photos"
        sides = (side,) if isinstance(side, int) else side
        for split in splits or ("",):
            images = folder / split / "images"
            images.mkdir(parents=True)
            tree: dict[str, Any] = {
                "images": [
                    {"id": i, "file_name": f"{i}.png", "height": size[0], "width": size[1]}
                    for i in range(count)
                ],
                "annotations": [
                    {"id": i, "image_id": i, "category_id": i % len(names),
                     "bbox": [8, 8, sides[i % len(sides)], sides[i % len(sides)]]}
                    for i in range(count)
                ],
                "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
            }  # fmt: skip
            (folder / split / "annotations.json").write_text(json.dumps(tree))
            for i in range(count):
                pixels = np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8)
                Image.fromarray(pixels).save(images / f"{i}.png")
        return folder

    return write


def made(invoke: Invoke, source: Path, tmp_path: Path, *options: str) -> tuple[str, dict[str, Any]]:
    """The config that is made of some data, as text and as a tree."""
    path = tmp_path / "my_data.yaml"
    path.unlink(missing_ok=True)
    done = invoke("init", source, "--output", path, "--device", "cpu", *options)
    assert done.code == 0, done.err
    text = path.read_text()
    load_experiment(path)
    return text, yaml.safe_load(text)


def test_the_config_explains_each_line_and_the_doctor_finds_it_well(
    invoke: Invoke, synthetic_data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "my_data.yaml"
    done = invoke("init", synthetic_data, "--output", path, "--from-scratch")
    assert done.code == 0, done.err
    assert f"{synthetic_data} is taken for COCO: train, validation" in done.out
    assert f"go on with: retina train {path}" in done.out
    lines = path.read_text().splitlines()
    for above, line in pairwise(lines):
        if re.match(r" *\w+:( |$)", line) and not line.endswith(":"):
            assert " # " in line or above.lstrip().startswith("# "), line
    config = load_experiment(path)
    assert len(build_dataset(config, "train")) == 24
    assert len(build_dataset(config, "validation")) == 8
    assert config.model.backbone.weights is None
    assert "disc (" in path.read_text()
    assert invoke("doctor", path, "--quick", "--output", tmp_path / "doctor").code == 0
    again = invoke("init", synthetic_data, "--output", path, "--from-scratch")
    assert again.code == 2
    assert "is there already; name another file with --output" in again.err


def test_a_source_without_splits_is_split_the_same_way_each_time(
    invoke: Invoke, write_data: WriteData, tmp_path: Path
) -> None:
    text, tree = made(invoke, write_data(count=10), tmp_path)
    assert tree["dataset"]["train"]["leave_out_fraction"] == 0.2
    assert tree["dataset"]["validation"]["fraction"] == 0.2
    assert "retina data split" in text
    config = load_experiment(tmp_path / "my_data.yaml")
    train, validation = (build_dataset(config, name) for name in ("train", "validation"))
    assert (len(train), len(validation)) == (8, 2)
    assert sorted([*train.image_ids.tolist(), *validation.image_ids.tolist()]) == list(range(10))
    assert made(invoke, tmp_path / "photos", tmp_path)[0] == text


def test_the_train_split_alone_is_split_and_a_test_split_can_choose(
    invoke: Invoke, write_data: WriteData, tmp_path: Path
) -> None:
    folder = write_data("train", "test")
    text, tree = made(invoke, folder, tmp_path)
    assert tree["dataset"]["validation"] == {"source": str(folder), "split": "test"}
    assert "test" not in tree["dataset"]
    assert "it has no validation split: its test split chooses" in " ".join(text.split("# "))
    annotations = folder / "test" / "annotations.json"
    without = json.loads(annotations.read_text()) | {"annotations": []}
    annotations.write_text(json.dumps(without))
    text, tree = made(invoke, folder, tmp_path)
    assert tree["dataset"]["validation"]["fraction"] == 0.2
    assert tree["dataset"]["validation"]["split"] == "train"
    assert "its test split has no object to score on" in text
    shutil.rmtree(folder / "train")
    done = invoke("init", folder, "--output", tmp_path / "other.yaml")
    assert done.code == 2
    assert "has no split to train on, only test" in done.err


def test_a_single_image_is_trained_on_without_validation(
    invoke: Invoke, write_data: WriteData, tmp_path: Path
) -> None:
    _, tree = made(invoke, write_data(count=1), tmp_path)
    assert tree["dataset"]["validation"] is None
    assert tree["training"]["batch_size"] == 1


@pytest.mark.parametrize(
    ("names", "mirror", "said"),
    [
        (("cat", "dog"), True, "false where left and right, or text, matter"),
        (("turn_left", "cat"), False, "left and right differ: turn_left"),
        (("cat", "rightHand"), False, "left and right differ: rightHand"),
        (("bright", "leftover"), True, "false where left and right, or text, matter"),
        (("arrow", "cat"), True, "matter to arrow? Then false"),
        (("license-plate", "cat"), True, "matter to license-plate? Then false"),
        (("a", "b", "2"), False, "letters and digits are none when mirrored: a, b, 2"),
    ],
)
def test_names_of_classes_decide_whether_images_are_mirrored(
    names: tuple[str, ...],
    mirror: bool,
    said: str,
    invoke: Invoke,
    write_data: WriteData,
    tmp_path: Path,
) -> None:
    text, tree = made(invoke, write_data(names=names), tmp_path)
    assert tree["augmentation"]["mirror"] is mirror
    assert said in text


def test_any_name_of_a_class_may_stand_in_a_comment(
    invoke: Invoke, write_data: WriteData, tmp_path: Path
) -> None:
    names = ("a: b # c", "line\nbreak", "\u2028{x}", "猫", "\ufffe", "unused")
    text, tree = made(invoke, write_data("train", "val", names=names, count=5), tmp_path)
    told = " ".join(text.replace("#", " ").split())
    assert "猫 (1)" in told
    assert tree["dataset"]["train"]["unused_categories"] == "drop"
    assert "no class, since no image has one: unused" in told


@pytest.mark.parametrize(
    ("side", "size", "expected"),
    [
        (10, (480, 720), 480),  # as large as the images are
        (38, (480, 720), 320),
        (38, (720, 480), 320),
        (50, (480, 720), 240),
        ((100, 13), (480, 720), 320),  # small ones among large ones
        (10, (256, 384), 240),  # next to nothing is to be had
    ],
)
def test_the_input_follows_the_objects(
    side: int | tuple[int, ...],
    size: tuple[int, int],
    expected: int,
    invoke: Invoke,
    write_data: WriteData,
    tmp_path: Path,
) -> None:
    text, tree = made(invoke, write_data("train", "val", side=side, size=size), tmp_path)
    assert tree["preset"] == "own_data"
    assert tree["preprocess"]["min_size"] == expected
    assert tree["preprocess"]["max_size"] == pytest.approx(expected * 5 / 3, abs=1)
    told = " ".join(text.replace("#", " ").split())
    middle = max(side) if isinstance(side, tuple) else side
    here = f"half of the boxes have at most {middle * expected / 480:.1f} pixels here"
    assert (here in told) == (expected > 240)
    assert (f"at 240 {middle / 2:.1f} and" in told) == (expected > 240)
    assert "anchors" not in tree["model"]  # the assigner adapts to each object


def test_changes_decide_whether_the_input_follows(write_data: WriteData) -> None:
    facts = look_at(write_data(side=10, size=(480, 720)), device="cpu")
    for override, sizes, why in (
        ("training.epochs=3", {480}, "half of the boxes have at most 10.0 pixels here"),
        ("preprocess.max_size=400", {240}, ""),
        ("preset=retinanet", {320, 384, 480}, "at 240 anchors match 0% of the boxes, here"),
    ):
        choices = make_recipe(facts, [override]).choices
        (choice,) = (choice for choice in choices if choice.key == "preprocess.min_size")
        assert choice.value in sizes
        assert why in choice.why


def test_weights_follow_what_is_asked_for(
    invoke: Invoke, write_data: WriteData, tmp_path: Path
) -> None:
    folder = write_data()
    _, tree = made(invoke, folder, tmp_path)
    assert tree["model"]["backbone"]["weights"] == "IMAGENET1K_V1"
    assert tree["device"] == "cpu"
    # Five images are a batch of one: its statistics are noise, those of the weights are not.
    assert tree["training"]["batch_size"] == 1
    assert load_experiment(tmp_path / "my_data.yaml").model.backbone.norm == "frozen"
    assert tree["optimizer"]["backbone_lr_factor"] == 0.1
    assert tree["optimizer"]["lr"] == pytest.approx(2e-3 * 8**-0.5, rel=0.01)
    _, tree = made(invoke, folder, tmp_path, "--from-scratch")
    assert tree["model"]["backbone"]["weights"] is None
    assert tree["model"]["backbone"]["frozen_stages"] == 0
    assert tree["optimizer"]["backbone_lr_factor"] == 1
    assert (tree["training"]["batch_size"], tree["model"]["backbone"]["norm"]) == (4, "batch")
    done = invoke("doctor", tmp_path / "my_data.yaml", "--quick", "--output", tmp_path / "doctor")
    assert "from_scratch_small_set" in done.out
    assert "too_few_steps" not in done.out


def test_the_length_is_stated_in_steps(
    invoke: Invoke, write_data: WriteData, tmp_path: Path
) -> None:
    text, tree = made(invoke, write_data(count=40), tmp_path)  # 8 of them are for validation
    training = tree["training"]
    assert (training["epochs"], training["min_steps"], training["evaluations"]) == (100, 1000, 10)
    assert "so many at least, however few the images are: 250 passes" in text
    assert training["batch_size"] == 8
    assert tree["optimizer"]["lr"] == 2e-3
    assert "0.002 at 8 images a step for resnet18 from ImageNet weights" in (
        " ".join(text.replace("#", " ").split())
    )
    done = invoke("doctor", tmp_path / "my_data.yaml", "--quick", "--output", tmp_path / "doctor")
    assert done.code == 0, done.out
    assert "warning" not in done.out


def test_a_longer_training_suits_random_weights(
    invoke: Invoke, write_data: WriteData, tmp_path: Path
) -> None:
    folder = write_data(count=250)  # 25 batches of 8 without those for validation
    for options, epochs, steps in (((), 40, 1000), (("--from-scratch",), 60, 1500)):
        text, tree = made(invoke, folder, tmp_path, *options)
        assert (tree["training"]["epochs"], tree["training"]["min_steps"]) == (epochs, steps)
        told = " ".join(text.replace("#", " ").split())
        assert f"25 steps each, {steps} in all: about {steps} suit a CPU" in told


@pytest.mark.usefixtures("tiny_config")
def test_a_folder_is_trained_on_and_gone_on_with(
    invoke: Invoke, write_data: WriteData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_data("train", "val")
    monkeypatch.chdir(tmp_path)
    train = ("train", folder, "--from-scratch", "--device", "cpu", "preset=retinanet", *QUICK)
    first = invoke(*train, "training.max_steps=2")
    assert first.code == 0, first.err
    run = Path("runs/photos")
    assert f"{run / 'init.yaml'}: the config, with the reason at each line" in first.out
    assert "done: 2 steps" in first.out
    by_init, by_train = first.out.split("the config, with the reason at each line\n")
    assert "train: 5 images, 5 boxes" in by_init
    said = {line.strip() for line in by_init.splitlines()}
    assert said.isdisjoint(line.strip() for line in by_train.splitlines())
    assert (run / "checkpoints/last.safetensors").is_file()
    made = (run / "init.yaml").read_text()
    assert "64 × 96" in made  # measured with the changes: the classic head's anchors are fitted
    again = invoke(*train)
    assert again.code == 2
    assert "holds a run already; go on with it with --resume" in again.err
    resumed = invoke(*train, "training.max_steps=3", "--resume")
    assert resumed.code == 0, resumed.err
    assert "done: 3 steps" in resumed.out
    elsewhere = invoke(*train, "training.max_steps=1", "output_dir=other", "--resume")
    assert elsewhere.code == 0, elsewhere.err
    assert load_experiment("other/init.yaml").output_dir == Path("other")
    no_data = invoke("train", run)
    assert no_data.code == 2
    assert "is the folder of a run, and no data" in no_data.err


def test_data_without_a_box_is_refused_before_anything_is_written(
    write_data: WriteData, invoke: Invoke, tmp_path: Path
) -> None:
    file = write_data() / "annotations.json"
    tree = json.loads(file.read_text())
    del tree["annotations"]  # as in the file of a test split
    file.write_text(json.dumps(tree))
    done = invoke("init", file.parent, "--from-scratch", "--output", tmp_path / "made.yaml")
    assert done.code == 2
    assert "there is nothing to learn: none of its 5 images to train on has a box" in done.err
    assert not (tmp_path / "made.yaml").exists()


def test_what_is_no_data_and_no_config_is_said(invoke: Invoke, tmp_path: Path) -> None:
    for words, said in (
        (["train", tmp_path / "nothing"], "no such file or folder"),
        (["train", tmp_path / "nothing.yaml"], "no such config file"),
        (["init", tmp_path / "nothing"], "no such file or folder"),
        (["init", tmp_path], "holds no data set that can be read"),
    ):
        done = invoke(*words)
        assert done.code == 2
        assert said in done.err
        assert len(done.err.splitlines()) == 1


def test_several_processes_need_a_config(
    invoke: Invoke, write_data: WriteData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = invoke("train", write_data())
    assert done.code == 2
    assert "make a config with retina init" in done.err


def test_a_config_can_be_trained_without_its_pretrained_weights(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    backbone = "{weights: IMAGENET1K_V1, frozen_stages: 2, norm: frozen}"
    done = invoke(
        "train", tiny_config, "--from-scratch", "training.max_steps=1", "dataset.validation=null",
        f"model.backbone={backbone}", f"output_dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert done.code == 0, done.err
    backbone = load_experiment(tmp_path / "run/config.yaml").model.backbone
    assert (backbone.weights, backbone.frozen_stages, backbone.norm) == (None, 0, "batch")


def test_all_that_a_message_without_a_network_offers_works(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With frozen stages, as the templates have them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    # urllib keeps the opener, and with it the proxies, of its first use in a process.
    monkeypatch.setattr(urllib.request, "_opener", None)
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # nobody listens there

    def train(run: str, *words: str | Path) -> Done:
        backbone = "{kind: resnet, name: resnet18, weights: IMAGENET1K_V1, frozen_stages: 2}"
        return invoke(
            "train", tiny_config, "training.max_steps=1", "dataset.validation=null",
            f"model.backbone={backbone}", f"output_dir={tmp_path / run}", *words,
        )  # fmt: skip

    refused = train("refused")
    assert refused.code == 2
    message = refused.err.splitlines()[-1]
    kept = tmp_path / "torch/hub/checkpoints/resnet18-f37072fd.pth"
    assert f"put it at {kept}; or give model.backbone.weights=FILE; or start from" in message
    assert message.endswith("--from-scratch of retina train and retina init")
    assert "null" not in message

    file = tmp_path / "mine.pth"
    torch.save(torchvision.models.resnet18().state_dict(), file)
    for run, word in (("file", f"model.backbone.weights={file}"), ("scratch", "--from-scratch")):
        done = train(run, word)
        assert done.code == 0, done.err
    kept.parent.mkdir(parents=True, exist_ok=True)
    file.rename(kept)
    assert train("kept").code == 0


@pytest.mark.parametrize(
    "name",
    [
        "chess",
        *(
            pytest.param(one, marks=pytest.mark.slow)
            for one in ("bccd", "coco_permissive", "raccoon")
        ),
    ],
)
def test_public_sets(name: str, invoke: Invoke, shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / name
    path = tmp_path / "my_data.yaml"
    done = invoke("init", source, "--output", path, "--from-scratch", "--device", "cpu")
    if "holds no data set that can be read" in done.err:
        pytest.skip(f"{name}: its format is not read yet")
    assert done.code == 0, done.err
    config = load_experiment(path)
    assert config.dataset.validation is not None
    assert invoke("doctor", path, "--quick", "--output", tmp_path / "doctor").code == 0


@pytest.mark.usefixtures("tiny_config")
def test_a_yaml_file_of_data_is_data(
    invoke: Invoke, write_data: WriteData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = write_data() / "images"
    folder = tmp_path / "yolo"
    for split in ("train", "valid"):
        shutil.copytree(images, folder / split / "images")
        (folder / split / "labels").mkdir()
        for path in images.iterdir():
            (folder / split / "labels" / f"{path.stem}.txt").write_text("0 0.5 0.5 0.25 0.25\n")
    data = folder / "data.yaml"
    data.write_text("train: ../train/images\nval: ../valid/images\nnc: 1\nnames: [cat]\n")
    assert not is_config(data)
    done = invoke("train", data, "--from-scratch", "training.max_steps=1", *QUICK)
    assert done.code == 0, done.err
    assert "is taken for YOLO: train, validation" in done.out
    assert (tmp_path / "runs/yolo/init.yaml").is_file()
    for key in ("model", "training", "preset"):
        data.write_text(f"names: [cat]\n{key}: null\n")
        assert is_config(data)
