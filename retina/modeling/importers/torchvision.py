"""Weights of torchvision's RetinaNets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from retina.configuration import Tree, merge, read_preset, validate
from retina.errors import UserError
from retina.modeling.config import MemoryFormat, ModelConfig
from retina.modeling.loading import (
    COUNTER,
    StateDict,
    described,
    misfits,
    without_counters,
)

Variant = Literal["v1", "v2"]

_LOGITS = "head.classification_head.cls_logits.weight"
CLASS_OUTPUTS = "head.classification.output."
"""How the names of what gives the class logits begin here."""
_V2_ONLY = "head.classification_head.conv.0.1.weight"
_ANCHORS_PER_CELL = 9

_RENAMED = (
    (r"^backbone\.body\.", "backbone."),
    (r"^backbone\.fpn\.", "pyramid.fpn."),
    # Before torchvision 0.13 a block was a bare convolution, and ReLUs had numbers of their own.
    (r"^(pyramid\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"^head\.classification_head\.", "head.classification."),
    (r"^head\.regression_head\.", "head.box_regression."),
    (r"^(head\.\w+)\.(?:cls_logits|bbox_reg)\.", r"\1.output."),
    (r"^(head\.\w+)\.conv\.(\d+\.\d)\.", r"\1.convs.\2."),
)
_OLD_CONV = re.compile(r"^(head\.\w+)\.conv\.(\d+)\.(weight|bias)$")


def model_config(
    variant: Variant,
    *,
    norm_eps: float | None = None,
    memory_format: MemoryFormat = "contiguous",
    state_dict: Mapping[str, Tensor] | None = None,
) -> ModelConfig:
    """The model that the variant's weights belong to, without pretrained weights of its own.

    Args:
        variant: ``v1`` is ``retinanet_resnet50_fpn``, ``v2`` is ``retinanet_resnet50_fpn_v2``.
        norm_eps: the epsilon of the backbone's normalisation, which no state dict tells: 0.0 for
            the published COCO_V1 weights of v1, otherwise None, which takes the preset's.
        memory_format: in which float32 is computed; ``contiguous`` is torchvision's: another order
            of summation moves scores by up to some 1e-5.
        state_dict: torchvision's weights, if at hand: whether v1's backbone has live or frozen
            batch norms is told by the counters that only live ones have.

    Raises:
        UserError: there is no such variant.
    """
    if variant not in ("v1", "v2"):
        raise UserError(f"torchvision has no RetinaNet variant '{variant}': choose v1 or v2")
    preset = read_preset(f"torchvision_{variant}")["model"]
    is_live = any(name.endswith(COUNTER) for name in state_dict or ())
    backbone: Tree = {"weights": None}
    if is_live:
        backbone["norm"] = "batch"
    if norm_eps is not None:
        backbone["norm_eps"] = norm_eps
    tree = merge(preset, {"backbone": backbone, "memory_format": memory_format})
    return validate(tree, ModelConfig, source=f"torchvision {variant}")


def num_classes_of(state_dict: Mapping[str, Tensor]) -> int:
    """How many class outputs the weights have: the published ones have 91, one never used.

    Raises:
        UserError: these are not the weights of a torchvision RetinaNet.
    """
    logits = state_dict.get(_LOGITS)
    if logits is None:
        some = ", ".join(list(state_dict)[:3]) or "nothing"
        raise UserError(
            f"not the state dict of a torchvision RetinaNet: it has no '{_LOGITS}' (but {some} …)"
        )
    if logits.shape[0] % _ANCHORS_PER_CELL:
        raise UserError(
            f"'{_LOGITS}' has {logits.shape[0]} outputs, no multiple of the {_ANCHORS_PER_CELL} "
            f"anchors of a cell: only torchvision's default anchors can be imported"
        )
    return int(logits.shape[0]) // _ANCHORS_PER_CELL


def convert_state_dict(state_dict: Mapping[str, Tensor], variant: Variant) -> StateDict:
    """A torchvision RetinaNet's weights under this project's names.

    ``num_batches_tracked`` entries are left out: they are no weights.

    Args:
        state_dict: of ``retinanet_resnet50_fpn`` or ``retinanet_resnet50_fpn_v2``, of any
            torchvision version.
        variant: ``v1`` or ``v2``.

    Raises:
        UserError: the weights are not those of the variant; the message says what differs.
    """
    num_classes = num_classes_of(state_dict)
    converted = own_names(without_counters(state_dict))
    with torch.device("meta"):  # shapes only: nothing is allocated or initialised
        expected = model_config(variant).build(num_classes).state_dict()
    problems = misfits(without_counters(expected), converted)
    if problems:
        likely = "v2" if _V2_ONLY in state_dict else "v1"
        advice = "has it another backbone?" if likely == variant else f"it looks like {likely}"
        raise UserError(
            f"the state dict is not that of torchvision's RetinaNet {variant} ({advice}): "
            f"{described(problems)}"
        )
    return converted


def with_classes(state_dict: Mapping[str, Tensor], labels: Sequence[int]) -> StateDict:
    """The weights without the outputs of all other classes; each class has outputs of its own.

    Args:
        state_dict: of `convert_state_dict`, with K classes: the class logits are ``(A · K, …)``.
        labels: those of the N classes to keep.

    Returns:
        The same entries; those of the class logits are ``(A · N, …)``.
    """
    kept = dict(state_dict)
    for name in (f"{CLASS_OUTPUTS}weight", f"{CLASS_OUTPUTS}bias"):
        outputs = state_dict[name]
        per_class = outputs.reshape(_ANCHORS_PER_CELL, -1, *outputs.shape[1:])  # (A, K, …)
        kept[name] = per_class[:, list(labels)].flatten(0, 1)
    return kept


def own_names(state_dict: Mapping[str, Tensor]) -> StateDict:
    """The entries of a torchvision RetinaNet under this project's names; others as they are."""
    if _LOGITS not in state_dict:
        return dict(state_dict)
    return {_own_name(name): value for name, value in state_dict.items()}


def _own_name(name: str) -> str:
    old = _OLD_CONV.match(name)
    if old is not None:
        name = f"{old[1]}.conv.{int(old[2]) // 2}.0.{old[3]}"
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
