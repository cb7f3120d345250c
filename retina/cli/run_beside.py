"""What the commands share that run an experiment beside its run folder, in one process."""

from __future__ import annotations

import os
from pathlib import Path

from retina.errors import UserError


def refuse_torchrun(command: str, does: str, fix: str = "start it without torchrun") -> None:
    """Several processes would do the same in the same folders.

    Args:
        command: for the message.
        does: what it does, likewise.
        fix: likewise.

    Raises:
        UserError: there are several.
    """
    num_processes = os.environ.get("WORLD_SIZE", "1")
    if num_processes not in ("", "1"):
        raise UserError(
            f"{command} was started in {num_processes} processes (WORLD_SIZE); it {does} in one: "
            f"{fix}"
        )


def folder_beside(run: Path, suffix: str) -> Path:
    """``runs/demo_tune`` beside the run folder that the config names.

    Raises:
        UserError: nothing lies beside it.
    """
    folder = run if run.name not in ("", "..") else run.resolve()
    if not folder.name:
        raise UserError(f"output_dir={run}: nothing lies beside it; give a folder with --output")
    return folder.with_name(f"{folder.name}_{suffix}")
