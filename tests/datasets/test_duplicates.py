"""Near duplicates: planted copies are found, other pictures are not taken for them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from retina.datasets.duplicates import Fingerprint, near_duplicates

Edit = Callable[[Image.Image], Image.Image]


def saved(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cropped(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    x, y = round(width * share), round(height * share)
    return image.crop((x, y, width - x, height - y))


EDITS: dict[str, Edit] = {
    "saved at quality 40": lambda image: saved(image, 40),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "stretched": lambda image: image.resize((416, 416)),
    "cropped by 2 %": lambda image: cropped(image, 0.02),
    "cropped by 5 %": lambda image: cropped(image, 0.05),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.75),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "cropped, brighter, smaller, saved": lambda image: saved(
        ImageEnhance.Brightness(cropped(image, 0.02)).enhance(1.15).resize((300, 220)), 60
    ),
}
EDITS_OF_ONE_SCENE = [name for name in EDITS if "cropped" not in name and "contrast" not in name]
"""What is found where one camera looks at one scene."""


def fingerprint(image: Image.Image) -> Fingerprint | None:
    return Fingerprint.of(np.asarray(image.convert("RGB")))


def recall(paths: list[Path], edit: Edit, *, every: int) -> tuple[float, int]:
    """The share of the copies that are found, and how many are taken for something else's."""
    images = [Image.open(path).convert("RGB") for path in paths]
    originals = [fingerprint(image) for image in images]
    group_before = {i: group for group in near_duplicates(originals) for i in group}
    chosen = range(0, len(images), every)
    copies = [fingerprint(edit(images[index])) for index in chosen]
    groups = {i: group for group in near_duplicates([*originals, *copies]) for i in group}
    found = strangers = 0
    for copy, original in enumerate(chosen, start=len(images)):
        members = {i for i in groups.get(copy, ()) if i < len(images)}
        found += original in members
        strangers += bool(members - {original, *group_before.get(original, ())})
    return found / len(copies), strangers


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize(
    "name", ["bccd/JPEGImages", pytest.param("raccoon/images", marks=pytest.mark.slow)]
)
def test_planted_copies_are_found(shared_data: Path, name: str, edit: str) -> None:
    paths = sorted((shared_data / name).iterdir())[:100]
    assert recall(paths, EDITS[edit], every=5) == (1.0, 0)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(edit, marks=[] if number < 1 else pytest.mark.slow)
        for number, edit in enumerate(EDITS_OF_ONE_SCENE)
    ],
)
def test_planted_copies_are_found_among_images_of_one_scene(shared_data: Path, edit: str) -> None:
    paths = sorted((shared_data / "chess/train").glob("*.jpg"))
    found, strangers = recall(paths, EDITS[edit], every=10)
    assert found > 0.9
    assert strangers <= 3


@pytest.mark.slow
def test_the_copies_that_public_sets_hold_are_found(shared_data: Path) -> None:
    def groups(name: str) -> list[list[str]]:
        paths = sorted((shared_data / name).glob("*.jpg"))
        found = near_duplicates([fingerprint(Image.open(path)) for path in paths])
        return [[paths[index].stem for index in group] for group in found]

    assert groups("bccd/JPEGImages") == [["BloodImage_00037", "BloodImage_00038"]]
    assert groups("coco_permissive/train2017") == []
    assert groups("raccoon/images") == [
        ["raccoon-11", "raccoon-116"],
        ["raccoon-120", "raccoon-83"],
        ["raccoon-21", "raccoon-45"],
        ["raccoon-50", "raccoon-52", "raccoon-74"],
        ["raccoon-51", "raccoon-85"],
        ["raccoon-65", "raccoon-98"],
    ]


def test_synthetic_images_are_no_duplicates(synthetic_data: Path) -> None:
    images = [Image.open(path) for path in sorted(synthetic_data.rglob("*.jpg"))]
    prints = [fingerprint(image) for image in images]
    assert near_duplicates(prints) == []
    assert near_duplicates([*prints, fingerprint(EDITS["brighter"](images[3]))]) == [
        (3, len(images))
    ]


def test_images_of_one_colour_have_no_duplicates() -> None:
    plain = [Image.new("RGB", (64, 48), (shade, 0, 0)) for shade in (0, 0, 90, 200)]
    assert near_duplicates([fingerprint(image) for image in plain]) == []
    assert near_duplicates([]) == []


def test_more_images_than_are_compared_at_once() -> None:
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 2, (1500, 3, 256)).astype(bool)
    thumbnail = generator.integers(0, 256, (32, 32), dtype=np.uint8)
    noise[1400, 0], noise[7, 1] = noise[3, 0], noise[1499, 0]
    prints = [Fingerprint(bits, thumbnail) for bits in noise]
    assert near_duplicates(prints) == [(3, 1400), (7, 1499)]
