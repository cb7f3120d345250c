"""torchvision's RetinaNet, as a predictor of this project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from retina.artifact import Artifact, make_artifact
from retina.configuration import merge, read_preset, validate
from retina.devices import PrecisionChoice
from retina.errors import UserError, list_given
from retina.modeling.importers.torchvision import (
    Variant,
    convert_state_dict,
    model_config,
    num_classes_of,
)
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.prediction.predictor import Predictor
from retina.structures import Categories


def load_torchvision(
    state_dict: Mapping[str, Tensor],
    variant: Literal["v1", "v2"],
    categories: Sequence[str],
    *,
    min_size: int | None = None,
    max_size: int | None = None,
    norm_eps: float | None = None,
    device: str = "auto",
    precision: PrecisionChoice = "fp32",
) -> Predictor:
    """A predictor that finds what torchvision's own model finds.

    See `torchvision_artifact` for the arguments and errors, `retina.load` for the last two.
    """
    artifact = torchvision_artifact(
        state_dict, variant, categories, min_size=min_size, max_size=max_size, norm_eps=norm_eps
    )
    return Predictor.from_artifact(artifact, device=device, precision=precision)


def torchvision_artifact(
    state_dict: Mapping[str, Tensor],
    variant: Variant,
    categories: Sequence[str],
    *,
    min_size: int | None = None,
    max_size: int | None = None,
    norm_eps: float | None = None,
) -> Artifact:
    """A torchvision RetinaNet as a detector of this project.

    Args:
        state_dict: of ``retinanet_resnet50_fpn`` (v1) or ``retinanet_resnet50_fpn_v2`` (v2).
        variant: which of the two.
        categories: the name of every class output, in their order; the published COCO weights have
            91, of which the first is never used.
        min_size: the shorter side of the network's input; None for torchvision's, 800.
        max_size: the longer side's limit; None for torchvision's, 1333.
        norm_eps: epsilon of the backbone's batch norms, which no state dict tells. The published
            ``COCO_V1`` weights of v1 need 0.0; None is for live batch norms, 1e-5.

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
    model = model_config(variant, norm_eps=norm_eps, state_dict=state_dict)
    preset = read_preset(f"torchvision_{variant}")
    sizes = {"min_size": min_size, "max_size": max_size}
    given = {key: size for key, size in sizes.items() if size is not None}
    source = f"torchvision {variant}"
    detector = model.build(num_classes)
    # The counters of live batch norms are no weights and may be missing.
    detector.load_state_dict(convert_state_dict(state_dict, variant), strict=False)
    return make_artifact(
        detector,
        model=model,
        preprocess=validate(merge(preset["preprocess"], given), PreprocessConfig, source=source),
        postprocess=validate(preset["postprocess"], PostprocessConfig, source=source),
        categories=Categories(tuple(categories), tuple(range(num_classes))),
        training={"imported_from": source},
    )
