"""``retina import torchvision``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from retina.cli.options import output_option
from retina.cli.output import make_console, print_lines

_ARCHITECTURES = {"v1": "retinanet_resnet50_fpn", "v2": "retinanet_resnet50_fpn_v2"}


def command(
    state_dict: Annotated[
        str,
        typer.Argument(
            help="A state dict or a training's checkpoint (.pt, .pth, .safetensors), or the name "
            "of torchvision's own weights (COCO_V1), which are then downloaded."
        ),
    ],
    output: Annotated[Path, output_option("The detector file to write.")],
    variant: Annotated[str, typer.Option("--variant", help="v1 or v2.")] = "v2",
    categories: Annotated[
        Path | None,
        typer.Option(
            "--categories",
            help="Text file with one class name per line, or a COCO annotation file; without it "
            "torchvision's 91 COCO names where the weights have 91 outputs, else numbers.",
        ),
    ] = None,
    min_size: Annotated[int, typer.Option("--min-size", min=1, help="Shorter side.")] = 800,
    max_size: Annotated[int, typer.Option("--max-size", min=1, help="Longer side's limit.")] = 1333,
    norm_eps: Annotated[
        float | None,
        typer.Option(
            "--norm-eps",
            min=0.0,
            help="Epsilon of the backbone's batch norms: 0.0 for COCO_V1 of v1, else 1e-5.",
        ),
    ] = None,
) -> None:
    """Convert the weights of torchvision's RetinaNet.

    Example: `retina import torchvision retinanet_v2.pth --variant v2 --output coco.safetensors`
    """
    from retina.errors import UserError, one_of
    from retina.modeling.importers.torchvision import num_classes_of
    from retina.modeling.loading import read_weights
    from retina.prediction.torchvision_import import torchvision_artifact

    one_of(variant, tuple(_ARCHITECTURES), "--variant")
    if output.suffix != ".safetensors":
        raise UserError(f"--output: {output} must end in .safetensors")
    official = _official_weights(state_dict, variant)
    if official is None:
        read = read_weights(Path(state_dict))
        weights, taken = read.state_dict, read.taken
    else:
        weights, taken = _fetch(official), ""
    if norm_eps is None:
        norm_eps = 0.0 if official is not None and variant == "v1" else 1e-5
    num_classes = num_classes_of(weights)
    artifact = torchvision_artifact(
        weights,
        "v1" if variant == "v1" else "v2",
        _names(categories, num_classes, variant),
        min_size=min_size,
        max_size=max_size,
        norm_eps=norm_eps,
    )
    artifact.save(output)
    console = make_console()
    if taken:
        print_lines(console, f"{state_dict}: {taken}")
    print_lines(
        console,
        f"{output}: torchvision {variant}, {num_classes} class outputs, {min_size}–{max_size} "
        f"pixels, norm epsilon {norm_eps:g}",
    )


def _fetch(official: Any) -> Any:
    import pickle

    from retina.errors import UserError
    from retina.wording import first_line

    try:
        return official.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{official.name}: could not be fetched from {official.url} "
            f"({first_line(error)}); give a local file"
        ) from None


def _official_weights(name: str, variant: str) -> Any:
    """Torchvision's weights of that name, or None where the name is a file."""
    from torchvision.models import get_model_weights

    from retina.errors import UserError

    if Path(name).exists():
        return None

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
    from retina.datasets.ids import Ids
    from retina.errors import UserError
    from retina.text_files import read_json, read_text

    if source.suffix != ".json":
        text = read_text(source, "list of names (--categories)")
        if not text.lstrip().startswith("{"):  # of a compressed annotation file
            return [line.strip() for line in text.splitlines() if line.strip()]
    tree = read_json(source, "annotation file (--categories)")
    try:
        ids, no_ids = Ids.of([row["id"] for row in tree["categories"]])
        names = [str(row["name"]) for row in tree["categories"]]
        if len(no_ids):
            raise TypeError
        by_id = dict(sorted(zip(ids.numbers.tolist(), names, strict=True)))
        if by_id and len(by_id) < num_classes and min(by_id) >= 0 and max(by_id) < num_classes:
            # torchvision's COCO weights: the outputs are the original ids, with their gaps.
            return [by_id.get(number, f"unused {number}") for number in range(num_classes)]
        return list(by_id.values())
    except (KeyError, TypeError):
        raise UserError(
            f"--categories: {source} is no COCO annotation file with 'categories', each with an "
            "'id' and a 'name'; or give a text file with one name per line"
        ) from None
