"""Small objects in large images: a detector that looks at an image tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from retina.datasets.large_tiff import LargeTiff
from retina.geometry.fusion import Merge, fuse
from retina.geometry.tile_pieces import join_pieces
from retina.geometry.tiles import Window, tile_windows, whole_window
from retina.modeling.preprocess import size_of
from retina.runtime.runtime import Runtime
from retina.structures import Detections, Size

MERGE_IOU = 0.5
"""Boxes of one class in several views that overlap by more are of one object."""

OVERLAP = 0.2
"""The part of a tile that its neighbour sees as well, unless another one is asked for."""

LargeImage = Tensor | LargeTiff
"""An image in memory, or a file that is read tile by tile."""


@dataclass(frozen=True, slots=True)
class _View:
    """A part of one of several images, or all of it.

    Attributes:
        row: which image.
        window: which part.
        is_whole: the whole image, of a file what it shows shrunk.
    """

    row: int
    window: Window
    is_whole: bool = False

    def pixels(self, image: LargeImage) -> Tensor:
        """``(3, h, w)`` uint8 RGB."""
        if isinstance(image, LargeTiff):
            part = image.overview if self.is_whole else image.read(self.window)
            return torch.from_numpy(part).permute(2, 0, 1)
        if self.is_whole:
            return image
        return image[:, self.window.y1 : self.window.y2, self.window.x1 : self.window.x2]

    def on_image(self, found: Detections, image: LargeImage) -> Detections:
        """What was found in these pixels, in pixels of the image."""
        if not self.is_whole:
            offset = torch.tensor([self.window.x1, self.window.y1] * 2, dtype=torch.float32)
            return replace(found, boxes=found.boxes + offset)
        if isinstance(image, LargeTiff):
            return replace(found, boxes=found.boxes * image.reduction)
        return found


class TiledRuntime(Runtime):
    """Runs another runtime on overlapping tiles of each image, and on the whole image as well.

    A tile is an image to the detector, resized by its own rule: where that makes 800 pixels of a
    tile's 640, a small object is seen larger than it is, in the place of smaller. The tiles of all
    images of a call go through the network in batches. An image that is no larger than a tile gives
    what the inner runtime gives for it.

    What the views of an image show is put together by `retina.geometry.tile_pieces` (an object that
    a tile's border cuts) and `retina.geometry.fusion` (one that several views show whole). As many
    detections come back as there are: the detector's ``max_detections`` counts in each view.

    Args:
        inner: finds the objects in each view.
        tile: the sides of a tile, in pixels of the image.
        overlap: the part of a tile that its neighbour sees as well; an object smaller than that is
            seen whole by one of them.
        full_image: look at the whole image, too, for objects that are larger than a tile.
        merge: how detections of one object become one.
        batch_size: views that the network sees at a time.
    """

    def __init__(
        self,
        inner: Runtime,
        *,
        tile: int,
        overlap: float = OVERLAP,
        full_image: bool = True,
        merge: Merge = "nms",
        batch_size: int = 8,
    ) -> None:
        if tile < 1 or not 0 <= overlap < 1 or batch_size < 1:
            raise ValueError(f"tiles of {tile}, overlap {overlap}, {batch_size} at a time")
        self.inner = inner
        self.categories = inner.categories
        self.preprocess = inner.preprocess
        self.thresholds = inner.thresholds
        self.tile, self.overlap = tile, overlap
        self.full_image = full_image
        self.merge: Merge = merge
        self.batch_size = batch_size

    def detect(self, images: Sequence[LargeImage]) -> list[Detections]:
        """See `Runtime`; an image may also be a large file, of which a tile at a time is read."""
        in_memory = iter(self._detect([one for one in images if isinstance(one, Tensor)]))
        return [
            self._detect_in_file(one) if isinstance(one, LargeTiff) else next(in_memory)
            for one in images
        ]

    def input_shapes(self, size: Size) -> tuple[tuple[int, int, int, int], ...]:
        """See `Runtime`: of the whole image, where it is looked at, and of its tiles."""
        windows = tile_windows(size, self.tile, self.overlap)
        if len(windows) == 1:
            return self.inner.input_shapes(size)
        whole = self.inner.input_shapes(size) if self.full_image else ()
        return (*whole, *self.inner.input_shapes(windows[0].size))

    def _detect_in_file(self, image: LargeTiff) -> Detections:
        """By itself, so that the memory of one is needed at a time."""
        (found,) = self._detect([image])
        image.forget()
        return found

    def _detect(self, images: Sequence[LargeImage]) -> list[Detections]:
        sizes = [_size_of(image) for image in images]
        tiles = [tile_windows(size, self.tile, self.overlap) for size in sizes]
        whole_views = [
            _View(row, whole_window(sizes[row]), is_whole=len(windows) > 1)
            for row, windows in enumerate(tiles)
            if self.full_image or len(windows) == 1
        ]
        tile_views = [
            _View(row, window)
            for row, windows in enumerate(tiles)
            if len(windows) > 1
            for window in windows
        ]
        seen: list[list[tuple[_View, Detections]]] = [[] for _ in images]
        # Apart, so that images of one tile are in the batches that they would be in without tiles.
        for views in (whole_views, tile_views):
            for view, found in zip(views, self._look(views, images), strict=True):
                seen[view.row].append((view, found))
        return [self._merged(*of_image) for of_image in zip(seen, sizes, strict=True)]

    def _look(self, views: Sequence[_View], images: Sequence[LargeImage]) -> Iterator[Detections]:
        """What is in each view, in pixels of its image."""
        for start in range(0, len(views), self.batch_size):
            few = views[start : start + self.batch_size]
            results = self.inner.detect([view.pixels(images[view.row]) for view in few])
            for view, found in zip(few, results, strict=True):
                yield view.on_image(found, images[view.row])

    def _merged(self, seen: Sequence[tuple[_View, Detections]], size: Size) -> Detections:
        """The objects of one image."""
        if len(seen) == 1:
            return seen[0][1]
        windows = [view.window for view, _ in seen]
        found = [detections for _, detections in seen]
        joined = join_pieces(found, windows, size, iou_threshold=MERGE_IOU)
        return fuse(joined, iou_threshold=MERGE_IOU, merge=self.merge)


def _size_of(image: LargeImage) -> Size:
    return image.size if isinstance(image, LargeTiff) else size_of(image)
