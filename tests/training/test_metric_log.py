import json
import math
from pathlib import Path

from retina.training.metric_log import MetricLog


def rows_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_resuming_takes_back_what_was_written_beyond_the_checkpoint(tmp_path: Path) -> None:
    log = MetricLog(tmp_path, resume_step=0)
    for step in (1, 2, 3):
        log.scalars("train", step, {"loss": step / 2})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "ste')  # torn by a crash
    log = MetricLog(tmp_path, resume_step=2)
    log.scalars("train", 3, {"loss": 9.0})
    log.close()
    assert [(row["step"], row["loss"]) for row in rows_of(tmp_path)] == [
        (1, 0.5),
        (2, 1.0),
        (3, 9.0),
    ]


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    log = MetricLog(tmp_path)
    log.scalars("train", 1, {"loss": math.nan, "lr": 0.1})
    log.close()
    assert rows_of(tmp_path) == [{"kind": "train", "step": 1, "loss": None, "lr": 0.1}]


def test_classes_named_like_keys_do_no_harm(tmp_path: Path) -> None:
    log = MetricLog(tmp_path)
    log.per_class("validation", 7, {"AP": {"step": 0.25, "kind": 0.5}})
    log.close()
    assert rows_of(tmp_path) == [
        {"kind": "validation_per_class", "step": 7, "AP": {"step": 0.25, "kind": 0.5}}
    ]
