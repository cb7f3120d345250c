"""``retina data corrupt``."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from retina.cli.datasets import read_dataset
from retina.cli.training import describe_report
from retina.datasets.coco_export import to_coco
from retina.errors import UserError
from retina.instruments.label_errors.corruption import CorruptionRates, corrupt, corruption_files
from retina.storage import make_folder, write_text


def corruption_rates(rate: float | None, **of_kind: float | None) -> CorruptionRates:
    """The rates that the options mean: a total, rates of single kinds, or a total by default.

    Raises:
        UserError: a total and rates of kinds, or more errors than objects.
    """
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


def run_corrupt(
    images: Path,
    annotations: Path,
    split: Path | None,
    output: Path,
    *,
    rates: CorruptionRates,
    seed: int,
) -> None:
    """Write the annotations with errors, and the list of the errors."""
    console = Console(highlight=False, soft_wrap=True)
    written, listed = corruption_files(output)
    if annotations.exists() and written.exists() and written.samefile(annotations):
        raise UserError(
            f"{output}: would write over the annotations themselves; give another folder"
        )
    for path in (written, listed):
        if path.exists() and not _lists_corruptions(listed):
            raise UserError(
                f"{path}: is there already, and not from this command; give another folder"
            )
    dataset = read_dataset(images, annotations, split, check_images=False)
    make_folder(output)  # refused, where it must be, before anything is computed
    for line in describe_report(str(annotations), dataset.report):
        console.print(line, markup=False)
    corrupted = corrupt(to_coco(dataset, images=images), rates, seed=seed)
    # The list first: by it the other file is known as ours, even after a crash between the two.
    write_text(listed, json.dumps(corrupted.listed(rates, seed=seed), indent=1))
    write_text(written, json.dumps(corrupted.content))
    counts = Counter[str](one.kind for one in corrupted.corruptions)
    kinds = ", ".join(f"{counts[kind]} {kind.replace('_', ' ')}" for kind in asdict(rates))
    console.print(
        f"{written}: {len(corrupted.corruptions)} errors in {corrupted.num_objects} objects, seed "
        f"{seed}: {kinds}\n{listed}: what was done",
        markup=False,
    )


def _lists_corruptions(path: Path) -> bool:
    """Whether a file is the list that this command writes."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "corruptions" in content
