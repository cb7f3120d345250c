from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from retina.datasets.coco_results import read_results
from retina.errors import UserError
from retina.evaluation.coco_metrics import CocoMetrics
from retina.evaluation.metrics import METRIC_NAMES, DetectionMetrics
from retina.evaluation.summary import category_table, summary_table, write_metrics
from retina.structures import GroundTruth


@pytest.fixture(scope="module")
def metrics(oracle: GroundTruth, oracle_folder: Path) -> DetectionMetrics:
    found = read_results(oracle_folder / "instances_val2014_fakebbox100_results.json", oracle)
    scorer = CocoMetrics(oracle, max_detections=300)
    scorer.update_arrays(found.image_ids, found.boxes_xywh, found.scores, found.labels)
    return scorer.compute()


def _lines(renderable: object) -> list[str]:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get().splitlines()


def test_summary_shows_the_twelve_numbers_and_their_caps(metrics: DetectionMetrics) -> None:
    cells = [
        line.replace("│", " ").split() for line in _lines(summary_table(metrics).to_terminal())
    ]
    rows = {words[0]: words for words in cells if words and words[0] in METRIC_NAMES}
    assert list(rows) == list(METRIC_NAMES)
    assert rows["AP"][-2:] == ["300", "0.5046"]
    assert rows["AR1"][-2:] == ["1", "0.3868"]
    assert rows["AR10"][-2:] == ["10", "0.5937"]
    assert rows["AR100"][-2:] == ["300", "0.5954"]


def test_every_category_has_a_line_and_dashes_where_it_has_no_truth(
    metrics: DetectionMetrics,
) -> None:
    lines = _lines(category_table(metrics).to_terminal())
    rows = {line[:18].strip(): line[18:].split() for line in lines}
    person, toaster = metrics.per_category[0], metrics.per_category[70]
    assert rows["person"][:2] == [str(person.num_ground_truth), f"{person.AP:.3f}"]
    assert rows["person"][-3:] == [
        *(f"{person.AR100:.3f}", f"{person.best_f1:.3f}", f"{person.best_f1_score:.2f}")
    ]
    assert toaster.num_ground_truth == 0
    assert rows["toaster"] == ["0", *"–––––––––"]
    assert all(each.name in rows for each in metrics.per_category)


def test_metrics_file_holds_numbers_and_categories(
    tmp_path: Path, metrics: DetectionMetrics
) -> None:
    path = tmp_path / "evaluation" / "metrics.json"
    write_metrics(path, metrics)
    tree = json.loads(path.read_text())
    assert {name: tree[name] for name in METRIC_NAMES} == metrics.numbers()
    assert tree["max_detections"] == 300
    assert len(tree["per_category"]) == 80
    person = tree["per_category"][0]
    assert (person["name"], person["dataset_id"]) == ("person", 1)
    assert person["num_ground_truth"] > 100
    # The mean over the categories that have truth is the split's number.
    present = [row["AP"] for row in tree["per_category"] if row["AP"] is not None]
    assert np.mean(present) == pytest.approx(tree["AP"], abs=1e-12)


def test_a_folder_that_is_a_file_is_a_clear_error(
    tmp_path: Path, metrics: DetectionMetrics
) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="a file stands where a folder is needed"):
        write_metrics(tmp_path / "taken" / "metrics.json", metrics)
