"""``retina export``, and the commands that take what it writes."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from retina.errors import UserError
from retina.export.agreement import compare_detections
from retina.export.exporting import ExportJob
from retina.runtime import TorchRuntime
from retina.runtime.files import load_export
from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.export.conftest import Exports, random_images  # type: ignore[import-not-found]


@pytest.fixture(scope="module")
def detector(exports: Exports) -> Path:
    path: Path = exports.folder / "tiny.safetensors"
    exports.artifact.save(path)
    return path


@pytest.fixture(scope="module")
def exported(exports: Exports) -> Path:
    path: Path = exports.write(exports.job("onnx", ".onnx"), exports.onnx)
    return path


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Six images of shapes, with the detector's classes."""
    from retina.datasets.synthetic import generate_dataset

    generate_dataset(tmp_path / "data", num_images=1, num_validation_images=6, seed=1)
    folder = tmp_path / "data" / "validation"
    annotations = json.loads((folder / "annotations.json").read_text())
    for one, name in zip(annotations["categories"], "abc", strict=False):
        one["name"] = name
    (folder / "annotations.json").write_text(json.dumps(annotations))
    return folder


@pytest.mark.slow
def test_a_program_is_written_with_its_proof(
    exports: Exports,
    detector: Path,
    tmp_path: Path,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "model.pt2"
    done = invoke(
        *("export", detector, "--format", "torch", "--size", "618x800", "--batch", "3"),
        *("--output", output),
    )
    assert done.code == 0, done.err
    assert "model.pt2: torch, fp32" in done.out
    assert "only for images that are resized to 95 × 124 (height × width)" in done.out
    assert "verified on 9 images (painted pictures)" in done.out
    assert "the same detections: boxes within" in done.out
    told = invoke("info", output)
    assert "of tiny.safetensors" in told.out
    assert "3 × 3 × 95 × 124 float32" in told.out
    assert "on 9 images (painted pictures)" in told.out
    # Five images in calls of three: the last one is filled up. What 618 × 800 is resized to would
    # itself be resized.
    images = random_images(*[(618, 800)] * 5)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    runtime = load_export(output)
    assert not torch.backends.cudnn.allow_tf32
    wanted = TorchRuntime.from_artifact(exports.artifact, device=torch.device("cpu"))
    found = zip(wanted.detect(images), runtime.detect(images), strict=True)
    for ours, theirs in found:
        assert not compare_detections(ours, theirs, exports.artifact.config.postprocess).faults
    with pytest.raises(UserError, match=r"of 200 × 250 .* 96 × 120; .* --size 200x250"):
        runtime.detect(random_images((200, 250)))


def test_commands_take_an_export_as_a_detector(
    detector: Path, exported: Path, shapes: Path, tmp_path: Path, invoke: Invoke
) -> None:
    found, numbers = [], []
    for number, file in enumerate((detector, exported)):
        folder = tmp_path / str(number)
        images = shapes / "images"
        one = ("--batch-size", 1)  # in a batch of several sizes padding moves the scores
        done = invoke("predict", file, images, "--output", folder, "--score-threshold", 0.5, *one)
        assert done.code == 0, done.err
        found.append(json.loads((folder / "detections.json").read_text()))
        data = ("--annotations", shapes / "annotations.json", "--images", images)
        report = "--report" if file is exported else "--no-report"
        options = ("--output", folder / "scores", "--num-workers", 0, report, *one)
        done = invoke("evaluate", file, *data, *options)
        assert done.code == 0, done.err
        numbers.append(json.loads((folder / "scores" / "metrics.json").read_text()))
    assert len(found[0]) == len(found[1]) > 20
    for ours, theirs in zip(*found, strict=True):
        assert ours["category_id"] == theirs["category_id"]
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
        assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=1e-3)
    assert numbers[0]["AP50"] == pytest.approx(numbers[1]["AP50"])
    assert (tmp_path / "1" / "scores" / "report.html").is_file()
    compared = invoke("compare", tmp_path / "0" / "scores", tmp_path / "1" / "scores")
    assert compared.code == 0, compared.err
    chosen = invoke("thresholds", exported, *data, "--num-workers", 0, "--iou", 0.1)
    assert chosen.code == 0, chosen.err
    assert "not kept" not in chosen.out


