"""What may stand where a detector is asked for: a file, or the name of a published one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from retina.errors import did_you_mean, path_given

PublishedName = Literal["coco_v1", "coco_v2"]
"""torchvision's RetinaNets with a ResNet-50, trained on COCO: its first and its second version."""

PUBLISHED: tuple[PublishedName, ...] = get_args(PublishedName)

DetectorSource = Path | PublishedName
"""Where a detector comes from: a path is a file always, a text the name of a published one."""


def detector_given(given: object, argument: str) -> DetectorSource:
    """What was given for a detector.

    A text that is exactly a published name means that one, whatever lies in the folder: a file of
    that name is ``./coco_v2``, or a `Path`.

    Args:
        given: a text or a path.
        argument: how the caller calls it, for the message.

    Raises:
        UserError: it is neither.
    """
    for name in PUBLISHED:
        if isinstance(given, str) and given == name:
            return name
    return path_given(given, argument)


def as_text(source: DetectorSource) -> str:
    """The text that `detector_given` reads as this source."""
    text = str(source)
    return f"./{text}" if isinstance(source, Path) and text in PUBLISHED else text


def names_hint(missing: Path) -> str:
    """What to say of a file that is not there and may be a misspelt name; empty for other paths."""
    if missing.suffix or missing.name != str(missing):
        return ""
    near = did_you_mean(missing.name.lower(), PUBLISHED)
    return f", and no published detector of that name{near} (published: {', '.join(PUBLISHED)})"
