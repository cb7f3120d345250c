import importlib.util
import sys

import pytest

from tests.conftest import REPOSITORY  # type: ignore[import-not-found]

spec = importlib.util.spec_from_file_location(
    "focal_loss_benchmark", REPOSITORY / "benchmarks" / "focal_loss.py"
)
assert spec is not None
assert spec.loader is not None
benchmark = importlib.util.module_from_spec(spec)
sys.modules["focal_loss_benchmark"] = benchmark
spec.loader.exec_module(benchmark)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([3.0], "   3.00 (3.00 to 3.00)"), ([1.0, 2.0, 3.0], "   2.00 (1.00 to 3.00)")],
)
def test_one_round_has_a_spread_too(values: list[float], wanted: str) -> None:
    assert benchmark.spread(values) == wanted
