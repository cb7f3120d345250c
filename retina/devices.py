"""Which device computes, and at what precision."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch

from retina.errors import RunError, UserError
from retina.processor import multiplies_bf16

Precision = Literal["fp32", "bf16", "fp16"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "fp16"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

_OUT_OF_MEMORY = re.compile(
    "out of memory|can't allocate memory|not enough memory|alloc_failed"
    "|could not create a primitive$",
    re.IGNORECASE | re.MULTILINE,
)
"""What the RuntimeErrors of torch's allocators, of cuDNN and cuBLAS, and of oneDNN say.

oneDNN finds an implementation first ("could not create a primitive descriptor") and then makes its
code and buffers. That this fails is all that it says, and memory the likeliest reason.
"""


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name; ``auto`` picks CUDA, then MPS, then the CPU.

    Under torchrun every process takes the GPU of its local rank.

    Raises:
        UserError: the device is unknown or not there.
    """
    local_rank = os.environ.get("LOCAL_RANK")
    if name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{local_rank or 0}"
    elif name == "auto":
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    elif name.startswith("cuda:") and local_rank is not None:
        raise UserError(
            f"device: '{name}' would put every process on one GPU; write auto or cuda, and each "
            "process takes its own"
        )
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(
            f"device: '{name}' is unknown; write auto, cuda, cuda:0, mps or cpu"
        ) from None
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise UserError(f"device: '{name}' is not on this machine; 'auto' takes what there is")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device: '{name}' is not there, the GPUs count to {torch.cuda.device_count()}"
        )
    return device


def pick_precision(choice: PrecisionChoice, device: torch.device) -> Precision:
    """The precision of the network's convolutions; ``auto`` takes bf16 where it is fast.

    With ``fp32`` the process computes in float32 from then on, never in TF32.
    """
    if choice == "fp32":
        # Else cuDNN multiplies float32 in TF32, whose 10 bits move scores by a thousandth.
        torch.backends.cudnn.allow_tf32 = False
    if choice != "auto":
        return choice
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and multiplies_bf16() else "fp32"


def dtype_of(precision: Precision) -> torch.dtype:
    """What the network's convolutions are multiplied in."""
    return _DTYPES.get(precision, torch.float32)


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context in which the network runs at this precision."""
    return torch.autocast(device.type, dtype=_DTYPES.get(precision), enabled=precision in _DTYPES)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, the device's or the machine's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


@contextmanager
def explaining_out_of_memory(explain: Callable[[], str]) -> Iterator[None]:
    """Turn running out of memory in the block into an error that says what was too large.

    Args:
        explain: gives the message.

    Raises:
        RunError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RunError) or not is_out_of_memory(error):
            raise
        raise RunError(explain()) from error
