"""``--tile`` and ``--test-time``, of the commands that run a detector."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import retina
from retina.artifact import make_artifact
from retina.datasets import large_tiff
from retina.modeling.config import ModelConfig
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.prediction.files import PredictionOptions, predict_files
from retina.prediction.inputs import ImageFile
from retina.structures import Categories
from tests.conftest import Invoke  # type: ignore[import-not-found]


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained, and sure of many things."""
    model = ModelConfig.model_validate(
        {
            "backbone": {"kind": "resnet", "name": "resnet18"},
            "pyramid": {"channels": 16},
            "head": {"num_convs": 0},
        }
    )
    torch.manual_seed(0)
    network = model.build(2)
    torch.nn.init.normal_(network.head.classification.output.weight, std=0.5)
    artifact = make_artifact(
        network,
        model=model,
        preprocess=PreprocessConfig(min_size=64, max_size=96),
        postprocess=PostprocessConfig(max_detections=20),
        categories=Categories.from_names(["disc", "star"]),
    )
    path = tmp_path_factory.mktemp("detector") / "detector.safetensors"
    artifact.save(path)
    return path


def write_noise(path: Path, height: int, width: int) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    PIL.Image.fromarray(noise).save(path)
    return path


def test_evaluate_tells_what_tiles_gain(
    invoke: Invoke, detector: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    common = ("--data", synthetic_data, "--num-workers", "0", "--no-report", "--output", tmp_path)
    assert invoke("evaluate", detector, *common).code == 0
    alone = json.loads((tmp_path / "metrics.json").read_text())
    assert "plain" not in alone
    done = invoke("evaluate", detector, *common, "--tile", "128", "--test-time", "flip")
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    line = f"AP {metrics['AP']:.3f} with tiles of 128, flip, {alone['AP']:.3f} without"
    assert line in done.out
    assert metrics["plain"] == {name: alone[name] for name in metrics["plain"]}
    assert len(metrics["plain"]) == 12
    assert metrics["views"]["tile"] == 128
    assert metrics["views"]["flip"]


def test_predict_finds_more_in_tiles_and_the_same_where_there_is_one(
    invoke: Invoke, detector: Path, tmp_path: Path
) -> None:
    large = write_noise(tmp_path / "large.png", 200, 260)
    small = write_noise(tmp_path / "small.png", 60, 90)

    def rows(*options: str) -> dict[str, list[dict[str, object]]]:
        common = (detector, large, small, "--output", tmp_path / "out", "--score-threshold", "0")
        done = invoke("predict", *common, *options)
        assert done.code == 0, done.err
        found = json.loads((tmp_path / "out/detections.json").read_text())
        return {
            name: [row for row in found if Path(str(row["file_name"])).name == name]
            for name in ("large.png", "small.png")
        }

    plain, tiled = rows(), rows("--tile", "100")
    assert plain["small.png"] == tiled["small.png"]
    assert len(tiled["large.png"]) > len(plain["large.png"]) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--overlap", "0.3"], "--overlap says how to look at tiles: give their size with --tile"),
        (["--no-full-image"], "--no-full-image says how to look at tiles"),
        (["--tile", "8"], "--tile 8: a tile has at least 32 pixels a side"),
        (["--tile", "64", "--overlap", "1"], "--overlap 1: give a part of a tile from 0 to 0.9"),
        (["--test-time", "flop"], "--test-time flop: write flip, or a scale such as 0.8"),
        (["--test-time", "flip", "--merge", "wbf"], "--merge: 'wbf' is none of nms, weighted"),
    ],
)
def test_options_that_do_not_go(
    invoke: Invoke, tmp_path: Path, options: list[str], message: str
) -> None:
    for command in (["predict", "x.safetensors", "a.jpg", "--output", "o"], ["evaluate", "x"]):
        done = invoke(*command, *options)
        assert done.code == 2
        assert message in done.err
    results = invoke(
        "evaluate", "--detections", "r.json", "--annotations", "a.json", "--tile", "64"
    )
    assert results.code == 2
    assert "--tile and --test-time run a detector: leave --detections away" in results.err


def test_a_large_tiff_is_read_by_parts_and_found_in_the_same(
    detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiles are those of the whole file; a broken one is a failure, and the rest goes on."""
    path = write_noise(tmp_path / "a.tif", 200, 260)
    other = write_noise(tmp_path / "b.png", 60, 90)
    predictor = retina.load(detector, device="cpu").with_views(tile=100, full_image=False)
    (expected,) = predictor.predict(path, 0.0)
    monkeypatch.setattr(large_tiff, "LARGE_PIXELS", 10_000)
    monkeypatch.setattr(large_tiff, "OVERVIEW_PIXELS", 15_000)
    (found,) = predictor.predict(path, 0.0)
    assert len(found) == len(expected) > 0
    assert torch.equal(found.boxes, expected.boxes)
    broken = tmp_path / "broken.tif"
    with PIL.Image.open(path) as image:
        image.save(broken, compression="tiff_lzw")
    content = bytearray(broken.read_bytes())
    content[400:9000] = bytes(8600)
    broken.write_bytes(content)
    run = predict_files(
        predictor,
        [ImageFile(one) for one in (broken, path, other)],
        tmp_path / "out",
        options=PredictionOptions(save=("pictures", "json", "crops"), score_threshold=0.0),
    )
    assert run is not None
    assert run.num_images == 2
    assert len(run.failures) == 1
    assert str(broken) in run.failures[0]
    with PIL.Image.open(tmp_path / "out/a.jpg") as picture:
        assert picture.size == (520, 400)  # half the size, enlarged until its side is 320
    rows = json.loads((tmp_path / "out/detections.json").read_text())
    best = next(row for row in rows if row["file_name"] == str(path))
    assert best["bbox"] == pytest.approx(
        (found.boxes[0] - torch.tensor([0, 0, *found.boxes[0, :2]])).tolist()
    )
    (crop,) = (tmp_path / "out" / "crops").glob("*/a_1.jpg")
    with PIL.Image.open(crop) as cut:
        assert cut.width == pytest.approx(best["bbox"][2], abs=2)  # in pixels of the image itself
