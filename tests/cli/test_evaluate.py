"""``retina evaluate``: which data is scored, and what of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Invoke  # type: ignore[import-not-found]


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    """An untrained detector of two of the ten classes, in the checkpoints/ of a run."""
    from retina.artifact import make_artifact
    from retina.modeling.config import ModelConfig
    from retina.modeling.postprocess import PostprocessConfig
    from retina.modeling.preprocess import PreprocessConfig
    from retina.structures import Categories

    model = ModelConfig.model_validate(
        {
            "backbone": {"kind": "resnet", "name": "resnet18"},
            "pyramid": {"channels": 16},
            "head": {"num_convs": 0},
        }
    )
    artifact = make_artifact(
        model.build(2),
        model=model,
        preprocess=PreprocessConfig(min_size=64, max_size=96),
        postprocess=PostprocessConfig(score_threshold=0.005, max_detections=20),
        categories=Categories.from_names(["disc", "star"]),
    )
    path = tmp_path / "run" / "checkpoints" / "detector.safetensors"
    artifact.save(path)
    return path


def test_a_detector_of_some_of_the_classes_is_scored_on_the_full_file(
    invoke: Invoke, detector: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    done = invoke(
        "evaluate", detector, "--data", synthetic_data, "--num-workers", "0", "--output", tmp_path
    )
    assert done.code == 0, done.err
    assert f"{synthetic_data}, validation: 8 images" in done.out  # there is no test
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert [entry["name"] for entry in metrics["per_category"]] == ["disc", "star"]
    file = synthetic_data / "validation" / "annotations.json"
    tree = json.loads(file.read_text())
    known = {row["id"] for row in tree["categories"] if row["name"] in ("disc", "star")}
    others = sum(row["category_id"] not in known for row in tree["annotations"])
    assert 0 < others < len(tree["annotations"])
    assert f"{others} annotations" in done.out


@pytest.mark.parametrize("command", ["anatomy", "lab"])
def test_the_loss_of_a_detector_of_some_of_the_classes_is_looked_at_on_the_full_file(
    command: str, invoke: Invoke, detector: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    data = ("--data", synthetic_data, "--num-workers", "0", "--output", tmp_path / "out")
    done = invoke("loss", command, detector, *data)
    assert done.code == 0, done.err
    assert f"{synthetic_data}, validation: 8 images" in done.out
    assert "8 of 10 categories left out" in done.out


def test_labels_of_classes_that_the_detector_lacks_are_not_judged_unasked(
    invoke: Invoke, detector: Path, tiny_config: Path, tmp_path: Path
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(f"extends: {tiny_config}\noutput_dir: run\n")
    refused = invoke("data", "suspects", detector, "--config", config)
    assert refused.code == 2
    assert "under 'classes' to leave the others out, in a config that --config names" in refused.err
    with config.open("a") as file:
        file.write("dataset: {train: {classes: [disc, star]}}\n")
    done = invoke("data", "suspects", detector, "--config", config)
    assert done.code == 0, done.err
    assert "8 of 10 categories left out" in done.out


def test_without_data_it_is_that_of_the_run(
    invoke: Invoke, detector: Path, tiny_config: Path
) -> None:
    nothing = invoke("evaluate", detector)
    assert nothing.code == 2
    assert "say what to evaluate on: --data SOURCE, --annotations FILE --images" in nothing.err
    run = detector.parents[1]
    (run / "config.yaml").write_text(f"extends: {tiny_config}\noutput_dir: {run}\n")
    for split in ([], ["--split", "val"]):
        done = invoke("evaluate", detector, *split, "--num-workers", "0")
        assert done.code == 0, done.err
        assert f"{run / 'config.yaml'}, validation: 8 images" in done.out


def test_several_files_at_once_and_some_of_their_images(
    invoke: Invoke, detector: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    """Both splits number their images from 1: each gets its own results, scored again the same."""
    files = [synthetic_data / split / "annotations.json" for split in ("validation", "train")]
    named = [
        option
        for file in files
        for option in ("--annotations", file, "--images", file.parent / "images")
    ]
    output = tmp_path / "out"
    common = ("--num-workers", "0", "--output", output)
    done = invoke("evaluate", detector, *named, *common)
    assert done.code == 0, done.err
    metrics = json.loads((output / "metrics.json").read_text())
    num_images = [len(json.loads(file.read_text())["images"]) for file in files]
    assert metrics["num_images"] == sum(num_images)
    assert [entry["num_images"] for entry in metrics["per_file"]] == num_images
    assert not (output / "detections.json").exists()

    results = [output / f"detections_{number}.json" for number in (1, 2)]
    assert all(json.loads(file.read_text()) for file in results)
    alone = invoke("evaluate", detector, *named[:4], "--num-workers", "0", "--output", tmp_path)
    assert alone.code == 0, alone.err
    assert (tmp_path / "detections.json").read_text() == results[0].read_text()
    first = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["per_file"][0]["AP"] == first["AP"]
    # The folder says what it was scored on, and its detections score the same there.
    for named_again in ((), (*named,)):
        compared = invoke("compare", output, output, *named_again, "--resamples", "100")
        assert compared.code == 0, compared.err
        assert f"{sum(num_images)} images" in compared.out
        assert "they are not of one evaluation" not in compared.out

    some = [image["file_name"] for image in json.loads(files[1].read_text())["images"]][:3]
    (tmp_path / "list.txt").write_text("\n".join(some))
    done = invoke(
        "evaluate",
        detector,
        *named[4:],
        "--image-list",
        tmp_path / "list.txt",
        *common,
        "--per-image",
        "--metrics",
        "voc",
    )
    assert done.code == 0, done.err
    assert f"list.txt: 3 of {num_images[1]} images are scored" in done.out
    scored = json.loads((output / "per_image.json").read_text())["images"]
    assert sorted(image["file_name"] for image in scored) == sorted(some)
    rows = json.loads((output / "detections.json").read_text())
    assert {row["image_id"] for row in rows} <= {image["image_id"] for image in scored}


def test_a_folder_without_the_images_is_told(
    invoke: Invoke, synthetic_data: Path, tmp_path: Path
) -> None:
    data = synthetic_data / "validation"
    results = tmp_path / "results.json"
    results.write_text("[]")
    common = ("evaluate", "--detections", results, "--annotations", data / "annotations.json")
    done = invoke(*common, "--images", tmp_path / "nosuch", "--output", tmp_path / "out")
    assert done.code == 2
    assert f"--images {tmp_path / 'nosuch'}: there is no such folder" in done.err
    assert not (tmp_path / "out").exists()

    total = len(json.loads((data / "annotations.json").read_text())["images"])
    some = tmp_path / "some"
    some.mkdir()
    for number, image in enumerate(sorted((data / "images").iterdir())[:2]):
        done = invoke(*common, "--images", some)
        assert done.code == 0, done.err
        assert f"{number} of {total} images found in {some}" in done.out
        (some / image.name).write_bytes(image.read_bytes())
    assert "found in" not in invoke(*common, "--images", data / "images").out
    assert "found in" not in invoke(*common).out
