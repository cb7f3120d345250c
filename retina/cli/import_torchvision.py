"""``retina import torchvision``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from retina.cli.options import output_option
from retina.cli.output import make_console, print_lines

if TYPE_CHECKING:
    from retina.modeling.importers.torchvision import Variant


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
            "COCO's names where the weights have torchvision's 91 outputs, of which 80 are kept; "
            "else numbers.",
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
    memory_format: Annotated[
        str,
        typer.Option(
            "--memory-format",
            help="In float32: contiguous, equal to torchvision to the last bit, or channels_last, "
            "faster.",
        ),
    ] = "contiguous",
) -> None:
    """Convert the weights of torchvision's RetinaNet.

    Example: `retina import torchvision retinanet_v2.pth --variant v2 --output coco.safetensors`
    """
    from retina.errors import UserError, one_of
    from retina.modeling.config import MemoryFormat
    from retina.modeling.importers.published import (
        UNUSED,
        fetch_official,
        official_norm_eps,
        origin_of_published,
    )
    from retina.modeling.importers.torchvision import num_classes_of
    from retina.modeling.loading import read_weights
    from retina.modeling.pretrained import origin_of_file
    from retina.prediction.detectors import torchvision_artifact

    chosen: Variant = one_of(variant, ("v1", "v2"), "--variant")
    if output.suffix != ".safetensors":
        raise UserError(f"--output: {output} must end in .safetensors")
    official = _official_weights(state_dict, chosen)
    if official is None:
        read = read_weights(Path(state_dict))
        weights, taken = read.state_dict, read.taken
    else:
        instead = "; or give a local file"
        weights, taken = fetch_official(official, asked_as=state_dict, instead=instead), ""
        norm_eps = official_norm_eps(chosen) if norm_eps is None else norm_eps
    norm_eps = 1e-5 if norm_eps is None else norm_eps
    artifact = torchvision_artifact(
        weights,
        chosen,
        _names(categories, num_classes_of(weights), chosen),
        unused=UNUSED if categories is None else (),
        min_size=min_size,
        max_size=max_size,
        norm_eps=norm_eps,
        memory_format=one_of(memory_format, get_args(MemoryFormat), "--memory-format"),
        pretrained=origin_of_file(Path(state_dict))
        if official is None
        else origin_of_published(official),
    )
    artifact.save(output)
    console = make_console()
    if taken:
        print_lines(console, f"{state_dict}: {taken}")
    print_lines(
        console,
        f"{output}: torchvision {variant}, {len(artifact.categories)} classes, "
        f"{min_size}–{max_size} pixels, norm epsilon {norm_eps:g}",
    )


def _official_weights(name: str, variant: Variant) -> Any:
    """Torchvision's weights of that name, or None where the name is a file."""
    from torchvision.models import get_model_weights

    from retina.errors import UserError
    from retina.modeling.importers.published import ARCHITECTURES

    if Path(name).exists():
        return None
    known = get_model_weights(ARCHITECTURES[variant])
    if name in known.__members__:
        return known[name]
    if Path(name).suffix:
        return None
    raise UserError(
        f"{name}: no such file, and torchvision has no weights of that name for {variant} (it has "
        f"{', '.join(known.__members__)})"
    )


def _names(source: Path | None, num_classes: int, variant: Variant) -> list[str]:
    from torchvision.models import get_model_weights

    from retina.modeling.importers.published import ARCHITECTURES

    if source is not None:
        return _read_names(source, num_classes)
    official = list(get_model_weights(ARCHITECTURES[variant]).DEFAULT.meta["categories"])
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
