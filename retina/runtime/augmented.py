"""Test-time augmentation: a detector that looks at an image several times, mirrored and scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from retina.geometry.fusion import Merge, fuse
from retina.modeling.preprocess import size_of
from retina.runtime.runtime import Runtime
from retina.runtime.tiled import MERGE_IOU
from retina.structures import Detections, Size


class AugmentedRuntime(Runtime):
    """Runs another runtime on each image at several scales, and mirrored, and merges what it finds.

    The scales are those of the network's input, 1 always among them; with ``flip`` each of them is
    looked at mirrored as well: two scales beside 1 and ``flip`` are six views. Of one view alone
    (no scale, no mirror) the result is the inner runtime's.

    Args:
        inner: finds the objects in each view.
        flip: look at the mirror image, too. Not for detectors that tell left from right.
        scales: factors of the input's size beside 1.
        merge: how detections of one object become one; with ``weighted`` an object's score is its
            mean over all views, 0 where it is not found.

    Raises:
        UserError: the inner runtime's input has a fixed size, and scales are given.
    """

    def __init__(
        self,
        inner: Runtime,
        *,
        flip: bool = False,
        scales: Sequence[float] = (),
        merge: Merge = "nms",
    ) -> None:
        self.inner = inner
        self.categories = inner.categories
        self.preprocess = inner.preprocess
        self.thresholds = inner.thresholds
        self.flip = flip
        self.merge: Merge = merge
        self._runtimes = [inner, *(inner.at_scale(scale) for scale in scales)]

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """See `Runtime`."""
        views = [runtime.detect(images) for runtime in self._runtimes]
        if self.flip:
            mirrored = [image.flip(-1) for image in images]
            for runtime in self._runtimes:
                views.append(_unmirrored(runtime.detect(mirrored), images))
        return [self._merged(of_image) for of_image in zip(*views, strict=True)]

    def input_shapes(self, size: Size) -> tuple[tuple[int, int, int, int], ...]:
        """See `Runtime`; a mirror image has the shape of its image."""
        return tuple(shape for one in self._runtimes for shape in one.input_shapes(size))

    def _merged(self, found: Sequence[Detections]) -> Detections:
        """The objects of one image, from all views of it."""
        if len(found) == 1:
            return found[0]
        together = Detections(
            torch.cat([one.boxes for one in found]),
            torch.cat([one.scores for one in found]),
            torch.cat([one.labels for one in found]),
        )
        return fuse(together, iou_threshold=MERGE_IOU, merge=self.merge, num_views=len(found))


def _unmirrored(found: Sequence[Detections], images: Sequence[Tensor]) -> list[Detections]:
    """What was found in mirror images, on the images themselves."""
    return [
        replace(one, boxes=_mirrored(one.boxes, size_of(image)[1]))
        for one, image in zip(found, images, strict=True)
    ]


def _mirrored(boxes: Tensor, width: int) -> Tensor:
    left, upper, right, lower = boxes.unbind(dim=1)
    return torch.stack([width - right, upper, width - left, lower], dim=1)
