"""A detector in a file of ``torch.export``, run by PyTorch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

import retina.runtime.operators  # noqa: F401  # a program names them
from retina.devices import pick_device, pick_precision
from retina.errors import UserError
from retina.runtime.description import ExportDescription, read_description
from retina.runtime.exported import ExportedRuntime
from retina.wording import first_line

DESCRIPTION_FILE = "retina.json"
"""The extra file with the description."""


class ProgramRuntime(ExportedRuntime):
    """A ``.pt2`` file; other arguments as `ExportedRuntime`.

    Args:
        path: of the file.
        description: what it says about itself.
        module: of the program.
        device: where it computes.
        max_detections: of an image.
    """

    kind = "torch program"

    def __init__(
        self,
        path: Path,
        description: ExportDescription,
        module: Any,
        device: torch.device,
        *,
        max_detections: int | None = None,
    ) -> None:
        super().__init__(path, description, max_detections=max_detections)
        self._module, self._device = module, device

    @classmethod
    def load(cls, path: Path, *, device: str = "auto", max_detections: int | None = None) -> Self:
        """See `ExportedRuntime`.

        Raises:
            UserError: this version of torch cannot read the file.
        """
        where = _pick(path, device)
        pick_precision("fp32", where)
        extra = {DESCRIPTION_FILE: ""}
        try:
            with _quiet():
                program = torch.export.load(path, extra_files=extra)
        except Exception as error:  # of many kinds: a zip, JSON, tensors, operators
            raise UserError(
                f"{path}: not a torch program that torch {torch.__version__} can read "
                f"({first_line(error)})"
            ) from None
        if where.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, where)
        description = read_description(extra[DESCRIPTION_FILE] or None, path)
        return cls(path, description, program.module(), where, max_detections=max_detections)

    @classmethod
    def check_device(cls, path: Path, device: str) -> None:
        """See `ExportedRuntime`."""
        _pick(path, device)

    def run(self, images: Tensor) -> tuple[Tensor, ...]:
        """See `ExportedRuntime`."""
        with torch.no_grad():
            outputs: tuple[Tensor, ...] = self._module(images.to(self._device))
        return tuple(output.cpu() for output in outputs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Of a file that it cannot read torch logs a traceback, and then raises another error."""
    logger = logging.getLogger("torch.export")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _pick(path: Path, device: str) -> torch.device:
    """The device of a name; ``auto`` leaves Apple's out, which has no float64 as programs need it.

    Raises:
        UserError: the device is unknown, not there, or Apple's.
    """
    where = pick_device(device)
    if where.type != "mps":
        return where
    if device == "auto":
        return torch.device("cpu")
    raise UserError(f"device: {path} computes in float64, which '{device}' cannot; take cpu")
