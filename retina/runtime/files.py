"""Which runtime runs which file."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

from retina.errors import UserError
from retina.runtime.exported import ExportedRuntime

_RUNTIMES = {
    ".onnx": ("retina.runtime.onnx_runtime", "OnnxRuntime"),
    ".xml": ("retina.runtime.openvino_runtime", "OpenVinoRuntime"),
    ".pt2": ("retina.runtime.program_runtime", "ProgramRuntime"),
}
"""By the suffix of the file: the module, imported on use, and its class."""


def is_export(path: Path) -> bool:
    """Whether a file is an exported detector, by its suffix."""
    return path.suffix.lower() in _RUNTIMES


def files_of(path: Path) -> list[Path]:
    """A detector's file, and after it the one with its weights that OpenVINO's IR has beside it."""
    return [path, path.with_suffix(".bin")] if path.suffix.lower() == ".xml" else [path]


def load_export(
    path: Path, *, device: str = "auto", max_detections: int | None = None
) -> ExportedRuntime:
    """Load an exported detector.

    Args:
        path: of the file.
        device: where to compute.
        max_detections: of an image; None for as many as the file gives.

    Raises:
        UserError: the file is missing or no such thing, or a package that runs it is missing.
    """
    if not os.path.isfile(path):  # noqa: PTH113  # no error where the name is too long
        raise UserError(f"{path}: no such file; 'retina export' writes one")
    return _runtime_of(path).load(path, device=device, max_detections=max_detections)


def check_device(path: Path, device: str) -> None:
    """Refuse, before there is a file, a device on which it could not be run.

    Args:
        path: of the file to come.
        device: where to compute.

    Raises:
        UserError: it cannot run there, or a package that runs it is missing.
    """
    _runtime_of(path).check_device(path, device)


def _runtime_of(path: Path) -> type[ExportedRuntime]:
    module, name = _RUNTIMES[path.suffix.lower()]
    runtime: type[ExportedRuntime] = getattr(import_module(module), name)
    return runtime
