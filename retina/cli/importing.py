"""``retina import``."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

from rich.console import Console

from retina.cli.choices import one_of
from retina.errors import UserError
from retina.modeling.importers.torchvision import num_classes_of
from retina.modeling.loading import StateDict, read_state_dict
from retina.prediction.torchvision_import import torchvision_artifact

_ARCHITECTURES = {"v1": "retinanet_resnet50_fpn", "v2": "retinanet_resnet50_fpn_v2"}


def run_import(
    source: str,
    *,
    output: Path,
    variant: str,
    categories: Path | None,
    min_size: int,
    max_size: int,
    norm_eps: float | None,
) -> None:
    """Convert, write the detector file, and say what it is."""
    one_of(variant, ("v1", "v2"), "--variant")
    if output.suffix != ".safetensors":
        raise UserError(f"--output: {output} must end in .safetensors")
    known: Any = _official_weights(source, variant)
    state_dict: StateDict
    if known is not None:
        try:
            state_dict = known.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise UserError(
                f"{source}: could not be fetched from {known.url} ({error}); give a local file"
            ) from None
    else:
        state_dict = read_state_dict(Path(source))
    if norm_eps is None:
        norm_eps = 0.0 if known is not None and variant == "v1" else 1e-5
    num_classes = num_classes_of(state_dict)
    names = _names(categories, num_classes, variant)
    artifact = torchvision_artifact(
        state_dict,
        "v1" if variant == "v1" else "v2",
        names,
        min_size=min_size,
        max_size=max_size,
        norm_eps=norm_eps,
    )
    artifact.save(output)
    Console(highlight=False, soft_wrap=True).print(
        f"{output}: torchvision {variant}, {num_classes} class outputs, {min_size}–{max_size} "
        f"pixels, norm epsilon {norm_eps:g}",
        markup=False,
    )


def _official_weights(name: str, variant: str) -> Any:
    """Torchvision's weights of that name, or None where the name is a file."""
    if Path(name).exists():
        return None
    from torchvision.models import get_model_weights

    known = get_model_weights(_ARCHITECTURES[variant])
    if name in known.__members__:
        return known[name]
    if Path(name).suffix:
        return None
    raise UserError(
        f"{name}: no such file, and torchvision has no weights of that name for {variant} (it has "
        f"{', '.join(known.__members__)})"
    )


def _names(source: Path | None, num_classes: int, variant: str) -> list[str]:
    if source is not None:
        return _read_names(source, num_classes)
    from torchvision.models import get_model_weights

    official = list(get_model_weights(_ARCHITECTURES[variant]).DEFAULT.meta["categories"])
    if num_classes == len(official):
        return official
    return [f"class {number}" for number in range(num_classes)]


def _read_names(source: Path, num_classes: int) -> list[str]:
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--categories: {source} cannot be read: {error}") from None
    if source.suffix != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        rows = sorted(json.loads(text)["categories"], key=lambda row: row["id"])
        if len(rows) < num_classes and rows and 0 <= rows[0]["id"] <= rows[-1]["id"] < num_classes:
            # torchvision's COCO weights: the outputs are the original ids, with their gaps.
            by_id = {row["id"]: str(row["name"]) for row in rows}
            return [by_id.get(number, f"unused {number}") for number in range(num_classes)]
        return [str(row["name"]) for row in rows]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"--categories: {source} is no COCO annotation file: {error}") from None
