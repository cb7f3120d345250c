"""Pictures to verify an export on where no data is given: painted scenes of several sizes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from retina.datasets.synthetic.planning import image_generator, plan_block
from retina.datasets.synthetic.scene import paint_scene
from retina.errors import UserError
from retina.modeling.preprocess import Preprocess
from retina.structures import Size

_SIZES: tuple[Size, ...] = ((224, 160), (160, 224), (191, 257), (131, 97), (320, 96))
"""Of the pictures; small ones are resized to the detector's input as any image."""
_BATCHES = (1, 2, 3, 1, 2)
_SEED = 20


def paint_batches(preprocess: Preprocess, size: Size | None = None) -> list[list[Tensor]]:
    """Batches of 1 to 3 painted pictures, ``(3, h, w)`` uint8, of one size in each.

    Args:
        preprocess: of the detector; a picture that its ``pad_to`` cannot hold is turned by 90°.
        size: of all pictures; None for several.

    Raises:
        UserError: ``pad_to`` can hold none of them.
    """
    sizes = _SIZES if size is None else [size] * len(_SIZES)
    batches = []
    number = 0
    for wanted, count in zip(sizes, _BATCHES, strict=True):
        fitting = _fitting(wanted, preprocess)
        if fitting is None:
            continue
        # A camera's images are large, and painting them takes long.
        painted = fitting if size is None else preprocess.input_size(size)
        plans = plan_block(_SEED, "validation", 0, [painted])
        batch = []
        for _ in range(count):
            scene = paint_scene(image_generator(_SEED, "validation", number), plans[number])
            picture = torch.from_numpy(scene.image).permute(2, 0, 1)
            batch.append(_brought_to(picture, fitting))
            number += 1
        batches.append(batch)
    if not batches:
        raise UserError(
            "the detector's preprocess.pad_to can hold none of the pictures that an export is "
            "verified on without data; name images with --data"
        )
    return batches


def _fitting(size: Size, preprocess: Preprocess) -> Size | None:
    """The size, upright or else turned by 90°, of an image that the detector takes."""
    for one in (size, (size[1], size[0])):
        try:
            preprocess.input_shape([one])
        except UserError:
            continue
        return one
    return None


def _brought_to(picture: Tensor, size: Size) -> Tensor:
    if picture.shape[1:] == size:
        return picture.contiguous()
    return functional.interpolate(picture[None], size=size, mode="nearest")[0].contiguous()
