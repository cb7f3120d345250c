"""Where the images and the label files of YOLO's format lie."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from retina.datasets.file_listing import IMAGE_SUFFIXES, list_files
from retina.datasets.file_names import in_lower_case
from retina.datasets.folder import SPLIT_NAMES
from retina.datasets.formats.image_finding import FolderListings
from retina.datasets.formats.yolo_labels import read_row
from retina.errors import UserError
from retina.text_files import read_text
from retina.wording import counted

_NO_LABELS = frozenset({"classes.txt", "predefined_classes.txt", "labels.txt", "notes.txt"})
"""Text files among the labels that are none: those, and what begins with ``readme``."""


def labels_of(image: Path) -> Path:
    """The label file of an image: in ``labels/`` in the place of the last ``images/``."""
    parts = list(image.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at].lower() in ("images", "jpegimages"):
            parts[at] = "Labels" if parts[at] == "Images" else "labels"
            break
    return Path(*parts).with_suffix(".txt")


def folders_of_splits(folder: Path) -> dict[str, tuple[Path, Path]]:
    """The folders of images and of labels of every split below ``images/`` and ``labels/``."""
    found: dict[str, tuple[Path, Path]] = {}
    for split, names in SPLIT_NAMES.items():
        for name in names:
            images, labels = folder / "images" / name, folder / "labels" / name
            if images.is_dir() and holds_labels(labels):
                found.setdefault(split, (images, labels))
    return found


def holds_labels(folder: Path) -> bool:
    """Whether a folder called ``labels`` is YOLO's: other formats keep JSON or XML files there."""
    if not folder.is_dir():
        return False
    return not list_files(folder, (".json", ".xml")).files


def images_beside(folder: Path) -> bool:
    """Whether a folder holds images with label files beside them."""
    if not folder.is_dir():
        return False
    files = list_files(folder, (*IMAGE_SUFFIXES, ".txt"), deep=False).files
    stems = {file.stem for file in files if file.suffix.lower() != ".txt"}
    texts = [file for file in files if file.suffix.lower() == ".txt" and file.stem in stems]
    return bool(texts) and all(map(_may_be_labels, texts[:20]))


def _may_be_labels(file: Path) -> bool:
    try:
        lines = read_text(file, "label file").split("\n")
        for line in filter(str.strip, lines[:20]):
            read_row(line, has_keypoints=True)
    except (UserError, ValueError):
        return False
    return True


class LabelFiles:
    """Finds the label files of images.

    Args:
        images: their folder.
        labels: the folder of the label files, in the same subfolders or in none; None looks for
            them where `labels_of` says.
    """

    def __init__(self, images: Path, labels: Path | None) -> None:
        self._images = images
        self._labels = labels
        self._listings = FolderListings()
        self._alike: dict[Path, dict[str, list[str]]] = {}
        self._folders_of = cache(self._folders)
        self._mirrors: dict[Path, Path] = {}
        self._names_of: dict[Path, frozenset[str]] = {}
        self._without: list[Path] = []
        self._respelled: list[tuple[Path, Path]] = []

    def of(self, image: Path) -> Path | None:
        """The label file of an image; None where there is none."""
        for folder, is_mirror in self._folders_of(image.parent):
            found = self._in(folder, image)
            if found is not None:
                if is_mirror:
                    self._mirrors[folder] = image.parent
                return found
        self._without.append(image)
        return None

    @property
    def any_folder(self) -> bool:
        """Whether there is a folder of labels, at least for one of the images without any."""
        return any(
            folder.is_dir() and folder.absolute() != image.parent.absolute()
            for image in self._without[:1]
            for folder, _ in self._folders_of(image.parent)
        )

    def _folders(self, folder: Path) -> list[tuple[Path, bool]]:
        """Where the labels of a folder of images may lie, and whether only these lie there."""
        if self._labels is None:
            return [(labels_of(folder.absolute() / "image").parent, True), (folder, True)]
        below = self._labels / folder.relative_to(self._images)
        return [(below, True), *([(self._labels, False)] if below != self._labels else [])]

    def _in(self, folder: Path, image: Path) -> Path | None:
        listed = self._listings.names_in(folder)
        for name in (f"{image.stem}.txt", f"{image.name}.txt"):
            if name in listed:
                return folder / name
        if folder not in self._alike:
            self._alike[folder] = {}
            for name in listed:
                self._alike[folder].setdefault(in_lower_case(name), []).append(name)
        alike = self._alike[folder].get(in_lower_case(f"{image.stem}.txt"), [])
        if len(alike) != 1 or alike[0].rpartition(".")[0] in self._stems(image.parent):
            return None  # of two that it could be, or that of another image
        self._respelled.append((image, folder / alike[0]))
        return folder / alike[0]

    def _stems(self, folder: Path) -> frozenset[str]:
        """The names of the images in a folder, without and with their suffixes."""
        if folder not in self._names_of:
            names = [n for n in self._listings.names_in(folder) if not n.lower().endswith(".txt")]
            stems = {name.rpartition(".")[0] for name in names}
            self._names_of[folder] = frozenset({*names, *stems})
        return self._names_of[folder]

    def _has_image(self, label: str, folder: Path) -> bool:
        stem = label.rpartition(".")[0]
        respelled = any(file.name == label for _, file in self._respelled)
        return respelled or stem in self._stems(folder)

    def findings(self, num_images: int) -> Iterator[str]:
        """What is odd about where the label files lie, one sentence each."""
        if self._without:
            yield (
                f"{len(self._without)} of {num_images} images without a label file: taken as "
                f"without objects (the first: {self._without[0]})"
            )
        if self._respelled:
            image, label = self._respelled[0]
            yield (
                f"{counted(len(self._respelled), 'label file')} found under another "
                f"spelling (the first: {label} of {image.name})"
            )
        orphans = sorted(
            folder / name
            for folder, images in self._mirrors.items()
            for name in self._listings.names_in(folder)
            if _is_label(name) and not self._has_image(name, images)
        )
        if orphans:
            belongs = "label file belongs" if len(orphans) == 1 else "label files belong"
            yield f"{len(orphans)} {belongs} to no image: passed over (the first: {orphans[0]})"


def _is_label(name: str) -> bool:
    plain = name.lower()
    is_other = plain in _NO_LABELS or plain.startswith(("readme", "."))
    return plain.endswith(".txt") and not is_other
