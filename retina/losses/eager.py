"""Whether torch computes right away, so that numbers can be looked at and written in place."""

from __future__ import annotations

import torch
from torch import Tensor


def runs_eagerly() -> bool:
    """False under torch.compile, torch.export, torch.func, tracing and dispatch modes."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    )


def is_plain(tensor: Tensor) -> bool:
    """Whether it is a tensor or parameter of torch itself, with memory of its own."""
    return type(tensor) in (Tensor, torch.nn.Parameter)
