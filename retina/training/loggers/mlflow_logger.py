"""MLflow."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from retina.training.loggers.logger import Ending, Logger, LoggerConfig

_MOST_METRICS = 1000
_MOST_PARAMS = 100
"""In one request, by MLflow's rules."""

_STATUS: dict[Ending, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowConfig(LoggerConfig):
    """MLflow: a server, or a database on this machine."""

    package: ClassVar[str] = "mlflow"

    kind: Literal["mlflow"] = "mlflow"
    tracking_uri: str | None = None
    """``https://…`` of a server, or ``sqlite:///mlflow.db``; null takes ``MLFLOW_TRACKING_URI``,
    else ``mlflow.db`` in the folder that the training is called in."""
    experiment: str = "retina"
    """Which the run belongs to; made where there is none of that name."""

    def build(self) -> MlflowLogger:
        """The logger, not started."""
        return MlflowLogger(self)


class MlflowLogger(Logger):
    """A run of MLflow."""

    title: ClassVar[str] = "MLflow"

    def __init__(self, config: MlflowConfig) -> None:
        self._config = config
        self._waiting: list[Any] = []

    def start(self, folder: Path, config: Mapping[str, Any], run_id: str | None) -> str:
        """Begin a run, or go on in one."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient(tracking_uri=self._config.tracking_uri)
        if run_id is None:
            name = self._config.name or str(config["output_dir"])
            run_id = self._client.create_run(self._experiment_id(), run_name=name).info.run_id
            params = [Param(_allowed(key), value) for key, value in _flat(config)]
            for first in range(0, len(params), _MOST_PARAMS):
                self._client.log_batch(run_id, params=params[first : first + _MOST_PARAMS])
        else:
            self._client.update_run(run_id, status="RUNNING")
        self.run_id = run_id
        # Params never change, but a training may go on with another config.
        self._client.log_dict(run_id, dict(config), "config.yaml")
        return f"run {run_id} in experiment {self._config.experiment}"

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Take over points of curves."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._waiting += [
            Metric(_allowed(name), value, now, step) for name, value in values.items()
        ]

    def image(self, name: str, image: npt.NDArray[np.uint8], step: int) -> None:
        """Show an ``(H, W, 3)`` uint8 RGB image."""
        self._client.log_image(self.run_id, image, key=_allowed(name), step=step)

    def send(self) -> None:
        """Send the points that wait."""
        while self._waiting:
            self._client.log_batch(self.run_id, metrics=self._waiting[:_MOST_METRICS])
            del self._waiting[:_MOST_METRICS]

    def upload(self, detector: Path) -> None:
        """Keep a detector file with the run."""
        self._client.log_artifact(self.run_id, str(detector), "detector")

    def stop(self, ending: Ending) -> None:
        """End the run; a resume opens it again."""
        self._client.set_terminated(self.run_id, status=_STATUS[ending])

    def _experiment_id(self) -> str:
        from mlflow import MlflowException

        name = self._config.experiment
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._client.create_experiment(name)
            except MlflowException:  # another training may have made it just now
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return found.experiment_id


def _allowed(name: str) -> str:
    """A name that MLflow takes: that of a class may have any characters."""
    kind, slash, rest = name.partition("/")
    rest = re.sub(r"[^\w.\- ]|^\.+$", "_", rest)
    return f"{kind}{slash}{rest}"[:250]


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """The keys of a config as dotted paths, with their values as text."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value if isinstance(value, str) else json.dumps(value)
