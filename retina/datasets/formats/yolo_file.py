"""What describes a data set in YOLO's format: ``data.yaml``, Darknet's ``obj.data``, lists.

The paths in these files are those of the machine that wrote them, and often wrong by a folder:
they are looked for relative to what the file says, then beside it, then by their last folders.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from retina.configuration import parse_yaml
from retina.configuration.yaml_text import MAX_CHARACTERS
from retina.datasets.annotations import text_fault
from retina.datasets.file_listing import IMAGE_SUFFIXES, list_files
from retina.datasets.folder import SPLIT_NAMES
from retina.datasets.formats.image_finding import FolderListings, path_parts
from retina.errors import UserError, all_problems
from retina.text_files import read_text

MOST_CLASSES = 100_000
"""An id above it is taken for a mistake, instead of making a name for every number below."""

_YAML_KEY = re.compile(rb"^(\w+)\s*:", re.MULTILINE)
_EXPERIMENT_KEYS = frozenset({"model", "training", "preset"})
_NAME_FILES = ("obj.names", "classes.names", "_darknet.labels", "classes.txt")
_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


@dataclass(frozen=True, slots=True)
class YoloFile:
    """What a describing file says.

    Attributes:
        path: the file.
        names: of the classes by their ids; None where nothing gives them.
        splits: by the names of `SPLIT_NAMES`, the folders and lists of their images as written.
        root: what the paths are relative to, as written; empty for the folder of the file.
        has_keypoints: whether keypoints stand behind the boxes.
        findings: what is odd in it, one sentence each.
    """

    path: Path
    names: Mapping[int, str] | None
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    root: str = ""
    has_keypoints: bool = False
    findings: tuple[str, ...] = ()


def is_yolo_yaml(path: Path) -> bool:
    """Whether a file is a YAML file that describes a data set in YOLO's format."""
    if path.suffix.lower() not in (".yaml", ".yml"):
        return False
    try:
        tree = parse_yaml(read_text(path, "YAML file"), str(path))
    except UserError:  # a damaged one is known by its keys: what is wrong is said when it is read
        return _looks_like_yolo(path)
    return (
        isinstance(tree, dict)
        and bool({"names", "nc"} & tree.keys() - _EXPERIMENT_KEYS)
        and (not _EXPERIMENT_KEYS & tree.keys())
    )


