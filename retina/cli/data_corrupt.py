"""``retina data corrupt``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retina.cli.options import (
    Annotations,
    DataConfig,
    Images,
    Source,
    TrainSplit,
    labelled_data,
    output_option,
)
from retina.cli.output import describe_report, make_console, print_lines
from retina.wording import counted

if TYPE_CHECKING:
    from retina.datasets import DatasetConfig
    from retina.instruments.label_errors.corruption import CorruptionRates


def command(
    output: Annotated[Path, output_option("Folder for annotations.json and corruption.json.")],
    source: Source = None,
    annotations: Annotations = None,
    images: Images = None,
    config: DataConfig = None,
    split: TrainSplit = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", help="Errors per object, the kinds in equal parts."),
    ] = None,
    missing: Annotated[
        float | None, typer.Option("--missing", help="Rate of boxes taken away.")
    ] = None,
    wrong_class: Annotated[
        float | None, typer.Option("--wrong-class", help="Rate of objects given another class.")
    ] = None,
    shifted: Annotated[
        float | None, typer.Option("--shifted", help="Rate of boxes moved off their object.")
    ] = None,
    spurious: Annotated[
        float | None, typer.Option("--spurious", help="Rate of boxes added on the background.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same errors.")] = 0,
) -> None:
    """Plant label errors on purpose, with the list of what was done.

    Example: `retina data corrupt --images photos --annotations labels.json --rate 0.1
    --output noisy`
    """
    import json
    from collections import Counter
    from dataclasses import asdict

    from retina.datasets.exports.coco import to_coco
    from retina.instruments.label_errors.corruption import corrupt, corruption_files
    from retina.storage import make_folder, write_text

    console = make_console()
    rates = _rates(
        rate, missing=missing, wrong_class=wrong_class, shifted=shifted, spurious=spurious
    )
    resolved = labelled_data(source, annotations, images, config, split)
    written, listed = corruption_files(output)
    _refuse_own_input(written, resolved.part)
    _refuse_foreign_files(written, listed)
    make_folder(output)  # refused, where it must be, before anything is computed
    print_lines(console, *describe_report(resolved.full_name, resolved.dataset.report))
    corrupted = corrupt(to_coco(resolved.dataset, images=resolved.images), rates, seed=seed)
    # The list first: by it the other file is known as ours, even after a crash between the two.
    write_text(listed, json.dumps(corrupted.listed(rates, seed=seed), indent=1))
    write_text(written, json.dumps(corrupted.content))
    counts = Counter[str](one.kind for one in corrupted.corruptions)
    kinds = ", ".join(f"{counts[kind]} {kind.replace('_', ' ')}" for kind in asdict(rates))
    print_lines(
        console,
        f"{written}: {counted(len(corrupted.corruptions), 'error')} in "
        f"{counted(corrupted.num_objects, 'object')}, seed {seed}: {kinds}",
        f"{listed}: what was done",
    )


def _rates(rate: float | None, **of_kind: float | None) -> CorruptionRates:
    """The rates that the options mean: a total, or rates of single kinds."""
    from retina.errors import UserError
    from retina.instruments.label_errors.corruption import CorruptionRates

    named = {kind: value for kind, value in of_kind.items() if value is not None}
    if rate is not None and named:
        raise UserError("give either --rate, or the rates of single kinds (--missing …), not both")
    if rate is None and not named:
        raise UserError(
            "say how many errors: --rate 0.1, or the rates of single kinds: --missing …"
        )
    try:
        return CorruptionRates(**named) if rate is None else CorruptionRates.evenly(rate)
    except ValueError as error:
        raise UserError(str(error)) from None


def _refuse_own_input(written: Path, part: DatasetConfig) -> None:
    from retina.errors import UserError

    for file in part.annotation_files():
        if file.exists() and written.exists() and written.samefile(file):
            raise UserError(
                f"{written.parent}: would write over the annotations themselves; give another "
                "folder"
            )


def _refuse_foreign_files(written: Path, listed: Path) -> None:
    from retina.errors import UserError

    for path in (written, listed):
        if path.exists() and not _lists_corruptions(listed):
            raise UserError(
                f"{path}: is there already, and not from this command; give another folder"
            )


def _lists_corruptions(path: Path) -> bool:
    """Whether a file is the list that this command writes."""
    import json

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "corruptions" in content
