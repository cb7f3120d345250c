"""Images that belong together, as their names say: frames of a video, copies of one photo."""

from __future__ import annotations

import re
from collections.abc import Sequence

from retina.errors import UserError
from retina.wording import counted

_COPY = re.compile(r"(.+)\.rf\.[0-9a-zA-Z]{16,}")
"""Roboflow's names of the augmented copies of an image."""

_FRAME = re.compile(r"(.*?)[-_. ]?(?:(?:frame|frm|img|image|f)[-_. ]?)?(\d+)", re.IGNORECASE)
_OF_VIDEO = re.compile(
    r"(?<![a-z])(?:frames?|frm|videos?|vid|clips?|seq|sequence|(?:mp4|mov|avi|mkv|webm|m4v))(?![a-z])",
    re.IGNORECASE,
)
"""A running number alone says nothing: most sets are numbered."""

_FEWEST_FRAMES = 3


def groups_by_name(names: Sequence[str]) -> tuple[list[str], str]:
    """What each image belongs to, and a sentence on it, or nothing.

    Names of the same group are frames of one video (``drive_2.mp4-00017.jpg``,
    ``video3/frame_0007.png``), or copies of one photo as Roboflow augments it. An image that
    belongs to nothing else has a group of its own.

    Args:
        names: paths of the image files, with their folders.
    """
    originals = [copy[1] if (copy := _COPY.fullmatch(_stem(name))) else name for name in names]
    videos = [_video(original) for original in originals]
    frames: dict[str, int] = {}
    for video in videos:
        frames[video] = frames.get(video, 0) + 1
    groups = [
        video if video and frames[video] >= _FEWEST_FRAMES else original
        for video, original in zip(videos, originals, strict=True)
    ]
    kept = [number for video, number in frames.items() if video and number >= _FEWEST_FRAMES]
    num_copies = len(originals) - len(set(originals))
    told = [f"{sum(kept)} images are frames of {counted(len(kept), 'video')}"] if kept else []
    told += [f"{counted(num_copies, 'image')} are further copies (.rf.)"] if num_copies else []
    return groups, " and ".join(told) + " by their names: kept together" if told else ""


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _video(name: str) -> str:
    """What a name says before the number of a frame; empty where it is no frame's."""
    # Roboflow writes the suffix of what was uploaded before its own: drive_mp4-17_jpg.
    frame = _FRAME.fullmatch(re.sub(r"[_.](?:\w{1,5})$", "", name, flags=re.IGNORECASE))
    return frame[1] if frame and _OF_VIDEO.search(name) else ""


def groups_by_pattern(names: Sequence[str], pattern: str) -> tuple[list[str], str]:
    """What each image belongs to by a regular expression, and a sentence on it.

    The group is what the first parenthesis matches somewhere in the path, or the whole pattern
    where there is none. An image that it does not match has a group of its own.

    Raises:
        UserError: it is no regular expression, or matches no name.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--group-by: {pattern!r} is no regular expression: {error}") from None
    matches = [compiled.search(name) for name in names]
    keys = [match[1 if compiled.groups else 0] if match else None for match in matches]
    found = {key for key in keys if key is not None}
    if not found:
        raise UserError(f"--group-by: {pattern!r} matches no name, such as '{names[0]}'")
    groups = [name if key is None else f"\0{key}" for name, key in zip(names, keys, strict=True)]
    num_matched = len(names) - keys.count(None)
    told = f"{counted(num_matched, 'image')} in {counted(len(found), 'group')} by --group-by"
    return groups, f"{told}: kept together"
