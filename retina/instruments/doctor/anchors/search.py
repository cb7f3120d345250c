"""Anchors that fit a data set: sizes, scales, ratios and levels by k-means and coordinate search.

The search counts the objects whose best overlap reaches the foreground IoU, which is what the
IoU assigner asks first; what it proposes is then measured by the real assigner.

The best overlap is found without laying the anchors: of equal anchors on a grid the one whose
centre is nearest overlaps a box most, along each axis by itself, so one anchor for each shape and
level is enough: exact, and a thousand times cheaper than all pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from retina.geometry.anchors import AnchorConfig
from retina.instruments.doctor.anchors.coverage import InputImage
from retina.structures import FloatArray

_START_SIZES = (0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Anchor sizes to start from, in strides of the level (Lin et al. 2017 take 4)."""

_STEPS = (0.8, 0.9, 0.95, 1.05, 1.1, 1.25)
_MOST_ROUNDS = 8
_SMALLEST_GAIN = 1e-4


@dataclass(frozen=True, slots=True)
class BoxSample:
    """Objects at the network's input; N of them.

    Attributes:
        centers: ``(N, 2)`` x and y.
        sides: ``(N, 2)`` width and height.
        input_sides: ``(N, 2)`` width and height of the network's input for each object's image.
    """

    centers: FloatArray
    sides: FloatArray
    input_sides: FloatArray

    @classmethod
    def of(cls, images: Sequence[InputImage]) -> BoxSample:
        """The objects of some images."""
        boxes = [image.targets.boxes.double().numpy() for image in images]
        inputs = [np.tile(image.padded_size[::-1], (len(image.targets), 1)) for image in images]
        corners = np.concatenate([*boxes, np.zeros((0, 4))])
        return cls(
            centers=(corners[:, :2] + corners[:, 2:]) / 2,
            sides=corners[:, 2:] - corners[:, :2],
            input_sides=np.concatenate([*inputs, np.zeros((0, 2))]).astype(np.float64),
        )

    def __len__(self) -> int:
        return len(self.sides)


def level_shapes(sizes: FloatArray, scales: FloatArray, ratios: FloatArray) -> FloatArray:
    """``(L, A, 2)`` widths and heights of the anchors of every level."""
    areas = sizes[:, None, None] * scales[None, None, :]
    root = np.sqrt(ratios)[None, :, None]
    return np.stack([areas / root, areas * root], axis=-1).reshape(len(sizes), -1, 2)


def best_overlaps(
    sample: BoxSample, shapes: FloatArray, strides: Sequence[int], center_offset: float
) -> FloatArray:
    """``(N,)`` the highest IoU that any anchor has with each object.

    Args:
        sample: the objects.
        shapes: ``(L, A, 2)``.
        strides: of the L levels.
        center_offset: of the anchors, in strides.
    """
    best = np.zeros(len(sample))
    areas = sample.sides.prod(axis=1)[:, None]
    for level, stride in zip(shapes, strides, strict=True):
        cells = np.ceil(sample.input_sides / stride)
        nearest = np.rint(sample.centers / stride - center_offset).clip(0, cells - 1)
        distance = np.abs(sample.centers - (nearest + center_offset) * stride)  # (N, 2)
        reach = (sample.sides[:, None] + level[None]) / 2 - distance[:, None]  # (N, A, 2)
        shared = np.minimum(reach, np.minimum(sample.sides[:, None], level[None])).clip(min=0)
        overlap = shared.prod(axis=2)  # (N, A)
        best = np.maximum(best, (overlap / (areas + level.prod(axis=1) - overlap)).max(axis=1))
    return best


