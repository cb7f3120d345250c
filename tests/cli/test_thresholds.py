"""``retina thresholds``, and the commands that use what it has chosen."""

from __future__ import annotations

import contextlib
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import retina
from retina.artifact import Artifact, load_artifact
from tests.conftest import Invoke  # type: ignore[import-not-found]


@pytest.fixture(scope="module")
def trained(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training of a few steps."""
    from retina.__main__ import main

    run = tmp_path_factory.mktemp("trained") / "run"
    words = ["retina", "train", str(tiny_config), f"output_dir={run}", "training.max_steps=4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        with contextlib.suppress(SystemExit):
            main()
    return run


@pytest.fixture
def detector(trained: Path, tmp_path: Path) -> Path:
    """A copy of the detector that a command may write to, without the run around it."""
    path = tmp_path / "detector.safetensors"
    path.write_bytes((trained / "checkpoints" / "last.safetensors").read_bytes())
    return path


@pytest.fixture
def truth(synthetic_data: Path) -> Path:
    return synthetic_data / "validation" / "annotations.json"


@pytest.fixture
def results(truth: Path, tmp_path: Path) -> Path:
    """Most objects are found with a score by their class, and each has a false alarm below it."""
    rows = []
    objects = [one for one in json.loads(truth.read_text())["annotations"] if not one["iscrowd"]]
    for number, one in enumerate(objects):
        score = 0.9 - 0.05 * one["category_id"]
        row = {"image_id": one["image_id"], "category_id": one["category_id"]}
        if number % 5:
            rows.append({**row, "bbox": one["bbox"], "score": score})
        rows.append({**row, "bbox": [0, 0, 1, 1], "score": score / 2})
    path = tmp_path / "results.json"
    path.write_text(json.dumps(rows))
    return path


def test_of_a_results_file_and_nothing_else(
    invoke: Invoke, results: Path, truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--detections", results, "--annotations", truth, "--resamples", "50")
    done = invoke("thresholds", *given, "--output", tmp_path / "out")
    assert done.code == 0, done.err
    assert "best F1 of each class, IoU 0.5" in done.out
    assert "seen on the other 4 (seed 0)" in done.out
    assert "--apply" not in done.out  # there is no detector to keep them
    tree = json.loads((tmp_path / "out" / "thresholds.json").read_text())
    found = json.loads(results.read_text())
    for one in tree["classes"]:
        if one["source"] == "own":
            assert one["precision"] == 1.0
    assert tree["total"]["fp"] == 0
    assert tree["total"]["tp"] == sum(row["bbox"] != [0, 0, 1, 1] for row in found)
    monkeypatch.setenv("COLUMNS", "80")
    narrow = invoke("thresholds", *given, "--by", "false-alarms", "--at", "0.5", "--common")
    assert narrow.code == 0, narrow.err
    assert "at most 0.5 false alarms per image of all classes together" in narrow.out
    tables = [line for line in narrow.out.splitlines() if line.startswith(("─", "class"))]
    assert len(tables) == 4  # two tables, none of them in parts
    assert all(len(line) <= 80 for line in tables)


def test_annotations_of_another_format_without_their_images(
    invoke: Invoke, results: Path, truth: Path, tmp_path: Path
) -> None:
    tree = json.loads(truth.read_text())
    names = {one["id"]: one["file_name"] for one in tree["images"]}
    classes = {one["id"]: one["name"] for one in tree["categories"]}
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    size = {one["id"]: f"{one['width']},{one['height']}" for one in tree["images"]}
    for one in (one for one in tree["annotations"] if not one["iscrowd"]):
        x, y, width, height = one["bbox"]
        image, label = one["image_id"], classes[one["category_id"]]
        lines.append(f"{names[image]},{size[image]},{label},{x},{y},{x + width},{y + height}")
    table = tmp_path / "alone" / "labels.csv"
    table.parent.mkdir()
    table.write_text("\n".join(lines))
    refused = invoke("thresholds", "--detections", results, "--annotations", table)
    assert refused.code == 2
    assert f"{table}: say where its images are with --images FOLDER" in refused.err
    rows = json.loads(results.read_text())
    for row in rows:
        row |= {"file_name": names[row["image_id"]], "category_name": classes[row["category_id"]]}
    results.write_text(json.dumps(rows))
    told = []
    for told_of in ((truth,), (table, "--images", table.parent)):
        given = ("--detections", results, "--annotations", *told_of, "--resamples", "20")
        done = invoke("thresholds", *given, "--output", tmp_path / "out")
        assert done.code == 0, done.err
        tree = json.loads((tmp_path / "out" / "thresholds.json").read_text())
        told.append({one["name"]: one for one in tree["classes"]})
    assert told[0] == told[1]


def test_a_detector_and_the_results_of_its_evaluation_give_the_same(
    invoke: Invoke, trained: Path, tmp_path: Path
) -> None:
    best = trained / "checkpoints" / "best.safetensors"
    ran, read = tmp_path / "ran.json", tmp_path / "read.json"
    asked = ("--by", "recall", "--at", "0.05", "--iou", "0.2", "--resamples", "20")
    done = invoke("thresholds", best, *asked, "--num-workers=0", "--device=cpu", "--output", ran)
    assert done.code == 0, done.err
    assert "recall of at least 0.05 of each class, IoU 0.2" in done.out
    kept = trained / "evaluation" / "detections.json"
    again = invoke("thresholds", best, "--detections", kept, *asked, "--output", read)
    assert again.code == 0, again.err
    told, told_again = json.loads(ran.read_text()), json.loads(read.read_text())
    named, recorded = told.pop("data"), told_again.pop("data")
    assert named.endswith("config.yaml, validation")
    assert recorded.endswith("validation/annotations.json")
    assert told == told_again
    assert "not kept in the detector file; --apply does that" in again.out


def test_of_an_evaluation_of_some_images_the_others_are_not_missed(
    invoke: Invoke, results: Path, truth: Path, tmp_path: Path
) -> None:
    ids = [one["id"] for one in json.loads(truth.read_text())["images"]]
    named = tmp_path / "some.txt"
    named.write_text("\n".join(map(str, ids[:3])))
    rows = [row for row in json.loads(results.read_text()) if row["image_id"] in ids[:3]]
    results.write_text(json.dumps(rows))
    folder, out = tmp_path / "scored", tmp_path / "out.json"
    given = ("--detections", results, "--annotations", truth)
    done = invoke("evaluate", *given, "--image-list", named, "--output", folder, "--no-report")
    assert done.code == 0, done.err
    num_objects = json.loads((folder / "ground_truth.json").read_text())["num_objects"]
    kept, more = folder / "detections.json", ("--resamples", "20", "--output", out)
    told = []
    for data in ((), ("--annotations", truth)):
        for path in (kept, folder):
            done = invoke("thresholds", "--detections", path, *data, *more)
            assert done.code == 0, done.err
            assert "3 of 8 images were scored" in done.out
            assert "without a detection" not in done.out
            told.append(json.loads(out.read_text()))
            assert told[-1].pop("data").endswith("validation/annotations.json")
    assert told[0] == told[1] == told[2] == told[3]
    assert (told[0]["num_images"], told[0]["num_objects"]) == (3, num_objects)
    # Without its record nothing says that the others were not run: their number is told.
    (folder / "ground_truth.json").unlink()
    done = invoke("thresholds", "--detections", kept, "--annotations", truth, *more)
    assert done.code == 0, done.err
    assert "5 images of 8 without a detection: where the detector was not run" in done.out
    assert json.loads(out.read_text())["num_images"] == 8
    refused = invoke("thresholds", "--detections", kept)
    assert refused.code == 2


def test_data_that_has_changed_since_the_evaluation_is_told(
    invoke: Invoke, results: Path, truth: Path, tmp_path: Path
) -> None:
    moved, folder = tmp_path / "truth.json", tmp_path / "scored"
    moved.write_text(truth.read_text())
    given = ("--detections", results, "--annotations", moved)
    assert invoke("evaluate", *given, "--output", folder, "--no-report").code == 0
    tree = json.loads(truth.read_text())
    moved.write_text(json.dumps({**tree, "annotations": tree["annotations"][1:]}))
    done = invoke("thresholds", "--detections", folder)
    assert done.code == 2
    assert "truth.json has changed since; evaluate the detector again" in done.err
    moved.unlink()
    done = invoke("thresholds", "--detections", folder)
    assert done.code == 2
    assert f"{folder / 'ground_truth.json'}: its data set cannot be read" in done.err
    done = invoke("thresholds", "--detections", folder, "--annotations", truth, "--resamples", "20")
    assert done.code == 0, done.err


def test_odd_boxes_are_told_as_evaluate_tells_them(
    invoke: Invoke, results: Path, truth: Path, tmp_path: Path
) -> None:
    """They count as annotated: nothing is dropped or turned round as for a training."""
    tree = json.loads(truth.read_text())
    one = next(one for one in tree["annotations"] if not one["iscrowd"])
    for number, box in enumerate(([5, 5, 0, 9], [30, 30, -9, 9], [9000, 5, 9, 9])):
        tree["annotations"].append({**one, "id": 90000 + number, "bbox": box, "area": 81})
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps(tree))
    given = ("--detections", results, "--annotations", odd)
    done = invoke("thresholds", *given, "--resamples", "20", "--output", tmp_path / "out.json")
    assert done.code == 0, done.err
    scored = invoke("evaluate", *given)
    assert scored.code == 0, scored.err
    first = f"{odd}: 8 images, {len(tree['annotations'])} annotations"
    faults = ("without a width or a height", "with swapped corners", "outside of the image")
    told = [
        [line for line in out.splitlines() if line.startswith("  1 box ")]
        for out in (done.out, scored.out)
    ]
    assert first in done.out
    assert first in scored.out
    assert told[0] == told[1]
    assert len(told[0]) == 3
    for line, fault in zip(told[0], faults, strict=True):
        assert line.startswith(f"  1 box {fault}: scored as annotated")
    num_objects = sum(not one["iscrowd"] for one in tree["annotations"])
    assert json.loads((tmp_path / "out.json").read_text())["num_objects"] == num_objects


def test_kept_in_the_file_told_by_info_and_used_by_predict(
    invoke: Invoke, detector: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    before = load_artifact(detector)
    assert before.config.thresholds.per_class is None
    data = ("--data", synthetic_data, "--num-workers=0", "--device=cpu", "--resamples=20")
    by = ("--iou=0.2", "--by=cost", "--cost-fp=1", "--cost-fn=20")
    done = invoke("thresholds", detector, *data, *by, "--apply")
    assert done.code == 0, done.err
    assert f"kept in {detector}" in done.out
    after = load_artifact(detector)
    kept = after.config.thresholds
    assert kept.per_class is not None
    assert len({*kept.per_class}) > 2
    assert after.training == before.training
    assert after.config.postprocess == before.config.postprocess
    assert after.config.pretrained == before.config.pretrained
    assert list(after.state_dict) == list(before.state_dict)
    assert all(after.state_dict[name].equal(value) for name, value in before.state_dict.items())

    told = invoke("info", detector)
    assert told.code == 0, told.err
    assert "least cost, 1 for a false alarm and 20 for a missed object of each class" in told.out
    assert f"{synthetic_data}, validation" in " ".join(told.out.split())
    assert all(name in told.out for name in after.categories.names)

    images = synthetic_data / "validation" / "images"
    shown = invoke("predict", detector, images, "--output", tmp_path / "shown", "--device=cpu")
    assert shown.code == 0, shown.err
    values = kept.of_classes(10).tolist()
    assert f"from their class's score on ({min(values):.2f} to {max(values):.2f})" in shown.out
    every = ("--score-threshold", "0", "--output", tmp_path / "every", "--device=cpu")
    assert invoke("predict", detector, images, *every).code == 0
    ids = {name: label for label, name in enumerate(after.categories.names)}

    def rows(folder: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            (tmp_path / folder / "detections.json").read_text()
        )
        return found

    expected = [row for row in rows("every") if row["score"] >= values[ids[row["category_name"]]]]
    assert rows("shown") == expected
    assert 0 < len(expected) < len(rows("every"))


def test_the_metrics_know_nothing_of_them(
    invoke: Invoke, detector: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    from retina.modeling.thresholds import ThresholdsConfig

    def numbers(folder: str) -> str:
        where = ("--data", synthetic_data, "--output", tmp_path / folder)
        done = invoke("evaluate", detector, *where, "--num-workers=0", "--device=cpu")
        assert done.code == 0, done.err
        return "".join(
            (tmp_path / folder / name).read_text() for name in ("metrics.json", "detections.json")
        )

    before = numbers("before")
    load_artifact(detector).with_thresholds(ThresholdsConfig(common=1.0)).save(detector)
    assert numbers("after") == before
    assert "[" in before


def test_a_training_keeps_the_best_f1_of_all_classes(trained: Path) -> None:
    kept = load_artifact(trained / "checkpoints" / "last.safetensors").config.thresholds
    if kept.origin is not None:  # a training of four steps may find nothing
        assert kept.origin.rule == "best F1 of all classes together"
        assert kept.origin.num_images == 8
    assert kept.per_class is None


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    about = json.loads(header["__metadata__"]["retina"])
    change(about["config"])
    header["__metadata__"]["retina"] = json.dumps(about)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def test_a_file_of_before_is_read_and_keeps_its_single_threshold(
    invoke: Invoke, detector: Path
) -> None:
    def as_before(config: dict[str, Any]) -> None:
        del config["thresholds"]
        config |= {"format_version": 1, "display_threshold": 0.42}

    rewritten(detector, as_before)
    assert retina.load(detector, device="cpu").thresholds.tolist() == [0.42] * 10
    told = invoke("info", detector)
    assert "detections are shown from a score of 0.42 on; how it was chosen is not kept" in told.out
    read: Artifact = load_artifact(detector)
    read.save(detector)  # it is of today's format from then on
    assert load_artifact(detector).config == read.config
    rewritten(detector, lambda config: config.pop("thresholds"))
    assert retina.load(detector, device="cpu").thresholds.tolist() == [0.3] * 10


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"common": 1.5}, "thresholds.common"),
        ({"per_class": [0.5, 0.5]}, "2 thresholds for 10 classes"),
        ({"per_class": "high"}, "thresholds.per_class"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(
    invoke: Invoke, detector: Path, thresholds: Any, message: str
) -> None:
    rewritten(detector, lambda config: config.update(thresholds=thresholds))
    done = invoke("info", detector)
    assert done.code == 2
    assert str(detector) in done.err
    assert message in done.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give a detector file, or --detections with a results file"),
        (("--by", "luck"), "--by"),
        (("--by", "precision"), "--by precision needs --at: the least precision, say --at 0.95"),
        (("--by", "precision", "--at", "95"), "a precision of 95: give a number above 0, up to 1"),
        (("--by", "cost", "--cost-fp", "1"), "--by cost needs --cost-fn"),
        (("--at", "0.9"), "--at does not belong to --by f1"),
        (("--by", "recall", "--at", "0.9", "--beta", "2"), "--beta does not belong to --by recall"),
        (("--beta", "0"), "β is 0"),
        (("--apply",), "--apply needs a detector file"),
        (("coco_v2", "--apply"), "coco_v2 is a published detector, not a file of yours"),
    ],
)
def test_mistakes_end_in_one_message(invoke: Invoke, words: tuple[str, ...], message: str) -> None:
    done = invoke("thresholds", *words)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_where_nothing_can_be_chosen(invoke: Invoke, truth: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.json"
    empty.write_text("[]")
    given = ("--detections", empty, "--annotations")
    done = invoke("thresholds", *given, truth)
    assert done.code == 2
    assert "no detection has found an object at IoU 0.5" in done.err
    tree = json.loads(truth.read_text())
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps({**tree, "annotations": []}))
    done = invoke("thresholds", *given, bare)
    assert done.code == 2
    assert "the annotations have no object" in done.err
    done = invoke("thresholds", *given, tmp_path / "missing.json")
    assert done.code == 2
    assert "missing.json" in done.err
