"""Experiment tracking with the real clients: W&B offline, MLflow in a database on this machine.

What they took is read back and compared with what TensorBoard has.
"""

from __future__ import annotations

import json
import re
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils._pytree import tree_leaves

from retina.configuration import parse_yaml
from retina.errors import DivergedError, UserError
from retina.training.config import TrainingConfig
from retina.training.generators import generator_states
from retina.training.hooks.loggers import Loggers
from retina.training.loggers import MlflowConfig, WandbConfig
from retina.training.resuming import find_resume_point
from retina.training.run import Hook, TrainingRun
from retina.training.step import StepResult
from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.processes import run_pair, small_retina  # type: ignore[import-not-found]
from tests.training.small_training import SmallTraining  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = pytest.mark.skipif(
    not (find_spec("wandb") and find_spec("mlflow")),  # to import them takes five seconds
    reason="W&B and MLflow are not installed: pip install 'retina-detector[loggers]'",
)

Curve = list[tuple[int, float]]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MLflow counts its users, and neither shall find a real account."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@dataclass(frozen=True)
class Store:
    """A database of MLflow, made once: that takes seconds."""

    file: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.file}"

    def experiment(self, name: str) -> MlflowClient:
        """Make one whose files lie beside the database, and not where the tests are called."""
        from mlflow import MlflowClient

        client = MlflowClient(self.uri)
        client.create_experiment(name, artifact_location=self.artifacts.as_uri())
        return client

    @property
    def artifacts(self) -> Path:
        return self.file.parent / "artifacts"

    def only_run(self, client: MlflowClient, name: str) -> Run:
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id])
        return run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("mlflow") / "mlflow.db")


@dataclass(frozen=True)
class WandbRun:
    """What a run of W&B has on disk: the parts that ``wandb sync`` puts together."""

    run_ids: set[str]
    configs: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    artifacts: list[str]

    def curves(self) -> dict[str, Curve]:
        curves = defaultdict(list)
        for row in self.rows:
            for name, value in row.items():
                if isinstance(value, int | float) and not name.startswith(("_", "step")):
                    curves[name].append((row["step"], value))
        return curves


