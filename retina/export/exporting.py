"""Puts an export together: traced, converted, run against its source, and only then written."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from retina.artifact import Artifact
from retina.devices import pick_device, pick_precision
from retina.errors import RunError, UserError
from retina.export.calibration import ImagesOnDemand
from retina.export.formats import FORMATS, ConvertedModel, ExportForm
from retina.export.gate import Bounds, Examples, verify
from retina.export.graph import CandidateGraph, DetectionGraph
from retina.export.tracing import trace
from retina.modeling.preprocess import Preprocess, PreprocessConfig, size_of
from retina.modeling.pretrained import UNKNOWN
from retina.runtime.description import ExportDescription, TensorDescription, Verification
from retina.runtime.exported import missing_package, refuse_other_size
from retina.runtime.files import check_device, files_of, load_export
from retina.runtime.torch_runtime import TorchRuntime
from retina.storage import as_ours, folder_beside, make_folder, replacing
from retina.structures import Size
from retina.wording import first_line, program_version

_MEMORY_FIX = "name smaller images (--data), or verify on another device (--device)"


@dataclass(frozen=True)
class ExportJob:
    """An export that is ready to be made.

    Attributes:
        artifact: the detector.
        source: its name, for the description.
        form: what is to be written.
        output: where.
        examples: what it is run on to be verified; None leaves it unverified.
        calibration: uint8 images for INT8.
        bounds: what may change in bf16 and INT8.
        device: where it is verified.
    """

    artifact: Artifact
    source: str
    form: ExportForm
    output: Path
    examples: Examples | None
    calibration: Sequence[Tensor] = ()
    bounds: Bounds = field(default_factory=Bounds)
    device: str = "cpu"

    def run(self) -> ExportDescription:
        """Make it.

        Returns:
            What the file says about itself, with what the verification found.

        Raises:
            UserError: a package or the device is missing, an image is of a size that the graph
                does not take, or the file may not be written.
            RunError: the export finds something else than its source; nothing was written.
        """
        check_form(self.form, self.output)
        if self.examples is not None:
            check_device(self.output, self.device)
            self._check_sizes(self.examples)
        _check_packages(self.form)
        make_folder(self.output.parent)
        with folder_beside(self.output) as folder:  # before the work: it shows that one can write
            model = self._convert()
            description = self.describe(None)
            if self.examples is not None:
                found = self._verified(model, description, self.examples, folder)
                description = self.describe(found)
        write(model, self.output, description)
        return description

    def describe(self, verification: Verification | None) -> ExportDescription:
        """What the file says about itself."""
        config, form = self.artifact.config, self.form
        return ExportDescription(
            version=program_version(),
            licence=_licence(self.artifact),
            source=self.source,
            format=form.format,
            precision=form.precision,
            raw=form.raw,
            batch=form.batch,
            size=form.size,
            inputs=_inputs(form),
            outputs=_outputs(form, self.artifact),
            resize=_resize_rule(config.preprocess),
            verification=verification,
            detector=config,
            training=dict(self.artifact.training),
        )

    def _convert(self) -> ConvertedModel:
        graph = (CandidateGraph if self.form.raw else DetectionGraph)(self.artifact)
        program = trace(graph, batch=self.form.batch, size=self.form.size)
        converter = FORMATS[self.form.format].load()
        try:
            return converter.convert(program, self.form, self.calibration_inputs())
        except OSError as error:  # a converter's own files
            raise as_ours(Path(error.filename or tempfile.gettempdir()), error) from None

    def calibration_inputs(self) -> ImagesOnDemand:
        """The images for INT8, ``(B, 3, H, W)`` float32, as a runtime gives them to the graph."""
        preprocess = self.artifact.config.preprocess.build()

        def prepared(number: int) -> Tensor:
            image = self.calibration[number]
            refuse_other_size(self.output, self.form.size, preprocess, size_of(image))
            preprocess.input_shape([size_of(image)])  # refuses what is too large
            return preprocess.resize(image).expand(self.form.batch or 1, -1, -1, -1).contiguous()

        return ImagesOnDemand(len(self.calibration), prepared)

    def _check_sizes(self, examples: Examples) -> None:
        """Refuse an image that the graph will not take, by its size in the annotations."""
        if self.form.size is None or examples.dataset is None:
            return
        preprocess = self.artifact.config.preprocess.build()
        for height, width in examples.dataset.image_sizes.tolist():
            refuse_other_size(self.output, self.form.size, preprocess, (height, width))

    def _verified(
        self,
        model: ConvertedModel,
        description: ExportDescription,
        examples: Examples,
        folder: Path,
    ) -> Verification:
        """Run it from a file in a folder of its own, as a user will."""
        where = pick_device(self.device)
        source = TorchRuntime.from_artifact(
            self.artifact,
            device=where,
            precision=pick_precision("fp32", where),
            memory_fix=_MEMORY_FIX,
        )
        path = folder / f"model{FORMATS[self.form.format].suffix}"
        _save(model, path, description, self.output)
        with _telling_of(self.output, instead_of=path):
            exported = load_export(path, device=self.device)
            exported.memory_fix = _MEMORY_FIX
            try:
                return verify(
                    source,
                    exported,
                    examples,
                    precision=self.form.precision,
                    bounds=self.bounds,
                )
            finally:
                del exported  # some hold their file open


@contextmanager
def _telling_of(output: Path, *, instead_of: Path) -> Iterator[None]:
    """Let errors in the block name the file that was asked for, not a temporary one."""
    try:
        yield
    except (UserError, RunError) as error:
        raise type(error)(str(error).replace(str(instead_of), str(output))) from None


def write(model: ConvertedModel, path: Path, description: ExportDescription) -> None:
    """Write an export with all of its files, each in one step; the one that is named comes last."""
    with folder_beside(path) as folder:
        made = folder / path.name
        _save(model, made, description, path)
        with ExitStack() as stack:
            for suffix in (path.suffix, *model.companions):  # left in the reverse order
                aside = stack.enter_context(replacing(path.with_suffix(suffix)))
                shutil.copyfile(made.with_suffix(suffix), aside)


def _save(model: ConvertedModel, path: Path, description: ExportDescription, output: Path) -> None:
    """Save it in a temporary folder.

    Raises:
        UserError: the folder may not be written to.
        RunError: the disk is full, or the format's own writer failed; the message names ``output``.
    """
    try:
        model.save(path, description)
    except OSError as error:
        raise as_ours(output, error) from None
    except RuntimeError as error:  # the writers of torch and OpenVINO tell a full disk so
        raise RunError(f"{output}: cannot be written: {first_line(error)}") from None


def check_form(form: ExportForm, output: Path) -> None:
    """Refuse what cannot be, before anything is computed.

    Raises:
        UserError: says what, and what can be done.
    """
    known = FORMATS[form.format]
    if form.precision not in known.precisions:
        others = [name for name, one in FORMATS.items() if form.precision in one.precisions]
        raise UserError(
            f"--precision {form.precision}: {form.format} is written in "
            f"{' or '.join(known.precisions)}; take --format {' or '.join(others)}"
        )
    if output.suffix != known.suffix:
        raise UserError(
            f"--output {output}: --format {form.format} writes a {known.suffix} file; name it "
            f"{output.with_suffix(known.suffix).name}"
        )
    for file in files_of(output):
        if file.is_dir():
            raise UserError(
                f"--output {output}: {file} is a folder; give a name that no folder has"
            )


def _check_packages(form: ExportForm) -> None:
    packages = FORMATS[form.format].packages
    for package in (*packages, "nncf") if form.precision == "int8" else packages:
        if find_spec(package) is None:
            what = "--precision int8" if package == "nncf" else f"--format {form.format}"
            raise missing_package(package, what)


def fixed_size(images: Size, preprocess: Preprocess) -> Size:
    """What a graph is fixed to that takes only images of one size, as those of a camera.

    Args:
        images: their height and width.
        preprocess: of the detector.

    Raises:
        UserError: resized they are larger than ``pad_to``.
    """
    preprocess.input_shape([images])
    return preprocess.input_size(images)


def _inputs(form: ExportForm) -> dict[str, TensorDescription]:
    height, width = form.size or ("height", "width")
    return {
        "images": TensorDescription(
            shape=(form.batch or "batch", 3, height, width),
            dtype="float32",
            meaning="RGB in 0 … 255, resized as 'resize' says, not normalised and not padded",
        )
    }


def _outputs(form: ExportForm, artifact: Artifact) -> dict[str, TensorDescription]:
    rule = artifact.config.postprocess
    levels = len(artifact.config.model.anchors.sizes)
    batch = form.batch or "batch"
    rows = levels * rule.candidates_per_level if form.raw else rule.max_detections
    order = "level by level, best first" if form.raw else "best first, zero from 'count' on"
    clipped = "not clipped" if form.raw else "within the image"
    found = {
        "boxes": TensorDescription(
            shape=(batch, rows, 4),
            dtype="float32",
            meaning=f"x1, y1, x2, y2 in pixels of the input, {clipped}; {order}",
        ),
        "scores": TensorDescription(
            shape=(batch, rows), dtype="float32", meaning="0 to 1; 0 where there is nothing"
        ),
        "labels": TensorDescription(
            shape=(batch, rows), dtype="int64", meaning="index of the class in 'classes'"
        ),
    }
    if not form.raw:
        found["count"] = TensorDescription(
            shape=(batch,), dtype="int64", meaning="how many rows are detections"
        )
    return found


def _resize_rule(preprocess: PreprocessConfig) -> str:
    filtered = "with" if preprocess.antialias else "without"
    how = f"bilinear, half-pixel centres, {filtered} antialiasing, in float32"
    if preprocess.stretch:
        return f"to height {preprocess.min_size} and width {preprocess.max_size}; {how}"
    return (
        f"shorter side to {preprocess.min_size}, longer side to at most {preprocess.max_size}, "
        f"the aspect ratio kept and both rounded down; {how}"
    )


def _licence(artifact: Artifact) -> str:
    origin = artifact.config.pretrained
    parts: Sequence[str] = ["retina: Apache-2.0"]
    if origin is not None:
        known = origin.licence if origin.licence != UNKNOWN else "unknown licence"
        parts = [*parts, f"pretrained weights {origin.name}: {known}"]
    return "; ".join(parts)
