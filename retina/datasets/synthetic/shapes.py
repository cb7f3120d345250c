"""The outlines that synthetic scenes are made of, and how an outline becomes pixels.

An outline is a union of polygons minus a union of polygons, drawn in a square of -1 .. 1 (x to the
right, y downwards). Letters and digits are polygons of our own rather than a font's, so that the
pictures do not depend on what is installed. Every outline varies a little from one instance to the
next: the proportions come from the generator that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
import numpy.typing as npt

Polygon = npt.NDArray[np.float64]
"""``(P, 2)`` corners (x, y)."""

Coverage = npt.NDArray[np.uint8]
"""``(h, w)``: how much of each pixel a shape covers, 0 .. 255."""

SUBPIXEL_BITS = 4


@dataclass(frozen=True, slots=True)
class Outline:
    """A shape: everything inside one of ``solids`` and inside none of ``holes``."""

    solids: tuple[Polygon, ...]
    holes: tuple[Polygon, ...] = ()


def _polygon(*corners: tuple[float, float]) -> Polygon:
    return np.array(corners, dtype=np.float64)


def _ellipse(center: tuple[float, float], radii: tuple[float, float], corners: int = 40) -> Polygon:
    angles = np.arange(corners) * (2 * math.pi / corners)
    return np.stack(
        [center[0] + radii[0] * np.cos(angles), center[1] + radii[1] * np.sin(angles)], axis=1
    )


def _rectangle(half_width: float, half_height: float) -> Polygon:
    return _polygon(
        (-half_width, -half_height),
        (half_width, -half_height),
        (half_width, half_height),
        (-half_width, half_height),
    )


def _disc(rng: np.random.Generator) -> Outline:
    return Outline((_ellipse((0, 0), (1, 1)),))


def _ring(rng: np.random.Generator) -> Outline:
    hole = rng.uniform(0.5, 0.68)
    return Outline((_ellipse((0, 0), (1, 1)),), (_ellipse((0, 0), (hole, hole)),))


def _triangle(rng: np.random.Generator) -> Outline:
    apex = rng.uniform(-0.35, 0.35)
    return Outline((_polygon((apex, -1), (1, 0.75), (-1, 0.75)),))


def _frame(rng: np.random.Generator) -> Outline:
    hole = rng.uniform(0.5, 0.68)
    return Outline((_rectangle(1, 1),), (_rectangle(hole, hole),))


def _star(rng: np.random.Generator) -> Outline:
    inner = rng.uniform(0.38, 0.5)
    radii = np.where(np.arange(10) % 2 == 0, 1.0, inner)
    angles = np.arange(10) * (math.pi / 5) - math.pi / 2
    return Outline((np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1),))


def _cross(rng: np.random.Generator) -> Outline:
    arm = rng.uniform(0.24, 0.36)
    return Outline((_rectangle(1, arm), _rectangle(arm, 1)))


def _arrow(rng: np.random.Generator) -> Outline:
    shaft, neck, wing = rng.uniform(0.18, 0.28), rng.uniform(-0.05, 0.2), rng.uniform(0.62, 0.8)
    return Outline(
        (
            _polygon(
                (-1, -shaft),
                (neck, -shaft),
                (neck, -wing),
                (1, 0),
                (neck, wing),
                (neck, shaft),
                (-1, shaft),
            ),
        )
    )


def _crescent(rng: np.random.Generator) -> Outline:
    bite = rng.uniform(0.72, 0.85)
    return Outline(
        (_ellipse((0, 0), (1, 1)),), (_ellipse((rng.uniform(0.42, 0.55), 0), (bite, bite)),)
    )


def _letter_a(rng: np.random.Generator) -> Outline:
    stroke, bar = rng.uniform(0.3, 0.38), rng.uniform(0.28, 0.42)
    outer = _polygon(
        (-0.82, 1),
        (-0.22, -1),
        (0.22, -1),
        (0.82, 1),
        (0.82 - stroke, 1),
        (0.7 - stroke, 0.42 + bar / 2),
        (stroke - 0.7, 0.42 + bar / 2),
        (stroke - 0.82, 1),
    )
    counter = _polygon((0, -0.62), (0.56 - stroke, bar / 2 - 0.02), (stroke - 0.56, bar / 2 - 0.02))
    return Outline((outer,), (counter,))


def _digit_8(rng: np.random.Generator) -> Outline:
    stroke = rng.uniform(0.24, 0.3)
    top, bottom = (0.54, 0.54), (0.66, 0.6)
    centers = ((0.0, -0.46), (0.0, 0.4))
    return Outline(
        (_ellipse(centers[0], top), _ellipse(centers[1], bottom)),
        (
            _ellipse(centers[0], (top[0] - stroke, top[1] - stroke)),
            _ellipse(centers[1], (bottom[0] - stroke, bottom[1] - stroke)),
        ),
    )


def _blob(rng: np.random.Generator) -> Outline:
    angles = np.arange(48) * (2 * math.pi / 48)
    radius = np.ones(48)
    for wave in (2, 3, 5):
        radius += (
            rng.uniform(0.1, 0.3) / math.sqrt(wave) * np.sin(wave * angles + rng.uniform(0, 7))
        )
    return Outline((np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1),))


def _bar(rng: np.random.Generator) -> Outline:
    return Outline((_rectangle(1, rng.uniform(0.09, 0.22)),))


def _half_disc(rng: np.random.Generator) -> Outline:
    return Outline((_ellipse((0, 0), (1, 1)),), (_polygon((-2, 0), (2, 0), (2, 2), (-2, 2)),))


def _elbow(rng: np.random.Generator) -> Outline:
    arm = rng.uniform(0.3, 0.55)
    return Outline(
        (_polygon((-1, -1), (arm - 1, -1), (arm - 1, 1 - arm), (1, 1 - arm), (1, 1), (-1, 1)),)
    )


def _bolt(rng: np.random.Generator) -> Outline:
    return Outline(
        (_polygon((0.3, -1), (-0.6, 0.1), (-0.1, 0.15), (-0.35, 1), (0.6, -0.2), (0.1, -0.25)),)
    )


def _wire(rng: np.random.Generator) -> Outline:
    steps = np.linspace(-1, 1, 13)
    bend = rng.uniform(0.1, 0.4) * np.sin(steps * rng.uniform(2, 6) + rng.uniform(0, 7))
    half = rng.uniform(0.02, 0.045)
    points = np.stack([steps, bend], axis=1)
    normals = np.stack([-np.gradient(bend), np.gradient(steps)], axis=1)
    normals *= half / np.hypot(normals[:, :1], normals[:, 1:])
    return Outline((np.concatenate([points + normals, (points - normals)[::-1]]),))


OutlineMaker = Callable[[np.random.Generator], Outline]

OBJECTS: Mapping[str, OutlineMaker] = MappingProxyType(
    {
        "disc": _disc,
        "triangle": _triangle,
        "frame": _frame,
        "cross": _cross,
        "star": _star,
        "letter A": _letter_a,
        "ring": _ring,
        "arrow": _arrow,
        "digit 8": _digit_8,
        "crescent": _crescent,
    }
)
"""The classes, by name."""

DISTRACTORS: Sequence[OutlineMaker] = (_blob, _bar, _half_disc, _elbow, _bolt, _wire)
"""What lies about in a scene without being of any class."""


def rasterise(outline: Outline, *, size: float, angle: float, aspect: float) -> Coverage:
    """The pixels of a turned and scaled outline.

    Args:
        outline: what to draw.
        size: the longer side of the bounding box of the turned solids, in pixels.
        angle: by how much it is turned, in radians.
        aspect: width over height before it is turned, as a factor on the outline's own.

    Returns:
        ``(h, w)`` uint8 coverage, cropped to the shape.
    """
    cos, sin, stretch = math.cos(angle), math.sin(angle), math.sqrt(aspect)
    turn = np.array([[cos * stretch, sin * stretch], [-sin / stretch, cos / stretch]])
    solids = [polygon @ turn for polygon in outline.solids]
    corners = np.concatenate(solids)
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = size / float((high - low).max())
    width, height = (int(n) for n in np.ceil((high - low) * scale).astype(int) + 2)
    # Each pixel is divided into 4 × 4 (2 × 2 for big shapes): the edges come out smooth, by integer
    # arithmetic alone, hence the same on every machine.
    parts = 4 if size <= 96 else 2
    fine: Coverage = np.zeros((height * parts, width * parts), np.uint8)

    def to_fixed_point(polygon: Polygon) -> npt.NDArray[np.int32]:
        points = ((polygon - low) * scale + 1) * parts - 0.5
        fixed: npt.NDArray[np.int32] = np.rint(points * (1 << SUBPIXEL_BITS)).astype(np.int32)
        return fixed

    for polygon in solids:
        cv2.fillPoly(fine, [to_fixed_point(polygon)], 255, shift=SUBPIXEL_BITS)
    for polygon in outline.holes:
        cv2.fillPoly(fine, [to_fixed_point(polygon @ turn)], 0, shift=SUBPIXEL_BITS)
    coverage = np.asarray(cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
    return np.ascontiguousarray(
        coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], dtype=np.uint8
    )
