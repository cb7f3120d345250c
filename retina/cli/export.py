"""``retina export``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, get_args

import typer

from retina.cli.options import (
    Annotations,
    DataConfig,
    Detector,
    Images,
    ScoredSplit,
    output_option,
    scored_data,
)
from retina.cli.output import make_console, print_lines
from retina.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retina.datasets import DetectionDataset
    from retina.modeling.detector_names import DetectorSource
    from retina.runtime.description import ExportDescription
    from retina.structures import Categories, Size


def command(
    detector: Detector,
    output: Annotated[Path, output_option("The file: .onnx, .xml (with a .bin beside it), .pt2.")],
    format: Annotated[str, typer.Option("--format", help="onnx, openvino or torch.")] = "onnx",
    precision: Annotated[
        str, typer.Option("--precision", help="fp32; of openvino also bf16 or int8.")
    ] = "fp32",
    raw: Annotated[
        bool, typer.Option("--raw", help="End at decoded boxes and scores, without suppression.")
    ] = False,
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Fix the images of a call (any number).")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", help="HEIGHTxWIDTH of all images, as of one camera (any)."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="Config, annotation file or folder, as in the README, or a folder of images; AP "
            "needs annotations.",
        ),
    ] = None,
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: ScoredSplit = None,
    max_images: Annotated[
        int, typer.Option("--max-images", min=1, help="Of the data that are run, spread over it.")
    ] = 500,
    max_ap_drop: Annotated[
        float,
        typer.Option("--max-ap-drop", metavar="X", help="By which bf16 or int8 may lower AP."),
    ] = 0.005,
    max_score_shift: Annotated[
        float,
        typer.Option(
            "--max-score-shift", metavar="X", help="By which they may move scores (mean)."
        ),
    ] = 0.05,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Write it unproven, and say so in the file.")
    ] = False,
    device: Annotated[
        str, typer.Option("--device", help="Where to verify: cpu, or auto, cuda, mps.")
    ] = "cpu",
) -> None:
    """Write a detector as ONNX, OpenVINO's IR or a torch program, proven to find the same.

    The export is run against the detector: on the data that is named, else on painted pictures. In
    fp32 it has to find the same; in bf16 and int8 AP and scores may change by so much. If not,
    nothing is written, and the exit code is 3. int8 is calibrated on the data.

    Example: `retina export runs/demo/checkpoints/best.safetensors --output model.onnx`

    Example: `retina export best.safetensors --format openvino --precision int8 --data photos
    --output model.xml`
    """
    from retina.errors import UserError, one_of
    from retina.export.calibration import calibration_images
    from retina.export.exporting import ExportJob, check_form, fixed_size
    from retina.export.formats import FORMATS, ExportForm
    from retina.export.gate import Bounds, Examples
    from retina.export.pictures import paint_batches
    from retina.modeling.detector_names import detector_given
    from retina.prediction.detectors import file_of, load_detector, taken_for
    from retina.runtime.description import ExportPrecision

    console = make_console()
    form = ExportForm(
        format=one_of(format, list(FORMATS), "--format"),
        precision=one_of(precision, get_args(ExportPrecision), "--precision"),
        raw=raw,
        batch=batch,
    )
    bounds = Bounds(max_ap_drop, max_score_shift)
    image_size = None if size is None else _parse_size(size)
    source = detector_given(detector, "DETECTOR")
    artifact = load_detector(source)
    print_lines(console, *taken_for(source))
    check_form(form, output)
    preprocess = artifact.config.preprocess.build()
    if image_size is not None:
        form = replace(form, size=fixed_size(image_size, preprocess))
    named = _Named(data, annotations, images, config, split)
    calibration: Sequence[Tensor] = ()
    examples: Examples | None = None
    if named.is_given:
        dataset, name = _read(source, artifact.categories, named, max_images)
        examples = Examples(name, dataset=dataset)
        if form.precision == "int8":
            calibration = calibration_images(dataset)
    elif form.precision == "int8":
        raise UserError(
            "--precision int8: say on which images to calibrate and verify: --data SOURCE, "
            "--annotations FILE --images FOLDER, or --config CONFIG --split NAME"
        )
    elif not no_verify:
        examples = Examples("painted pictures", batches=paint_batches(preprocess, image_size))
    job = ExportJob(
        artifact=artifact,
        source=file_of(source).name,
        form=form,
        output=output,
        examples=None if no_verify else examples,
        calibration=calibration,
        bounds=bounds,
        device=device,
    )
    with console.status("exporting"):
        description = job.run()
    print_lines(console, *_told(description, output))


class _Named(NamedTuple):
    """What the options say about the data."""

    data: Path | None
    annotations: Path | None
    images: Path | None
    config: Path | None
    split: str | None

    @property
    def is_given(self) -> bool:
        return any(option is not None for option in self)

    @property
    def may_be_photos(self) -> bool:
        """Whether it is a path alone, which may also hold images without annotations."""
        return self.data is not None and self.count(None) == len(self) - 1


def _parse_size(text: str) -> Size:
    from retina.errors import UserError

    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise UserError(f"--size {text}: write HEIGHTxWIDTH in pixels, say 1080x1920")
    return int(height), int(width)


def _read(
    source: DetectorSource, categories: Categories, named: _Named, max_images: int
) -> tuple[DetectionDataset, str]:
    """The images to verify on, and what they are called."""
    import numpy as np

    from retina.datasets.subset import SubsetDataset
    from retina.export.photos import PhotoDataset, photos_in
    from retina.runtime.splits import spread_indices

    photos = photos_in(named.data) if named.data is not None and named.may_be_photos else []
    if photos:
        files = [photos[row] for row in spread_indices(len(photos), max_images)]
        return PhotoDataset(files, categories), f"{named.data}, without annotations"
    resolved = scored_data(source, categories, *named, purpose="what to verify on")
    dataset = resolved.dataset
    rows = spread_indices(len(dataset), max_images)
    if len(rows) == len(dataset):
        return dataset, resolved.full_name
    chosen = SubsetDataset(dataset, np.array(rows), f"{len(rows)} of {len(dataset)} are run")
    return chosen, resolved.full_name


def _told(description: ExportDescription, output: Path) -> list[str]:
    """What was written, and how it was proven."""
    from retina.runtime.files import files_of

    size = sum(file.stat().st_size for file in files_of(output))
    lines = [f"{output}: {description.format}, {description.precision}, {size / 1e6:.1f} MB"]
    if description.size is not None:
        height, width = description.size
        lines.append(f"only for images that are resized to {height} × {width} (height × width)")
    found = description.verification
    if found is None:
        return [*lines, "not verified, as its description says"]
    lines.append(
        f"verified on {counted(found.num_images, 'image')} ({found.images}), in which the detector "
        f"finds {counted(found.num_detections, 'object')}"
    )
    if found.max_box_difference is not None and found.max_score_difference is not None:
        lines.append(
            f"the same detections: boxes within {found.max_box_difference:.1g} pixels, scores "
            f"within {found.max_score_difference:.1g}, {counted(found.num_ties, 'tie')}"
        )
        lines += [f"  {tie}" for tie in found.ties[:5]]
    if found.source_ap is not None and found.ap is not None:
        lines.append(f"AP {found.source_ap:.4f} before, {found.ap:.4f} after")
    if description.precision != "fp32" and found.score_shift is not None:
        lines.append(f"scores of what is shown changed by {found.score_shift:.4f} on average")
    if not found.num_detections:
        lines.append("that proves little: name images with objects by --data")
    return lines
