"""Images that are there several times, within and between splits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retina.datasets.duplicates import fingerprints_of
from retina.datasets.repeats import describe_repeats, find_repeats
from tests.reading import read_coco  # type: ignore[import-not-found]

CocoWriter = Callable[..., tuple[Path, Path]]


@pytest.fixture
def splits(write_coco: CocoWriter) -> dict[str, Any]:
    def change(tree: dict[str, Any]) -> None:
        tree["annotations"] = []
        tree["images"] = [
            {"id": number, "file_name": f"{name}.png", "height": 40, "width": 60}
            for number, name in enumerate("abcdefg")
        ]

    def more(folder: Path) -> None:
        for name in "cdefg":
            Image.effect_noise((60, 40), 90).convert("RGB").save(folder / f"{name}.png")
        for name in "fg":
            Image.new("RGB", (60, 40), (9, 9, 9)).save(folder / f"{name}.png")

    train, validation = write_coco(change, "train"), write_coco(change, "validation")
    more(train[0])
    more(validation[0])
    for name in "ab":
        Image.effect_noise((60, 40), 90).convert("RGB").save(validation[0] / f"{name}.png")
    shutil.copy(train[0] / "c.png", train[0] / "d.png")
    (validation[0] / "e.png").unlink()
    os.link(train[0] / "e.png", validation[0] / "e.png")
    Image.open(train[0] / "a.png").resize((90, 60)).resize((60, 40)).save(validation[0] / "b.png")
    return {"train": read_coco(*train), "validation": read_coco(*validation)}


def test_what_is_repeated_and_how(splits: dict[str, Any]) -> None:
    prints = {name: fingerprints_of(dataset) for name, dataset in splits.items()}
    found = {repeat.members: repeat.kind for repeat in find_repeats(splits, prints)}
    assert found == {
        (("train", 0), ("validation", 1)): "near duplicates",
        (("train", 2), ("train", 3)): "equal files",
        (("train", 4), ("validation", 4)): "one file",
        (("train", 5), ("train", 6), ("validation", 5), ("validation", 6)): "equal files",
    }


def test_leaks_are_told_first(splits: dict[str, Any]) -> None:
    prints = {name: fingerprints_of(dataset) for name, dataset in splits.items()}
    told = describe_repeats(find_repeats(splits, prints), splits)
    assert [text for text, _ in told] == [
        "train and validation share images, so that a score says too much: 8 images in 3 groups "
        "(1 of one file, 1 of equal files, 1 of near duplicates): a.png = b.png; e.png = e.png; "
        "f.png = g.png = f.png = g.png",
        "images are there several times in train: 2 images in 1 group (1 of equal files): "
        "c.png = d.png",
    ]
    assert [len(repeats) for _, repeats in told] == [3, 1]
