"""A canvas that knows whose pixel is whose.

Beside the pixels the painter keeps which object owns each of them. What hides an object is thereby
known exactly, and nothing is painted that would leave an earlier object without enough to be
recognised by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from retina.datasets.synthetic.shapes import Coverage
from retina.datasets.synthetic.textures import Color, FloatImage, color_against, filling
from retina.structures import BoolArray, Size

LEAST_VISIBLE = 0.55
"""No object is hidden or cut off beyond this share of its pixels."""

LEAST_INSIDE = 0.7
"""No object lies outside the image with more than the rest of this share of its pixels."""

LEAST_SIDE = 8
"""No object's visible box gets a side shorter than this, in pixels."""

NOBODY = -1


class Region(NamedTuple):
    """A rectangle of pixels; indexes an ``(H, W)`` array."""

    rows: slice
    columns: slice

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.rows.stop - self.rows.start)

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.columns.stop - self.columns.start)


@dataclass(frozen=True, slots=True)
class SceneObject:
    """An annotated object or crowd region.

    Attributes:
        label: index into the categories.
        is_crowd: whether this is a region of many objects.
        box: ``(x, y, width, height)`` in whole pixels, of the visible pixels.
        area: the number of visible pixels.
        occluded_fraction: the share of the pixels within the image that something in front hides.
        truncated_fraction: the share of the pixels that lies outside the image.
    """

    label: int
    is_crowd: bool
    box: tuple[int, int, int, int]
    area: int
    occluded_fraction: float
    truncated_fraction: float


@dataclass(frozen=True, slots=True)
class _Painted:
    label: int
    is_crowd: bool
    full_area: int
    area_inside: int
    region: Region


