"""Every export finds what its source finds: in batches of 1 to 10, at odd sizes."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import retina
from retina.errors import UserError
from retina.export.agreement import compare_detections
from retina.export.formats import ExportForm
from retina.export.gate import score_shift
from retina.export.graph import CandidateGraph, DetectionGraph
from retina.export.onnx_format import OnnxModel
from retina.export.openvino_format import OpenVinoModel
from retina.export.torch_format import TorchProgram
from retina.export.tracing import trace
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


@dataclass(frozen=True)
class Form:
    """An export that is tried."""

    format: str
    raw: bool = False
    batch: int | None = None

    def __str__(self) -> str:
        raw, batch = "-raw" if self.raw else "", f"-{self.batch}" if self.batch else ""
        return f"{self.format}{raw}{batch}"


FORMATS = {"onnx": ".onnx", "torch": ".pt2", "openvino": ".xml"}
# Of --raw and --batch together; each alone takes another trace, of some seconds.
FORMS = [
    *(Form(name) for name in FORMATS),
    *(Form(name, raw=True, batch=4) for name in FORMATS),
    *(pytest.param(Form(name, raw=True), marks=pytest.mark.slow) for name in FORMATS),
    *(pytest.param(Form(name, batch=4), marks=pytest.mark.slow) for name in FORMATS),
]


@pytest.fixture(scope="module")
def traced(exports: Exports) -> Traced:
    """Traces and ONNX graphs, each made once."""
    return Traced(exports)


class Traced:
    def __init__(self, exports: Exports) -> None:
        self._exports = exports
        self._programs = {(False, None): exports.program}
        self._graphs = {(False, None): exports.onnx}

    def program(self, form: Form) -> TorchProgram:
        key = form.raw, form.batch
        if key not in self._programs:
            graph = (CandidateGraph if form.raw else DetectionGraph)(self._exports.artifact)
            self._programs[key] = TorchProgram(trace(graph, batch=form.batch, size=None))
        return self._programs[key]

    def onnx(self, form: Form) -> OnnxModel:
        key = form.raw, form.batch
        if key not in self._graphs:
            made = ExportForm("onnx", raw=form.raw, batch=form.batch)
            self._graphs[key] = OnnxModel.convert(self.program(form).program, made, ())
        return self._graphs[key]


@pytest.fixture(scope="module", params=FORMS, ids=str)
def path(request: pytest.FixtureRequest, exports: Exports, traced: Traced) -> Path:
    form: Form = request.param
    job = exports.job(form.format, FORMATS[form.format], raw=form.raw, batch=form.batch)
    if form.format == "openvino":
        pytest.importorskip("openvino")
        return exports.write(job, OpenVinoModel.of_onnx(traced.onnx(form), job.form, ()))
    made = traced.onnx(form) if form.format == "onnx" else traced.program(form)
    return exports.write(job, made)


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


def test_batches_of_1_to_10_find_the_same(exports: Exports) -> None:
    runtime = load_export(exports.write(exports.job("onnx", ".onnx"), exports.onnx))
    for count in range(1, 11):
        images = random_images(*[(64, 75)] * count)
        wanted, found = expected(exports.artifact, images), runtime.detect(images)
        for ours, theirs in zip(wanted, found, strict=True):
            assert len(ours) > 5
            assert not compare_detections(ours, theirs, exports.artifact.config.postprocess).faults


def test_a_raw_file_says_so_and_gives_candidates(exports: Exports, traced: Traced) -> None:
    """With ONNX Runtime alone: what a program that suppresses by itself gets."""
    import onnxruntime

    job = exports.job("onnx", ".onnx", raw=True, batch=4)
    path = exports.write(job, traced.onnx(Form("onnx", raw=True, batch=4)))
    description = load_export(path).description
    assert description.raw
    rows = description.outputs["boxes"].shape[1]
    assert rows == 5 * 80  # of each level as many as candidates_per_level
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    shapes = {one.name: one.shape for one in session.get_outputs()}
    assert shapes == {"boxes": [4, rows, 4], "scores": [4, rows], "labels": [4, rows]}
    images = np.stack([image.numpy() for image in random_images(*[(64, 75)] * 4)])
    boxes, scores, labels = session.run(None, {"images": images.astype(np.float32)})
    assert boxes.shape == (4, rows, 4)
    levels = scores.reshape(4, 5, 80)
    assert (np.diff(levels, axis=2) <= 0).all()  # best first in each level
    assert (levels[:, 0] > 0).all()
    assert not levels[:, -1, 30:].any()  # one cell has 9 anchors of 3 classes
    assert set(np.unique(labels)) <= {0, 1, 2}


def test_bfloat16_finds_nearly_the_same(exports: Exports, tmp_path: Path) -> None:
    """The gate runs it as a user will; what it may change is bounded there."""
    pytest.importorskip("openvino")
    form = ExportForm("openvino", precision="bf16")
    model = OpenVinoModel.of_onnx(exports.onnx, form, ())
    job = dataclasses.replace(
        exports.job("openvino", ".xml", precision="bf16"), output=tmp_path / "a.xml"
    )
    exports.write(job, model)
    runtime = load_export(job.output)
    assert runtime.description.precision == "bf16"
    images = random_images((97, 131), (64, 64))
    for ours, theirs in zip(
        expected(exports.artifact, images), runtime.detect(images), strict=True
    ):
        change, shown = score_shift(ours, theirs, torch.full((3,), 0.3, dtype=torch.float64))
        assert shown > 5
        assert change / shown < 0.1


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
