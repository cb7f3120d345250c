"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from retina.errors import UserError
from retina.structures import FloatArray
from retina.training.loggers.logger import Ending, Logger, LoggerConfig

_FINISH_SECONDS = 600.0
"""So long an end waits for a network that is down; what is on disk can be sent later."""


class WandbConfig(LoggerConfig):
    """Weights & Biases, into ``wandb/`` of the run folder and from there to its server."""

    package: ClassVar[str] = "wandb"

    kind: Literal["wandb"] = "wandb"
    project: str = "retina"
    """Which the run belongs to."""
    entity: str | None = None
    """User or team; null takes your default one."""
    mode: Literal["online", "offline"] | None = None
    """``offline`` keeps everything in the run folder, and ``wandb sync`` sends it; null does as
    ``WANDB_MODE`` or ``wandb offline`` says, else ``online``."""

    def check(self) -> None:
        """Refuse to go online without a key: W&B would ask for one in the middle of the output."""
        super().check()
        import wandb

        is_online = self.mode != "offline" and wandb.setup().settings.mode == "online"
        if is_online and not wandb.login(prompt=False, verify=False):
            raise UserError(
                "training.loggers: W&B has no key of yours; call wandb login, set WANDB_API_KEY, "
                "or give it mode: offline"
            )

    def build(self) -> WandbLogger:
        """The logger, not started."""
        return WandbLogger(self)


class WandbLogger(Logger):
    """A run of W&B; its own process sends what is logged, so that no call waits for a network."""

    title: ClassVar[str] = "W&B"

    def __init__(self, config: WandbConfig) -> None:
        self._config = config
        self._row = 0
        self._waiting: list[tuple[Mapping[str, float], int]] = []

    def start(self, folder: Path, config: Mapping[str, Any], run_id: str | None) -> str:
        """Begin a run, or go on in one."""
        import wandb

        self._run = wandb.init(
            project=self._config.project,
            entity=self._config.entity,
            name=self._config.name or str(config["output_dir"]),
            dir=str(folder),
            id=run_id,
            resume=None if run_id is None else "allow",
            reinit="create_new",  # a script may have a run of its own
            mode=self._config.mode,
            config=dict(config),
            settings=wandb.Settings(console="off", silent=True, finish_timeout=_FINISH_SECONDS),
        )
        self.run_id = self._run.id
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        if self._run.offline:
            return f"kept in {Path(self._run.dir).parent}, which wandb sync sends"
        return str(self._run.url)

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Take over points of curves."""
        self._waiting.append((values, step))

    def histogram(self, name: str, edges: FloatArray, counts: FloatArray, step: int) -> None:
        """Show counts ``(N,)`` between edges ``(N + 1,)``."""
        import wandb

        self._log({name: wandb.Histogram(np_histogram=(counts, edges))}, step)

    def image(self, name: str, image: npt.NDArray[np.uint8], step: int) -> None:
        """Show an ``(H, W, 3)`` uint8 RGB image."""
        import wandb

        self._log({name: wandb.Image(image)}, step)

    def send(self) -> None:
        """Send the points that wait."""
        while self._waiting:
            self._log(*self._waiting[0])
            del self._waiting[0]

    def upload(self, detector: Path) -> None:
        """Keep a detector file with the run."""
        self._run.log_artifact(str(detector), name=f"detector-{self.run_id}", type="model")

    def stop(self, ending: Ending) -> None:
        """End the run; a resume opens it again."""
        self._run.finish(exit_code=1 if ending == "failed" else 0)

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        # W&B adds to no row but its last. Those of steps that a resume does again it has already,
        # but the evaluation of the last step may come after the resume: it has a row of its own.
        is_validation = any(name.startswith("validation") for name in values)
        self._row = max(self._row, 2 * step + is_validation)
        self._run.log({**values, "step": step}, step=self._row)
