"""Which objects each synthetic image holds, decided without drawing anything.

Images are planned in blocks of twenty. The classes of a block are a fixed deck of cards, shuffled
and dealt out unevenly, so that the imbalance between the classes is exact in every block, and an
image depends on the seed, its split and its number alone, never on how many others there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from retina.structures import Categories, Size

BLOCK = 20
"""How many images are planned together, so that they share out the classes as meant."""

CARDS: Mapping[str, int] = MappingProxyType(
    {
        "disc": 60,
        "triangle": 34,
        "letter A": 26,
        "star": 20,
        "arrow": 18,
        "digit 8": 16,
        "crescent": 14,
        "frame": 12,
        "cross": 10,
        "ring": 3,
    }
)
"""How many objects of each class a block holds: rarest to commonest 1:20."""

CATEGORIES = Categories(tuple(CARDS), (1, 2, 4, 5, 7, 8, 11, 13, 14, 17))
"""The classes; their ids have gaps, as COCO's do."""

EMPTY_PER_BLOCK = 1
CROWDED_PER_BLOCK = 2
FEWEST_OBJECTS = 3

SIZES: tuple[Size, ...] = ((192, 192), (160, 224), (224, 160))
"""The image sizes (height, width); all hold about the same number of pixels."""

_TRAIN, _VALIDATION = 0, 1
SPLITS: Mapping[str, int] = MappingProxyType({"train": _TRAIN, "validation": _VALIDATION})


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """What an image is to hold.

    Attributes:
        size: the image's height and width.
        labels: the class of each object, as indices into `CATEGORIES`.
        crowd_label: the class of a crowd region, or None without one.
    """

    size: Size
    labels: tuple[int, ...]
    crowd_label: int | None


def image_generator(seed: int, split: str, index: int) -> np.random.Generator:
    """The generator of one image, independent of every other image's."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLITS[split], 0, index)))


def plan_block(seed: int, split: str, block: int, sizes: Sequence[Size] = SIZES) -> list[ScenePlan]:
    """The plans of the images ``block * BLOCK`` .. ``(block + 1) * BLOCK - 1`` of a split."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLITS[split], 1, block)))
    deck = rng.permutation(np.repeat(np.arange(len(CARDS)), list(CARDS.values())))
    places = rng.permutation(BLOCK)
    empty, crowded = (
        set(places[:EMPTY_PER_BLOCK].tolist()),
        set(places[EMPTY_PER_BLOCK : EMPTY_PER_BLOCK + CROWDED_PER_BLOCK].tolist()),
    )
    filled = [place for place in range(BLOCK) if place not in empty]
    extra = rng.multinomial(
        len(deck) - FEWEST_OBJECTS * len(filled), rng.dirichlet(np.full(len(filled), 4.0))
    )
    hands = iter(np.split(deck, np.cumsum(extra + FEWEST_OBJECTS)[:-1]))
    plans = []
    for place in range(BLOCK):
        size = sizes[int(rng.integers(len(sizes)))]
        crowd_label = int(rng.integers(len(CARDS)))
        plans.append(
            ScenePlan(
                size=size,
                labels=() if place in empty else tuple(int(label) for label in next(hands)),
                crowd_label=crowd_label if place in crowded else None,
            )
        )
    return plans
