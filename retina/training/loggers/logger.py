"""What a training tells to a service of experiment tracking, and how one is configured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from retina.configuration import Config
from retina.errors import UserError
from retina.registry import is_present
from retina.structures import FloatArray

Ending = Literal["finished", "stopped", "failed"]
"""Of the training, or of the part of it that ends; one that is stopped may go on."""


class Logger:
    """A run of a tracking service.

    Any method but `numbers` may raise anything: once the run is started, the training goes on.
    """

    title: ClassVar[str]
    """What people call the service."""

    run_id: str
    """What the run is called there, once it is started: a resume goes on in the same."""

    def start(self, folder: Path, config: Mapping[str, Any], run_id: str | None) -> str:
        """Begin a run, or go on in one.

        Args:
            folder: of the training.
            config: the resolved experiment.
            run_id: of the run to go on in; None begins one.

        Returns:
            Where people find it, a few words.
        """
        raise NotImplementedError

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Take over points of curves, all of them finite; they wait for `send`, which follows."""
        raise NotImplementedError

    def histogram(self, name: str, edges: FloatArray, counts: FloatArray, step: int) -> None:
        """Show counts ``(N,)`` between edges ``(N + 1,)``, where the service has histograms."""

    def image(self, name: str, image: npt.NDArray[np.uint8], step: int) -> None:
        """Show an ``(H, W, 3)`` uint8 RGB image."""
        raise NotImplementedError

    def send(self) -> None:
        """Send the points that wait; where this raises, they go on waiting."""
        raise NotImplementedError

    def upload(self, detector: Path) -> None:
        """Keep a detector file with the run."""
        raise NotImplementedError

    def stop(self, ending: Ending) -> None:
        """End the run, or this part of it."""
        raise NotImplementedError


class LoggerConfig(Config):
    """What all kinds have in common."""

    package: ClassVar[str]
    """What must be installed."""

    name: str | None = None
    """Of the run, for people; null takes ``output_dir``."""
    upload_detector: bool = False
    """Keep ``checkpoints/best.safetensors`` with the run when the training is over."""

    def check(self) -> None:
        """Refuse what could not be started; nothing is left anywhere by it.

        Raises:
            UserError: the package is missing, or who trains is not known to the service.
        """
        if not is_present(self.package):
            raise UserError(
                f"training.loggers: kind '{self.package}' needs the package {self.package}; "
                "pip install 'retina-detector[loggers]'"
            )

    def build(self) -> Logger:
        """The logger, not started."""
        raise NotImplementedError
