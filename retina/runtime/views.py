"""In how many views a detector looks at an image: tiles, and test-time augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from retina.errors import UserError, one_of
from retina.geometry.fusion import Merge
from retina.runtime.augmented import AugmentedRuntime
from retina.runtime.runtime import Runtime
from retina.runtime.tiled import OVERLAP, TiledRuntime

SMALLEST_TILE = 32
"""Pixels; in less no detector finds anything."""

MOST_OVERLAP = 0.9
"""Of a tile; with more there would be tiles without end."""

SCALES = (0.25, 4.0)
"""The smallest and the largest scale of the input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """What is looked at beside the plain image; by default nothing.

    Attributes:
        tile: the sides of tiles in pixels; None for none.
        overlap: the part of a tile that its neighbour sees as well.
        full_image: look at the whole of a tiled image, too.
        flip: look at everything mirrored, too.
        scales: of the network's input, beside 1, at which everything is looked at, too.
        merge: how detections of one object become one.

    Raises:
        UserError: a number is none that works.
    """

    tile: int | None = None
    overlap: float = OVERLAP
    full_image: bool = True
    flip: bool = False
    scales: tuple[float, ...] = ()
    merge: Merge = "nms"

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < SMALLEST_TILE:
            raise UserError(
                f"--tile {self.tile}: a tile has at least {SMALLEST_TILE} pixels a side"
            )
        if not 0 <= self.overlap <= MOST_OVERLAP:
            raise UserError(
                f"--overlap {self.overlap:g}: give a part of a tile from 0 to {MOST_OVERLAP}"
            )
        one_of(self.merge, get_args(Merge), "--merge")
        for scale in self.scales:
            _check_scale(scale, "--test-time")

    def __bool__(self) -> bool:
        """Whether there is more than the plain image to look at."""
        return self.tile is not None or self.flip or bool(self.scales)

    def wrap(self, runtime: Runtime, *, batch_size: int = 8) -> Runtime:
        """A runtime that looks at all of that; the same one where it is only the plain image.

        Args:
            runtime: finds the objects in each view.
            batch_size: tiles that the network sees at a time.

        Raises:
            UserError: the runtime's input has a fixed size, and scales are given.
        """
        if self.flip or self.scales:
            runtime = AugmentedRuntime(
                runtime, flip=self.flip, scales=self.scales, merge=self.merge
            )
        if self.tile is not None:
            runtime = TiledRuntime(
                runtime,
                tile=self.tile,
                overlap=self.overlap,
                full_image=self.full_image,
                merge=self.merge,
                batch_size=batch_size,
            )
        return runtime

    def describe(self) -> str:
        """For people: ``tiles of 640, flip, 0.8``."""
        tiles = [] if self.tile is None else [f"tiles of {self.tile}"]
        flip = ["flip"] if self.flip else []
        return ", ".join([*tiles, *flip, *(f"{scale:g}" for scale in self.scales)])

    def to_json(self) -> dict[str, Any]:
        """What ``metrics.json`` has under ``views``."""
        tiles = {"tile": self.tile, "overlap": self.overlap, "full_image": self.full_image}
        test_time = {"flip": self.flip, "scales": list(self.scales)}
        return {**(tiles if self.tile is not None else {}), **test_time, "merge": self.merge}


def parse_test_time(
    parts: Sequence[str | float], argument: str = "--test-time"
) -> tuple[bool, tuple[float, ...]]:
    """Whether to mirror, and the scales beside 1, of a list such as ``flip``, ``0.8``, ``1.2``.

    Args:
        parts: of the list.
        argument: what messages call it.

    Raises:
        UserError: a part is neither ``flip`` nor a number, or a scale does not work.
    """
    several = "with commas between them" if argument.startswith("--") else "in a list"
    scales, flip = [], False
    for part in parts:
        if isinstance(part, str) and part.strip() == "flip":
            flip = True
            continue
        try:
            scale = float("" if isinstance(part, bool) else part)
        except (TypeError, ValueError):
            raise UserError(
                f"{argument} {part}: write flip, or a scale such as 0.8, or several {several}"
            ) from None
        _check_scale(scale, argument)
        scales.append(scale)
    return flip, tuple(dict.fromkeys(scale for scale in scales if scale != 1))


def _check_scale(scale: float, argument: str) -> None:
    low, high = SCALES
    if not low <= scale <= high:
        raise UserError(f"{argument} {scale:g}: a scale lies within {low:g} … {high:g}")
