"""What is told of thresholds: notes, tables, JSON, and what a detector file keeps."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from retina.evaluation.thresholds import (
    BestF,
    LeastCost,
    LeastPrecision,
    MostFalseAlarms,
    Rule,
    SplitOutcomes,
    ThresholdStudy,
    study_thresholds,
)
from retina.evaluation.thresholds.tables import check_table, study_json, threshold_table
from tests.evaluation.thresholds.cases import (  # type: ignore[import-not-found]
    random_rows,
    split,
)


def outcomes_of(*, num_absent: int = 1) -> SplitOutcomes:
    absent = {f"缺席 {n}": ([(0.5, False, 0)], [0] * 12) for n in range(num_absent)}
    return split(cell=random_rows(0), **{"[b]星": random_rows(1)}, **absent)


def study(rule: Rule, *, per_class: bool = True, num_absent: int = 1) -> ThresholdStudy:
    outcomes = outcomes_of(num_absent=num_absent)
    return study_thresholds(outcomes, rule, per_class=per_class, num_resamples=30, seed=0)


def shown(made: ThresholdStudy, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(threshold_table(made).to_terminal())
    assert made.check is not None
    console.print(check_table(made, made.check).to_terminal())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("rule", "figure"),
    [(BestF(), "F1"), (BestF(2), "F2"), (MostFalseAlarms(1), "FP/img"),
     (LeastCost(1, 2), "cost/img"), (LeastPrecision(0.5), "F1")],
    ids=str,
)  # fmt: skip
def test_tables_fit_eighty_columns_with_names_of_any_script(rule: Rule, figure: str) -> None:
    text = shown(study(rule))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    headers = [line for line in lines if line.startswith("class ")]
    assert len(headers) == 2  # neither table is told in parts
    assert all(figure in line for line in headers)
    assert "[b]星" in text  # no markup
    assert "缺席 0" in text
    assert "all of these" in text
    assert "one for all" in text


def test_a_score_has_the_digits_that_it_was_kept_with() -> None:
    """Two of them would be 0.00 for the scores of a network that is unsure of everything."""
    scores = ((0.0049, True, 0), (0.0048, False, 0), (0.0046, True, 1), (0.0012, False, 1))
    rows = [(score, right, image + n) for n in range(0, 24, 2) for score, right, image in scores]
    rule = LeastPrecision(0.9)
    outcomes = split(cell=(rows, [1] * 24))
    made = study_thresholds(outcomes, rule, per_class=False, num_resamples=20, seed=0)
    assert made.chosen.common.point.threshold == 0.0049
    text = shown(made)
    assert text.count(" 0.0049 ") == 3  # in both tables
    assert "0.0049–0.0049" in text
    assert " 0.00 " not in text


def test_the_json_has_every_number() -> None:
    made = study(BestF(2))
    tree = json.loads(json.dumps(study_json(made, data="cells, test"), allow_nan=False))
    assert tree["rule"] == "best F2 of each class"
    assert tree["data"] == "cells, test"
    assert [one["name"] for one in tree["classes"]] == ["cell", "[b]星", "缺席 0"]
    cell, absent = tree["classes"][0], tree["classes"][2]
    point = made.chosen.classes[0].point
    assert (cell["tp"], cell["fp"]) == (point.true, point.false)
    assert cell["tp"] + cell["fn"] == cell["num_objects"]
    assert cell["F2"] == pytest.approx(
        5 * point.true / (5 * point.true + 4 * point.missed + point.false)
    )
    assert len(cell["intervals"]["threshold"]) == 2
    assert absent["source"] == "no objects"
    assert absent["recall"] is None
    assert tree["total"]["tp"] == sum(one["tp"] for one in tree["classes"])
    check = tree["check"]
    assert check["num_images"] == [6, 6]
    assert check["total"]["seen"]["tp"] == sum(one["seen"]["tp"] for one in check["classes"])


def test_notes_name_classes_without_objects_and_sets_that_are_too_small() -> None:
    notes = "\n".join(study(BestF()).notes())
    assert "1 class has no object here and gets the common score" in notes
    assert "too few objects to know precision and recall to ±0.05" in notes
    assert "how many are needed: cell (364), [b]星 (411)" in notes
    assert "with objects in fewer than 20 images at least that of as many independent" in notes
    many = "\n".join(study(BestF(), num_absent=20).notes())
    assert "20 classes have no object here and get the common score" in many
    assert "缺席 7 and 12 more" in many


def test_notes_say_what_cannot_be_met_and_what_is_nearest() -> None:
    rows = [(0.9, False, 0), (0.8, True, 0), (0.7, False, 1), (0.6, True, 1)]
    outcomes = split(cell=random_rows(0), fog=(rows, [1, 1, *[0] * 10]))
    made = study_thresholds(outcomes, LeastPrecision(1.0), per_class=True, num_resamples=20, seed=0)
    nearest = [
        (name, one.point)
        for name, one in zip(made.names, made.chosen.classes, strict=True)
        if one.source == "nearest"
    ]
    assert nearest
    for name, point in nearest:
        told = f"{name}: no score has a precision of at least 1; the nearest is {point.threshold:g}"
        assert any(note.startswith(told) for note in made.notes())
        assert any(f"precision {point.precision:.3f}" in note for note in made.notes())


def test_false_alarms_of_all_classes_together_are_told() -> None:
    made = study(MostFalseAlarms(0.5))
    total = made.chosen.total.false_alarms_per_image
    assert total > 0.5
    assert any(f"all together make {total:.2f} false alarms" in one for one in made.notes())
    assert not any("all together" in one for one in study(BestF()).notes())


def test_what_a_detector_file_keeps() -> None:
    made = study(BestF())
    kept = made.to_config(data="cells, test", date="2026-11-29")
    assert kept.per_class == (*made.chosen.values[:2], None)  # the third has no object
    assert kept.common == made.chosen.common.point.threshold
    assert kept.of_classes(3).tolist() == [*made.chosen.values[:2], kept.common]
    assert kept.origin is not None
    assert (kept.origin.rule, kept.origin.iou) == ("best F1 of each class", 0.5)
    assert (kept.origin.data, kept.origin.date) == ("cells, test", "2026-11-29")
    assert kept.origin.num_images == 12
    assert kept.origin.reached.recall == made.chosen.total.recall
    assert study(BestF(), per_class=False).to_config(data="x", date="x").per_class is None
