"""What finds something else than its source is not written."""

from __future__ import annotations

import dataclasses
import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from retina.artifact import Artifact
from retina.errors import RunError, UserError
from retina.export.calibration import ImagesOnDemand, calibration_images
from retina.export.exporting import ExportJob
from retina.export.formats import ConvertedModel, ExportForm
from retina.export.gate import Bounds, Examples, last_candidates, verify
from retina.export.openvino_format import OpenVinoModel
from retina.export.pictures import paint_batches
from retina.export.score_shift import score_shift
from retina.modeling.preprocess import PreprocessConfig, size_of
from retina.runtime import TorchRuntime
from retina.runtime.description import ExportDescription
from retina.runtime.exported import ExportedRuntime
from retina.runtime.files import load_export
from retina.runtime.onnx_runtime import OnnxRuntime
from retina.structures import Detections
from tests.export.conftest import (  # type: ignore[import-not-found]
    Exports,
    make_detector,
    random_images,
)
from tests.memory_dataset import MemoryDataset  # type: ignore[import-not-found]
from tests.processes import Launched  # type: ignore[import-not-found]
from tests.small_detector import small_backbone_listed  # type: ignore[import-not-found]

BATCHES = Examples("random images", batches=[random_images((97, 131), (64, 64))] * 2)


class Job(ExportJob):
    """A job whose conversion is done."""

    model: ConvertedModel

    def _convert(self) -> ConvertedModel:
        return self.model


def job_of(model: ConvertedModel, job: ExportJob, output: Path, **fields: object) -> Job:
    known = {one.name: getattr(job, one.name) for one in dataclasses.fields(job)}
    made = Job(**{**known, "output": output, **fields})
    object.__setattr__(made, "model", model)
    return made


def test_what_was_found_stands_in_the_file(exports: Exports, tmp_path: Path) -> None:
    output = tmp_path / "new" / "model.onnx"
    job = job_of(exports.onnx, exports.job("onnx", ".onnx"), output, examples=BATCHES)
    told = job.run().verification
    assert told is not None
    assert (told.images, told.num_images, told.num_ties) == ("random images", 4, 0)
    assert told.num_detections > 40
    assert told.max_box_difference is not None
    assert told.max_box_difference < 1e-3
    assert load_export(output).description.verification == told
    assert [one.name for one in output.parent.iterdir()] == ["model.onnx"]


def test_other_weights_are_not_written(exports: Exports, tmp_path: Path) -> None:
    output = tmp_path / "model.onnx"
    job = job_of(
        exports.onnx,
        exports.job("onnx", ".onnx"),
        output,
        examples=BATCHES,
        artifact=make_detector(bias=0.01),
    )
    with pytest.raises(RunError, match=r"nothing is written.* in 4 of 4 images.*\n  picture "):
        job.run()
    assert not list(tmp_path.iterdir())
    description = job_of(exports.onnx, job, output, examples=None).run()  # --no-verify
    assert description.verification is None
    assert output.is_file()


def test_the_mean_change_of_score_is_bounded(exports: Exports, tmp_path: Path) -> None:
    source = TorchRuntime.from_artifact(exports.artifact, device=torch.device("cpu"))
    path = exports.write(exports.job("onnx", ".onnx"), exports.onnx)
    shifted = make_detector(bias=-0.2)
    other = TorchRuntime.from_artifact(shifted, device=torch.device("cpu"))
    about = verify(other, load_export(path), BATCHES, precision="int8", bounds=Bounds())
    assert about.score_shift is not None
    assert 0.001 < about.score_shift < 0.05
    assert about.ap is None
    with pytest.raises(RunError, match=r"scores of what is shown change by .*\n  picture \d: "):
        verify(other, load_export(path), BATCHES, precision="int8", bounds=Bounds(0.1, 0.001))
    same = verify(source, load_export(path), BATCHES, precision="int8", bounds=Bounds(0, 1e-4))
    assert same.score_shift == pytest.approx(0, abs=1e-5)