class Painter:
    """Paints shapes over each other, each in a colour that stands out from what it covers.

    Attributes:
        size: height and width of the canvas.
        pixels: ``(H, W, 3)`` float32 RGB, 0 .. 255.
    """

    def __init__(self, rng: np.random.Generator, pixels: FloatImage) -> None:
        self.rng = rng
        self.pixels = pixels
        self.size: Size = (pixels.shape[0], pixels.shape[1])
        self._owner: npt.NDArray[np.int16] = np.full(self.size, NOBODY, np.int16)
        self._painted: list[_Painted] = []

    @property
    def regions(self) -> list[Region]:
        """Where each object lies, hidden parts included, first painted first."""
        return [painted.region for painted in self._painted]

    def paint_object(self, coverage: Coverage, corner: tuple[int, int], label: int) -> bool:
        """Paint an object unless too little of it or of an earlier one would be seen.

        Args:
            coverage: its pixels.
            corner: row and column of the first of them; they may reach out of the image.
            label: its class.

        Returns:
            Whether it was painted.
        """
        clipped = self._clip(coverage, corner)
        if clipped is None:
            return False
        region, part = clipped
        full_area, inside = int((coverage >= 128).sum()), part >= 128
        if not _is_recognisable(inside, full_area, LEAST_INSIDE):
            return False
        contrast = self.rng.uniform(110, 210)
        if not self.paint(coverage, corner, contrast, owner=len(self._painted)):
            return False
        self._painted.append(_Painted(label, False, full_area, int(inside.sum()), region))
        return True

    def paint_crowd(self, members: list[tuple[Coverage, tuple[int, int]]], label: int) -> None:
        """Paint many objects that share one annotation; they may hide each other."""
        index = len(self._painted)
        for coverage, corner in members:
            self.paint(coverage, corner, 110, owner=index)
        crowd = self._owner == index
        area = int(crowd.sum())
        if area:
            self._painted.append(_Painted(label, True, area, area, _bounds(crowd)))

    def paint(
        self,
        coverage: Coverage,
        corner: tuple[int, int],
        contrast: float,
        *,
        owner: int = NOBODY,
    ) -> bool:
        """Paint a shape, unless too little of an earlier object would be seen.

        Args:
            coverage: its pixels.
            corner: row and column of the first of them.
            contrast: how far its colour is from the mean of what it covers, in RGB.
            owner: the object that it belongs to; nobody for clutter.

        Returns:
            Whether it was painted.
        """
        clipped = self._clip(coverage, corner)
        if clipped is None:
            return False
        region, part = clipped
        solid = part >= 128
        if not solid.any() or not self._leaves_enough(region, solid, owner):
            return False
        self._cast_shadow(coverage, corner)
        self._fill(region, part, contrast)
        self._owner[region][solid] = owner
        return True

    def annotate(self) -> tuple[SceneObject, ...]:
        """What is to be seen of everything that was painted."""
        objects = []
        for index, painted in enumerate(self._painted):
            visible = self._owner[painted.region] == index
            inner, area = _bounds(visible), int(visible.sum())
            x = painted.region.columns.start + inner.columns.start
            y = painted.region.rows.start + inner.rows.start
            objects.append(
                SceneObject(
                    label=painted.label,
                    is_crowd=painted.is_crowd,
                    box=(x, y, inner.width, inner.height),
                    area=area,
                    occluded_fraction=1 - area / painted.area_inside,
                    truncated_fraction=1 - painted.area_inside / painted.full_area,
                )
            )
        return tuple(objects)

    def _clip(self, patch: Coverage, corner: tuple[int, int]) -> tuple[Region, Coverage] | None:
        """The part of a patch inside the image, and where it lies; None if there is none."""
        inside = []
        for first, extent, limit in zip(corner, patch.shape, self.size, strict=True):
            inside.append(slice(max(first, 0), min(first + extent, limit)))
            if inside[-1].stop <= inside[-1].start:
                return None
        region = Region(*inside)
        part = patch[
            region.rows.start - corner[0] : region.rows.stop - corner[0],
            region.columns.start - corner[1] : region.columns.stop - corner[1],
        ]
        return region, part

    def _leaves_enough(self, region: Region, solid: BoolArray, owner: int) -> bool:
        """Whether everything painted so far stays recognisable under a new shape."""
        under = self._owner[region]
        for index in np.unique(under[solid]):
            if index in (NOBODY, owner):
                continue
            victim = self._painted[index]
            visible = self._owner == index
            visible[region] &= ~solid
            if not _is_recognisable(visible[victim.region], victim.full_area, LEAST_VISIBLE):
                return False
        return True

    def _cast_shadow(self, coverage: Coverage, corner: tuple[int, int]) -> None:
        if self.rng.random() < 0.5:
            return
        reach = max(2, min(coverage.shape) // 10)
        padded = cv2.copyMakeBorder(
            coverage, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=0
        )
        shadow = np.asarray(cv2.blur(padded, (reach + 1, reach + 1)), np.uint8)
        across = int(self.rng.integers(-reach, reach + 1))
        down = int(self.rng.integers(0, reach + 1))
        clipped = self._clip(shadow, (corner[0] - reach + down, corner[1] - reach + across))
        if clipped is not None:
            region, part = clipped
            darkness = part.astype(np.float32) * np.float32(self.rng.uniform(0.2, 0.5) / 255)
            self.pixels[region] *= 1 - darkness[..., None]

    def _fill(self, region: Region, coverage: Coverage, contrast: float) -> None:
        under = self.pixels[region]
        surroundings: Color = under.reshape(-1, 3).mean(axis=0)
        color = color_against(self.rng, surroundings, contrast)
        surface = filling(self.rng, (region.height, region.width), color)
        if self.rng.random() < 0.35 and min(region.height, region.width) >= 16:
            surface *= self._rim(coverage)[..., None]
        alpha = coverage.astype(np.float32)[..., None] / 255
        self.pixels[region] = under + (np.clip(surface, 0, 255) - under) * alpha

    def _rim(self, coverage: Coverage) -> FloatImage:
        """Factors that darken or lighten a shape along its edge, ``(h, w)``."""
        width = int(self.rng.choice([3, 5]))
        inner = cv2.erode(coverage, np.ones((width, width), np.uint8))
        strength = np.float32(self.rng.choice([0.5, -0.3]) / 255)
        return 1 - (255 - np.asarray(inner, np.float32)) * strength


def _bounds(mask: BoolArray) -> Region:
    """The smallest region that holds every True of a mask that has one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Region(
        slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    )


def _is_recognisable(visible: BoolArray, full_area: int, least: float) -> bool:
    area = int(np.count_nonzero(visible))
    if area == 0 or area < least * full_area:
        return False
    bounds = _bounds(visible)
    return min(bounds.height, bounds.width) >= LEAST_SIDE