def read_wandb(run: Path) -> WandbRun:
    from wandb.proto import wandb_internal_pb2

    found = WandbRun(set(), [], [], [])
    for file in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        for blob in records_of(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(blob)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                found.run_ids.add(record.run.run_id)
                found.configs.append(
                    {one.key: json.loads(one.value_json) for one in record.run.config.update}
                )
            elif kind == "history":
                row: dict[str, Any] = {}
                for item in record.history.item:
                    name, *inner = item.nested_key or [item.key]
                    value = json.loads(item.value_json)
                    if inner:
                        row.setdefault(name, {})[inner[0]] = value
                    else:
                        row[name] = value
                found.rows.append(row)
            elif kind == "artifact":
                found.artifacts.extend(one.path for one in record.artifact.manifest.contents)
            elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
                logged = record.request.log_artifact.artifact
                found.artifacts.extend(one.path for one in logged.manifest.contents)
    return found


def records_of(data: bytes) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format behind a head of seven bytes."""
    assert data[:4] == b":W&B"
    place, parts = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            yield parts
            parts = b""


def read_board(run: Path) -> tuple[dict[str, Curve], set[str]]:
    board = EventAccumulator(str(run / "tensorboard"), {"scalars": 0, "images": 0}).Reload()
    tags = board.Tags()
    curves = {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in tags["scalars"]}
    return curves, set(tags["images"])


def assert_same(curves: dict[str, Curve], expected: dict[str, Curve]) -> None:
    """TensorBoard keeps float32."""
    assert curves.keys() == expected.keys()
    for name, curve in expected.items():
        assert [step for step, _ in curves[name]] == [step for step, _ in curve], name
        values = [value for _, value in curves[name]]
        assert values == pytest.approx([value for _, value in curve], rel=1e-6), name


STEADY = "schedule={kind: multi_step, drops: [], warm_up: {steps: 0}}"


def test_both_have_what_tensorboard_has_also_after_a_resume(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, store: Store
) -> None:
    client, run = store.experiment("shapes"), tmp_path / "run"
    mlflow = f"{{kind: mlflow, tracking_uri: '{store.uri}', experiment: shapes}}"
    loggers = f"training.loggers=[{{kind: wandb, mode: offline, upload_detector: true}}, {mlflow}]"
    options = ["training.anatomy_every_steps=2", STEADY]

    ours = [f"output_dir={run}", loggers, *options]
    done = invoke("train", tiny_config, *ours, "training.max_steps=2")
    assert done.code == 0, done.err
    assert re.search(
        r"W&B: kept in \S+/run/wandb/offline-run-\S+, which wandb sync sends", done.out
    )
    assert "MLflow: run " in done.out
    uploading = loggers.replace("shapes", "shapes, upload_detector: true")
    resumed = invoke("train", tiny_config, *ours, uploading, "--resume")
    assert resumed.code == 0, resumed.err

    board, images = read_board(run)
    assert {"train/loss", "validation/AP", "validation_AP_per_class/ring"} <= board.keys()
    assert [step for step, _ in board["train/loss"]] == [1, 2, 3, 4, 5, 6]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [(line["step"], line["loss"]) for line in lines if line["kind"] == "train"]
    assert not [line for line in lines if line["kind"] == "warning"]

    local = read_wandb(run)
    assert len(local.run_ids) == 1
    assert_same(local.curves(), board)
    assert local.curves()["train/loss"] == losses
    assert [one["training"]["batch_size"] for one in local.configs] == [8, 8]
    shown = {row["step"] for row in local.rows for name in row if name in images}
    assert shown == {2, 3, 6}
    kinds = {value["_type"] for row in local.rows for value in row.values() if type(value) is dict}
    assert kinds == {"histogram", "image-file"}
    assert set(local.artifacts) == {"best.safetensors"}
    numbers = [row["_step"] for row in local.rows]
    assert numbers == sorted(set(numbers))  # over both parts: W&B takes a row once

    logged = store.only_run(client, "shapes")
    run_id = logged.info.run_id
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name == str(run)
    assert logged.data.params["training.batch_size"] == "8"
    assert logged.data.params["model.backbone.kind"] == "small"
    curves = {
        name: [(one.step, one.value) for one in client.get_metric_history(run_id, name)]
        for name in logged.data.metrics.keys() - images  # each image has a mark among them
    }
    assert_same(curves, board)
    assert curves["train/loss"] == losses
    kept = store.artifacts / run_id / "artifacts"
    assert parse_yaml((kept / "config.yaml").read_text(), "")["training"]["max_steps"] is None
    best = run / "checkpoints" / "best.safetensors"
    assert (kept / "detector" / "best.safetensors").read_bytes() == best.read_bytes()
    pictures = sorted((kept / "images").glob("*.png"))
    assert len(pictures) == len(images) * len(shown)
    assert np.asarray(Image.open(pictures[0])).std() > 0


class Breaker(Hook):
    """Takes the table of the metrics out of MLflow's database at one step, and puts it back."""

    def __init__(self, database: Path, at: int, until: int) -> None:
        self._database, self._at, self._until = database, at, until

    def after_step(self, run: TrainingRun, result: StepResult) -> None:
        names = {self._at: "metrics RENAME TO away", self._until: "away RENAME TO metrics"}
        if run.step in names:
            with sqlite3.connect(self._database) as connection:
                connection.execute(f"ALTER TABLE {names[run.step]}")
            connection.close()


def test_a_store_that_fails_ends_no_training_and_is_told_later(
    tmp_path: Path, store: Store
) -> None:
    client = store.experiment("broken")
    mlflow = MlflowConfig(tracking_uri=store.uri, experiment="broken")
    loggers = Loggers([WandbConfig(mode="offline"), mlflow], {"output_dir": "run"})
    small = SmallTraining(
        tmp_path / "run",
        TrainingConfig(log_every_steps=1, pictures=0),
        hooks=[loggers, Breaker(store.file, at=2, until=5)],
        total_steps=6,
        aps=[0.1, 0.2, 0.3],
    )
    trainer, before = small.trainer(), generator_states()
    assert trainer.run().step == 6
    for mine, theirs in zip(tree_leaves(before), tree_leaves(generator_states()), strict=True):
        assert np.array_equal(mine, theirs)  # a training with loggers is the same training
    rows = [json.loads(line) for line in (small.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [(row["step"], row["loss"]) for row in rows if row["kind"] == "train"]
    warnings = [row["message"] for row in rows if row["kind"] == "warning"]
    assert len(warnings) == 1
    assert warnings[0].startswith("MLflow did not take what was logged: ")
    assert read_wandb(small.folder).curves()["train/loss"] == losses
    run = store.only_run(client, "broken")
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(one.step, one.value) for one in history] == losses
    assert [one.step for one in history] == [1, 2, 3, 4, 5, 6]
    assert run.info.status == "FINISHED"


def test_the_end_of_a_training_is_told(tmp_path: Path, store: Store) -> None:
    client = store.experiment("ends")
    mlflow = MlflowConfig(tracking_uri=store.uri, experiment="ends")
    small = SmallTraining(tmp_path / "run", hooks=[Loggers([mlflow], {"output_dir": "run"})])
    trainer = small.trainer()
    small.switch.is_on = True
    with pytest.raises(DivergedError):
        trainer.run()
    assert store.only_run(client, "ends").info.status == "FAILED"
    try:
        raise RuntimeError
    except RuntimeError:  # a program that trains again, in the same run
        small.trainer().run()
    assert store.only_run(client, "ends").info.status == "FINISHED"


NOWHERE = MlflowConfig(tracking_uri="http://127.0.0.1:9")


def test_a_server_that_is_not_there_is_told_before_the_first_step_and_passed_over_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    config = TrainingConfig(pictures=0)
    small = SmallTraining(tmp_path / "run", config, [Loggers([NOWHERE], {"output_dir": "run"})])
    with pytest.raises(UserError, match=r"training.loggers: MLflow could not be .*--resume"):
        small.trainer().run()
    before = SmallTraining(tmp_path / "later", config, total_steps=2)
    before.trainer().run()
    after = SmallTraining(tmp_path / "later", config, [Loggers([NOWHERE], {"output_dir": "run"})])
    point = find_resume_point(before.checkpoints.path)
    assert after.trainer(point).run().step == 4
    lines = (tmp_path / "later" / "metrics.jsonl").read_text()
    assert "could not be started" in lines
    assert "goes on without it" in lines


def test_names_of_classes_that_mlflow_would_refuse(tmp_path: Path, store: Store) -> None:
    client = store.experiment("names")
    logger = MlflowConfig(tracking_uri=store.uri, experiment="names").build()
    logger.start(tmp_path, {"output_dir": "a", "names": {"x/y (z)": None}}, None)
    names = ["dog", "Straße 5", "a/b (left): 50%", "..", "x" * 300]
    logger.numbers({f"AP/{name}": 0.5 for name in names}, 3)
    logger.send()
    logger.stop("stopped")
    run = client.get_run(logger.run_id)
    expected = ["dog", "Straße 5", "a_b _left__ 50_", "_", "x" * 247]
    assert run.data.metrics == {f"AP/{name}": 0.5 for name in expected}
    assert run.info.status == "KILLED"


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_a_missing_package_is_one_sentence(
    kind: str,
    invoke: Invoke,
    tiny_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, kind, None)
    run = tmp_path / "run"
    done = invoke("train", tiny_config, f"output_dir={run}", f"training.loggers=[{{kind: {kind}}}]")
    assert done.code == 2
    assert done.err == (
        f"error: training.loggers: kind '{kind}' needs the package {kind}; pip install "
        "'retina-detector[loggers]'\n"
    )
    assert not run.exists()


def test_without_a_key_nothing_goes_online() -> None:
    with pytest.raises(UserError, match="W&B has no key of yours; call wandb login, set WANDB_API"):
        WandbConfig(mode="online").check()
    WandbConfig(mode="offline").check()


def test_two_of_a_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="loggers: one of each kind, not mlflow, mlflow"):
        TrainingConfig(loggers=(MlflowConfig(), MlflowConfig()))


@pytest.mark.slow
def test_only_the_first_of_two_processes_logs(
    tiny_config: Path, tmp_path: Path, store: Store
) -> None:
    client = store.experiment("two processes")
    mlflow = f"{{kind: mlflow, tracking_uri: '{store.uri}', experiment: two processes}}"
    done = run_pair(
        small_retina,
        *("train", str(tiny_config), f"output_dir={tmp_path / 'run'}", "training.pictures=0"),
        f"training.loggers=[{{kind: wandb, mode: offline}}, {mlflow}]",
    )
    assert done.returncode == 0, done.stderr
    run = store.only_run(client, "two processes")
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 6
    assert len([*(tmp_path / "run" / "wandb").glob("offline-run-*")]) == 1
