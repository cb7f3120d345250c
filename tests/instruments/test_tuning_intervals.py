"""Intervals over seeds and images hold what they promise."""

import numpy as np
import pytest

from retina.instruments.tuning.intervals import seeds_and_images_interval, student_quantile


@pytest.mark.parametrize(
    ("degrees", "quantile"),
    [(1, 12.7062047), (2, 4.3026527), (3, 3.1824463), (4, 2.7764451), (9, 2.2621572)],
)
def test_students_quantiles_are_those_of_the_tables(degrees: int, quantile: float) -> None:
    assert student_quantile(0.95, degrees) == pytest.approx(quantile, abs=5.1e-8)  # seven decimals


def test_many_degrees_of_freedom_are_a_normal_distribution() -> None:
    assert student_quantile(0.95, 5000) == pytest.approx(1.959964, abs=1e-3)


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
@pytest.mark.parametrize("image_error", [0.0, 0.5, 2.0], ids=lambda error: f"images_{error:g}")
def test_an_interval_covers_the_truth_as_often_as_it_says(
    num_seeds: int, image_error: float
) -> None:
    """Seeds vary by 1 around a truth of 0, the images' mean by ``image_error``; 2000 studies.

    Drawing seeds with replacement covers in 52 % (two seeds) and 73 % (three). The bounds are three
    standard errors of 2000 studies; above, the joined interval may be somewhat too wide.
    """
    generator = np.random.default_rng(num_seeds)
    covered, studies = 0, 2000
    for _ in range(studies):
        by_seed = generator.normal(0, 1, num_seeds) + generator.normal(0, 1) * image_error
        samples = by_seed.mean() + generator.normal(0, 1, 400) * image_error
        low, high = seeds_and_images_interval(by_seed.tolist(), samples, 0.95)
        covered += low <= 0 <= high
    tolerance = 3 * (0.95 * 0.05 / studies) ** 0.5
    assert covered / studies >= 0.95 - tolerance
    assert covered / studies <= (0.95 + tolerance if image_error == 0 else 1.0)


def test_with_one_seed_it_is_the_bootstraps_interval() -> None:
    samples = np.linspace(0.0, 1.0, 1001)
    assert seeds_and_images_interval([0.6], samples, 0.9) == pytest.approx((0.05, 0.95))


def test_where_the_seeds_agree_the_images_remain() -> None:
    samples = np.linspace(0.0, 1.0, 1001)
    found = seeds_and_images_interval([0.5, 0.5, 0.5], samples, 0.9)
    assert found == pytest.approx((0.05, 0.95))
