"""Pictures to verify an export on where no data is given: painted scenes of several sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from retina.datasets.synthetic.planning import image_generator, plan_block
from retina.datasets.synthetic.scene import paint_scene
from retina.structures import Size

_SIZES: tuple[Size, ...] = ((224, 160), (160, 224), (191, 257), (131, 97), (320, 96))
"""Of the pictures; small ones are resized to the detector's input as any image."""
_BATCHES = (1, 2, 3, 1, 2)
_SEED = 20


def paint_batches(size: Size | None = None) -> list[list[Tensor]]:
    """Batches of 1 to 3 painted pictures, ``(3, h, w)`` uint8, of one size in each.

    Args:
        size: of all; None for several.
    """
    sizes: Sequence[Size] = _SIZES if size is None else [size] * len(_SIZES)
    batches = []
    number = 0
    for picture_size, count in zip(sizes, _BATCHES, strict=True):
        plans = plan_block(_SEED, "validation", 0, [picture_size])
        batch = []
        for _ in range(count):
            scene = paint_scene(image_generator(_SEED, "validation", number), plans[number])
            batch.append(torch.from_numpy(scene.image).permute(2, 0, 1).contiguous())
            number += 1
        batches.append(batch)
    return batches
