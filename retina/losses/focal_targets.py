"""What the targets of a focal loss are, by their shape and dtype, and whether they are in range."""

from __future__ import annotations

import torch
from torch import Tensor

from retina.losses.eager import is_plain, runs_eagerly


def are_class_indices(logits: Tensor, targets: Tensor) -> bool:
    """True for one class index per row, False for one target per element.

    Raises:
        ValueError: the targets are neither; says what to give.
    """
    if targets.shape == logits.shape:
        return False
    is_float = targets.is_floating_point()
    if targets.shape == logits.shape[:-1] and logits.ndim and not is_float:
        if targets.dtype != torch.bool:
            return True
        raise ValueError(
            f"bool targets {tuple(targets.shape)} are no class indices; for yes or no give logits "
            f"of that shape too (logits.squeeze(-1)), for classes give integers"
        )
    rows = tuple(logits.shape[:-1])
    kind = "float" if is_float else "integer"
    raise ValueError(
        f"{kind} targets {tuple(targets.shape)} do not fit logits {tuple(logits.shape)}: give one "
        f"target for each element, of the logits' shape, or integers {rows} for one class index "
        "per row"
    )


def widened(targets: Tensor) -> Tensor:
    """Integers as int64, but int32 as they are; everything else as it is.

    A comparison with a number is done in the tensor's own type: in uint8, 300 is 44 and -1 is 255.
    """
    is_narrow = not targets.is_floating_point() and targets.dtype not in (
        torch.bool,
        torch.int32,
        torch.int64,
    )
    return targets.long() if is_narrow else targets


def check_class_indices(
    targets: Tensor, num_classes: int, ignore_index: int | None, *, has_background: bool = True
) -> None:
    """Raise ValueError unless every index is a class, the background or left out.

    On CUDA a device assertion takes the place of the error. Traced targets are believed.

    Args:
        targets: integers that went through `widened`.
        num_classes: K; the classes are ``0 .. K-1``.
        ignore_index: what is left out, None for nothing.
        has_background: whether K is the background, instead of one too many.
    """
    last = num_classes if has_background else num_classes - 1
    if targets.numel() == 0 or not (runs_eagerly() and is_plain(targets)):
        return
    if targets.device.type == "cpu":
        lowest, highest = (int(bound) for bound in targets.aminmax())
        if lowest >= 0 and highest <= last:  # the common case, without a mask
            return
    is_wrong = (targets < 0) | (targets > last)
    if ignore_index is not None:
        is_wrong &= targets != ignore_index
    if targets.device.type == "cpu":
        wrong = targets[is_wrong]
        if len(wrong):
            background = f", {num_classes} is the background" if has_background else ""
            raise ValueError(
                f"class index {wrong[0].item()} is not in 0..{last} (0..{num_classes - 1} are the "
                f"{num_classes} classes{background}); name an index to leave out with "
                f"ignore_index, which is {ignore_index}"
            )
    elif targets.device.type == "cuda":
        torch._assert_async(
            ~is_wrong.any(), f"class indices must be in 0..{last} or equal ignore_index"
        )


def counted_and_class(
    targets: Tensor, num_classes: int, ignore_index: int | None
) -> tuple[Tensor, Tensor]:
    """Bools of the targets' shape: which rows are not left out, and which of them have a class."""
    counted = torch.ones_like(targets, dtype=torch.bool)
    if ignore_index is not None:
        counted = targets != ignore_index
    return counted, counted & (targets < num_classes)


def check_dense_targets(targets: Tensor, ignore_index: int | None) -> None:
    """Raise ValueError unless all are in 0..1 (integers 0 or 1), or left out.

    Only on a CPU: to look elsewhere would wait for the device.
    """
    is_readable = targets.device.type == "cpu" and is_plain(targets) and runs_eagerly()
    if targets.dtype == torch.bool or not is_readable:
        return
    values = targets.detach()
    if ignore_index is not None:
        values = torch.where(values != ignore_index, values, 0)
    if values.numel() == 0:
        return
    lowest, highest = (bound.item() for bound in values.aminmax())
    if not (lowest >= 0 and highest <= 1):
        wrong = highest if lowest >= 0 else lowest
        raise ValueError(
            f"target {wrong:g} of an element is not in 0..1; class indices have the logits' shape "
            f"without its last dimension, targets to leave out are named by ignore_index"
        )
