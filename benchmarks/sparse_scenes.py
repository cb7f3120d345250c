"""Generates scenes and keeps those with few objects: far fewer foreground anchors than usual.

    python benchmarks/sparse_scenes.py data/sparse --images 1600 --most 6

Writes ``sparse.json`` beside each split's ``annotations.json`` and prints what was kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path


def keep_sparse(annotations: Path, most: int) -> str:
    """Write the images with at most ``most`` objects beside the file; say how many."""
    tree = json.loads(annotations.read_text())
    counts = Counter(row["image_id"] for row in tree["annotations"])
    kept = {row["id"] for row in tree["images"] if counts[row["id"]] <= most}
    tree["images"] = [row for row in tree["images"] if row["id"] in kept]
    tree["annotations"] = [row for row in tree["annotations"] if row["image_id"] in kept]
    annotations.with_name("sparse.json").write_text(json.dumps(tree))
    return f"{annotations.parent.name}: {len(kept)} images, {len(tree['annotations'])} objects"


def main() -> None:
    """Generate and thin out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1600)
    parser.add_argument("--most", type=int, default=6)
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "retina", "data", "synth", str(arguments.folder)]
    command += ["--images", str(arguments.images)]
    command += ["--validation-images", str(arguments.images // 2), "--seed", "7"]
    subprocess.run(command, check=True)
    for split in ("train", "validation"):
        print(keep_sparse(arguments.folder / split / "annotations.json", arguments.most))


if __name__ == "__main__":
    main()
