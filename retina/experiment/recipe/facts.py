"""What a config is chosen by: the data, read as a training reads it, and the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retina.configuration import validate
from retina.datasets import FoundSource, SourceConfig, find_source
from retina.datasets.categories import UnknownCategoriesError
from retina.datasets.dataset import DetectionDataset
from retina.devices import pick_device
from retina.errors import UserError
from retina.structures import Categories
from retina.wording import counted

HELD_OUT = 0.2
MOST_HELD_OUT = 5000
"""A validation set is made of this share of the images, and of at most so many (COCO's number)."""


@dataclass(frozen=True, slots=True)
class Split:
    """A split of the data, or a part of one.

    Attributes:
        keys: of its config.
        why: what it is, in words.
        dataset: read.
    """

    keys: Mapping[str, Any]
    why: str
    dataset: DetectionDataset

    @property
    def counts(self) -> tuple[int, ...]:
        """The objects of each class, crowd regions not counted."""
        return self.dataset.ground_truth().class_counts()


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it is trained.

    Attributes:
        device: ``cuda``, ``mps`` or ``cpu``.
        name: for people.
        memory: bytes of the GPU's memory; 0 for others.
        num_cores: that this process may use.
        given: the device by name, where one was asked for.
    """

    device: str
    name: str
    memory: int
    num_cores: int
    given: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known before a config is chosen.

    Attributes:
        source: what the data was taken for.
        train: the images to learn from.
        validation: those that choose the best detector; None where there are too few images.
        test: what the training never sees; None without such a split.
        machine: where it is trained.
        from_scratch: whether pretrained weights are not wanted.
        left_out: splits that are not used, and why.
    """

    source: FoundSource
    train: Split
    validation: Split | None
    test: Split | None
    machine: Machine
    from_scratch: bool
    left_out: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the data: its folder."""
        return name_of(self.source.path)

    @property
    def categories(self) -> Categories:
        """The classes to learn, those included that no image shows."""
        return self.train.dataset.categories

    @property
    def shorter_side(self) -> float:
        """The median of the images' shorter sides, in pixels."""
        return float(np.median(self.train.dataset.image_sizes.min(axis=1)))


def name_of(source: Path) -> str:
    """What data is called: its folder's name."""
    path = source.resolve()
    return (path.parent if path.is_file() else path).name or "data"


def look_at(
    path: Path, *, images: Path | None = None, device: str | None = None, from_scratch: bool = False
) -> Facts:
    """Read a data set and ask the machine.

    Args:
        path: a folder or an annotation file, of any format.
        images: the folder of the images of an annotation file that has none beside it.
        device: as in a config; None picks the best.
        from_scratch: whether pretrained weights are not wanted.

    Raises:
        UserError: it is no data set that can be read, or nothing of it is to be learned from; or
            there is no such device.
    """
    machine = _machine(device)
    found = find_source(path, images=images)
    keys = {"source": str(path)} | ({} if images is None else {"images": str(images)})
    if found.splits and "train" not in found.splits:
        raise UserError(
            f"{path}: has no split to train on, only {' and '.join(found.splits)}; name one of "
            "them train, or name its folder or file alone"
        )
    learned = "its train split" if found.splits else "all of it"
    whole = _read(keys, "train", learned)
    if not sum(whole.counts):
        raise UserError(
            f"{path}: there is nothing to learn: none of its "
            f"{counted(len(whole.dataset), 'image')} to train on has a box; correct the "
            "annotations, or name data that has some (retina predict takes such a file)"
        )
    others = {
        name: _read(keys, name, f"its {name} split", whole.dataset.categories)
        for name in ("validation", "test")
        if name in found.splits
    }
    scored = {name: split for name, split in others.items() if sum(split.counts)}
    left_out = tuple(
        f"its {name} split has no object to score on, and is left out"
        for name in others.keys() - scored.keys()
    )
    test = scored.get("test")
    train, validation = whole, scored.get("validation")
    if validation is None and test is not None:
        validation = Split(
            {**test.keys, "split": "test"},
            "it has no validation split: its test split chooses the best detector, so the score on "
            "it is a little better than on images that nobody chose by (retina data split makes "
            "three splits of a whole)",
            test.dataset,
        )
        test = None
    if validation is None and len(whole.dataset) > 1:
        part = {"split": "train"} if found.splits else {}
        train, validation = _held_out(replace(whole, keys={**keys, **part}))
    return Facts(found, train, validation, test, machine, from_scratch, left_out)


def _read(
    keys: Mapping[str, Any], split: str, why: str, categories: Categories | None = None
) -> Split:
    try:
        dataset = _config({"split": split, **keys}).build(categories)
    except UnknownCategoriesError as error:
        if error.are_all or categories is None:
            raise
        # Where classes are the names that occur, one of a few objects may be in one split alone.
        keys = {**keys, "classes": list(categories.names)}
        why += "; objects of classes that the train split lacks are left out"
        dataset = _config({"split": split, **keys}).build(categories)
    return Split(keys, why, dataset)


def _held_out(whole: Split) -> tuple[Split, Split]:
    """A split in two that share no image: to learn from, and to score on."""
    share = min(HELD_OUT, float(f"{MOST_HELD_OUT / len(whole.dataset):.2g}"))

    def part(key: str, why: str) -> Split:
        keys = {**whole.keys, key: share}
        return Split(keys, why, _config(keys).build(whole.dataset.categories))

    return (
        part("leave_out_fraction", f"{whole.why} but what validation takes"),
        part(
            "fraction",
            "it has no validation split: a part of the images, chosen at random, is kept for it "
            "(near duplicates, such as frames of one video, would make its score too good: retina "
            "data split keeps them together)",
        ),
    )


def _config(keys: Mapping[str, Any]) -> SourceConfig:
    return validate(dict(keys), SourceConfig, source="SOURCE")


def _machine(given: str | None) -> Machine:
    device = pick_device(given or "auto")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name, memory = device.type.upper(), 0
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name, memory = properties.name, properties.total_memory
    return Machine(device.type, name, memory, cores or 1, given)