def test_what_either_side_shows_alone_counts() -> None:
    shown_from = torch.tensor([0.3, 0.3])

    def found(*rows: tuple[float, float, int]) -> Detections:
        """Boxes of 10 × 10 pixels at x, their scores and labels."""
        boxes = torch.tensor([[x, 0, x + 10, 10] for x, _, _ in rows]).reshape(-1, 4)
        return Detections(
            boxes,
            torch.tensor([score for _, score, _ in rows]),
            torch.tensor([label for _, _, label in rows], dtype=torch.int64),
        )

    both = found((0.0, 0.9, 0), (50.0, 0.2, 1))
    assert score_shift(both, both, shown_from) == (0.0, 1)
    assert score_shift(both, found(), shown_from) == (pytest.approx(0.9), 1)
    assert score_shift(found(), both, shown_from) == (pytest.approx(0.9), 1)
    risen = found((0.0, 0.9, 0), (50.0, 0.4, 1), (80.0, 0.5, 0), (90.0, 0.1, 0))
    assert score_shift(both, risen, shown_from) == (pytest.approx(0.2 + 0.5), 3)
    assert score_shift(risen, both, shown_from) == (pytest.approx(0.2 + 0.5), 3)
    assert score_shift(found(), found(), shown_from) == (0.0, 0)


def test_what_has_measured_nothing_is_not_passed(exports: Exports) -> None:
    """A detector that shows nothing, on images without annotations: neither AP nor a score."""
    path = exports.write(exports.job("onnx", ".onnx"), exports.onnx)
    source, exported = quiet_pair(exports.artifact, path)
    empty = Examples("empty", dataset=MemoryDataset([[], []], names=source.categories.names))
    for examples in (BATCHES, empty):
        with pytest.raises(RunError, match=r"nothing could be measured.* --data, or .*--no-verify"):
            verify(source, exported, examples, precision="bf16", bounds=Bounds())


def quiet_pair(artifact: Artifact, path: Path) -> tuple[TorchRuntime, ExportedRuntime]:
    """A detector and its export that show nothing, for all that they find."""
    source = TorchRuntime.from_artifact(artifact, device=torch.device("cpu"))
    exported = load_export(path)
    source.thresholds = exported.thresholds = torch.full_like(source.thresholds, 2.0)
    return source, exported


def test_ap_is_measured_where_there_are_annotations(exports: Exports) -> None:
    path = exports.write(exports.job("onnx", ".onnx"), exports.onnx)
    source = TorchRuntime.from_artifact(exports.artifact, device=torch.device("cpu"))
    found = Examples("its own", dataset=found_by(source))
    about = verify(source, load_export(path), found, precision="fp32", bounds=Bounds())
    assert about.source_ap == about.ap == pytest.approx(1.0)
    other = TorchRuntime.from_artifact(make_detector(seed=1), device=torch.device("cpu"))
    found = Examples("another's", dataset=found_by(other))
    with pytest.raises(RunError, match=r"the AP falls from 1.0000 to 0.*\(--max-ap-drop\)"):
        verify(other, load_export(path), found, precision="int8", bounds=Bounds(0.01, 1.0))
    verify(other, load_export(path), found, precision="int8", bounds=Bounds(1.0, 1.0))


