"""The load program counts every request: those that were answered, and those that were lost."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import REPOSITORY  # type: ignore[import-not-found]
from tests.serving.running import (  # type: ignore[import-not-found]
    RectangleRuntime,
    Running,
    encoded,
    running,
    scene,
)

spec = importlib.util.spec_from_file_location(
    "serving_benchmark", REPOSITORY / "benchmarks" / "serving.py"
)
assert spec is not None
assert spec.loader is not None
benchmark = importlib.util.module_from_spec(spec)
sys.modules["serving_benchmark"] = benchmark
spec.loader.exec_module(benchmark)


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    with running(RectangleRuntime(), batch_size=8, max_wait=0.002) as service:
        yield service


def test_a_thousand_requests_are_all_answered(served: Running) -> None:
    load = benchmark.ask_all(served.port, [encoded(scene())], 1000, 16)
    assert load.num_lost == 0
    assert len(load.seconds) == 1000
    assert 0 < load.percentile(50) <= load.percentile(99) < 10_000
    pictures, batches, cores = benchmark.counts_so_far(served.port)
    assert pictures == 1000
    assert 125 <= batches < 1000
    assert cores > 0


def test_what_is_refused_is_lost(served: Running) -> None:
    load = benchmark.ask_all(served.port, [encoded(scene()), b"no picture"], 30, 3)
    assert (load.num_lost, len(load.seconds)) == (15, 15)
