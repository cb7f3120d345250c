"""Data sets in COCO's format: a folder of images and one JSON file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import ClassVar, Literal, Self

from retina.datasets.annotations import AnnotationTable, complete_areas
from retina.datasets.categories import choose_categories
from retina.datasets.dataset_config import RefusalCause
from retina.datasets.folder import FolderConfig
from retina.datasets.formats.coco_file import read_coco_file
from retina.datasets.formats.coco_layout import coco_file, coco_images, coco_split_files
from retina.datasets.formats.json_kinds import json_kind
from retina.structures import GroundTruth
from retina.text_files import read_json


class CocoConfig(FolderConfig):
    """A data set in COCO's format."""

    kind: Literal["coco"] = "coco"
    """A folder of images and one JSON file; the kind that is meant if none is said."""

    title: ClassVar[str] = "COCO"
    layout: ClassVar[str] = "annotations.json with images/"

    @property
    def has_category_ids(self) -> bool:
        """True: ``categories`` gives them."""
        return True

    @classmethod
    def recognises(cls, annotations: Path) -> bool:
        """Whether it is a JSON file that begins with COCO's keys."""
        return annotations.is_file() and json_kind(annotations) == "coco"

    @classmethod
    def find_in(cls, folder: Path) -> Self | None:
        """``annotations.json``, or the only JSON file that is COCO's, with its images."""
        file = coco_file(folder)
        images = None if file is None else cls.images_of(file)
        return None if file is None or images is None else cls(images=images, annotations=file)

    @classmethod
    def splits_in(cls, folder: Path) -> dict[str, Self]:
        """Subfolders with a file each, or files that are called as the splits are."""
        found = super().splits_in(folder)
        if found or cls.find_in(folder) is not None:
            return found
        placed = {
            split: (file, cls.images_of(file)) for split, file in coco_split_files(folder).items()
        }
        return {
            split: cls(images=images, annotations=file)
            for split, (file, images) in placed.items()
            if images is not None
        }

    @classmethod
    def images_of(cls, annotations: Path) -> Path | None:
        """The folder that holds the images that the file names: see `coco_images`."""
        return coco_images(annotations)

    def read(self) -> AnnotationTable:
        """The content of the JSON file: see `read_coco_file`."""
        return read_coco_file(self.annotations, self.images, keep_root=False)

    def cause_of_refusal(self, split: str) -> RefusalCause | None:
        """Whether the ids of the annotations are those of the categories, moved by one."""
        path = self.annotations
        try:
            tree = read_json(path, "annotation file")
            listed = {entry["id"] for entry in tree["categories"]}
            used = Counter(entry["category_id"] for entry in tree["annotations"])
        except (ValueError, KeyError, TypeError):
            return None  # another fault, which the error itself names
        unknown = sorted(used.keys() - listed)
        shift = next((s for s in (-1, 1) if all(number + s in listed for number in used)), None)
        if not unknown or shift is None:
            return None
        num_unknown = sum(used[number] for number in unknown)
        shown = ", ".join(map(str, unknown[:5]))
        shown += f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        return RefusalCause(
            code="category_ids_off_by_one",
            what=f"{path}: the category ids of the annotations are off by one: they run from "
            f"{min(used)} to {max(used)}, 'categories' lists {min(listed)} to {max(listed)}; "
            f"{num_unknown} annotation{' uses' if num_unknown == 1 else 's use'} the unlisted id "
            f"{shown}",
            why=f"Every {split} object would be taught under its neighbour's name.",
            fix=f"Add {shift:+d} to every category_id of the file (or number 'categories' alike).",
            numbers={"shift": -shift, "unknown_annotations": num_unknown},
        )


def read_coco_annotations(annotations: Path | str) -> AnnotationTable:
    """A COCO annotation file as it is scored against, without its images.

    Sizes that the file does not give are ``(0, 0)``; the labels follow the ascending category ids.

    Raises:
        UserError: the file cannot be used; the message says where and why.
    """
    table = read_coco_file(Path(annotations))
    return complete_areas(choose_categories(table, classes=None, unused="keep"))


def read_coco_ground_truth(annotations: Path | str) -> GroundTruth:
    """The ground truth of a COCO annotation file: see `read_coco_annotations`."""
    return read_coco_annotations(annotations).ground_truth()