@dataclass(frozen=True, slots=True)
class AnchorSetting:
    """What is searched: one set of anchors.

    Attributes:
        sizes: ``(L,)`` of the levels, in pixels.
        scales: of every level, factors on its size.
        ratios: of every level, height over width.
        strides: of the L levels, finest first.
    """

    sizes: FloatArray
    scales: FloatArray
    ratios: FloatArray
    strides: tuple[int, ...]

    def config(self, base: AnchorConfig) -> AnchorConfig:
        """The same as a config, in rounded numbers; all else is as in ``base``."""
        return base.model_copy(
            update={
                "sizes": tuple(_short(size) for size in self.sizes),
                "scales": tuple(round(float(scale), 2) for scale in self.scales),
                "ratios": tuple(round(float(ratio), 2) for ratio in self.ratios),
                "scales_per_level": None,
                "ratios_per_level": None,
            }
        )


def fit_anchors(
    sample: BoxSample,
    *,
    strides: Sequence[int],
    num_scales: int,
    num_ratios: int,
    threshold: float,
    center_offset: float,
) -> AnchorSetting:
    """Search sizes, scales and ratios that reach ``threshold`` for as many objects as possible.

    The sizes of the levels stay in the proportion of their strides, so that one head can serve all
    of them; the number of anchors a cell stays as it is.
    """
    steps = np.array(strides, dtype=np.float64)
    octave = 2.0 ** (np.arange(num_scales) / num_scales)
    log_ratios = np.log(sample.sides[:, 1] / sample.sides[:, 0])
    clustered: FloatArray = np.exp(_centers(log_ratios, num_ratios))
    usual: FloatArray = np.float64(2.0) ** (np.arange(num_ratios) - (num_ratios - 1) / 2)

    def score(setting: AnchorSetting) -> float:
        shapes = level_shapes(setting.sizes, setting.scales, setting.ratios)
        best = best_overlaps(sample, shapes, strides, center_offset)
        return float((best >= threshold).mean() + 0.1 * best.mean()) if len(best) else 0.0

    starts = [
        AnchorSetting(steps * factor, octave, ratios, tuple(strides))
        for factor in _START_SIZES
        for ratios in (usual, clustered)
    ]
    return _climb(max(starts, key=score), score)


def _climb(start: AnchorSetting, score: Callable[[AnchorSetting], float]) -> AnchorSetting:
    """Change one number after the other for as long as that helps."""
    best, highest = start, score(start)
    for _ in range(_MOST_ROUNDS):
        before = highest
        for change in _neighbours(best):
            candidate = change(best)
            reached = score(candidate)
            if reached > highest + _SMALLEST_GAIN:
                best, highest = candidate, reached
        if highest == before:
            break
    return best


def _neighbours(setting: AnchorSetting) -> list[Callable[[AnchorSetting], AnchorSetting]]:
    def sizes(factor: float) -> Callable[[AnchorSetting], AnchorSetting]:
        return lambda now: replace(now, sizes=now.sizes * factor)

    def scale(index: int, factor: float) -> Callable[[AnchorSetting], AnchorSetting]:
        return lambda now: replace(now, scales=_scaled(now.scales, index, factor))

    def ratio(index: int, factor: float) -> Callable[[AnchorSetting], AnchorSetting]:
        return lambda now: replace(now, ratios=_scaled(now.ratios, index, factor))

    return [
        change
        for factor in _STEPS
        for change in (
            sizes(factor),
            # the first scale stays 1: the sizes move it
            *(scale(index, factor) for index in range(1, len(setting.scales))),
            *(ratio(index, factor) for index in range(len(setting.ratios))),
        )
    ]


def _scaled(values: FloatArray, index: int, factor: float) -> FloatArray:
    changed = values.copy()
    changed[index] *= factor
    return changed


def _centers(values: FloatArray, count: int) -> FloatArray:
    """k-means in one dimension (Lloyd), started at the quantiles; ascending."""
    if not len(values):
        return np.linspace(-np.log(2), np.log(2), count)
    centers = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(50):
        owners = np.abs(values[:, None] - centers).argmin(axis=1)
        moved = np.array(
            [
                values[owners == k].mean() if (owners == k).any() else centers[k]
                for k in range(count)
            ]
        )
        if np.allclose(moved, centers):
            break
        centers = moved
    return np.sort(centers)


def _short(size: float) -> float:
    return float(f"{size:.3g}")
