"""The measurements run, compare what they measure, and notice what is not equal."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, fields
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import ProgramError, docs_page, machine_of, name_of, rows_of, write
from benchmarks.comparisons import Row, row
from benchmarks.loader import BOX_BOUND, EXACT, Cv2Peer, differences, generate
from benchmarks.start_up import differences as differences_of_detections
from retina.datasets.formats.coco import CocoConfig
from tests.conftest import REPOSITORY  # type: ignore[import-not-found]

ROW = row(
    "loader",
    "a peer",
    [1.0, 2.0, 4.0],
    [3.0, 4.0, 4.0],
    equal=True,
    compared={"box_px": 0.001},
    setting="one core",
    about={"date": "2026-11-29", "processor": "Intel(R) Xeon(R) Processor", "threads": 1},
)


@pytest.mark.slow
def test_every_program_runs_and_says_what_was_equal() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--json"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    for one in rows:
        assert set(one) == {field.name for field in fields(Row)}
        assert one["compared"]
        if one["peer"] == "faster-coco-eval":
            # It is not always pycocotools' to the last bit, as ours is; then the row has to say so.
            assert one["equal"] is (one["compared"]["equal_to_the_bit"] == 12), one
            assert one["compared"]["largest_difference"] < 1e-15, one
        else:
            assert one["equal"] is True, one
        assert 0 < one["ratio_min"] <= one["ratio_median"] <= one["ratio_max"]
        assert {"date", "processor", "torch"} <= set(one["machine"])
    expected = {
        ("train_step", "torchvision fp32"),
        ("train_step", "torchvision bf16"),
        ("inference", "torchvision fp32"),
        ("inference", "torchvision bf16"),
        ("inference fp32", "torchvision fp32"),
        ("inference nano", "torchvision bf16"),
        ("postprocess", "torchvision"),
        ("assignment", "torchvision"),
        ("focal_loss", "torchvision"),
        ("focal_loss", "compiled"),
        ("focal_loss memory", "torchvision"),
        ("focal_loss memory", "compiled"),
        ("loader", "PIL + torchvision v2"),
        ("loader", "cv2 + albumentations"),
        ("scoring", "pycocotools"),
        ("start_up", "torchvision"),
        ("start_up help", "import torch"),
    }
    if find_spec("faster_coco_eval"):
        expected.add(("scoring", "faster-coco-eval"))
    assert expected <= {(one["name"], one["peer"]) for one in rows}


def test_a_program_that_fails_is_named_with_its_last_line() -> None:
    with pytest.raises(ProgramError, match=r"no_such_program\.py.*No such file"):
        rows_of("no_such_program", [])
    with pytest.raises(ProgramError, match="unrecognized arguments: --no-such-option"):
        rows_of("scoring", ["--no-such-option"])


def test_the_pages_are_made_of_the_rows_alone(tmp_path: Path) -> None:
    results, docs = tmp_path / "results", tmp_path / "docs"
    results.mkdir()
    docs.mkdir()
    rows = [asdict(ROW), asdict(ROW) | {"machine": {**ROW.machine, "threads": 2}}]
    name = name_of(machine_of(rows), num_cores=2)
    assert name == "2core-xeon_202611"
    write(rows, name, results=results, docs=docs)
    page = (docs / "benchmarks.md").read_text()
    assert "threads 1 or 2" in page
    assert "| loader | a peer | **2.00** | 1.00 – 3.00 |" in page
    assert f"../benchmarks/suite_{name}.json" in page
    kept = json.loads((results / f"suite_{name}.json").read_text())
    assert docs_page(kept, f"suite_{name}") == page
    assert "**2.00**" in (results / f"suite_{name}.md").read_text()


def test_the_loaders_comparison_notices_a_mirrored_image(tmp_path: Path) -> None:
    dataset = CocoConfig(images=tmp_path, annotations=generate(tmp_path, 2)).build()
    size = (240, 320)
    same = differences(dataset, size, Cv2Peer(dataset, size, mirror=0.0, normalised=False))
    assert same["decoded_level"] == 0
    assert same["scaled_level_mean"] <= EXACT
    assert same["box_px"] <= BOX_BOUND
    other = differences(dataset, size, Cv2Peer(dataset, size, mirror=1.0, normalised=False))
    assert other["scaled_level_mean"] > 10
    assert other["box_px"] > 1


def test_detections_are_the_same_in_any_order_and_not_where_one_is_missing() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [5, 5, 20, 20], [0, 0, 10, 10]])
    found = {"boxes": boxes, "scores": np.array([0.9, 0.8, 0.7]), "labels": np.array([1, 1, 2])}
    turned = {name: values[::-1] for name, values in found.items()}
    assert differences_of_detections(found, turned) == {
        "detections": 3,
        "detections_of_peer": 3,
        "box_px": 0.0,
        "score": 0.0,
    }
    moved = differences_of_detections(found, found | {"boxes": boxes + 0.5})
    assert moved["box_px"] == 0.5
    fewer = {name: values[:2] for name, values in found.items()}
    for one, other in ((found, fewer), (fewer, found)):
        assert differences_of_detections(one, other)["box_px"] is None
    relabelled = found | {"labels": np.array([1, 1, 1])}
    assert differences_of_detections(found, relabelled)["box_px"] is None
