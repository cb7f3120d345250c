"""One colour per class: far apart, stable, and legible on light and on dark pictures."""

from __future__ import annotations

from functools import cache

import numpy as np

from retina.structures import FloatArray

Color = tuple[int, int, int]
"""Red, green, blue in 0..255."""

_NUM_DISTINCT = 128


def color_of(label: int) -> Color:
    """The colour of a class; it depends on nothing but the label."""
    red, green, blue = _palette()[label % _NUM_DISTINCT]
    return red, green, blue


def text_color_on(background: Color) -> Color:
    """Black or white, whichever contrasts more with the background (WCAG's relative luminance)."""
    luminance = float(_linear(np.array(background)) @ (0.2126, 0.7152, 0.0722))
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 0.05 * 1.05 else (255, 255, 255)


@cache
def _palette() -> list[Color]:
    """Colours picked one by one, each as far as can be from all before it.

    Distances are taken in Oklab (Ottosson 2020), where they match what eyes see. Candidates are
    neither so dark nor so light nor so grey that they would vanish in a picture; black, white and
    grey count as taken.
    """
    grid = np.arange(0, 256, 15)
    candidates = np.stack(np.meshgrid(grid, grid, grid), axis=-1).reshape(-1, 3)
    lab = _oklab(candidates)
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    keep = (lightness > 0.5) & (lightness < 0.9) & (chroma > 0.09)
    candidates, lab = candidates[keep], lab[keep]
    taken = _oklab(np.array([[0, 0, 0], [128, 128, 128], [255, 255, 255]]))
    nearest = np.linalg.norm(lab[:, None] - taken, axis=-1).min(axis=1)
    picked: list[Color] = []
    for _ in range(_NUM_DISTINCT):
        best = int(np.argmax(nearest))
        red, green, blue = (int(part) for part in candidates[best])
        picked.append((red, green, blue))
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[best], axis=-1))
    return picked


def _linear(srgb: np.ndarray[tuple[int, ...], np.dtype[np.integer]]) -> FloatArray:
    values = srgb / 255.0
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _oklab(srgb: np.ndarray[tuple[int, ...], np.dtype[np.integer]]) -> FloatArray:
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return np.asarray(np.cbrt(_linear(srgb) @ to_cones.T) @ to_lab.T, dtype=np.float64)
