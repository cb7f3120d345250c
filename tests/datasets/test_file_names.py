"""The file that an annotation means, however its name is spelled."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from retina.datasets.annotations import AnnotationTable, name_array
from retina.datasets.file_names import find_files
from retina.structures import Categories


def table(names: list[str]) -> AnnotationTable:
    none = np.zeros(0, dtype=np.int64)
    return AnnotationTable(
        source="annotations.json",
        categories=Categories(("cat",), (1,)),
        image_ids=np.arange(len(names)),
        file_names=name_array(names),
        image_sizes=np.zeros((len(names), 2), dtype=np.int64),
        annotation_ids=none,
        image_indices=none,
        labels=none,
        boxes_xywh=np.zeros((0, 4)),
        areas=np.zeros(0),
        is_crowd=np.zeros(0, dtype=bool),
        occluded_fractions=np.zeros(0),
    )


def found(folder: Path, files: list[str], names: list[str]) -> tuple[list[str], list[str], str]:
    """The names with which the files are found, those that are missing, and the finding."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    spelled, missing = find_files(table(names), folder)
    there = [spelled.file_name(index) for index in range(len(names))]
    return there, list(missing), "".join(spelled.findings)


NFC, NFD = (unicodedata.normalize(form, "ä/ñ é.jpg") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("name", "file", "how"),
    [
        ("sub\\a.jpg", "sub/a.jpg", "separators"),
        (".\\sub\\a.jpg", "sub/a.jpg", "separators"),
        ("sub//./a.jpg", "sub/a.jpg", ""),  # the file system itself sees through it
        ("./a.jpg", "a.jpg", ""),
        (NFC, NFD, "the composition of accents"),
        (NFD, NFC, "the composition of accents"),
        ("a%20b%C3%A4.jpg", "a bä.jpg", "URL encoding"),
        ("a bä.jpg", "a%20b%C3%A4.jpg", "URL encoding"),
        ("IMG_1.JPG", "img_1.jpg", "upper and lower case"),
        ("Sub\\IMG%201.JPG", "sub/img 1.jpg", "upper and lower case"),
        ("STRASSE.jpg", "straße.jpg", "upper and lower case"),
        ("images/a.jpg", "a.jpg", "the name of the folder before them"),
        ("images\\sub\\A.jpg", "sub/a.jpg", "the name of the folder before them"),
        ("IMAGES\\A.JPG", "a.jpg", "the name of the folder before them"),
        ("set/images/a.jpg", "a.jpg", "the name of the folder before them"),
    ],
)
def test_the_one_file_that_is_meant(tmp_path: Path, name: str, file: str, how: str) -> None:
    folder = tmp_path / "set" / "images"
    there, missing, finding = found(folder, [file, "other.jpg"], [name, "other.jpg"])
    assert (folder / there[0]).is_file()
    assert missing == []
    if how:
        assert there == [file, "other.jpg"]
        assert finding == (
            f"1 of 2 images are found under another spelling: 1 by {how} (the first: '{name}' is "
            f"'{file}')"
        )
    else:
        assert finding == ""


def test_what_could_be_several_files_is_missing(tmp_path: Path) -> None:
    there, missing, finding = found(tmp_path, ["A.jpg", "a.JPG"], ["a.jpg"])
    assert there == ["a.jpg"]
    assert missing == ["a.jpg (is it A.jpg or a.JPG?)"]
    assert finding == ""


def test_a_file_is_given_to_one_image_only(tmp_path: Path) -> None:
    there, missing, _ = found(tmp_path, ["a.jpg"], ["a.jpg", "A.jpg"])
    assert there == ["a.jpg", "A.jpg"]
    assert missing == ["A.jpg (is it a.jpg?)"]
    there, missing, _ = found(tmp_path, ["b.jpg"], ["B.jpg", "B.JPG"])
    assert missing == ["B.jpg (is it b.jpg?)", "B.JPG (is it b.jpg?)"]


def test_another_folder_is_another_file(tmp_path: Path) -> None:
    _, missing, finding = found(tmp_path / "images", ["a.jpg"], ["val/a.jpg", "gone.jpg"])
    assert missing == ["val/a.jpg", "gone.jpg"]
    assert finding == ""


def test_an_exact_name_is_not_doubted(tmp_path: Path) -> None:
    there, missing, finding = found(tmp_path, ["a.jpg", "A.jpg"], ["A.jpg", "a.jpg"])
    assert there == ["A.jpg", "a.jpg"]
    assert (missing, finding) == ([], "")