def _looks_like_yolo(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            keys = set(_YAML_KEY.findall(file.read(MAX_CHARACTERS)))
    except OSError:
        return False
    return bool({b"names", b"nc"} & keys) and not {key.encode() for key in _EXPERIMENT_KEYS} & keys


def is_darknet_data(path: Path) -> bool:
    """Whether a file is Darknet's description of a data set, such as ``obj.data``."""
    return path.suffix.lower() == ".data" and bool({"names", "train"} & _assignments(path).keys())


def is_image_list(path: Path) -> bool:
    """Whether a file lists the paths of images."""
    if path.suffix.lower() != ".txt":
        return False
    try:
        lines = read_text(path, "list of images").splitlines()
    except UserError:
        return False
    first = next((line.strip() for line in lines if line.strip()), "")
    return first.lower().endswith(IMAGE_SUFFIXES)


def description_in(folder: Path) -> Path | None:
    """The file in a folder that describes a data set in YOLO's format, or None."""
    files = _files_in(folder, (".yaml", ".yml", ".data"))
    usual = [file for file in files if file.name in _YAML_NAMES]
    rest = [file for file in files if file not in usual]
    is_one = (file for file in (*usual, *rest) if is_yolo_yaml(file) or is_darknet_data(file))
    return next(is_one, None)


def _files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    names = FolderListings().names_in(folder)
    return [folder / name for name in sorted(names) if name.lower().endswith(suffixes)]


def names_in(folder: Path) -> YoloFile | None:
    """What a folder says of the classes, or None."""
    described = description_in(folder)
    if described is not None:
        return read_yolo_file(described)
    files = [*(folder / name for name in _NAME_FILES), *_files_in(folder, (".names",))]
    listed = next((file for file in files if file.is_file()), None)
    return None if listed is None else YoloFile(listed, _names_listed_in(listed))


def read_yolo_file(path: Path) -> YoloFile:
    """The content of ``data.yaml`` or ``obj.data``.

    Raises:
        UserError: the file is missing or damaged, or the names of the classes make no sense.
    """
    if path.suffix.lower() in (".yaml", ".yml"):
        tree = parse_yaml(read_text(path, "data.yaml"), str(path))
    else:
        tree = _assignments(path)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: is no description of a data set: it has no 'names'")
    problems: list[str] = []
    names, finding = _names(tree, path, problems)
    splits = {}
    for split, keys in SPLIT_NAMES.items():
        written = next((tree[key] for key in keys if tree.get(key)), None)
        entries = written if isinstance(written, list) else [] if written is None else [written]
        if not all(isinstance(entry, str) for entry in entries):
            problems.append(f"{split}: must be a path or a list of paths, is {str(written)[:60]}")
        elif entries:
            splits[split] = tuple(entries)
    if problems:
        raise UserError(all_problems(str(path), problems))
    root = tree.get("path")
    return YoloFile(
        path=path,
        names=names,
        splits=splits,
        root=root if isinstance(root, str) else "",
        has_keypoints=bool(tree.get("kpt_shape")),
        findings=(finding,) if finding else (),
    )


def _assignments(path: Path) -> dict[str, str]:
    """The lines ``key = value`` of Darknet's files."""
    try:
        lines = read_text(path, "description of a data set").splitlines()
    except UserError:
        return {}
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith("#"))
    found = {key.strip(): value.strip() for key, equals, value in pairs if equals}
    return {"nc" if key == "classes" else key: value for key, value in found.items()}


def _names(
    tree: Mapping[str, Any], path: Path, problems: list[str]
) -> tuple[dict[int, str] | None, str]:
    """The names by id, None where none are given; and a finding or nothing."""
    count = _count_of_classes(tree.get("nc"), problems)
    written = tree.get("names")
    if isinstance(written, str):
        found = resolve(written, path.parent, str(tree.get("path") or ""))
        if found is None:
            problems.append(f"names: '{written}' must be a list, or a file that holds one")
            return None, ""
        written = list(_names_listed_in(found).values())
    if not written:
        return None if count is None else {at: f"class {at}" for at in range(count)}, ""
    if not isinstance(written, dict | list):
        problems.append(f"names: must be a list or a mapping from id to name, is {written!r}")
        return None, ""
    pairs = list(written.items() if isinstance(written, dict) else enumerate(written))
    names = {}
    for key, value in sorted(pairs, key=lambda pair: str(pair[0])):
        class_id = _id_of(key)
        if class_id is None or isinstance(value, dict | list) or value is None:
            problems.append(f"names: '{key}: {str(value)[:60]}' is not a class id and its name")
        elif fault := text_fault(str(value)):
            problems.append(f"names: {fault}")
        else:
            names[class_id] = str(value)
    names = dict(sorted(names.items()))
    if count is not None and count != len(names) and not problems:
        return names, f"nc is {count}, but there are {len(names)} names: the names count"
    return names, ""


def _id_of(key: object) -> int | None:
    try:
        number = int(str(key))
    except ValueError:
        return None
    return number if 0 <= number <= MOST_CLASSES else None


def _count_of_classes(value: object, problems: list[str]) -> int | None:
    if value is None:
        return None
    count = _id_of(value)
    if not count:
        problems.append(f"nc: must be the number of classes, is {str(value)[:60]!r}")
    return count


