"""``retina predict``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import Progress

from retina.cli.choices import one_of
from retina.devices import PrecisionChoice
from retina.prediction.files import find_images, predict_files
from retina.prediction.predictor import load


def run_prediction(
    checkpoint: Path,
    sources: Sequence[str],
    *,
    output: Path,
    score_threshold: float | None,
    batch_size: int,
    device: str,
    precision: str,
) -> None:
    """Predict, print what was written, and exit with 1 where an image failed."""
    console = Console(highlight=False, soft_wrap=True)
    predictor = load(
        checkpoint,
        device=device,
        precision=one_of(precision, get_args(PrecisionChoice), "--precision"),
    )
    paths = find_images(sources)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("predicting", total=len(paths))
        run = predict_files(
            predictor,
            paths,
            output,
            score_threshold=score_threshold,
            batch_size=batch_size,
            on_progress=lambda n: progress.advance(task, n),
        )
    threshold = predictor.display_threshold if score_threshold is None else score_threshold
    console.print(
        f"{run.num_detections} objects above {threshold:.2f} in {run.num_images} images; pictures "
        f"and detections.json in {output}",
        markup=False,
    )
    if run.failures:
        errors = Console(stderr=True, highlight=False, soft_wrap=True)
        errors.print(f"{len(run.failures)} images could not be read:", markup=False)
        for failure in run.failures:
            errors.print(f"  {failure}", markup=False)
        sys.exit(1)
