"""Colours, backgrounds, fillings and light of synthetic scenes.

Everything is computed in float32, in units of 0 .. 255, RGB.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from retina.structures import Size

FloatImage = npt.NDArray[np.float32]
"""``(H, W)`` or ``(H, W, 3)`` float32."""

Color = npt.NDArray[np.float32]
"""``(3,)`` float32 RGB, 0 .. 255."""


def random_color(
    rng: np.random.Generator, *, saturation: tuple[float, float], value: tuple[float, float]
) -> Color:
    """A colour of any hue."""
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return np.array(rgb, dtype=np.float32) * 255


def color_against(rng: np.random.Generator, surroundings: Color, contrast: float) -> Color:
    """A colour at least ``contrast`` (Euclidean distance in RGB) away from its surroundings.

    The farthest of twelve tries is taken where none is far enough.
    """
    best, best_distance = surroundings, -1.0
    for _ in range(12):
        color = random_color(rng, saturation=(0.15, 0.95), value=(0.2, 1.0))
        distance = float(np.linalg.norm(color - surroundings))
        if distance >= contrast:
            return color
        if distance > best_distance:
            best, best_distance = color, distance
    return best


def _coordinates(size: Size) -> tuple[FloatImage, FloatImage]:
    rows = np.arange(size[0], dtype=np.float32)[:, None]
    columns = np.arange(size[1], dtype=np.float32)[None, :]
    return rows, columns


def _along(rng: np.random.Generator, size: Size) -> FloatImage:
    """The distance in pixels along a random direction."""
    angle = rng.uniform(0, math.pi)
    rows, columns = _coordinates(size)
    return rows * np.float32(math.sin(angle)) + columns * np.float32(math.cos(angle))


def smooth_noise(rng: np.random.Generator, size: Size, cell: float) -> FloatImage:
    """Noise of 0 .. 1 whose features are ``cell`` pixels wide."""
    grid_size = [max(2, math.ceil(side / cell) + 1) for side in size]
    grid = rng.integers(0, 256, grid_size, dtype=np.uint8)
    # 8-bit resizing is integer arithmetic in OpenCV: no difference between machines.
    noise = cv2.resize(grid, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(noise, np.float32) / np.float32(255)


def _fractal_noise(rng: np.random.Generator, size: Size, cell: float) -> FloatImage:
    total = np.zeros(size, np.float32)
    for octave in range(4):
        total += smooth_noise(rng, size, max(1.5, cell / 2**octave)) / np.float32(2**octave)
    return np.asarray(total / np.float32(1.875), np.float32)


def _mix(first: Color, second: Color, weight: FloatImage) -> FloatImage:
    return first + (second - first) * weight[..., None]


def _step(values: FloatImage) -> FloatImage:
    """A soft threshold at 0.5."""
    return np.asarray(np.clip((values - 0.5) * 6 + 0.5, 0, 1), np.float32)


# ---- backgrounds -------------------------------------------------------------------------------


def _mottled(rng: np.random.Generator, size: Size, colors: Sequence[Color]) -> FloatImage:
    ground = _mix(colors[0], colors[1], _fractal_noise(rng, size, rng.uniform(30, 110)))
    spots = _step(_fractal_noise(rng, size, rng.uniform(12, 40)) + np.float32(rng.uniform(-0.2, 0)))
    return ground + (colors[2] - ground) * (spots * np.float32(rng.uniform(0.2, 0.7)))[..., None]


def _boards(rng: np.random.Generator, size: Size, colors: Sequence[Color]) -> FloatImage:
    width = rng.uniform(24, 60)
    across = _along(rng, size) + 1000
    board = (across / np.float32(width)).astype(np.int64)
    tone = rng.random(int(board.max()) + 1, dtype=np.float32)[board]
    grain = smooth_noise(rng, size, 5) * 0.3 + _fractal_noise(rng, size, 60) * 0.5
    surface = _mix(colors[0], colors[1], (tone * 0.5 + grain).astype(np.float32))
    gap = (across % np.float32(width)) < 1.6
    surface[gap] *= np.float32(0.55)
    return surface


def _tiles(rng: np.random.Generator, size: Size, colors: Sequence[Color]) -> FloatImage:
    pitch = rng.uniform(22, 64)
    rows, columns = _coordinates(size)
    rows, columns = rows + np.float32(rng.uniform(0, 64)), columns + np.float32(rng.uniform(0, 64))
    row, column = (rows / np.float32(pitch)).astype(int), (columns / np.float32(pitch)).astype(int)
    tones = rng.random((int(row.max()) + 1, int(column.max()) + 1), dtype=np.float32)
    checker = ((row + column) % 2).astype(np.float32) * np.float32(rng.uniform(0, 0.6))
    surface = _mix(
        colors[0],
        colors[1],
        (tones[row, column] * 0.4 + checker + smooth_noise(rng, size, 9) * 0.25).astype(np.float32),
    )
    grout = ((rows % np.float32(pitch)) < 2) | ((columns % np.float32(pitch)) < 2)
    surface[grout] = surface[grout] * np.float32(0.4) + colors[2] * np.float32(0.6)
    return surface


def _strata(rng: np.random.Generator, size: Size, colors: Sequence[Color]) -> FloatImage:
    bend = _fractal_noise(rng, size, rng.uniform(60, 140)) * np.float32(rng.uniform(30, 110))
    waves = np.sin((_along(rng, size) + bend) * np.float32(2 * math.pi / rng.uniform(14, 50)))
    surface = _mix(colors[0], colors[1], (waves * 0.5 + 0.5).astype(np.float32))
    return surface + (smooth_noise(rng, size, 3)[..., None] - np.float32(0.5)) * 24


def _weave(rng: np.random.Generator, size: Size, colors: Sequence[Color]) -> FloatImage:
    pitch = np.float32(2 * math.pi / rng.uniform(6, 12))
    threads = np.sin(_along(rng, size) * pitch) * np.sin(_along(rng, size) * pitch)
    surface = _mix(colors[0], colors[1], (threads * 0.35 + 0.5).astype(np.float32))
    folds = _fractal_noise(rng, size, 90)[..., None]
    return surface * (np.float32(0.65) + folds * np.float32(0.7))


def _gradient(rng: np.random.Generator, size: Size, colors: Sequence[Color]) -> FloatImage:
    ramp = _along(rng, size)
    ramp = (ramp - ramp.min()) / (ramp.max() - ramp.min())
    clouds = _step(_fractal_noise(rng, size, 80)) * np.float32(rng.uniform(0.2, 0.6))
    surface = _mix(colors[0], colors[1], ramp)
    return surface + (colors[2] - surface) * clouds[..., None]


_BACKGROUNDS: Sequence[Callable[[np.random.Generator, Size, Sequence[Color]], FloatImage]] = (
    _mottled,
    _boards,
    _tiles,
    _strata,
    _weave,
    _gradient,
)


def background(rng: np.random.Generator, size: Size) -> FloatImage:
    """A textured surface in muted colours, ``(H, W, 3)``."""
    base = random_color(rng, saturation=(0.05, 0.45), value=(0.25, 0.9))
    colors = [base + rng.uniform(-40, 40, 3).astype(np.float32) for _ in range(3)]
    return _BACKGROUNDS[int(rng.integers(len(_BACKGROUNDS)))](rng, size, colors)


# ---- fillings ----------------------------------------------------------------------------------


def filling(rng: np.random.Generator, size: Size, color: Color) -> FloatImage:
    """The surface of an object, ``(h, w, 3)``: its colour alone in every other case, or patterned.

    The second colour stays near the first, so that the pattern does not break up the shape.
    """
    other = np.clip(color + rng.uniform(-45, 45, 3).astype(np.float32), 0, 255).astype(np.float32)
    kind = int(rng.integers(10))
    if kind >= 5 or max(size) < 16:
        return np.broadcast_to(color, (*size, 3)).astype(np.float32)
    if kind == 0:
        weight = _along(rng, size) / np.float32(max(size))
    elif kind == 1:
        weight = _step(
            np.sin(_along(rng, size) * np.float32(2 * math.pi / rng.uniform(6, 18))) * 0.5 + 0.5
        )
    elif kind == 2:
        pitch = np.float32(2 * math.pi / rng.uniform(7, 16))
        rows, columns = _coordinates(size)
        weight = _step(np.sin(rows * pitch) * np.sin(columns * pitch))
    elif kind == 3:
        weight = _fractal_noise(rng, size, max(size) / 3)
    else:
        weight = smooth_noise(rng, size, 4)
    return _mix(color, other, np.clip(weight, 0, 1).astype(np.float32))


# ---- light -------------------------------------------------------------------------------------


def relight(rng: np.random.Generator, pixels: FloatImage) -> npt.NDArray[np.uint8]:
    """The scene under uneven, tinted light, through a lens (sometimes soft) and a noisy sensor."""
    size = (pixels.shape[0], pixels.shape[1])
    light = smooth_noise(rng, size, max(size)) * np.float32(rng.uniform(0.1, 0.5))
    light = light + np.float32(rng.uniform(0.65, 1.0)) - light.mean() / 2
    tint = rng.uniform(0.92, 1.08, 3).astype(np.float32)
    sensor = rng.standard_normal(size, dtype=np.float32) * np.float32(rng.uniform(1, 5))
    lit = pixels * light[..., None] * tint + sensor[..., None]
    image: npt.NDArray[np.uint8] = np.clip(np.rint(lit), 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (3, 3), rng.uniform(0.4, 0.8)), np.uint8)
    return image
