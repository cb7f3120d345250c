"""A detector as a program of ``torch.export``, which needs no code of ours but its operators."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.export import ExportedProgram

from retina.export.formats import ConvertedModel, ExportForm
from retina.export.tracing import quiet
from retina.runtime.description import ExportDescription
from retina.runtime.program_runtime import DESCRIPTION_FILE


class TorchProgram(ConvertedModel):
    """A ``.pt2`` file; ``import retina.runtime.operators`` before ``torch.export.load``.

    Args:
        program: the traced detector.
    """

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program

    @classmethod
    def convert(
        cls, program: ExportedProgram, form: ExportForm, calibration: Sequence[Tensor]
    ) -> Self:
        """See `ConvertedModel`."""
        return cls(program)

    def save(self, path: Path, description: ExportDescription) -> None:
        """See `ConvertedModel`."""
        content = io.BytesIO()  # torch wants a path with its suffix, and this one may be temporary
        with quiet():
            torch.export.save(
                self.program, content, extra_files={DESCRIPTION_FILE: description.to_json()}
            )
        path.write_bytes(content.getvalue())
