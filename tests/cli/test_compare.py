"""``retina compare``: what it takes, what it refuses, and its exit codes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from retina.__main__ import main

NUM_IMAGES = 24


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in this process."""

    def call(*words: Any) -> Done:
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "argv", ["retina", *map(str, words)])
        try:
            main()
            code: Any = 0
        except SystemExit as error:
            code = error.code or 0
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return call


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    tree = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 99, "height": 99} for i in range(NUM_IMAGES)
        ],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 7, "bbox": [10, 10, 40, 40], "area": 1600}
            for i in range(NUM_IMAGES)
        ],
    }
    (tmp_path / "data").mkdir()
    path = tmp_path / "data/val.json"
    path.write_text(json.dumps(tree))
    return path


def results(path: Path, found: Sequence[int]) -> Path:
    path.write_text(
        json.dumps(
            [
                {"image_id": i, "category_id": 7, "bbox": [10, 10, 40, 40], "score": 0.8}
                for i in found
            ]
        )
    )
    return path


@pytest.fixture
def evaluated(run: Run, truth: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes an evaluation folder in which so many cats are found."""

    def make(name: str, num_found: int, *more: str, annotations: Path = truth) -> Path:
        file = results(tmp_path / f"{name}.json", range(num_found))
        folder = tmp_path / name
        done = run(
            "evaluate", "--detections", file, "--annotations", annotations, "--output", folder,
            *more,
        )  # fmt: skip
        assert done.code == 0, done.err
        return folder

    return make


def test_folders_say_what_they_were_scored_on(
    run: Run, evaluated: Callable[..., Path], tmp_path: Path
) -> None:
    a, b = evaluated("a", 24), evaluated("b", 12)
    done = run("compare", a, b, "--output", tmp_path / "out")
    assert done.code == 0, done.err
    assert "B is worse than A: AP −0.49" in done.out
    assert max(map(len, done.out.split("objects found")[0].splitlines()[4:])) <= 80
    told = json.loads((tmp_path / "out/comparison.json").read_text())
    assert told["ground_truth"]["num_objects"] == NUM_IMAGES
    (pair,) = told["pairs"]
    assert pair["numbers"]["AP"]["change"] == pytest.approx(51 / 101 - 1)
    assert pair["best_f1"]["all"]["only_first"] == 12
    assert pair["best_f1"]["images_worse"][0]["only_first"]
    assert (tmp_path / "out/comparison.html").read_text().startswith("<!doctype html>")


def test_a_run_folder_and_a_results_file_beside_its_truth_will_do(
    run: Run, evaluated: Callable[..., Path], tmp_path: Path
) -> None:
    a, b = evaluated("a", 24), evaluated("b", 24)
    (tmp_path / "run").mkdir()
    shutil.move(a, tmp_path / "run/evaluation")
    done = run("compare", tmp_path / "run", b / "detections.json")
    assert done.code == 0, done.err
    assert "no difference can be shown with 24 images" in done.out


def test_results_files_need_the_annotations(run: Run, truth: Path, tmp_path: Path) -> None:
    a, b = results(tmp_path / "a.json", range(24)), results(tmp_path / "b.json", range(20))
    done = run("compare", a, b)
    assert done.code == 2
    assert f"error: {a}: nothing there says what it was scored against" in done.err
    assert "--annotations FILE or --data SOURCE" in done.err
    done = run("compare", a, b, "--annotations", truth)
    assert done.code == 0, done.err
    assert "B is worse than A" in done.out
    gone = run("compare", a, b, "--annotations", tmp_path / "gone.json")
    assert gone.code == 2
    assert "no such annotation file" in gone.err


def test_evaluations_of_some_images_are_compared_on_these(
    run: Run, evaluated: Callable[..., Path], truth: Path, tmp_path: Path
) -> None:
    (tmp_path / "some.txt").write_text("\n".join(map(str, range(6, 20))))
    only = ("--image-list", str(tmp_path / "some.txt"))
    a, b = evaluated("a", 24, *only), evaluated("b", 13, *only)
    for named in ((), ("--annotations", truth)):
        done = run("compare", a, b, *named, "--output", tmp_path / "out")
        assert done.code == 0, done.err
        told = json.loads((tmp_path / "out/comparison.json").read_text())
        assert told["ground_truth"]["num_images"] == 14
        (pair,) = told["pairs"]
        assert pair["best_f1"]["all"]["only_first"] == 7  # of the images 13 to 19
    whole = evaluated("whole", 24)
    done = run("compare", a, whole)
    assert done.code == 2
    assert "14 against 24 images" in done.err
    tree = json.loads(truth.read_text())
    tree["images"], tree["annotations"] = tree["images"][:10], tree["annotations"][:10]
    truth.write_text(json.dumps(tree))
    done = run("compare", a, b)
    assert done.code == 2
    assert "the image with the id 10 was scored and is not in it now" in done.err


def test_different_truths_are_refused(
    run: Run, evaluated: Callable[..., Path], truth: Path, tmp_path: Path
) -> None:
    tree = json.loads(truth.read_text())
    tree["annotations"][0]["bbox"] = [10, 10, 40, 41]
    other = tmp_path / "data/other.json"
    other.write_text(json.dumps(tree))
    a, b = evaluated("a", 24), evaluated("b", 24, annotations=other)
    done = run("compare", a, b)
    assert done.code == 2
    assert "different truths" in done.err
    assert "other image ids, boxes or labels" in done.err
    del tree["annotations"][:2], tree["images"][:2]
    tree["categories"][0]["name"] = "dog"
    other.write_text(json.dumps(tree))
    c = tmp_path / "c"
    file = results(tmp_path / "c.json", range(2, 9))
    run("evaluate", "--detections", file, "--annotations", other, "--output", c)
    done = run("compare", a, c)
    assert done.code == 2
    for told in ("24 against 22 images", "24 against 22 objects", "cat / dog"):
        assert told in done.err
    tree["categories"][0]["name"] = "cat"
    other.write_text(json.dumps(tree))
    named = run("compare", a, a, "--annotations", other)
    assert named.code == 2
    assert "was scored against another truth than the one that is named" in named.err


def test_data_that_has_moved_or_changed_is_told(
    run: Run, evaluated: Callable[..., Path], truth: Path, tmp_path: Path
) -> None:
    a, b = evaluated("a", 24), evaluated("b", 24)
    moved = tmp_path / "moved.json"
    shutil.move(truth, moved)
    done = run("compare", a, b)
    assert done.code == 2
    assert f"{a / 'ground_truth.json'}: its data set cannot be read" in done.err
    assert run("compare", a, b, "--annotations", moved).code == 0
    tree = json.loads(moved.read_text())
    del tree["annotations"][0]
    truth.write_text(json.dumps(tree))
    done = run("compare", a, b)
    assert done.code == 2
    assert "has changed since: 24 against 23 objects" in done.err


def test_a_folder_of_before_needs_the_annotations(
    run: Run, evaluated: Callable[..., Path], truth: Path
) -> None:
    a, b = evaluated("a", 24), evaluated("b", 24)
    (b / "ground_truth.json").unlink()
    done = run("compare", a, b)
    assert done.code == 2
    assert "an evaluation by a version of before" in done.err
    assert run("compare", a, b, "--annotations", truth).code == 0


def test_numbers_and_detections_of_two_evaluations_are_told(
    run: Run, evaluated: Callable[..., Path]
) -> None:
    a, b = evaluated("a", 24), evaluated("b", 12)
    shutil.copy(a / "metrics.json", b / "metrics.json")
    done = run("compare", a, b)
    assert done.code == 0
    assert "says AP 1.0000, but its detections.json gives 0.5050" in done.out
    c = evaluated("c", 24, "--max-detections", "50")
    done = run("compare", a, c)
    assert done.code == 2
    assert "the same --max-detections" in done.err


@pytest.mark.parametrize(
    ("num_found", "most", "code"), [(12, "0.4", 1), (12, "0.6", 0), (24, "0", 0), (23, "0", 1)]
)
def test_a_build_fails_where_the_last_is_worse(
    num_found: int, most: str, code: int, run: Run, evaluated: Callable[..., Path]
) -> None:
    """By the number as it is measured: 23 of 24 is within the interval, and worse."""
    a, b, c = evaluated("a", 24), evaluated("b", 3), evaluated("c", num_found)
    done = run("compare", a, b, c, "--fail-if-worse", most)
    assert done.code == code
    assert f"--fail-if-worse {most}: the AP of C is " in done.out + done.err
    assert ("worse" in done.err) == bool(code)


def test_a_build_cannot_pass_on_nothing(run: Run, truth: Path, tmp_path: Path) -> None:
    tree = json.loads(truth.read_text())
    tree["annotations"] = []
    truth.write_text(json.dumps(tree))
    a = results(tmp_path / "a.json", range(2))
    done = run("compare", a, a, "--annotations", truth, "--fail-if-worse", "0.01")
    assert done.code == 2
    assert "the truth has no object" in done.err


def test_what_is_no_evaluation_is_refused(
    run: Run, evaluated: Callable[..., Path], tmp_path: Path
) -> None:
    a = evaluated("a", 24)
    detector = tmp_path / "best.safetensors"
    detector.write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for words, told in (
        ((a,), "1 evaluation given: name two at least"),
        ((a, tmp_path / "gone"), "no such folder or file"),
        ((a, detector), "a detector is evaluated first: retina evaluate"),
        ((a, tmp_path / "empty"), "write them with retina evaluate DETECTOR"),
        ((a, a, "--images", tmp_path), "--images and --split need"),
    ):
        done = run("compare", *words)
        assert done.code == 2, words
        assert told in done.err
        assert done.err.startswith("error: ")


def test_one_truth_whose_formats_number_the_classes_otherwise(
    run: Run, truth: Path, tmp_path: Path
) -> None:
    tree = json.loads(truth.read_text())
    tree["categories"] = [{"id": 1, "name": "b"}, {"id": 2, "name": "a"}]
    for one in tree["annotations"]:
        one["category_id"] = 1 + one["id"] % 2
    found = [{"image_id": i, "category_id": 1 + i % 2} for i in range(NUM_IMAGES)]
    rows = [one | {"bbox": [10, 10, 40, 40], "score": 0.8} for one in found]
    folders = []
    for name, new_id in (("as", {1: 1, 2: 2}), ("swapped", {1: 2, 2: 1})):
        changed = json.loads(json.dumps(tree))
        for one in changed["categories"]:
            one["id"] = new_id[one["id"]]
        for one in changed["annotations"]:
            one["category_id"] = new_id[one["category_id"]]
        (tmp_path / f"{name}.json").write_text(json.dumps(changed))
        swapped = [row | {"category_id": new_id[int(row["category_id"])]} for row in rows]
        (tmp_path / f"{name}_found.json").write_text(json.dumps(swapped))
        folders.append(tmp_path / name)
        done = run(
            "evaluate", "--detections", tmp_path / f"{name}_found.json", "--annotations",
            tmp_path / f"{name}.json", "--output", folders[-1], "--no-report",
        )  # fmt: skip
        assert done.code == 0, done.err
    done = run("compare", *folders, "--output", tmp_path / "out")
    assert done.code == 0, done.err
    (pair,) = json.loads((tmp_path / "out/comparison.json").read_text())["pairs"]
    assert pair["numbers"]["AP"]["change"] == 0
    assert "they are not of one evaluation" not in done.out


@pytest.fixture
def two_files(tmp_path: Path) -> list[Path]:
    """Two annotation files whose ids coincide, with the classes numbered the other way round.

    In each image of the first is a cat, in each of the second a dog.
    """
    files = []
    for number, classes in enumerate((("cat", "dog"), ("dog", "cat"))):
        tree = {
            "images": [
                {"id": i, "file_name": f"{number}_{i}.jpg", "width": 99, "height": 99}
                for i in range(NUM_IMAGES)
            ],
            "categories": [{"id": at, "name": name} for at, name in enumerate(classes, 1)],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1, "bbox": [10, 10, 40, 40], "area": 1600}
                for i in range(NUM_IMAGES)
            ],
        }
        files.append(tmp_path / f"truth_{number}.json")
        files[-1].write_text(json.dumps(tree))
    return files


def found_in(path: Path, images: Sequence[int]) -> Path:
    results(path, images)
    path.write_text(path.read_text().replace('"category_id": 7', '"category_id": 1'))
    return path


def test_evaluations_of_several_annotation_files(
    run: Run, two_files: list[Path], tmp_path: Path
) -> None:
    """B misses half of the dogs of the second file."""
    (tmp_path / "some.txt").write_text("\n".join(map(str, range(8, 20))))
    only = ("--image-list", tmp_path / "some.txt")
    annotated = [word for file in two_files for word in ("--annotations", file)]
    for more, num_images, num_lost in (((), 48, 12), (only, 24, 8)):
        folders = []
        for name, dogs in (("a", range(24)), ("b", range(12))):
            files = [
                found_in(tmp_path / f"{name}0.json", range(24)),
                found_in(tmp_path / f"{name}1.json", dogs),
            ]
            folders.append(tmp_path / name)
            given = [word for file in files for word in ("--detections", file)]
            done = run(
                "evaluate", *given, *annotated, *more, "--output", folders[-1], "--no-report"
            )
            assert done.code == 0, done.err
            kept = [folders[-1] / f"detections_{number}.json" for number in (1, 2)]
            assert [one.read_text() for one in kept] == [one.read_text() for one in files]
        for named in ((), annotated):
            done = run("compare", *folders, *named, "--output", tmp_path / "out")
            assert done.code == 0, done.err
            assert "they are not of one evaluation" not in done.out
            told = json.loads((tmp_path / "out/comparison.json").read_text())
            assert told["ground_truth"]["num_images"] == num_images
            (pair,) = told["pairs"]
            assert pair["best_f1"]["all"]["only_first"] == num_lost
            by_name = {one["name"]: one for one in pair["classes"]}
            assert (by_name["cat"]["first"], by_name["cat"]["change"]) == (1.0, 0.0)
            assert by_name["dog"]["change"] < -0.4
    told = run("compare", *folders, *annotated[:2])
    assert told.code == 2
    assert "error:" in told.err


def test_results_files_that_lie_in_the_folder_are_kept(
    run: Run, two_files: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "scored"
    folder.mkdir()
    first, second = folder / "detections_1.json", folder / "detections_2.json"
    found_in(first, range(3)), found_in(second, range(5))
    annotated = [word for file in two_files for word in ("--annotations", file)]
    texts = first.read_text(), second.read_text()
    turned = ("--detections", second, "--detections", first)
    done = run("evaluate", *turned, *annotated, "--output", folder, "--no-report")
    assert done.code == 0, done.err
    assert (second.read_text(), first.read_text()) == texts


def test_an_evaluation_of_several_files_without_a_record(
    run: Run, two_files: list[Path], tmp_path: Path
) -> None:
    """As versions of before have written it: the files must be named, all of them."""
    annotated = [word for file in two_files for word in ("--annotations", file)]
    found = found_in(tmp_path / "found.json", range(9))
    folder = tmp_path / "scored"
    given = ("--detections", found, "--detections", found)
    run("evaluate", *given, *annotated, "--output", folder, "--no-report")
    (folder / "ground_truth.json").unlink()
    done = run("compare", folder, folder)
    assert done.code == 2
    assert "nothing there says what it was scored against" in done.err
    done = run("compare", folder, folder, *annotated[:2])
    assert done.code == 2
    assert "has 2 results files, one for each annotation file: name all of these" in done.err
    done = run("compare", folder, folder, *annotated)
    assert done.code == 0, done.err
    assert "AP is the same in every resample" in done.out


def test_one_results_file_for_several_annotation_files(
    run: Run, two_files: list[Path], tmp_path: Path
) -> None:
    tree = json.loads(two_files[1].read_text())
    tree["categories"] = tree["categories"][::-1]
    for row, one in enumerate(tree["categories"], 1):
        one["id"] = row
    for image in tree["images"]:
        image["id"] += 100
    for one in tree["annotations"]:
        one |= {"image_id": one["image_id"] + 100, "category_id": 2}
    two_files[1].write_text(json.dumps(tree))
    found = found_in(tmp_path / "found.json", range(NUM_IMAGES))
    annotated = [word for file in two_files for word in ("--annotations", file)]
    folder = tmp_path / "scored"
    done = run("evaluate", "--detections", found, *annotated, "--output", folder, "--no-report")
    assert done.code == 0, done.err
    done = run("compare", folder, folder / "detections.json", "--output", tmp_path / "out")
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "out/comparison.json").read_text())
    assert told["ground_truth"]["num_images"] == 48
    assert told["pairs"][0]["best_f1"]["all"]["both"] == NUM_IMAGES
