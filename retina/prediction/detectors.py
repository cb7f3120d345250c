"""A detector by its file, by the name under which it is published, or of torchvision's weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from retina.artifact import Artifact, load_artifact, make_artifact
from retina.configuration import merge, read_preset, validate
from retina.devices import PrecisionChoice, pick_device, pick_precision
from retina.errors import UserError, list_given
from retina.modeling.config import MemoryFormat
from retina.modeling.detector_names import DetectorSource, PublishedName
from retina.modeling.importers.published import (
    UNUSED,
    fetch_published,
    origin_of_published,
    published,
    published_file,
    published_source,
)
from retina.modeling.importers.torchvision import (
    Variant,
    convert_state_dict,
    model_config,
    num_classes_of,
    with_classes,
)
from retina.modeling.inference_form import usual_form
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.modeling.pretrained import WeightOrigin
from retina.runtime import Runtime, TorchRuntime
from retina.runtime.files import is_export, load_export
from retina.structures import Categories


def load_detector(source: DetectorSource) -> Artifact:
    """The detector of a file, or the published one of that name, which is fetched once.

    Raises:
        UserError: the file is no detector, or the published one cannot be fetched.
    """
    if isinstance(source, Path) and is_export(source):
        raise UserError(
            f"{source}: an exported detector gives detections only; this needs the detector file "
            "(.safetensors) that it was made of"
        )
    return load_artifact(source) if isinstance(source, Path) else published_artifact(source)


def load_runtime(
    source: DetectorSource,
    *,
    device: str = "auto",
    precision: PrecisionChoice = "fp32",
    compiled: bool = False,
    max_detections: int | None = None,
    memory_fix: str = "lower the batch size (--batch-size)",
) -> Runtime:
    """What runs a detector: PyTorch a detector file or a published one, its own engine an export.

    Args:
        source: the detector.
        device: ``auto`` picks the best that there is.
        precision: of the network; an export has its own.
        compiled: compile the network on this machine, in its first calls.
        max_detections: detections of an image that are made; None leaves it to the detector.
        memory_fix: what the error says to do where memory runs out.

    Raises:
        UserError: there is no such detector or device, or an export was made otherwise.
    """
    if isinstance(source, Path) and is_export(source):
        exported = load_export(source, device=device, max_detections=max_detections)
        if precision not in ("fp32", "auto"):
            raise UserError(
                f"--precision {precision}: {source} was exported in "
                f"{exported.description.precision}; leave it away, or export again"
            )
        if compiled:
            raise UserError(f"--compile: {source} was exported for its own engine; leave it away")
        return exported
    where = pick_device(device)
    chosen = pick_precision(precision, where)
    try:
        return TorchRuntime.from_artifact(
            load_detector(source),
            device=where,
            precision=chosen,
            form=usual_form(chosen, compiled=compiled),
            max_detections=max_detections,
            memory_fix=memory_fix,
        )
    except UserError as error:
        if str(source) in str(error):
            raise
        raise UserError(f"{source}: {error}") from None


def published_artifact(name: PublishedName) -> Artifact:
    """A published detector with COCO's 80 classes, their ids, and torchvision's thresholds.

    Raises:
        UserError: it cannot be fetched; says what to fetch and where to put it.
    """
    detector = published(name)
    return torchvision_artifact(
        fetch_published(name),
        detector.variant,
        detector.categories,
        unused=UNUSED,
        norm_eps=detector.norm_eps,
        pretrained=origin_of_published(detector.weights),
    )


def file_of(source: DetectorSource) -> Path:
    """The file that a detector was read from."""
    return source if isinstance(source, Path) else published_file(source)


def taken_for(source: DetectorSource) -> list[str]:
    """A line on what a name was taken for, once it is loaded; none for a file."""
    if isinstance(source, Path):
        return []
    found = published_source(source)
    line = f"{source}: torchvision's {found.name}, COCO's 80 classes, kept at {file_of(source)}"
    if Path(source).exists():
        line += f"; for the file of that name say ./{source}"
    return [line]


def torchvision_artifact(
    state_dict: Mapping[str, Tensor],
    variant: Variant,
    categories: Sequence[str],
    *,
    unused: Collection[str] = (),
    min_size: int | None = None,
    max_size: int | None = None,
    norm_eps: float | None = None,
    memory_format: MemoryFormat = "contiguous",
    pretrained: WeightOrigin | None = None,
) -> Artifact:
    """A torchvision RetinaNet as a detector of this project.

    Args:
        state_dict: of ``retinanet_resnet50_fpn`` (v1) or ``retinanet_resnet50_fpn_v2`` (v2).
        variant: which of the two.
        categories: the name of every class output, in their order; the published COCO weights have
            91, of which 80 are used.
        unused: names in ``categories`` whose outputs are left out; the others keep their ids.
        min_size: the shorter side of the network's input; None for torchvision's, 800.
        max_size: the longer side's limit; None for torchvision's, 1333.
        norm_eps: epsilon of the backbone's batch norms, which no state dict tells. The published
            ``COCO_V1`` weights of v1 need 0.0; None is for live batch norms, 1e-5.
        memory_format: ``contiguous`` computes in float32 in torchvision's order, to the same bits;
            ``channels_last`` is faster.
        pretrained: where the weights are from, where that is known.

    Raises:
        UserError: the weights are not of this variant, or the number of categories is not theirs.
    """
    if not isinstance(state_dict, Mapping):
        raise UserError(
            f"state_dict: a {type(state_dict).__name__} is no state dict; give what torch.load "
            "reads of the file, or model.state_dict()"
        )
    categories = list_given(categories, "categories")
    num_classes = num_classes_of(state_dict)
    if len(categories) != num_classes:
        raise UserError(
            f"the weights have {num_classes} class outputs, but {len(categories)} category names "
            "were given; give one name per output (a name such as '__background__' for an unused "
            "one)"
        )
    labels = [label for label, name in enumerate(categories) if name not in unused]
    weights = with_classes(convert_state_dict(state_dict, variant), labels)
    model = model_config(
        variant, norm_eps=norm_eps, memory_format=memory_format, state_dict=state_dict
    )
    preset = read_preset(f"torchvision_{variant}")
    sizes = {"min_size": min_size, "max_size": max_size}
    given = {key: size for key, size in sizes.items() if size is not None}
    source = f"torchvision {variant}"
    detector = model.build(len(labels))
    # The counters of live batch norms are no weights and may be missing.
    detector.load_state_dict(weights, strict=False)
    return make_artifact(
        detector,
        model=model,
        preprocess=validate(merge(preset["preprocess"], given), PreprocessConfig, source=source),
        postprocess=validate(preset["postprocess"], PostprocessConfig, source=source),
        categories=Categories(tuple(categories[label] for label in labels), tuple(labels)),
        training={"imported_from": source},
        pretrained=pretrained,
    )
