"""The graph of a detector, traced for sizes that are left open."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from importlib import import_module
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.utils._sympy.value_ranges import ValueRanges

from retina.export.graph import CandidateGraph
from retina.structures import Size

EXAMPLE_BATCH = 2
EXAMPLE_SIZE: Size = (150, 215)
"""Neither square nor a multiple of a stride; its coarsest level has more than one cell."""

_MOST = 2**20
"""No batch is larger, and no side longer."""


def trace(graph: CandidateGraph, *, batch: int | None, size: Size | None) -> ExportedProgram:
    """Trace a graph with ``torch.export``.

    Args:
        graph: of the detector.
        batch: images of a call; None leaves it open.
        size: (height, width) of the images; None leaves both open.
    """
    pad_to = graph.preprocess.pad_to
    height, width = size or pad_to or EXAMPLE_SIZE
    if size is None and pad_to is not None:
        height, width = max(1, height - 1), max(1, width - 2)
    example = torch.zeros(batch or EXAMPLE_BATCH, 3, height, width)
    open_dims: dict[int, object] = {} if batch is not None else {0: Dim.DYNAMIC}
    if size is None:
        open_dims |= {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    graph.eval().requires_grad_(False)
    graph(example)  # what is made once and kept, such as base boxes, must be no part of the trace
    with torch.no_grad(), _treating_one_as_any_size(), quiet():
        program = torch.export.export(
            graph, (example,), dynamic_shapes=(open_dims or None,), strict=False
        )
    return _without_layout_guards(program)


@contextmanager
def quiet() -> Iterator[None]:
    """What tracers and converters print and warn of is for their own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _treating_one_as_any_size() -> AbstractContextManager[object]:
    """Else a trace would hold only for more than one image, and more than one cell of a level."""
    config: Any = import_module("torch.fx.experimental._config")
    patch: AbstractContextManager[object] = config.patch(backed_size_oblivious=True)
    return patch


def _without_layout_guards(program: ExportedProgram) -> ExportedProgram:
    """Let the program take any number of images of any size.

    torch guesses the memory layout of each convolution's output, and demands of later calls all
    that its guess rests on, such as a batch of more than one. No value depends on it: the
    verification runs batches and sizes that the guesses exclude.
    """
    program._guards_code = []
    for symbol in list(program.range_constraints):
        program.range_constraints[symbol] = ValueRanges(1, _MOST)
    return program
