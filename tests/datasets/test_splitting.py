"""Dividing a set: every class in every split, what belongs together in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retina.datasets.splitting import divide, joined_groups, objects_per_image, split_images
from retina.errors import UserError
from tests.reading import read_coco, read_voc  # type: ignore[import-not-found]

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def test_every_class_gets_its_share() -> None:
    generator = np.random.default_rng(0)
    counts = generator.poisson([3, 0.5, 0.05], (1000, 3))
    counts[:, 0] *= generator.random(1000) > 0.3
    parts = split_images(counts, np.arange(1000), SHARES, seed=0)
    assert [len(part) for part in parts.values()] == pytest.approx([700, 150, 150], abs=2)
    shows = counts > 0
    for part, share in zip(parts.values(), SHARES.values(), strict=True):
        assert shows[part].sum(axis=0) / shows.sum(axis=0) == pytest.approx([share] * 3, abs=0.04)


def test_the_seed_decides() -> None:
    counts = np.ones((60, 1), dtype=np.int64)
    first, again, other = (
        split_images(counts, np.arange(60), SHARES, seed=seed) for seed in (3, 3, 4)
    )
    assert all(np.array_equal(first[name], again[name]) for name in SHARES)
    assert not all(np.array_equal(first[name], other[name]) for name in SHARES)


@given(st.data())
def test_each_image_is_in_one_split_and_groups_stay_whole(data: st.DataObject) -> None:
    size = data.draw(st.integers(3, 40))
    groups = np.array(data.draw(st.lists(st.integers(0, 12), min_size=size, max_size=size)))
    counts = np.array(
        data.draw(
            st.lists(
                st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=size, max_size=size
            )
        )
    )
    if len(set(groups.tolist())) < 3:
        with pytest.raises(UserError, match="cannot be divided"):
            split_images(counts, groups, SHARES, seed=0)
        return
    parts = split_images(counts, groups, SHARES, seed=0)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(size))
    assert all(len(part) for part in parts.values())
    seen = [set(groups[part].tolist()) for part in parts.values()]
    assert sum(map(len, seen)) == len(set.union(*seen))


def test_groups_that_share_an_image_are_one() -> None:
    groups = joined_groups(["a", "b", "a", "c", "d"], [(1, 3), (3, 4)])
    assert groups[0] == groups[2]
    assert groups[1] == groups[3] == groups[4] != groups[0]


def test_no_test_split_where_its_share_is_zero() -> None:
    shares = {"train": 0.5, "validation": 0.5, "test": 0.0}
    parts = split_images(np.ones((4, 1), np.int64), np.arange(4), shares, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 2, "validation": 2}


def test_near_duplicates_and_frames_stay_together(
    write_coco: Callable[..., tuple[Path, Path]],
) -> None:
    names = [f"video{v}/frame_{n:03}.png" for v in range(4) for n in range(5)]
    names += [f"{n}.png" for n in range(20)]

    def change(tree: dict[str, Any]) -> None:
        tree["images"] = [
            {"id": number, "file_name": name, "height": 40, "width": 60}
            for number, name in enumerate(names)
        ]
        tree["annotations"] = []

    images, path = write_coco(change)
    for name in names:
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).write_bytes((images / "a.png").read_bytes())
    dataset = read_coco(images, path)
    division = divide(dataset, [(20, 21), (22, 5)], SHARES, seed=0)
    assert division.findings == (
        "20 images are frames of 4 videos by their names: kept together",
        "4 images are near duplicates in 2 groups: kept together",
    )
    place = {
        part.table.file_name(index): name
        for name, part in division.splits.items()
        for index in range(len(part))
    }
    for video in range(4):
        assert len({place[name] for name in names if name.startswith(f"video{video}")}) == 1
    assert place["0.png"] == place["1.png"]
    assert place["2.png"] == place["video1/frame_000.png"]
    assert sum(len(part) for part in division.splits.values()) == 40
    division = divide(dataset, [range(40)], SHARES, seed=0)
    assert division.findings == (
        "all images look alike, or are of one video: they are divided one by one",
    )
    division = divide(dataset, [], SHARES, seed=0, group_by=r"(\d)\.png")
    assert division.findings == ("40 images in 10 groups by --group-by: kept together",)
    with pytest.raises(UserError, match=r"40 images in 1 group cannot be divided into train"):
        divide(dataset, [], SHARES, seed=0, group_by="png")


def test_bccd(shared_data: Path) -> None:
    root = shared_data / "bccd"
    dataset = read_voc(root / "JPEGImages", root / "Annotations")
    division = divide(dataset, [], SHARES, seed=0)
    shown = {
        name: (objects_per_image(part.ground_truth()) > 0).sum(axis=0)
        for name, part in division.splits.items()
    }
    for name, share in SHARES.items():
        assert shown[name] / sum(shown.values()) == pytest.approx([share] * 3, abs=0.01)
