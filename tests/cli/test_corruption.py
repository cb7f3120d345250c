"""`retina data corrupt`: both files, what is told, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Invoke  # type: ignore[import-not-found]


@pytest.fixture
def source(synthetic_data: Path) -> list[str | Path]:
    train = synthetic_data / "train"
    return ["--images", train / "images", "--annotations", train / "annotations.json"]


def test_it_writes_both_files_and_says_what_it_did(
    source: list[str | Path], tmp_path: Path, invoke: Invoke
) -> None:
    output = tmp_path / "new" / "noisy"
    done = invoke("data", "corrupt", *source, "--rate", "0.2", "--output", output)
    assert done.code == 0, done.err
    listed = json.loads((output / "corruption.json").read_text())
    assert listed["rates"]["missing"] == 0.05
    each = round(0.05 * listed["num_objects"])
    assert each > 0
    told = f"{4 * each} errors in {listed['num_objects']} objects, seed 0: {each} missing"
    assert told in done.out
    assert f"{source[3]}: 24 images, " in done.out  # the report of what was read
    assert len(listed["corruptions"]) == 4 * each


def test_the_image_names_hold_from_the_new_place(
    source: list[str | Path], tmp_path: Path, invoke: Invoke
) -> None:
    done = invoke("data", "corrupt", *source, "--rate", "0.2", "--output", tmp_path)
    assert done.code == 0, done.err
    before, after = (
        json.loads(path.read_text()) for path in (Path(source[3]), tmp_path / "annotations.json")
    )
    names = [one["file_name"] for one in after["images"]]
    assert names == [one["file_name"] for one in before["images"]]
    assert all((Path(source[1]) / name).is_file() for name in names)
    checked = invoke(
        "data", "check", "--images", source[1], "--annotations", tmp_path / "annotations.json"
    )
    assert checked.code == 0, checked.err
    assert "every image can be used" in checked.out


def test_pascal_voc_and_its_split_are_read(
    shared_data: Path, tmp_path: Path, invoke: Invoke
) -> None:
    bccd = shared_data / "bccd"
    done = invoke(
        "data", "corrupt", "--images", bccd / "JPEGImages", "--annotations", bccd / "Annotations",
        "--split", bccd / "ImageSets/Main/test.txt", "--missing", "0.1", "--output", tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert len(content["images"]) == 72
    assert len(content["annotations"]) == 945 - 94
    assert (bccd / "JPEGImages" / content["images"][0]["file_name"]).is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say how many errors: --rate 0.1, or"),
        (["--rate", "0.1", "--missing", "0.1"], "either --rate, or the rates of single kinds"),
        (["--spurious", "-1"], "the rate of spurious must be within 0 … 1, is -1.0; it is a share"),
        (["--rate", "5"], "the rate of all errors must be within 0 … 1, is 5.0; it is a share"),
        (["--missing", "0.6", "--shifted", "0.6"], "together change 120% of the objects"),
    ],
)
def test_wrong_rates_are_explained_before_anything_is_written(
    options: list[str], message: str, source: list[str | Path], tmp_path: Path, invoke: Invoke
) -> None:
    done = invoke("data", "corrupt", *source, *options, "--output", tmp_path / "noisy")
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "noisy").exists()


def test_its_input_is_not_written_over(
    source: list[str | Path], tmp_path: Path, invoke: Invoke
) -> None:
    copy = Path(shutil.copy(source[3], tmp_path / "annotations.json"))
    before = copy.read_text()
    done = invoke(
        "data", "corrupt", *source[:2], "--annotations", copy, "--rate", "0.1",
        "--output", tmp_path,
    )  # fmt: skip
    assert done.code == 2
    assert "would write over the annotations themselves" in done.err
    assert copy.read_text() == before


def test_no_part_of_its_input_is_written_over(
    source: list[str | Path], tmp_path: Path, invoke: Invoke
) -> None:
    copy = Path(shutil.copy(source[3], tmp_path / "annotations.json"))
    before = copy.read_text()
    parts = [{"images": str(source[1]), "annotations": str(one)} for one in (source[3], copy)]
    config = tmp_path / "config.yaml"
    dataset = {"train": {"kind": "concatenated", "parts": parts}}
    config.write_text(json.dumps({"output_dir": "run", "dataset": dataset}))
    done = invoke("data", "corrupt", config, "--rate", "0.1", "--output", tmp_path)
    assert done.code == 2
    assert "would write over the annotations themselves" in done.err
    assert copy.read_text() == before


@pytest.mark.parametrize("name", ["annotations.json", "corruption.json"])
def test_a_foreign_file_is_not_written_over(
    name: str, source: list[str | Path], tmp_path: Path, invoke: Invoke
) -> None:
    foreign = tmp_path / name
    foreign.write_text('{"images": []}')
    done = invoke("data", "corrupt", *source, "--rate", "0.1", "--output", tmp_path)
    assert done.code == 2
    assert f"{foreign}: is there already, and not from this command" in done.err
    assert foreign.read_text() == '{"images": []}'
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_its_own_files_are_replaced(
    source: list[str | Path], tmp_path: Path, invoke: Invoke
) -> None:
    for seed in ("0", "1"):
        done = invoke(
            "data", "corrupt", *source, "--rate", "0.1", "--seed", seed, "--output", tmp_path
        )
        assert done.code == 0, done.err
    assert json.loads((tmp_path / "corruption.json").read_text())["seed"] == 1
