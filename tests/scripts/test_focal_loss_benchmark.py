import pytest

from benchmarks.focal_loss import spread


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([3.0], "   3.00 (3.00 to 3.00)"), ([1.0, 2.0, 3.0], "   2.00 (1.00 to 3.00)")],
)
def test_one_round_has_a_spread_too(values: list[float], wanted: str) -> None:
    assert spread(values) == wanted
