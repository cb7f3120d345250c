"""Chosen on one half, seen on the other."""

from __future__ import annotations

import numpy as np

from retina.evaluation.thresholds import BestF, check_on_halves, choose_thresholds
from tests.evaluation.thresholds.cases import (  # type: ignore[import-not-found]
    random_rows,
    split,
)


def test_the_halves_are_all_images_and_each_is_counted_in_one() -> None:
    rows, objects = random_rows(1, num_images=13)
    outcomes = split(cell=(rows, objects))
    check = check_on_halves(outcomes, BestF(), per_class=True, seed=4)
    assert check is not None
    promised, (seen,) = check.promised, check.classes
    assert (promised.total.num_images, seen.num_images) == (7, 6)
    assert promised.total.num_objects + seen.num_objects == sum(objects)
    first = np.isin(np.arange(13), np.random.default_rng(4).permutation(13)[:7])
    assert promised == choose_thresholds(outcomes.on(first), BestF(), per_class=True)
    (threshold,) = promised.values
    shown = [row for row in rows if row[0] >= threshold and not first[row[2]]]
    assert seen.true == sum(row[1] for row in shown)
    assert seen.false == sum(not row[1] for row in shown)
    assert check.total.true == seen.true
    again = check_on_halves(outcomes, BestF(), per_class=True, seed=4)
    other = check_on_halves(outcomes, BestF(), per_class=True, seed=5)
    assert again == check
    assert other != check


def test_too_few_images_for_halves() -> None:
    one_image = split(cell=([(0.9, True, 0)], [1]))
    assert check_on_halves(one_image, BestF(), per_class=True, seed=0) is None
    # Whichever half the object is in, the other has none.
    one_object = split(cell=([(0.9, True, 0)], [1, 0, 0, 0]))
    for seed in range(4):
        assert check_on_halves(one_object, BestF(), per_class=True, seed=seed) is None


def test_on_new_images_a_threshold_of_many_choices_does_not_keep_its_promise() -> None:
    """Scores that tell nothing: what looks best is chance."""
    random = np.random.default_rng(0)
    promised, seen = [], []
    for seed in range(40):
        rows = [(float(random.random()), bool(random.random() < 0.5), i) for i in range(40)]
        objects = [int(row[1]) for row in rows]
        check = check_on_halves(split(cell=(rows, objects)), BestF(0.1), per_class=True, seed=seed)
        assert check is not None
        promised.append(check.promised.total.precision)
        seen.append(check.total.precision or 0)
    assert np.mean(promised) > np.mean(seen) + 0.1
