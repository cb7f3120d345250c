"""Files of a data set that is written anew: none lost, none over another, the source untouched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retina.datasets.exports.exported_images import (
    flat_names,
    place_image,
    require_images,
    start_folder,
)
from retina.errors import UserError
from tests.reading import read_coco  # type: ignore[import-not-found]

CocoWriter = Callable[..., tuple[Path, Path]]


def named(write_coco: CocoWriter, *names: str, folder: str = "set") -> Any:
    def change(tree: dict[str, Any]) -> None:
        tree["annotations"] = []
        tree["images"] = [
            {"id": number, "file_name": name, "height": 40, "width": 60}
            for number, name in enumerate(names)
        ]

    images, path = write_coco(change, folder)
    for name in names:
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / name).write_bytes((images / "a.png").read_bytes())
    return read_coco(images, path)


def test_names_stay_where_they_are_the_only_ones(write_coco: CocoWriter) -> None:
    dataset = named(write_coco, "day/one.png", "night/two.png", "猫.png", "a b.png")
    assert flat_names({"": dataset}) == {"": ["one.png", "two.png", "猫.png", "a b.png"]}


def test_equal_names_get_those_of_their_folders_and_numbers(write_coco: CocoWriter) -> None:
    names = ("day/x.png", "night/x.png", "x.png", "X.jpg", "night_x.png", "day/sub/x.png")
    first = named(write_coco, *names)
    second = named(write_coco, "x.png", "y.png", folder="other")
    flat = flat_names({"train": first, "validation": second})
    assert flat == {
        "train": ["day_x.png", "night_x_2.png", "x.png", "X_2.jpg", "night_x.png", "day_sub_x.png"],
        "validation": ["x_3.png", "y.png"],
    }
    stems = [name.rpartition(".")[0].lower() for names in flat.values() for name in names]
    assert len(set(stems)) == len(stems)


def test_an_image_is_linked_also_where_the_source_is_a_link(tmp_path: Path) -> None:
    source, link = tmp_path / "a.png", tmp_path / "link.png"
    source.write_bytes(b"pixels")
    link.symlink_to(source)
    place_image(link, tmp_path / "out/deep/b.png")
    placed = tmp_path / "out/deep/b.png"
    assert placed.samefile(source)
    assert not placed.is_symlink()
    placed.unlink()
    assert source.read_bytes() == b"pixels"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_an_image_is_copied_to_another_disk(tmp_path: Path) -> None:
    import tempfile

    source = tmp_path / "a.png"
    source.write_bytes(b"pixels")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if Path(other).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("/dev/shm is no other file system here")
        place_image(source, Path(other) / "b.png")
        assert (Path(other) / "b.png").read_bytes() == b"pixels"
        assert not (Path(other) / "b.png").samefile(source)


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="holds images already"):
        start_folder(tmp_path, ["images", "labels"])
    start_folder(tmp_path, ["labels"])


def test_missing_images_are_told_at_once(write_coco: CocoWriter) -> None:
    dataset = named(write_coco, "one.png", "two.png", "three.png")
    for name in ("one.png", "three.png"):
        (dataset.images / name).unlink()
    with pytest.raises(UserError, match=r"2 of 3 image files are not there: .*one.png, .*three"):
        require_images({"": dataset})
