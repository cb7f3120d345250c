"""The shortest way through the command line: data, two steps, evaluation, prediction.

    python scripts/smoke.py                        # as the platform starts worker processes
    python scripts/smoke.py --start-method spawn   # as Windows and macOS do

Runs the installed package in a folder that is removed afterwards, and needs no shell, so that it is
the same on Linux, macOS and Windows. Ends with 0, or with the exit code of the command that failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SMALL = (
    "model.backbone.weights=null",
    "model.pyramid.channels=16",
    "model.head.num_convs=1",
    "model.head.num_groups=4",
    "preprocess.min_size=64",
    "preprocess.max_size=96",
    "postprocess.score_threshold=0.001",  # after two steps nothing is sure
)
"""A detector that learns nothing, in seconds."""


def retina(folder: Path, *arguments: str) -> None:
    """Run a command in a folder; where it fails, so does this program."""
    print("$ retina", *arguments, flush=True)
    done = subprocess.run([sys.executable, "-m", "retina", *arguments], cwd=folder, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)


def main() -> None:
    """Run the commands, and look at what they left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start-method", choices=["fork", "spawn", "forkserver"])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    method = options.start_method or "null"

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        retina(folder, "data", "synth", "data", "--images", "8", "--validation-images", "4")
        retina(
            folder,
            *("train", "nano.yaml", "output_dir=run", f"device={options.device}"),
            *(
                f"dataset.{split}.{key}=data/{split}/{file}"
                for split in ("train", "validation")
                for key, file in (("images", "images"), ("annotations", "annotations.json"))
            ),
            *SMALL,
            *("training.batch_size=4", "training.max_steps=2", "training.num_workers=1"),
            f"loader.start_method={method}",
        )
        detector = "run/checkpoints/last.safetensors"
        truth = ("--annotations", "data/validation/annotations.json")
        images = ("--images", "data/validation/images")
        device = ("--device", options.device)
        retina(folder, "evaluate", detector, *truth, *images, *device, "--output", "scores")
        shown = ("--score-threshold", "0.001", "--output", "found")
        retina(folder, "predict", detector, images[1], *device, *shown)

        assert "AP" in json.loads((folder / "scores" / "metrics.json").read_text("utf-8"))
        found = json.loads((folder / "found" / "detections.json").read_text("utf-8"))
        drawn = list((folder / "found").glob("*.jpg"))
        assert found
        assert len(drawn) == 4, drawn
    print("every command has run")


if __name__ == "__main__":
    main()
