"""Formats with an annotation file for each image."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from retina.datasets.file_listing import list_files
from retina.datasets.folder import FolderConfig, folders_of_splits
from retina.datasets.formats.image_folders import IMAGE_FOLDERS, holds_images

_ANNOTATION_FOLDERS = (
    *("Annotations", "annotations", "labels", "xmls", "xml", "jsons", "json", "ann", "labelme"),
)
"""What folders of such files are called; the first wins."""

_MOST_LOOKED_AT = 5


class FilePerImageConfig(FolderConfig):
    """A folder of such files, called as is usual, beside one of images; or one folder of both."""

    suffix: ClassVar[str]
    """Of the annotation files, in lower case."""

    @classmethod
    @abstractmethod
    def describes_an_image(cls, file: Path) -> bool:
        """Whether a file of the suffix is in this format, by its beginning."""

    @classmethod
    def recognises(cls, annotations: Path) -> bool:
        """Whether it is a file of this format, or a folder that holds some."""
        return cls.lies_in(annotations) if annotations.is_dir() else cls._is_one(annotations)

    @classmethod
    def lies_in(cls, folder: Path) -> bool:
        """Whether one of the first files of a folder is in this format."""
        files = list_files(folder, [cls.suffix], deep=False).files
        return any(map(cls._is_one, files[:_MOST_LOOKED_AT]))

    @classmethod
    def _is_one(cls, file: Path) -> bool:
        return file.suffix.lower() == cls.suffix and cls.describes_an_image(file)

    @classmethod
    def find_in(cls, folder: Path) -> Self | None:
        """Two folders beside each other, or images and annotations in one."""
        names = (*_ANNOTATION_FOLDERS, ".", *IMAGE_FOLDERS)
        return next(filter(None, (cls._of(folder / name) for name in names)), None)

    @classmethod
    def splits_in(cls, folder: Path) -> dict[str, Self]:
        """The splits of `FolderConfig`, or folders of each within those of the two kinds."""
        found = super().splits_in(folder)
        if found or cls.find_in(folder) is not None:
            return found
        for kind in (*_ANNOTATION_FOLDERS, *IMAGE_FOLDERS):
            for split, inside in folders_of_splits(folder / kind):
                part = cls._of(inside)
                if part is not None:
                    found.setdefault(split, part)
        return found

    @classmethod
    def images_of(cls, annotations: Path) -> Path | None:
        """Where images lie: the same folder, or one beside it, split for split where it has any."""
        folder = annotations if annotations.is_dir() else annotations.parent
        if holds_images(folder):
            return folder
        above, inner = folder.parent, ""
        if above.name in _ANNOTATION_FOLDERS:
            above, inner = above.parent, folder.name
        elif folder.name not in _ANNOTATION_FOLDERS:
            above = folder
        beside = (above / name / inner for name in IMAGE_FOLDERS)
        found = next(filter(Path.is_dir, beside), None)
        return above if found is None and holds_images(above) else found

    @classmethod
    def _of(cls, annotations: Path) -> Self | None:
        images = cls.images_of(annotations) if cls.lies_in(annotations) else None
        return None if images is None else cls(images=images, annotations=annotations)
