import json
import math
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retina.training.metric_log import MetricLog


def rows_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_resuming_takes_back_what_was_written_beyond_the_checkpoint(tmp_path: Path) -> None:
    log = MetricLog(tmp_path)
    for step in (1, 2):
        log.scalars("train", step, {"loss": step / 2})
    position = log.position()
    log.scalars("validation", 2, {"AP": 0.5})
    log.scalars("train", 3, {"loss": 1.5})
    log.close()
    MetricLog(tmp_path, resume_at=None).close()  # a later part, whose file goes as a whole
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "ste')  # torn by a crash
    log = MetricLog(tmp_path, resume_at=position)
    log.scalars("train", 3, {"loss": 9.0})
    log.close()
    wanted = [(1, 0.5), (2, 1.0), (3, 9.0)]
    assert [(row["step"], row["loss"]) for row in rows_of(tmp_path)] == wanted
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert board.Tags()["scalars"] == ["train/loss"]
    # Of files of the same second, TensorBoard reads the tenth of a process before the ninth.
    assert sorted((event.step, event.value) for event in board.Scalars("train/loss")) == wanted


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
