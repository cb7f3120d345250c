"""Where the files of a data set in COCO's format lie."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from retina.datasets.file_listing import list_files
from retina.datasets.folder import SPLIT_NAMES
from retina.datasets.formats.image_folders import IMAGE_FOLDERS, folder_of_images
from retina.datasets.formats.json_kinds import json_kind
from retina.errors import UserError
from retina.text_files import read_beginning

_USUAL_NAMES = ("annotations.json", "_annotations.coco.json")
_MOST_FILES = 20
"""A folder with more JSON files has one for each image, and is not asked for its kind."""

_ANNOTATION_FOLDERS = ("annotations", "Annotations")
_LOOKED_AT = 2**20
_SPLIT = re.compile(
    rf"(?<![a-z])({'|'.join(name for names in SPLIT_NAMES.values() for name in names)})"
    r"(?:-?dev)?[-_]?\d*(?![a-z\d])"
)
_FILE_NAME = re.compile(r'"(?:file_name|coco_url)"\s*:\s*("(?:[^"\\]|\\.)*")')


def coco_files(folder: Path) -> list[Path]:
    """The annotation files in a folder, one of a usual name alone."""
    usual = [folder / name for name in _USUAL_NAMES]
    found = [file for file in usual if file.is_file() and json_kind(file) in ("coco", "")]
    if found:
        return found[:1]
    files = list_files(folder, [".json"], deep=False).files
    if len(files) > _MOST_FILES:
        return []
    return [file for file in files if json_kind(file) == "coco"]


def coco_split_files(folder: Path) -> dict[str, Path]:
    """The annotation files of splits by their names, such as ``instances_val2017.json``.

    They lie in a folder, or in ``annotations/`` there. COCO's own captions and key points have no
    boxes of all objects, and stand behind its instances.

    Raises:
        UserError: a split has several.
    """
    for place in (folder, *(folder / name for name in _ANNOTATION_FOLDERS)):
        files: dict[str, list[Path]] = {}
        for file in coco_files(place):
            for split in _splits_named_in(file):
                files.setdefault(split, []).append(file)
        if files:
            return {split: _only(split, files[split]) for split in SPLIT_NAMES if split in files}
    return {}


def coco_file(folder: Path) -> Path | None:
    """The only annotation file in a folder, or in ``annotations/`` there; None where none is."""
    for place in (folder, *(folder / name for name in _ANNOTATION_FOLDERS)):
        files = coco_files(place)
        if files:
            return files[0] if len(files) == 1 else None
    return None


def coco_images(file: Path) -> Path | None:
    """The folder that holds the images of an annotation file.

    Of the usual ones it is that with most of the first images that the file names.
    """
    told = _FILE_NAME.findall(read_beginning(file, _LOOKED_AT))
    names = [str(json.loads(name, strict=False)) for name in told]
    folders = list(_image_folders(file))
    found = folder_of_images(folders, names)
    return found or next((one for one in folders[:-1] if one.is_dir()), None)


def _splits_named_in(file: Path) -> set[str]:
    named = set(_SPLIT.findall(file.stem.lower()))
    return {split for split, names in SPLIT_NAMES.items() if named.intersection(names)}


def _only(split: str, files: list[Path]) -> Path:
    instances = [file for file in files if file.name.startswith("instances")]
    left = instances or files
    if len(left) > 1:
        raise UserError(
            f"{left[0].parent}: holds several annotation files of {split}: "
            f"{', '.join(file.name for file in left)}; name the one that is meant"
        )
    return left[0]


def _image_folders(file: Path) -> Iterator[Path]:
    """Where the images may be, the likeliest first; the folder of the file last."""
    split_name = _SPLIT.search(file.stem.lower())
    called = [] if split_name is None else [file.stem[slice(*split_name.span())], split_name[0]]
    for split in _splits_named_in(file):
        called += SPLIT_NAMES[split]
    above = [file.parent]
    if file.parent.name in _ANNOTATION_FOLDERS:
        above.append(file.parent.parent)
    for folder in above:
        for images in IMAGE_FOLDERS:
            yield from (folder / images / name for name in called)
        yield from (folder / name for name in called)
        yield from (folder / images for images in IMAGE_FOLDERS)
    yield from reversed(above)