def test_the_images_that_lower_the_ap_are_named_where_nothing_is_shown(
    exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No score of what is shown could tell; the export finds nothing in one of three images."""
    path = exports.write(exports.job("onnx", ".onnx"), exports.onnx)
    source, exported = quiet_pair(exports.artifact, path)
    examples = Examples("its own", dataset=found_by(source, 3))

    def detect(self: OnnxRuntime, images: Sequence[torch.Tensor]) -> list[Detections]:
        found = source.detect(images)
        return [found[0], found[1].at_least(2.0), *found[2:]]

    monkeypatch.setattr(OnnxRuntime, "detect", detect)
    with pytest.raises(RunError) as raised:
        verify(source, exported, examples, precision="int8", bounds=Bounds())
    first, *lines = str(raised.value).splitlines()
    assert first.endswith("(--max-ap-drop)")
    assert lines == ["  memory/1: 20.0 objects found before, 0.0 after (mean over COCO's overlaps)"]


def found_by(runtime: TorchRuntime, num_images: int = 2) -> MemoryDataset:
    """A data set whose objects are what a detector finds in it."""
    names = runtime.categories.names
    empty = MemoryDataset([[]] * num_images, names=names)
    rows = range(num_images)
    images = [torch.from_numpy(empty.load(row).image).permute(2, 0, 1) for row in rows]
    boxes = [
        [(int(label), *box) for label, box in zip(one.labels, one.boxes.tolist(), strict=True)]
        for image in images
        for one in runtime.detect([image])
    ]
    return MemoryDataset(boxes, names=names)


def test_the_gate_knows_the_last_candidates(exports: Exports) -> None:
    """Which detection is at the limit of its level is seen in the candidates that pass it."""
    source = TorchRuntime.from_artifact(exports.artifact, device=torch.device("cpu"))
    (image,) = random_images((97, 131))
    limit = source.postprocess.candidates_per_level
    levels = [level.flatten() for level in source.forward([image]).predictions.class_logits]
    expected = [level.sort().values[-limit].sigmoid() for level in levels if len(level) > limit]
    assert 0 < len(expected) < len(levels)
    assert last_candidates(source, image) == pytest.approx([float(one) for one in expected])


def test_too_many_ties_are_no_chance(exports: Exports) -> None:
    """A last place that is another one in every image: each alone would be a tie."""
    path = exports.write(exports.job("onnx", ".onnx"), exports.onnx)
    source = TorchRuntime.from_artifact(exports.artifact, device=torch.device("cpu"))

    class Sloppy(OnnxRuntime):
        def detect(self, images: Sequence[torch.Tensor]) -> list[Detections]:
            found = super().detect(images)
            for one in found:
                assert len(one) == 20
                one.boxes[-1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
            return found

    with pytest.raises(RunError, match="differ where the last digits decide, too many"):
        verify(source, Sloppy.load(path), BATCHES, precision="fp32", bounds=Bounds())


def test_images_that_a_graph_will_not_take_are_told_first(exports: Exports, tmp_path: Path) -> None:
    """Of 64 × 96, where the graph is fixed to another size; nothing is there to be converted."""
    data = MemoryDataset([[]], names=exports.artifact.categories.names)
    job = dataclasses.replace(
        exports.job("torch", ".pt2", size=(96, 96)),
        output=tmp_path / "a.pt2",
        examples=Examples("memory", dataset=data),
        calibration=calibration_images(data),
    )
    told = r"a.pt2: takes only images .* 96 × 96 .*, one of 64 × 96 is resized to 96 × 144; .*64x96"
    with pytest.raises(UserError, match=told):
        job.run()
    with pytest.raises(UserError, match=told):
        job.calibration_inputs()[0]


def test_errors_name_the_file_that_was_asked_for(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(self: OnnxRuntime, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raise MemoryError

    monkeypatch.setattr(OnnxRuntime, "run", run_out)
    output = tmp_path / "a.onnx"
    job = job_of(exports.onnx, exports.job("onnx", ".onnx"), output, examples=BATCHES)
    with pytest.raises(RunError) as raised:
        job.run()
    assert str(raised.value).startswith(f"{output}: out of memory with a batch of 1 × 3 × ")
    assert str(raised.value).endswith(
        "name smaller images (--data), or verify on another device (--device)"
    )


def test_a_full_disk_names_the_file(exports: Exports, tmp_path: Path) -> None:
    output = tmp_path / "a.onnx"
    for error, told in (
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; free some space"),
        (RuntimeError("write failed\nat line 5"), "cannot be written: write failed"),
    ):

        class Failing(ConvertedModel):
            failure = error

            @classmethod
            def convert(cls, program: Any, form: Any, calibration: Any) -> Any: ...

            def save(self, path: Path, description: ExportDescription) -> None:
                path.write_bytes(b"half")
                raise self.failure

        plain = exports.job("onnx", ".onnx")
        for examples in (BATCHES, None):
            with pytest.raises(RunError) as raised:
                job_of(Failing(), plain, output, examples=examples).run()
            assert str(raised.value).startswith(f"{output}: {told}")
            assert not list(tmp_path.iterdir())


def test_images_to_calibrate_on_are_read_when_they_are_asked_for() -> None:
    data = MemoryDataset([[]] * 3)
    made = calibration_images(data)
    assert len(made) == 3
    assert [size_of(image) for image in made] == [(64, 96)] * 3
    read = ImagesOnDemand(2, lambda number: torch.full((1,), number))
    assert [int(one) for one in (*read, *read)] == [0, 1, 0, 1]


def print_scores(path: str) -> None:
    """Print the scores that an export finds for ``BATCHES``."""
    with small_backbone_listed():
        found = load_export(Path(path)).detect(BATCHES.batches[0])
    print(json.dumps([one.scores.tolist() for one in found]))


@pytest.mark.slow
def test_int8_keeps_what_reads_the_network_in_float(exports: Exports, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    import openvino

    form = ExportForm("openvino", precision="int8")
    preprocess = exports.artifact.config.preprocess.build()
    calibration = [preprocess.resize(image)[None] for image in random_images((97, 131), (64, 64))]
    model = OpenVinoModel.of_onnx(exports.onnx, form, calibration)
    job = exports.job("openvino", ".xml", precision="int8")
    strict = job_of(model, job, tmp_path / "a.xml", examples=BATCHES, bounds=Bounds(0, 0))
    with pytest.raises(RunError, match="scores of what is shown change"):
        strict.run()
    assert not list(tmp_path.iterdir())
    description = job_of(model, strict, strict.output, bounds=Bounds(0.01, 0.2)).run()
    assert description.verification is not None
    assert 0 < (description.verification.score_shift or 0) < 0.2
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.bin", "a.xml"]
    nodes = openvino.Core().read_model(tmp_path / "a.xml").get_ordered_ops()
    quantised = {
        user.get_node().get_type_name()
        for node in nodes
        if node.get_type_name() == "FakeQuantize"
        for user in node.output(0).get_target_inputs()
    }
    assert "Convolution" in quantised
    assert not quantised & {"Sigmoid", "TopK", "Exp", "Multiply", "NonMaxSuppression", "Gather"}
    constants = [node for node in nodes if node.get_type_name() == "Constant"]
    weights = [one.data for one in constants if one.get_element_type() == openvino.Type.i8]
    assert weights
    assert max(int(abs(one.astype(int)).max()) for one in weights) <= 64  # 7 bits
    # On a processor whose sums of products of 8 bits would saturate.
    means = []
    for processor in ({}, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}):
        done = Launched(print_scores, str(tmp_path / "a.xml"), environment=processor).complete()
        assert done.returncode == 0, done.stderr
        scores = json.loads(done.stdout.splitlines()[-1])
        means.append([sum(ones) / len(ones) for ones in scores])
    assert means[1] == pytest.approx(means[0], abs=0.01)


def test_pictures_are_of_several_sizes_and_batches() -> None:
    preprocess = PreprocessConfig(min_size=96, max_size=160).build()
    batches = paint_batches(preprocess)
    assert sorted({len(batch) for batch in batches}) == [1, 2, 3]
    assert len({image.shape for batch in batches for image in batch}) == len(batches)
    assert all(image.dtype == torch.uint8 for batch in batches for image in batch)
    camera = paint_batches(preprocess, (618, 800))
    assert {size_of(image) for batch in camera for image in batch} == {(618, 800)}


def test_pictures_fit_into_what_the_detector_pads_to() -> None:
    landscape = PreprocessConfig(min_size=96, max_size=160, pad_to=(96, 160)).build()
    batches = paint_batches(landscape)
    assert len(batches) == 5
    landscape.input_shape([size_of(image) for batch in batches for image in batch])
    nearly_square = PreprocessConfig(min_size=96, max_size=160, pad_to=(96, 130)).build()
    assert [size_of(one[0]) for one in paint_batches(nearly_square)] == [(191, 257), (97, 131)]
    with pytest.raises(UserError, match=r"pad_to can hold none of .*; name images with --data"):
        paint_batches(PreprocessConfig(min_size=96, max_size=160, pad_to=(96, 96)).build())


@pytest.mark.parametrize(
    ("form", "name", "told"),
    [
        (ExportForm("onnx", precision="bf16"), "a.onnx", "--format openvino"),
        (ExportForm("torch", precision="int8"), "a.pt2", "torch is written in fp32"),
        (ExportForm("onnx"), "a.pt2", "writes a .onnx file; name it a.onnx"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    exports: Exports, tmp_path: Path, form: ExportForm, name: str, told: str
) -> None:
    job = dataclasses.replace(exports.job("onnx", ".onnx"), form=form, output=tmp_path / name)
    with pytest.raises(UserError, match=told):
        job.run()
