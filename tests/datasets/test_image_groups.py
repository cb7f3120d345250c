"""What image names say about belonging together, and what they do not."""

from __future__ import annotations

import pytest

from retina.datasets.image_groups import groups_by_name, groups_by_pattern
from retina.errors import UserError

HASH = "0b47311f426ff926578c9d738d683e76"


def numbered(pattern: str, count: int = 4) -> list[str]:
    return [pattern.format(number) for number in range(count)]


@pytest.mark.parametrize(
    "pattern",
    [
        "video{}/0001.png",
        "BloodImage_{:05}.jpg",
        "raccoon-{}.jpg",
        "cat_{:03}.jpg",
        "IMG_{}.JPG",
        "{:012}.jpg",
        "deframed{}.jpg",
    ],
)
def test_a_running_number_alone_says_nothing(pattern: str) -> None:
    names = numbered(pattern)
    assert groups_by_name(names) == (names, "")


@pytest.mark.parametrize(
    "pattern",
    [
        "drive_2.mp4-{:05}.jpg",
        "video3/frame_{:04}.png",
        "clip7_frame{}.jpg",
        "sequence01_{:06}.png",
        "drive_mp4-{}_jpg.rf." + HASH + ".jpg",
        "My Video 3 {:03}.jpeg",
    ],
)
def test_frames_of_a_video(pattern: str) -> None:
    groups, told = groups_by_name([*numbered(pattern), "other.jpg"])
    assert len(set(groups[:4])) == 1
    assert groups[4] not in groups[:4]
    assert told == "4 images are frames of 1 video by their names: kept together"


def test_copies_of_a_photo() -> None:
    names = [f"a_jpg.rf.{HASH[n:]}{HASH[:n]}.jpg" for n in range(3)] + ["a.jpg", "a.png"]
    groups, told = groups_by_name(names)
    assert len(set(groups)) == 3
    assert told == "2 images are further copies (.rf.) by their names: kept together"


def test_a_pattern_of_ones_own() -> None:
    names = ["x/p1_a.jpg", "x/p1_b.jpg", "y/p2_a.jpg", "z.jpg"]
    groups, told = groups_by_pattern(names, r"(p\d)_")
    assert groups[0] == groups[1] != groups[2]
    assert len(set(groups)) == 3
    assert told == "3 images in 2 groups by --group-by: kept together"
    with pytest.raises(UserError, match=r"is no regular expression"):
        groups_by_pattern(names, "(")
    with pytest.raises(UserError, match=r"matches no name, such as 'x/p1_a.jpg'"):
        groups_by_pattern(names, "q")
