"""Lists of images: by file name, by its end, by id; and one clear error for what is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from retina.datasets.image_lists import listed_images
from retina.errors import UserError

NAMES = ["a/one.jpg", "a/two.jpg", "b/two.jpg", "three.v2.png", "12.jpg", "one.png"]
IDS = [7, 12, 13, "frame_4", 5, 99]


def rows(tmp_path: Path, text: str, sources: list[str] | None = None) -> list[int]:
    path = tmp_path / "list.txt"
    path.write_text(text)
    return listed_images(path, NAMES, IDS, sources or ["x.json"] * len(NAMES)).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/one.jpg", [0]),
        ("one.jpg\none.jpg\n", [0]),
        ("\n  b/two.jpg  \n\n./a/two.jpg\r\n", [1, 2]),
        ("a/one", [0]),
        ("one", [5]),
        ("a\\one.jpg", [0]),
        ("three.v2", [3]),
        ("frame_4", [3]),
        ("7\n13", [0, 2]),
        ("12.jpg", [4]),
        ("5", [4]),
        ("99\none.png", [5]),
    ],
)
def test_what_a_line_means(tmp_path: Path, text: str, expected: list[int]) -> None:
    assert rows(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no image"),
        ("  \n", "names no image"),
        ("a/one.jpg\nc/one.jpg\n8\n", r"2 of 3 lines .*'c/one.jpg' \(line 2\), '8' \(line 3\)"),
        ("two.jpg", r"line 1: 'two.jpg' could be any of 2 images \('a/two.jpg', 'b/two.jpg'\)"),
        ("12", r"'12' could be any of 2 images \('a/two.jpg', '12.jpg'\)"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rows(tmp_path, text)


def test_a_name_in_two_files_means_both(tmp_path: Path) -> None:
    sources = ["x.json", "x.json", "y.json", "y.json", "y.json", "y.json"]
    assert rows(tmp_path, "two.jpg", sources) == [1, 2]
    with pytest.raises(UserError, match="could be any of 2 images"):
        rows(tmp_path, "two.jpg")


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.txt: no such image list"):
        listed_images(tmp_path / "none.txt", NAMES, IDS, ["x"] * len(NAMES))
