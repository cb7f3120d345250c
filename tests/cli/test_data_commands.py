"""`retina data …` and scoring files, on small data of known content."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Invoke  # type: ignore[import-not-found]

ORACLE = {
    "AP": 0.5045807, "AP50": 0.6969727, "AP75": 0.5729817, "APs": 0.5856257, "APm": 0.5193997,
    "APl": 0.5013979, "AR1": 0.3868128, "AR10": 0.5936796, "AR100": 0.5953530, "ARs": 0.6398110,
    "ARm": 0.5664206, "ARl": 0.5642906,
}  # fmt: skip


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
def test_the_oracles_twelve_numbers(
    invoke: Invoke, shared_data: Path, tmp_path: Path, backend: str
) -> None:
    oracle = shared_data / "coco_eval_oracle"
    done = invoke(
        "evaluate", "--detections", oracle / "instances_val2014_fakebbox100_results.json",
        "--annotations", oracle / "instances_val2014_100.json", "--backend", backend,
        "--output", tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for name, value in ORACLE.items():
        assert metrics[name] == pytest.approx(value, abs=1e-6), name


def test_synth_says_what_it_made_and_keeps_it(invoke: Invoke, tmp_path: Path) -> None:
    command = ["data", "synth", tmp_path / "set", "--images", "20", "--validation-images", "20"]
    first = invoke(*command)
    assert first.code == 0, first.err
    assert "created" in first.out
    assert "train: 20 images (1 empty)" in first.out
    assert "20 : 1" in first.out
    stamp = (tmp_path / "set/train/annotations.json").stat().st_mtime_ns
    assert "is there already" in invoke(*command).out
    assert (tmp_path / "set/train/annotations.json").stat().st_mtime_ns == stamp
    assert "replaced" in invoke(*command, "--seed", "5").out


def test_stats_prints_imbalance_small_and_hidden_shares(
    invoke: Invoke, synthetic_data: Path
) -> None:
    train = synthetic_data / "train"
    done = invoke(
        "data", "stats", "--images", train / "images", "--annotations", train / "annotations.json"
    )
    assert done.code == 0, done.err
    for words in ("commonest : rarest class", "small / medium / large", "hidden by at least 10%"):
        assert words in done.out


def test_check_lists_broken_images_and_exits_with_1(
    invoke: Invoke, synthetic_data: Path, tmp_path: Path
) -> None:
    source = synthetic_data / "validation"
    (tmp_path / "images").mkdir()
    for image in (source / "images").iterdir():
        (tmp_path / "images" / image.name).write_bytes(image.read_bytes())
    arguments = [
        "data", "check", "--images", tmp_path / "images",
        "--annotations", source / "annotations.json",
    ]  # fmt: skip
    fine = invoke(*arguments)
    assert fine.code == 0, fine.err
    assert "every image can be used" in fine.out
    broken = sorted((tmp_path / "images").iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:300])
    done = invoke(*arguments)
    assert done.code == 1
    assert "1 image cannot be used" in done.out
    assert broken.name in done.out


def test_convert_writes_coco_that_reads_back_the_same(
    invoke: Invoke, shared_data: Path, tmp_path: Path
) -> None:
    bccd = shared_data / "bccd"
    output = tmp_path / "test.json"
    done = invoke(
        "data", "convert", "--images", bccd / "JPEGImages", "--annotations", bccd / "Annotations",
        "--split", bccd / "ImageSets/Main/test.txt", "--output", output,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "72 images, 945 boxes, 3 categories" in done.out
    checked = invoke("data", "check", "--images", bccd / "JPEGImages", "--annotations", output)
    assert "72 images, 945 boxes" in checked.out


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_convert_writes_all_splits_with_their_images(
    invoke: Invoke, synthetic_data: Path, tmp_path: Path, to: str
) -> None:
    done = invoke("data", "convert", synthetic_data, "--to", to, "--output", tmp_path / "out")
    assert done.code == 0, done.err
    for split, line in zip(("train", "validation"), done.out.splitlines(), strict=False):
        assert f"out, {split}: " in line
        counts = line.partition(": ")[2].partition(", 10 categories")[0]
        assert counts in invoke("data", "check", synthetic_data, "--split", split).out
    assert ("crowd regions left out" in done.out) == (to == "yolo")
    before, after = (
        sorted(path.stat().st_ino for path in folder.rglob("*.jpg"))
        for folder in (synthetic_data, tmp_path / "out")
    )
    assert after == before
    again = invoke("data", "convert", synthetic_data, "--to", to, "--output", tmp_path / "out")
    assert again.code == 2
    assert "data sets are not mixed" in again.err


def test_convert_refuses_what_makes_no_sense(
    invoke: Invoke, synthetic_data: Path, tmp_path: Path
) -> None:
    one = invoke("data", "convert", synthetic_data, "--to", "yolo", "--output", tmp_path / "x.json")
    assert one.code == 2
    assert "a single file is COCO's" in one.err
    two = invoke("data", "convert", synthetic_data, "--to", "yollo", "--output", tmp_path / "x")
    assert two.code == 2
    assert "did you mean 'yolo'" in two.err
    file = synthetic_data / "train/annotations.json"
    before = file.read_bytes()
    three = invoke("data", "convert", synthetic_data, "--output", file)
    assert three.code == 2
    assert "is what shall be converted" in three.err
    assert file.read_bytes() == before


def test_a_test_split_without_objects_goes_through_pascal_voc_and_back(
    invoke: Invoke, synthetic_data: Path, tmp_path: Path
) -> None:
    """Pascal VOC names classes at boxes alone: such a split has none of its own."""
    shutil.copytree(synthetic_data / "train", tmp_path / "set/train")
    shutil.copytree(synthetic_data / "validation", tmp_path / "set/test")
    file = tmp_path / "set/test/annotations.json"
    tree = json.loads(file.read_text())
    del tree["annotations"]
    file.write_text(json.dumps(tree))
    for source, kind in (("set", "voc"), ("voc", "coco")):
        done = invoke(
            "data", "convert", tmp_path / source, "--to", kind, "--output", tmp_path / kind
        )
        assert done.code == 0, done.err
        assert f"{tmp_path / kind}, test: {len(tree['images'])} images, 0 boxes" in done.out
    checked = invoke("data", "check", tmp_path / "voc")
    assert checked.code == 0, checked.err
    assert len(json.loads((tmp_path / "coco/test/annotations.json").read_text())["images"]) == len(
        tree["images"]
    )


def test_split_makes_three_splits_that_can_be_trained_on(
    invoke: Invoke, synthetic_data: Path, tmp_path: Path
) -> None:
    whole = synthetic_data / "train"
    command = ["data", "split", whole, "--validation", "0.25", "--test", "0.25", "--output"]
    done = invoke(*command, tmp_path / "parts")
    assert done.code == 0, done.err
    lines = done.out.splitlines()[-3:]
    for line, split, count in zip(lines, ("train", "validation", "test"), (12, 6, 6), strict=True):
        assert line.startswith(f"{tmp_path / 'parts'}, {split}: {count} images, ")
    checked = invoke("data", "check", tmp_path / "parts")
    assert checked.code == 0, checked.err
    assert checked.out.splitlines()[-1] == "every image can be used"
    assert "share images" not in checked.out
    invoke(*command, tmp_path / "again")
    for split in ("train", "validation", "test"):
        one, two = (
            (tmp_path / name / split / "annotations.json").read_bytes()
            for name in ("parts", "again")
        )
        assert one == two
    small = invoke("data", "split", whole, "--validation", "0.04", "--output", tmp_path / "small")
    assert "validation: 1 image, " in small.out
    refused = invoke("data", "split", tmp_path / "parts", "--output", tmp_path / "x")
    assert refused.code == 2
    assert "has the splits train, validation, test already" in refused.err
    empty = invoke("data", "split", whole, "--test", "0.9", "--output", tmp_path / "x")
    assert empty.code == 2
    assert "leave no image for the training" in empty.err


def test_check_looks_at_all_splits_and_draws_what_it_finds(
    invoke: Invoke, synthetic_data: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(synthetic_data, data)
    train, validation = (data / split / "images" for split in ("train", "validation"))
    leaked, broken = sorted(train.iterdir())[3], sorted(train.iterdir())[5]
    copy = sorted(validation.iterdir())[2]
    Image.open(leaked).resize(Image.open(copy).size).save(copy, quality=60)
    broken.write_bytes(broken.read_bytes()[:200])
    path = data / "train/annotations.json"
    tree = json.loads(path.read_text())
    tree["annotations"][0]["bbox"][0] = -9
    tree["categories"][0]["name"] = "<disc>"
    path.write_text(json.dumps(tree))
    done = invoke("data", "check", data, "--output", tmp_path / "page")
    assert done.code == 1, done.err
    assert f"{data}, train: 24 images" in done.out
    assert f"{data}, validation: 8 images" in done.out
    assert "train and validation share images" in done.out
    assert "error: validation would be refused: " in done.out
    assert "1 image cannot be used" in done.out
    counts = [line for line in done.out.splitlines() if line.startswith("32 images, ")]
    assert len(counts) == 1
    page = (tmp_path / "page/check.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 3
    assert "reaching out of the image" in page
    assert "<disc>" not in page
    assert "http" not in page.replace("http-equiv", "")
    alone = invoke("data", "check", data, "--split", "validation")
    assert alone.code == 0, alone.err
    assert "8 images, " in alone.out.splitlines()[-2]


def test_check_ends_with_1_where_nothing_can_be_learned_but_not_where_nothing_shall_be(
    invoke: Invoke, synthetic_data: Path, tmp_path: Path
) -> None:
    images = synthetic_data / "validation" / "images"
    tree = json.loads((synthetic_data / "validation" / "annotations.json").read_text())
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(tree | {"annotations": []}))
    empty = invoke("data", "check", "--annotations", file, "--images", images)
    assert empty.code == 1
    assert "error: none of the 8 training images has a box" in empty.out
    assert empty.out.splitlines()[-1] == "every image can be used"
    del tree["annotations"]  # images to predict for
    file.write_text(json.dumps(tree))
    without = invoke("data", "check", "--annotations", file, "--images", images)
    assert without.code == 0, without.err
    assert "the file has no 'annotations', as that of a test split" in without.out
    assert "error" not in without.out.replace(str(tmp_path), "")


def test_check_does_without_the_doctor(
    invoke: Invoke, synthetic_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import retina.cli.data_check

    monkeypatch.setattr(retina.cli.data_check, "_DOCTOR", "retina.instruments.nobody")
    monkeypatch.setitem(sys.modules, "retina.instruments.doctor.checks", None)
    done = invoke("data", "check", synthetic_data)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "every image can be used"
