"""How cost grows is measured along every axis, and the exponents are those of the curves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields

import pytest

from tests.conftest import REPOSITORY  # type: ignore[import-not-found]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def test_the_exponent_is_that_of_the_larger_half() -> None:
    from benchmarks.growth import exponent, row

    values = [1, 2, 4, 8, 16, 32]
    assert exponent(values, [100, 100, 100, 64, 256, 1024]) == 2.0
    assert exponent([1, 2, 4], [3, 6, 12]) == 1.0
    made = row("a loop", "turns", values, None, [0.0] * 6)
    assert made.exponent_time is None
    assert made.exponent_memory == 0.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_axis_is_measured() -> None:
    from benchmarks.growth import Row

    done = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks" / "growth.py", "--quick", "--json"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    for one in rows:
        assert set(one) == {field.name for field in fields(Row)}
        assert one["values"] == sorted(set(one["values"]))
        assert len(one["values"]) == len(one["megabytes"]) == 3
        assert min(one["megabytes"]) > 0
        assert isinstance(one["exponent_memory"], float)
        if one["seconds"] is None:
            assert one["exponent_time"] is None
        else:
            assert len(one["seconds"]) == 3
            assert min(one["seconds"]) > 0
            assert isinstance(one["exponent_time"], float)
    assert {(one["what"], one["against"]) for one in rows} == {
        ("training step", "pixels of an image"),
        ("training step", "images"),
        ("training step", "classes"),
        ("training step", "objects of an image"),
        ("inference", "pixels of an image"),
        ("inference", "images"),
        ("inference", "classes"),
        ("assignment, max_iou", "anchors"),
        ("assignment, max_iou", "objects"),
        ("assignment, atss", "anchors"),
        ("assignment, atss", "objects"),
        ("postprocess", "classes"),
        ("scoring", "detections"),
        ("opening a data set", "images"),
        ("an open data set", "images"),
        ("what a worker copies of it", "images"),
        ("shares of a step, each by itself", "processes"),
        ("training step, shared", "processes"),
    }
    # A worker shares the set that it is forked with: what it makes its own is not of its size.
    copies = next(one for one in rows if one["what"] == "what a worker copies of it")
    assert copies["exponent_memory"] < 0.3
