"""Comparisons of which it is known by hand what they must say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retina.evaluation.comparison import differences
from retina.evaluation.comparison.differences import Difference, Pair
from retina.evaluation.comparison.summary import (
    agreement_lines,
    few_images_lines,
    heading,
    tables,
)

Make = Callable[..., Path]
ALL = range(1, 31)


def test_two_equal_sides_differ_by_exactly_nothing(
    write_truth: Make, write_results: Make, compared: Callable[..., Any]
) -> None:
    paths = [
        write_results(name, cats=range(1, 25), dogs=ALL, false=(3, 4))
        for name in ("a.json", "b.json")
    ]
    (one,) = compared(*paths, truth=write_truth()).pairs
    for number in (*one.pair.numbers, *one.pair.classes):
        if number.first is None:
            assert number.change is number.low is number.probability is None
        else:
            assert (number.change, number.low, number.high) == (0.0, 0.0, 0.0)
            assert number.probability == 0.5
        assert not number.is_shown
        assert number.images_needed is None
    assert one.pair.sentence == (
        "B against A: no difference can be shown with 30 images: AP is the same in every resample."
    )
    for found in (one.best_f1, one.equal_false_alarms):
        assert (found.total.only_first, found.total.only_second) == (0, 0)
        assert found.better == found.worse == ()
    assert one.agreement.is_same_set
    assert one.agreement.scores.largest == one.agreement.box_shifts.largest == 0.0


def test_a_side_that_finds_more_is_better(
    write_truth: Make, write_results: Make, compared: Callable[..., Any]
) -> None:
    """A misses the cats of half of the images: an AP of 51 of the 101 recall levels for cats."""
    a = write_results("a.json", cats=range(1, 16), dogs=ALL)
    b = write_results("b.json", cats=ALL, dogs=ALL)
    (one,) = compared(a, b, truth=write_truth()).pairs
    ap = one.pair.ap
    assert ap.first == pytest.approx((51 / 101 + 1) / 2)
    assert ap.second == pytest.approx(1.0)
    assert ap.is_shown
    assert ap.low is not None
    assert ap.low > 0.1
    assert ap.probability == 1.0
    assert one.pair.sentence.startswith("B is better than A: AP +0.2475 (95 % interval +0.")
    cat, dog, bird = one.pair.classes
    assert (cat.name, cat.num_objects, cat.num_images) == ("cat", 30, 30)
    assert cat.change == pytest.approx(50 / 101)
    assert dog.change == 0.0
    assert (bird.first, bird.change, bird.low, bird.num_objects) == (None, None, None, 0)
    by_name = {number.name: number for number in one.pair.numbers}
    assert by_name["APm"].change is None  # there is only a crowd of that size
    assert by_name["APs"].change == pytest.approx(50 / 101)
    assert by_name["AR100"].change == pytest.approx(0.25)
    found = one.best_f1
    assert (found.total.both, found.total.only_first, found.total.only_second) == (45, 0, 15)
    assert found.total.neither == 0
    assert [(size.num_objects, size.only_second) for size in found.sizes] == [
        (30, 15),
        (0, 0),
        (30, 0),
    ]
    assert [(one.name, one.only_second) for one in found.classes[:2]] == [("cat", 15), ("dog", 0)]
    assert (found.num_better, found.num_worse) == (15, 0)
    assert {image.index for image in found.better} == set(range(15, 30))
    assert one.agreement.only_second == 15
    assert one.agreement.only_first == 0
    (back,) = compared(b, a, truth=write_truth()).pairs
    assert back.pair.ap.low == pytest.approx(-ap.high)
    assert back.pair.sentence.startswith("A is worse") is False
    assert back.pair.sentence.startswith("B is worse than A: AP −0.2475")


def test_a_small_difference_says_how_many_images_would_show_it(
    write_truth: Make, write_results: Make, compared: Callable[..., Any]
) -> None:
    """Each misses cats that the other finds, B one more."""
    a = write_results("a.json", cats=range(1, 25), dogs=ALL)
    b = write_results("b.json", cats=range(8, 31), dogs=ALL)
    (one,) = compared(a, b, truth=write_truth()).pairs
    ap = one.pair.ap
    assert not ap.is_shown
    assert ap.low is not None
    assert ap.high is not None
    assert ap.low < 0 < ap.high
    assert ap.images_needed is not None
    assert ap.images_needed > 30
    assert "no difference can be shown with 30 images: AP −0.0" in one.pair.sentence
    assert "if the difference is real, about " in one.pair.sentence


def test_the_interval_shrinks_with_the_root_of_the_number_of_images() -> None:
    """0.02 ± 0.06 of 50 images: it must become a third as wide, for which 9 times as many do."""
    one = Difference("AP", 0.50, 0.52, -0.04, 0.07, 0.7, 50, 200)
    assert one.images_needed == pytest.approx(50 * 9, abs=2)
    worse = Difference("AP", 0.52, 0.50, -0.07, 0.04, 0.3, 50, 200)
    assert worse.images_needed == one.images_needed
    assert "about 450 such images" in Pair("A", "B", 50, (one,), ()).sentence
    assert Difference("AP", 0.5, 0.52, 0.01, 0.03, 1.0, 50, 200).images_needed is None


def test_few_images_are_told(
    write_truth: Make, write_results: Make, compared: Callable[..., Any]
) -> None:
    a = write_results("a.json", cats=(1, 2), dogs=(1,))
    b = write_results("b.json", cats=(1, 2, 3), dogs=(1,))
    (one,) = compared(a, b, truth=write_truth(5)).pairs
    assert "Fewer than 20 images" in one.pair.sentence
    only = compared(
        write_results("c.json", cats=(1,)), write_results("d.json"), truth=write_truth(1)
    )
    assert only.pairs[0].pair.sentence == (
        "B against A: AP −0.5000; how sure that is cannot be told with 1 image."
    )


def test_a_class_in_few_images_shows_nothing(
    write_truth: Make, write_results: Make, compared: Callable[..., Any]
) -> None:
    """Birds are in three images, and B alone finds them: whoever draws again finds them, too."""

    def with_birds(tree: dict[str, Any]) -> None:
        tree["annotations"] += [
            {"id": 900 + image, "image_id": image, "category_id": 3, "bbox": [0, 0, 50, 50],
             "area": 2500, "iscrowd": 0}
            for image in (1, 2, 3)
        ]  # fmt: skip

    a = write_results("a.json", cats=range(1, 16), dogs=ALL)
    b = write_results("b.json", cats=ALL, dogs=ALL)
    rows = json.loads(b.read_text())
    rows += [
        {"image_id": image, "category_id": 3, "bbox": [0, 0, 50, 50], "score": 0.9}
        for image in (1, 2, 3)
    ]
    b.write_text(json.dumps(rows))
    comparison = compared(a, b, truth=write_truth(change=with_birds))
    (one,) = comparison.pairs
    cat, _, bird = one.pair.classes
    assert (bird.change, bird.low) == pytest.approx((1.0, 1.0))
    assert bird.num_images == 3
    assert (bird.has_few_images, bird.is_shown) == (True, False)
    assert bird.images_needed == 20
    assert (cat.has_few_images, cat.is_shown) == (False, True)
    by_name = {number.name: number for number in one.pair.numbers}
    assert by_name["APm"].num_images == 3  # birds alone are of that size
    assert (by_name["APm"].change, by_name["APm"].is_shown) == (1.0, False)
    assert (by_name["APs"].num_objects, by_name["APs"].is_shown) == (30, True)
    _, classes, *_ = tables(comparison, one)
    row = next(row for row in classes.rows if row["name"] == bird.name)
    assert row["probability"] is None
    assert classes.row_style is not None
    assert classes.row_style(row) == "dim"
    assert few_images_lines(one) == [
        "Grey, and without a share of the resamples: 2 of 12 numbers and 1 of 3 classes with "
        "objects in fewer than 20 images, which are too few to show a difference."
    ]
    told = comparison.to_json()["pairs"][0]["classes"][2]
    assert (told["has_few_images"], told["is_shown"]) == (True, False)


def test_a_number_has_one_interval_in_the_report_and_here(
    write_truth: Make, write_results: Make, compared: Callable[..., Any]
) -> None:
    """Against a side that finds nothing, the difference is the number itself."""
    from retina.evaluation.bootstrap import draw_multiplicities
    from retina.evaluation.engines import COCO_IOUS
    from retina.evaluation.pairs import overlapping_pairs
    from retina.evaluation.resampled_metrics import metric_intervals, resampled_metrics

    nothing = write_results("a.json")
    some = write_results("b.json", cats=range(1, 25), dogs=range(1, 4), false=range(1, 12))
    comparison = compared(nothing, some, truth=write_truth())
    (one,), side = comparison.pairs, comparison.side("B")
    pairs = overlapping_pairs(side.problem, at_least=COCO_IOUS[0])
    drawn = draw_multiplicities(30, 200, seed=0)
    values = side.metrics.numbers()
    expected = metric_intervals(values, resampled_metrics(side.problem, pairs, drawn))
    for number in one.pair.numbers:
        if number.change is not None:
            assert (number.low, number.high) == pytest.approx(expected[number.name])
    ap = one.pair.ap
    assert ap.low is not None
    assert ap.high is not None
    assert ap.change is not None
    assert 0.5 < (ap.change - ap.low) / (ap.high - ap.change) < 2


def test_the_middle_of_the_resamples_is_put_at_the_difference() -> None:
    samples = np.linspace(-0.2, 0.2, 401) - 0.1
    one = differences._difference("AP", 0.5, 0.4, samples + 0.03, 50, 90)
    assert (one.low, one.high) == (pytest.approx(-0.29), pytest.approx(0.09))
    assert one.probability == pytest.approx(100 / 401, abs=0.003)
    # Most resamples are equal, since one image alone differs: that is not moved away from 0.
    lone = np.repeat([0.0, 0.02, 0.04], [150, 150, 100])
    rare = differences._difference("AP", 0.5, 0.525, lone, 50, 90)
    assert (rare.low, rare.high) == (0.0, pytest.approx(0.045))
    assert not rare.is_shown
    # Where most resamples tell nothing, there is no interval.
    lone[:200] = np.nan
    assert differences._difference("AP", 0.5, 0.525, lone, 50, 90).low is None


def test_annotations_of_which_not_all_was_looked_for_are_told(
    write_truth: Make, write_results: Make, compared: Callable[..., Any]
) -> None:
    def as_lvis(tree: dict[str, Any]) -> None:
        tree["annotations"] = [one for one in tree["annotations"] if not one["iscrowd"]]
        for image in tree["images"]:
            image |= {"neg_category_ids": [3], "not_exhaustive_category_ids": []}
        for category in tree["categories"]:
            category["frequency"] = "f"

    a = write_results("a.json", cats=ALL)
    told = compared(a, a, truth=write_truth(change=as_lvis))
    (finding,) = told.findings
    assert "not every class was looked for in every image (LVIS)" in finding
    assert f"  {finding}" in heading(told)
    assert told.to_json()["ground_truth"]["findings"] == [finding]
    assert compared(a, a, truth=write_truth()).findings == ()


def test_detections_and_objects_may_be_missing(
    write_truth: Make, write_results: Make, compared: Callable[..., Any]
) -> None:
    nothing, some = write_results("a.json"), write_results("b.json", dogs=ALL)
    (one,) = compared(nothing, some, truth=write_truth()).pairs
    assert one.pair.ap.first == 0.0
    assert one.best_f1.total.only_second == 30
    assert one.best_f1.first_score == 1.0
    both = compared(nothing, write_results("c.json"), truth=write_truth())
    assert agreement_lines(both.pairs[0]) == ["Neither has a detection."]
    assert agreement_lines(one) == ["A has no detection, B has 30."]
    (back,) = compared(some, nothing, truth=write_truth()).pairs
    assert agreement_lines(back) == ["B has no detection, A has 30."]

    def without_objects(tree: dict[str, Any]) -> None:
        tree["annotations"] = []

    empty = compared(nothing, some, truth=write_truth(change=without_objects))
    assert empty.pairs[0].pair.sentence == ("A and B: nothing could be scored, there is no object.")
    json.dumps(empty.to_json(), allow_nan=False)


def test_three_sides_are_each_compared_with_the_first(
    write_truth: Make, write_results: Make, compared: Callable[..., Any]
) -> None:
    paths = [
        write_results(f"{name}.json", cats=range(1, last), dogs=ALL)
        for name, last in (("a", 11), ("b", 21), ("c", 31))
    ]
    comparison = compared(*paths, truth=write_truth())
    assert [(one.pair.first, one.pair.second) for one in comparison.pairs] == [
        ("A", "B"),
        ("A", "C"),
    ]
    changes = [one.pair.ap.change for one in comparison.pairs]
    assert 0 < changes[0] < changes[1]
    assert heading(comparison)[2].startswith("C = ")
    for one in comparison.pairs:
        assert len(list(tables(comparison, one))) == 5


def test_equal_false_alarms_cut_the_side_that_has_more(
    write_truth: Make, write_results: Make, compared: Callable[..., Any]
) -> None:
    """B finds the cats at 0.4, below its false alarms at 0.5; A has none of these."""
    a = write_results("a.json", dogs=ALL)
    b = write_results("b.json", dogs=ALL, false=range(1, 6))
    rows = json.loads(b.read_text())
    rows += [
        {"image_id": image, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.4}
        for image in ALL
    ]
    b.write_text(json.dumps(rows))
    (one,) = compared(a, b, truth=write_truth()).pairs
    best, equal = one.best_f1, one.equal_false_alarms
    assert (best.first_score, best.second_score) == (0.9, 0.4)
    assert (best.total.only_second, best.total.second_false) == (30, 5)
    assert (equal.first_score, equal.second_score) == (0.9, 0.9)
    assert (equal.total.only_second, equal.total.second_false) == (0, 0)
    assert best.better[0].gain == 1  # a cat more
    assert best.num_better == 25
    assert best.num_worse == 0  # five images gain a cat and a false alarm


def test_a_quantised_model_is_held_against_its_source(
    write_truth: Make, write_results: Make, compared: Callable[..., Any]
) -> None:
    """The same detections, moved by half a pixel, with scores that are 0.02 lower."""
    a = write_results("a.json", cats=ALL, dogs=ALL, score=0.9)
    b = write_results("b.json", cats=ALL, dogs=ALL, score=0.88, move=0.5)
    (one,) = compared(a, b, truth=write_truth()).pairs
    told = one.agreement
    assert told.score == 0.9
    assert not told.is_same_set  # all have fallen below 0.9
    assert (told.num_first, told.num_second, told.num_pairs) == (60, 0, 0)
    assert (told.crossed_down, told.only_first) == (60, 0)
    assert told.scores.median == pytest.approx(-0.02)
    assert told.box_shifts.largest == pytest.approx(0.5)
    assert told.objects.num_pairs == 60
    (same,) = compared(
        write_results("c.json", cats=ALL, score=0.5),
        write_results("d.json", cats=ALL, score=0.52, move=0.25),
        truth=write_truth(),
    ).pairs
    assert same.agreement.is_same_set
    lines = agreement_lines(same)
    assert lines[0] == "A and B show the same 30 detections from score 0.500 on."
    assert "+0.0200 (median)" in lines[1]
    assert "0.25 pixels (largest)" in lines[1]
