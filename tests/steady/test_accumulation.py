"""A batch in accumulated parts is the same batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from retina.artifact import load_artifact
from retina.experiment import build_experiment, load_experiment
from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.faults.run_folders import log_of  # type: ignore[import-not-found]

TERMS = [
    # Frozen norms, since batch statistics are those of a part. SGD, since AdamW turns the rounding
    # of a gradient near zero into a whole step of either sign; so does the kink of the L1 loss.
    "model.backbone.norm=frozen",
    "optimizer={kind: sgd, lr: 0.02}",
    "objective.box={kind: smooth_l1, beta: 1.0}",
    "sampling.scale_factors=[0.8, 1.0]",
    "sampling.aspect_buckets=false",  # wide and upright images meet
    "dataset.validation=null",
    "training.epochs=7",  # of three steps
    "training.anatomy_every_steps=null",
]


@pytest.fixture
def uneven_annotations(synthetic_data: Path, tmp_path: Path) -> Path:
    """Only every fourth image keeps its objects."""
    tree = json.loads((synthetic_data / "train" / "annotations.json").read_text())
    filled = {image["id"] for image in tree["images"][::4]}
    tree["annotations"] = [row for row in tree["annotations"] if row["image_id"] in filled]
    path = tmp_path / "uneven.json"
    path.write_text(json.dumps(tree))
    return path


def test_four_parts_are_the_whole_batch_of_unlike_images(
    invoke: Invoke, tiny_config: Path, uneven_annotations: Path, tmp_path: Path
) -> None:
    terms = [*TERMS, f"dataset.train.annotations={uneven_annotations}"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, count in ((whole, 1), (parts, 4)):
        done = invoke(
            *("train", tiny_config, f"output_dir={folder}", *terms),
            f"training.accumulation_steps={count}",
        )
        assert done.code == 0, done.err

    losses = [
        [row["loss"] for row in log_of(folder) if row["kind"] == "train"]
        for folder in (whole, parts)
    ]
    assert len(losses[0]) == 21
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    one, other = (
        load_artifact(folder / "checkpoints" / "last.safetensors").state_dict
        for folder in (whole, parts)
    )
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-5, msg=name)


def test_the_parts_are_as_unlike_as_they_should_be(
    tiny_config: Path, uneven_annotations: Path, tmp_path: Path
) -> None:
    terms = [*TERMS, f"dataset.train.annotations={uneven_annotations}"]
    terms += [f"output_dir={tmp_path / 'run'}", "training.accumulation_steps=4"]
    trainer = build_experiment(load_experiment(tiny_config, terms), quiet=True).trainer
    counts, own_sizes = [], set()
    for parts in trainer._load():
        counts += [[int(part.targets.is_object.sum()) for part in parts]]
        own_sizes |= {size for part in parts for size in part.image_sizes}
        assert len({part.padded_size for part in parts}) == 1  # that of the whole batch
    assert len(counts) == 21
    assert len(own_sizes) >= 5
    assert sum(min(step) == 0 < max(step) for step in counts) >= 15  # a part without any object
