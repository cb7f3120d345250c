"""One synthetic scene: clutter, a crowd, objects over each other, more clutter, and light."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retina.datasets.dataset import Image
from retina.datasets.synthetic.painter import Painter, SceneObject
from retina.datasets.synthetic.planning import CATEGORIES, ScenePlan
from retina.datasets.synthetic.shapes import (
    DISTRACTORS,
    OBJECTS,
    Coverage,
    Outline,
    rasterise,
)
from retina.datasets.synthetic.textures import background, relight

SMALLEST, LARGE = 18.0, 70.0
"""The longer side of most objects before anything hides it, in pixels, evenly by the logarithm."""

LARGE_FROM, LARGEST = 110.0, 150.0
"""The longer side of the few others (`SHARE_LARGE`)."""

SHARE_LARGE = 0.06

WIDEST_SHARE = 0.8
"""No object is larger than this share of the image's shorter side."""

TILT = math.pi / 12
"""Objects stand upright to within this angle, either way."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A finished picture and its annotations."""

    image: Image
    objects: tuple[SceneObject, ...]


def paint_scene(rng: np.random.Generator, plan: ScenePlan) -> Scene:
    """Paint what was planned."""
    painter = Painter(rng, background(rng, plan.size))
    for _ in range(int(rng.integers(0, 4))):
        _add_clutter(painter, largest=110, in_front=False)
    if plan.crowd_label is not None:
        _add_crowd(painter, plan.crowd_label)
    sizes = _object_sizes(rng, len(plan.labels), WIDEST_SHARE * min(plan.size))
    # Small things lie rather on big ones than under them, where nothing of them would be seen; the
    # biggest come first, while there is room.
    ranks = sizes * np.exp(np.where(sizes < LARGE, rng.normal(0, 0.6, len(sizes)), 2.0))
    for index in np.argsort(-ranks, kind="stable"):
        _add_object(painter, plan.labels[index], float(sizes[index]))
    for _ in range(int(rng.integers(0, 3))):
        _add_clutter(painter, largest=60, in_front=True)
    return Scene(image=relight(rng, painter.pixels), objects=painter.annotate())


def _object_sizes(rng: np.random.Generator, count: int, largest: float) -> npt.NDArray[np.float64]:
    usual = np.exp(rng.uniform(math.log(SMALLEST), math.log(LARGE), count))
    large = rng.uniform(LARGE_FROM, LARGEST, count)
    return np.minimum(np.where(rng.random(count) < SHARE_LARGE, large, usual), largest)


def _turned(rng: np.random.Generator, outline: Outline, size: float, turn: float) -> Coverage:
    return rasterise(
        outline,
        size=size,
        angle=rng.uniform(-turn, turn),
        aspect=math.exp(rng.uniform(-0.15, 0.15)),
    )


def _anywhere(painter: Painter, coverage: Coverage) -> tuple[int, int]:
    """The corner of a shape whose centre may lie anywhere in the image."""
    row, column = painter.rng.uniform(0, painter.size[0]), painter.rng.uniform(0, painter.size[1])
    return round(row - coverage.shape[0] / 2), round(column - coverage.shape[1] / 2)


def _over_a_rim(painter: Painter, coverage: Coverage) -> tuple[int, int]:
    """The corner of a shape that lies across the edge of an earlier object, if there is one."""
    rng, regions = painter.rng, painter.regions
    if not regions:
        return _anywhere(painter, coverage)
    region = regions[int(rng.integers(len(regions)))]
    angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.6, 1.0)
    row = region.rows.start + region.height / 2
    column = region.columns.start + region.width / 2
    row += math.sin(angle) * reach * (region.height + coverage.shape[0]) / 2
    column += math.cos(angle) * reach * (region.width + coverage.shape[1]) / 2
    return round(row - coverage.shape[0] / 2), round(column - coverage.shape[1] / 2)


def _add_object(painter: Painter, label: int, size: float) -> bool:
    """Find a place for an object and paint it, smaller and smaller where there is no room."""
    rng = painter.rng
    outline = OBJECTS[CATEGORIES.names[label]](rng)
    for _ in range(8):
        coverage = _turned(rng, outline, size, TILT)
        for _ in range(20):
            place = _over_a_rim if rng.random() < 0.15 else _anywhere
            if painter.paint_object(coverage, place(painter, coverage), label):
                return True
        size = max(SMALLEST, size * 0.8)
    return False


def _add_crowd(painter: Painter, label: int) -> None:
    """Paint a dense clump of tiny objects of one class."""
    rng = painter.rng
    num_rows, num_columns = int(rng.integers(3, 6)), int(rng.integers(5, 9))
    pitch = rng.uniform(8, 11)
    top = rng.uniform(8, painter.size[0] - num_rows * pitch - 8)
    left = rng.uniform(8, painter.size[1] - num_columns * pitch - 8)
    members = []
    for row in range(num_rows):
        for column in range(num_columns):
            outline = OBJECTS[CATEGORIES.names[label]](rng)
            coverage = _turned(rng, outline, rng.uniform(8, 11), TILT)
            down, right = rng.uniform(-2, 2, 2)
            corner = round(top + row * pitch + down), round(left + column * pitch + right)
            members.append((coverage, corner))
    painter.paint_crowd(members, label)


def _add_clutter(painter: Painter, *, largest: float, in_front: bool) -> None:
    """Paint a shape of no class, anywhere or over the rim of an object."""
    rng = painter.rng
    outline = DISTRACTORS[int(rng.integers(len(DISTRACTORS)))](rng)
    for _ in range(4):
        size = math.exp(rng.uniform(math.log(14), math.log(largest)))
        coverage = _turned(rng, outline, size, math.pi)
        corner = _over_a_rim(painter, coverage) if in_front else _anywhere(painter, coverage)
        if painter.paint(coverage, corner, rng.uniform(20, 120)):
            return