def test_images_without_annotations_are_enough_to_verify_on(
    exports: Exports,
    detector: Path,
    shapes: Path,
    tmp_path: Path,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ExportJob, "_convert", lambda job: exports.onnx)
    photos = tmp_path / "photos"
    shutil.copytree(shapes / "images", photos)
    output = tmp_path / "a.onnx"
    done = invoke("export", detector, "--data", photos, "--max-images", 4, "--output", output)
    assert done.code == 0, done.err
    assert f"verified on 4 images ({photos}, without annotations)" in done.out
    assert "the same detections: boxes within" in done.out
    assert "AP" not in done.out
    (photos / "broken.jpg").write_bytes(b"no picture")
    done = invoke("export", detector, "--data", photos, "--output", output)
    assert done.code == 2
    assert str(photos / "broken.jpg") in done.err
    (tmp_path / "nothing").mkdir()
    done = invoke("export", detector, "--data", tmp_path / "nothing", "--output", output)
    assert done.code == 2
    assert "nothing: holds no data set that can be read" in done.err


def test_int8_needs_data(detector: Path, tmp_path: Path, invoke: Invoke) -> None:
    form = ("--format", "openvino", "--precision", "int8", "--output", tmp_path / "a.xml")
    done = invoke("export", detector, *form)
    assert done.code == 2
    assert "on which images to calibrate and verify: --data SOURCE" in done.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--format", "onx"), "--format: 'onx' is none of onnx, openvino, torch, did you mean"),
        (("--precision", "int8"), "take --format openvino"),
        (("--size", "96"), "--size 96: write HEIGHTxWIDTH in pixels"),
        (
            ("--format", "openvino", "--device", "cuda", "--output", "a.xml"),
            "runs a.xml on the cpu",
        ),
        (("--format", "torch"), "writes a .pt2 file; name it a.pt2"),
        (("--max-ap-drop", "nan"), "--max-ap-drop nan: does not lie within 0 … 1"),
        (("--max-ap-drop", "-1"), "--max-ap-drop -1: does not lie within 0 … 1"),
        (("--max-score-shift", "nan"), "--max-score-shift nan: does not lie within 0 … 1"),
        (("--max-score-shift", "inf"), "--max-score-shift inf: does not lie within 0 … 1"),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(
    detector: Path, tmp_path: Path, invoke: Invoke, options: tuple[str, ...], told: str
) -> None:
    done = invoke("export", detector, "--output", tmp_path / "a.onnx", *options)
    assert done.code == 2
    assert told in done.err
    assert not list(tmp_path.iterdir())


def test_a_path_that_no_file_can_have_is_told_before_anything_is_computed(
    detector: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(job: ExportJob) -> None:
        pytest.fail("it converts")

    monkeypatch.setattr(ExportJob, "_convert", convert)
    (tmp_path / "a.onnx").mkdir()
    done = invoke("export", detector, "--output", tmp_path / "a.onnx")
    assert done.code == 2
    assert "a.onnx is a folder; give a name that no folder has" in done.err
    (tmp_path / "b.bin").mkdir()
    done = invoke("export", detector, "--format", "openvino", "--output", tmp_path / "b.xml")
    assert done.code == 2
    assert "b.bin is a folder" in done.err
    if Path("/proc/self").exists():
        done = invoke("export", detector, "--output", "/proc/x.onnx")
        assert done.code == 2
        assert done.err.startswith("error: /proc")
        assert done.err.endswith("choose another folder\n")


@pytest.mark.parametrize(
    "words",
    [
        ("loss", "anatomy"),
        ("export", "--output", "a.onnx"),
        ("thresholds", "--apply"),
        ("data", "suspects", "--detector"),
    ],
    ids=" ".join,
)
def test_what_needs_more_than_detections_says_so(
    exported: Path, tmp_path: Path, invoke: Invoke, words: tuple[str, ...]
) -> None:
    done = invoke(*words, exported)
    assert done.code == 2
    if words[0] != "data":
        assert "an exported detector gives detections only; this needs the detector" in done.err


def test_an_export_has_its_own_precision(exported: Path, tmp_path: Path, invoke: Invoke) -> None:
    done = invoke("predict", exported, tmp_path, "--output", tmp_path, "--precision", "bf16")
    assert done.code == 2
    assert "was exported in fp32; leave it away, or export again" in done.err
    done = invoke("predict", exported, tmp_path, "--output", tmp_path, "--compile")
    assert done.code == 2
    assert "--compile" in done.err
    assert "was exported for its own engine; leave it away" in done.err


def test_a_missing_package_is_named(
    detector: Path, exported: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = ("export", detector, "--output", tmp_path / "a.onnx")
    openvino = ("export", detector, "--format", "openvino", "--output", tmp_path / "a.xml")
    for package, words in (
        ("onnxruntime", ("predict", exported, tmp_path, "--output", tmp_path)),
        ("onnxruntime", onnx),
        ("onnxscript", onnx),
        ("openvino", openvino),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            done = invoke(*words)
        assert done.code == 2
        assert f"needs the package {package}; pip install 'retina-detector[export]'" in done.err
