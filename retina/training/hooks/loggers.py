"""Tells a training to services of experiment tracking, beside the logs in the run folder."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from retina.distributed import done_by_main
from retina.errors import UserError
from retina.structures import FloatArray
from retina.training.loggers.logger import Ending, Logger, LoggerConfig
from retina.training.metric_log import RunLog
from retina.training.run import Hook, TrainingRun
from retina.wording import first_line


class Loggers(Hook):
    """Starts the loggers of a config and hangs them on the log; on the first rank only.

    Args:
        configs: of the loggers, checked; at most one of each kind.
        experiment: the resolved config.
    """

    name: ClassVar[str] = "loggers"

    def __init__(self, configs: Sequence[LoggerConfig], experiment: Mapping[str, Any]) -> None:
        self._configs, self._experiment = configs, experiment
        self._run_ids: dict[str, str] = {}
        self._has_begun = False

    def begin(self, run: TrainingRun) -> None:
        """Start them, or go on in the runs of the training that goes on.

        Raises:
            UserError: one could not be started, and nothing is trained yet. Later it is a warning.
        """
        done_by_main(lambda: self._start(run))

    def _start(self, run: TrainingRun) -> None:
        is_first, self._has_begun = not self._has_begun, True
        log = run.log = SharedLog(run)
        for config in self._configs:
            logger = config.build()
            run_id = self._run_ids.get(config.package)
            try:
                where = logger.start(run.folder.path, self._experiment, run_id)
            except Exception as error:
                problem = f"{logger.title} could not be started: {_cause(error)}"
                if run.step == 0 and is_first:
                    raise UserError(
                        f"training.loggers: {problem}. Nothing is trained yet: correct it or take "
                        "the logger out of training.loggers, and go on with --resume"
                    ) from error
                log.warn(f"{problem}. The training goes on without it")
            else:
                self._run_ids[config.package] = logger.run_id
                log.add(logger, uploads=config.upload_detector)
                run.progress.message(f"{logger.title}: {where}")

    def state_dict(self) -> dict[str, Any]:
        """The runs, by the kind of their logger."""
        return dict(self._run_ids)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in them."""
        self._run_ids = dict(state)


class SharedLog(RunLog):
    """The log of a run, and loggers that are told the same curves and images as TensorBoard.

    One that fails is a warning. It is left alone until the next evaluation; then the points of
    curves that wait for it are sent.

    Args:
        run: the training, whose log this stands before.
    """

    def __init__(self, run: TrainingRun) -> None:
        self._run, self._log = run, run.log
        self._uploads: dict[Logger, bool] = {}
        self._failed: set[Logger] = set()
        self._handled = sys.exc_info()[1]  # by a program that trains anew after an error

    def add(self, logger: Logger, *, uploads: bool) -> None:
        """Tell a logger that is started, too."""
        self._uploads[logger] = uploads

    def warn(self, message: str) -> None:
        """Say and record what went wrong with a logger."""
        self._run.progress.message(f"warning: {message}")
        self._log.record("warning", self._run.step, message)

    def scalars(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Record numbers by name."""
        self._log.scalars(kind, step, values)
        self._numbers({f"{kind}/{name}": value for name, value in values.items()}, step)

    def per_class(
        self,
        kind: str,
        step: int,
        metrics: Mapping[str, Mapping[str, float]],
        *,
        in_tensorboard: bool = True,
    ) -> None:
        """Record numbers of the classes; those that are too many for TensorBoard are for others."""
        self._log.per_class(kind, step, metrics, in_tensorboard=in_tensorboard)
        for metric, values in metrics.items() if in_tensorboard else ():
            head = f"{kind}_{metric}_per_class"
            self._numbers({f"{head}/{name}": value for name, value in values.items()}, step)

    def per_level(self, kind: str, step: int, values: Mapping[str, Mapping[str, float]]) -> None:
        """Record the same scalars of every level."""
        self._log.per_level(kind, step, values)
        for level, scalars in values.items():
            head = f"{kind}_{level}"
            self._numbers({f"{head}/{name}": value for name, value in scalars.items()}, step)

    def histograms(
        self, kind: str, step: int, edges: FloatArray, counts: Mapping[str, FloatArray]
    ) -> None:
        """Record counts ``(N,)`` between shared edges ``(N + 1,)``."""
        self._log.histograms(kind, step, edges, counts)
        for name, bars in counts.items():
            self._tell(partial(_say_histogram, f"{kind}/{name}", edges, bars, step))

    def record(self, kind: str, step: int, message: str) -> None:
        """Record a sentence for people; not in the loggers."""
        self._log.record(kind, step, message)

    def text(self, name: str, text: str, step: int) -> None:
        """Show a text in TensorBoard; not in the loggers."""
        self._log.text(name, text, step)

    def image(self, name: str, image: npt.NDArray[np.uint8], step: int) -> None:
        """Show an ``(H, W, 3)`` uint8 RGB image."""
        self._log.image(name, image, step)
        self._tell(lambda logger: logger.image(name, image, step))

    def position(self) -> dict[str, int]:
        """The bytes of each log file on disk, by its path in the run folder."""
        return self._log.position()

    def flush(self) -> None:
        """Bring everything to disk; loggers that failed are tried again."""
        self._log.flush()
        self._tell(lambda logger: logger.send(), retry=True)

    def close(self) -> None:
        """Bring everything to disk; say in the loggers how the training ended."""
        is_failing = sys.exc_info()[1] is not self._handled  # the trainer is on its way out
        is_over = self._run.is_over and not is_failing
        ending: Ending = "finished" if is_over else "failed" if is_failing else "stopped"
        best = self._run.folder.path / "checkpoints" / "best.safetensors"
        try:
            self._tell(lambda logger: logger.send(), retry=True)
            if is_over:
                self._tell(lambda logger: logger.upload(best) if self._uploads[logger] else None)
            self._tell(lambda logger: logger.stop(ending))
        finally:
            self._log.close()

    def _numbers(self, values: Mapping[str, float], step: int) -> None:
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        for logger in self._uploads:
            logger.numbers(finite, step)
        self._tell(lambda logger: logger.send())

    def _tell(self, say: Callable[[Logger], None], *, retry: bool = False) -> None:
        for logger in self._uploads:
            if logger in self._failed and not retry:
                continue
            try:
                say(logger)
            except Exception as error:
                if logger not in self._failed:
                    self.warn(f"{logger.title} did not take what was logged: {_cause(error)}")
                self._failed.add(logger)
            else:
                self._failed.discard(logger)


def _say_histogram(
    name: str, edges: FloatArray, counts: FloatArray, step: int, logger: Logger
) -> None:
    logger.histogram(name, edges, counts, step)


def _cause(error: Exception) -> str:
    return first_line(error).rstrip(".")
