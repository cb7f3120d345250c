"""Folders as they are found on people's disks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retina.datasets.file_listing import IMAGE_SUFFIXES, list_files
from retina.datasets.image_files import FORMATS
from retina.datasets.images import decode_image


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def below(folder: Path, paths: tuple[Path, ...]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_what_systems_leave_lying_around_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "sub/b.PNG", "._a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg")
    touch(tmp_path, "__MACOSX/._a.jpg", "Thumbs.db", ".DS_Store", "desktop.ini", "notes.txt")
    touch(tmp_path, "sub/@eaDir/b.PNG", "sub/.hidden.jpg")
    listing = list_files(tmp_path, IMAGE_SUFFIXES)
    assert below(tmp_path, listing.files) == ["a.jpg", "sub/b.PNG"]
    assert set(listing.passed_over) == {
        *("._a.jpg", ".ipynb_checkpoints", "__MACOSX", "Thumbs.db", ".DS_Store", "desktop.ini"),
        *("notes.txt", "sub/@eaDir", "sub/.hidden.jpg"),
    }
    assert below(tmp_path, list_files(tmp_path, [".jpg"], deep=False).files) == ["a.jpg"]
    assert "notes.txt" in below(tmp_path, list_files(tmp_path).files)
    assert list_files(tmp_path / "gone").files == ()


def test_links_are_followed_and_each_folder_is_seen_once(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.jpg", "elsewhere/deep/b.jpg", "set/c.jpg")
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "set", target_is_directory=True)
    (tmp_path / "set" / "twice").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "set" / "file.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    (tmp_path / "set" / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "set" / "itself").symlink_to("itself")
    assert below(tmp_path / "set", list_files(tmp_path / "set", IMAGE_SUFFIXES).files) == [
        *("broken.jpg", "c.jpg", "file.jpg", "linked/a.jpg", "linked/deep/b.jpg")
    ]


def test_every_suffix_of_a_format_that_is_read_is_known() -> None:
    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    not_images = {".mj2", ".pfm"}  # MJ2 is a film, PFM no 8 bits
    assert known - not_images <= set(IMAGE_SUFFIXES)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_suffix_names_a_format_that_is_read(tmp_path: Path, suffix: str) -> None:
    formats = Image.registered_extensions()
    name = formats.get(suffix, "JPEG")
    if name not in Image.SAVE:
        pytest.skip(f"this Pillow cannot write {name}")
    path = tmp_path / f"a{suffix}"
    mode = {".pgm": "L", ".pbm": "1", ".gif": "P"}.get(suffix, "RGB")
    pixels = Image.fromarray(np.full((8, 12, 3), 200, dtype=np.uint8)).convert(mode)
    pixels.save(path, format=name)
    assert decode_image(path).shape == (8, 12, 3)
