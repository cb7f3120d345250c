"""Every export finds what its source finds: in batches of 1 to 10, at odd sizes."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import retina
from retina.errors import UserError
from retina.export.agreement import compare_detections
from retina.export.openvino_format import OpenVinoModel
from retina.modeling.preprocess import size_of
from retina.runtime import TorchRuntime, onnx_runtime, program_runtime
from retina.runtime.detection_log import file_sha256
from retina.runtime.exported import ExportedRuntime, rows_by_input_size
from retina.runtime.files import check_device, files_of, load_export
from retina.structures import Detections
from tests.export.conftest import Exports, random_images  # type: ignore[import-not-found]

SIZES = [(97, 131), (33, 200), (96, 96), (301, 200), (5, 7)]
BATCHES = [[size] * count for size, count in zip(SIZES, (1, 2, 3, 10, 1), strict=True)]
BATCHES.append([*SIZES, *SIZES])  # several sizes in one call


def expected(artifact: retina.artifact.Artifact, images: list[Tensor]) -> list[Detections]:
    """What the detector finds among images of one size, as an export runs them."""
    runtime = TorchRuntime.from_artifact(artifact, device=torch.device("cpu"))
    found: dict[int, Detections] = {}
    for rows in rows_by_input_size(runtime.preprocess, images).values():
        found |= zip(rows, runtime.detect([images[row] for row in rows]), strict=True)
    return [found[row] for row in range(len(images))]


@pytest.fixture(scope="module", params=["onnx", "torch", "openvino"])
def path(request: pytest.FixtureRequest, exports: Exports) -> Path:
    if request.param == "onnx":
        return exports.write(exports.job("onnx", ".onnx"), exports.onnx)
    if request.param == "torch":
        return exports.write(exports.job("torch", ".pt2"), exports.program)
    pytest.importorskip("openvino")
    job = exports.job("openvino", ".xml")
    return exports.write(job, OpenVinoModel.of_onnx(exports.onnx, job.form, ()))


@pytest.fixture(scope="module")
def runtime(path: Path) -> ExportedRuntime:
    return load_export(path)


@pytest.mark.parametrize("sizes", BATCHES, ids=lambda sizes: f"{len(sizes)}x{sizes[0]}")
def test_the_same_is_found(
    runtime: ExportedRuntime, exports: Exports, sizes: list[tuple[int, int]]
) -> None:
    images = random_images(*sizes)
    wanted, found = expected(exports.artifact, images), runtime.detect(images)
    assert len(found) == len(images)
    rule = exports.artifact.config.postprocess
    for ours, theirs in zip(wanted, found, strict=True):
        assert len(ours) > 5  # in each image of the batch, not only in the first
        agreement = compare_detections(ours, theirs, rule)
        assert not agreement.faults
        assert agreement.num_same >= len(ours) - len(agreement.ties)
        assert agreement.box_difference < 1e-3
        assert agreement.score_difference < 1e-5


def test_classes_and_thresholds_come_with_the_file(
    runtime: ExportedRuntime, exports: Exports
) -> None:
    predictor = retina.Predictor(runtime)
    assert predictor.categories == exports.artifact.categories
    assert predictor.thresholds.tolist() == [0.3] * 3
    (image,) = random_images((97, 131))
    (found,) = predictor.predict(image, 0.5)
    (wanted,) = expected(exports.artifact, [image])
    assert len(found) == int((wanted.scores >= 0.5).sum()) > 0


def test_an_open_size_has_other_scales(runtime: ExportedRuntime, exports: Exports) -> None:
    images = random_images((97, 131), (33, 200))
    larger = runtime.at_scale(1.5)
    detector = TorchRuntime.from_artifact(exports.artifact, device=torch.device("cpu"))
    for image in images:
        (ours,), (theirs,) = detector.at_scale(1.5).detect([image]), larger.detect([image])
        assert len(ours) > 5
        assert not compare_detections(ours, theirs, exports.artifact.config.postprocess).faults
    assert runtime.preprocess.min_size == 96


def test_other_weights_beside_a_file_are_refused(
    runtime: ExportedRuntime, path: Path, tmp_path: Path
) -> None:
    copies = [Path(shutil.copy(file, tmp_path)) for file in files_of(path)]
    description = runtime.description
    assert description.weights_sha256 == (file_sha256(copies[1]) if copies[1:] else None)
    for weights in copies[1:]:
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        with pytest.raises(UserError, match=r"model.bin beside it is damaged, or of another"):
            load_export(copies[0])
        weights.unlink()
        with pytest.raises(UserError, match=r"weights are missing; model.bin belongs beside it"):
            load_export(copies[0])


def test_fewer_detections_are_the_best_ones(exports: Exports) -> None:
    path = exports.write(exports.job("onnx", ".onnx"), exports.onnx)
    images = random_images((97, 131))
    (every,), (few,) = (
        load_export(path, max_detections=limit).detect(images) for limit in (None, 4)
    )
    assert len(few) == 4
    assert torch.equal(few.scores, every.scores[:4])
    with pytest.raises(UserError, match="gives at most 20 detections of an image, not 21"):
        load_export(path, max_detections=21)


def test_one_file_says_all_that_a_stranger_needs(exports: Exports) -> None:
    """With ONNX Runtime alone: the contract of names, shapes and types."""
    import onnxruntime

    path = exports.write(exports.job("onnx", ".onnx"), exports.onnx)
    assert [one.name for one in path.parent.glob("model.onnx*")] == ["model.onnx"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.shape) == ("images", ["batch", 3, "height", "width"])
    shapes = {one.name: one.shape for one in session.get_outputs()}
    assert shapes == {
        "boxes": ["batch", 20, 4],
        "scores": ["batch", 20],
        "labels": ["batch", 20],
        "count": ["batch"],
    }
    images = np.stack([image.numpy() for image in random_images((64, 75), (64, 75))])
    boxes, scores, labels, count = session.run(None, {"images": images.astype(np.float32)})
    assert [one.dtype.name for one in (boxes, scores, labels, count)] == [
        "float32",
        "float32",
        "int64",
        "int64",
    ]
    for row in range(2):
        assert (scores[row, : count[row]] > 0.05).all()
        assert not scores[row, count[row] :].any()
        assert not boxes[row, count[row] :].any()
    meta = session.get_modelmeta().custom_metadata_map
    about = json.loads(meta["retina"])
    assert about["outputs"]["boxes"]["shape"] == ["batch", 20, 4]
    assert about["detector"]["preprocess"]["mean"] == [0.485, 0.456, 0.406]
    assert about["verification"] is None
    assert about["training"] == {"step": 7}
    assert meta["classes"] == "a, b, c"
    assert "Apache-2.0" in meta["licence"]
    assert "bilinear" in meta["resize"]


def test_the_suppression_sees_no_score_below_the_threshold(exports: Exports) -> None:
    """Without that it is many times slower."""
    import onnx

    graph = exports.onnx.proto.graph
    (node,) = (one for one in graph.node if one.op_type == "NonMaxSuppression")
    values = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    values |= {
        one.output[0]: onnx.numpy_helper.to_array(one.attribute[0].t)
        for one in graph.node
        if one.op_type == "Constant" and one.attribute[0].HasField("t")
    }
    limit, iou, score = (values[name].item() for name in node.input[2:])
    assert (limit, iou, score) == (20, 0.5, pytest.approx(0.05))


def test_resizing_alone_is_the_preprocessing_without_normalising(exports: Exports) -> None:
    preprocess = exports.artifact.config.preprocess.build()
    (image,) = random_images((301, 200))
    resized = preprocess.resize(image)
    assert resized.shape == (3, *preprocess.input_size(size_of(image)))
    prepared = preprocess.prepare([image])
    height, width = prepared.sizes[0]
    torch.testing.assert_close(
        preprocess.normalise(resized), prepared.images[0, :, :height, :width], rtol=0, atol=1e-5
    )


def test_damaged_and_foreign_files_are_told(exports: Exports, tmp_path: Path) -> None:
    import onnx

    for suffix in (".onnx", ".pt2", ".xml"):
        damaged = tmp_path / f"damaged{suffix}"
        damaged.write_bytes(b"no such thing")
        (tmp_path / "damaged.bin").write_bytes(b"")
        with pytest.raises(UserError, match=f"damaged{suffix}: not a.* can read"):
            load_export(damaged)
    foreign = tmp_path / "foreign.onnx"
    proto = onnx.ModelProto()
    proto.CopyFrom(exports.onnx.proto)
    del proto.metadata_props[:]
    foreign.write_bytes(proto.SerializeToString())
    with pytest.raises(UserError, match="was not written by 'retina export'"):
        load_export(foreign)
    with pytest.raises(UserError, match="no such file; 'retina export' writes one"):
        load_export(tmp_path / "missing.onnx")


def test_a_program_that_breaks_off_is_told_in_one_sentence(
    exports: Exports, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """torch logs its own traceback before it raises."""
    path = exports.write(exports.job("torch", ".pt2"), exports.program)
    content = path.read_bytes()
    cut = tmp_path / "cut.pt2"
    cut.write_bytes(content[: len(content) // 2])
    logger = logging.getLogger("torch.export")
    logger.addHandler(caplog.handler)
    try:
        with pytest.raises(UserError, match=r"cut.pt2: not a torch program that torch .* can read"):
            load_export(cut)
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_onnx_runtime_does_not_fall_back_to_the_cpu_in_silence(
    exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build for CUDA whose libraries do not load: it computes on the CPU, and only logs that."""
    import onnxruntime

    path = exports.write(exports.job("onnx", ".onnx"), exports.onnx)
    present = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" in present:
        pytest.skip("this build of ONNX Runtime has CUDA")
    gpu = torch.device("cuda:0")
    monkeypatch.setattr(onnx_runtime, "pick_device", lambda name: gpu)
    with pytest.raises(UserError, match="device: 'cuda' is none that this build of ONNX Runtime"):
        load_export(path, device="cuda")
    with_cuda = ["CUDAExecutionProvider", *present]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: with_cuda)
    (choice, options), _ = onnx_runtime._providers(path, "cuda")
    assert (choice, options) == ("CUDAExecutionProvider", {"device_id": 0, "use_tf32": 0})
    with pytest.raises(UserError, match=r"could not start 'cuda' for .*model.onnx"):
        load_export(path, device="cuda")
    assert len(load_export(path, device="auto").detect(random_images((97, 131)))) == 1


def test_a_torch_program_keeps_off_apples_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no float64."""
    apple = torch.device("mps")
    monkeypatch.setattr(program_runtime, "pick_device", lambda name: apple)
    check_device(Path("a.pt2"), "auto")
    assert program_runtime._pick(Path("a.pt2"), "auto") == torch.device("cpu")
    with pytest.raises(UserError, match=r"a.pt2 computes in float64, which 'mps' cannot; take cpu"):
        check_device(Path("a.pt2"), "mps")