def _names_listed_in(path: Path) -> dict[int, str]:
    """The names that a file lists, one a line, by their ids."""
    lines = [line.strip() for line in read_text(path, "list of class names").splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    faults = [f"line {at}: {fault}" for at, line in enumerate(lines, 1) if (fault := _fault(line))]
    if faults:
        raise UserError(all_problems(str(path), faults))
    return dict(enumerate(lines))


def _fault(name: str) -> str:
    return text_fault(name) if name else "is blank; every line holds the name of a class"


def resolve(written: str, folder: Path, root: str = "") -> Path | None:
    """The file or folder that a path in a describing file means; None where there is none.

    Args:
        written: the path.
        folder: of the describing file.
        root: what the file says that its paths are relative to.
    """
    return next((path for path in _candidates(written, folder, root) if _exists(path)), None)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, or a folder that may not be looked into
        return False


def _candidates(written: str, folder: Path, root: str) -> Iterator[Path]:
    bases = [folder / root, folder] if root else [folder]
    for base in bases:
        yield Path(os.path.normpath(base / written.replace("\\", "/")))
    parts = path_parts(written)
    for count in range(len(parts)):
        tail = parts[count:]
        if tail != ["images"] or len(parts) == 1:  # alone it says nothing of which images
            for base in bases:
                yield Path(os.path.normpath(base.joinpath(*tail)))


def images_listed_in(path: Path, folder: Path | None = None, root: str = "") -> list[Path]:
    """The images whose paths a text file holds, one a line, each once.

    Args:
        path: the file; its lines are relative to its folder, or else as other paths are.
        folder: of the describing file, if there is one.
        root: see `resolve`.

    Raises:
        UserError: the file is missing, or lists none.
    """
    listings, found = FolderListings(), {}
    bases = [(path.parent, ""), *([] if folder is None else [(folder, root)])]
    for line in read_text(path, "list of images").splitlines():
        if written := line.strip():
            tried = chain.from_iterable(_candidates(written, *base) for base in bases)
            meant = (candidate for candidate in tried if listings.has(candidate))
            found[next(meant, path.parent.joinpath(*path_parts(written)))] = True
    if not found:
        raise UserError(f"{path}: the data set is empty: the list names no image")
    return list(found)


@dataclass(frozen=True, slots=True)
class SplitImages:
    """The images of a split.

    Attributes:
        files: each once.
        folder: that all of them lie below.
        findings: what was taken in the place of what is written.
    """

    files: tuple[Path, ...]
    folder: Path
    findings: tuple[str, ...] = ()


def images_of_split(described: YoloFile, split: str) -> SplitImages:
    """The images of a split that a describing file names.

    Raises:
        UserError: the file names no such split, or what it names is not there.
    """
    path, folder = described.path, described.path.parent
    if split not in described.splits:
        known = ", ".join(described.splits) or "none"
        raise UserError(f"{path}: names no split '{split}'; it has {known}")
    files: dict[Path, bool] = {}
    folders, findings = [], []
    for written in described.splits[split]:
        found = resolve(written, folder, described.root)
        if found is None:
            root = f" or in '{described.root}'" if described.root else ""
            raise UserError(
                f"{path}: {split}: there is no '{written}' beside the file{root}; correct the path"
            )
        if found != next(_candidates(written, folder, described.root)):
            where = f" below '{described.root}'" if described.root else ""
            findings.append(f"{split}: '{written}' is not there{where}, {found} is taken")
        if found.is_dir():
            listed, below = list(list_files(found, IMAGE_SUFFIXES).files), found
        else:
            listed = images_listed_in(found, folder, described.root)
            below = common_folder([image.parent for image in listed])
        folders.append(below)
        files.update(dict.fromkeys(listed, True))
    if not files:
        entries = ", ".join(described.splits[split])
        raise UserError(f"{path}: the data set is empty: {split} ({entries}) has no image")
    return SplitImages(tuple(files), common_folder(folders), tuple(findings))


def common_folder(folders: Sequence[Path]) -> Path:
    """The folder that all these are or lie in."""
    texts = {str(folder) for folder in folders}
    if len({os.path.isabs(text) for text in texts}) > 1:  # noqa: PTH117
        texts = {os.path.abspath(text) for text in texts}  # noqa: PTH100
    return Path(os.path.commonpath(texts))
