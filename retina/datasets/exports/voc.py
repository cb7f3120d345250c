"""Any data set written in Pascal VOC's format."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np

from retina.datasets.exports.exported_images import (
    OnImage,
    Splits,
    flat_names,
    joined_truths,
    place_images,
    require_images,
    start_folder,
)
from retina.storage import make_folder, write_text
from retina.structures import GroundTruth, Size
from retina.wording import counted

_LISTS = {"train": "train", "validation": "val", "test": "test"}


def write_voc(splits: Splits, folder: Path, on_image: OnImage) -> tuple[str, ...]:
    """Write data sets as ``JPEGImages/``, ``Annotations/``, and ``ImageSets/Main/`` for splits.

    Boxes are as annotated, and coordinates are written as they are, also fractions of a pixel;
    crowd regions are marked as difficult.

    Args:
        splits: to be written.
        folder: into which.
        on_image: called with 1 after every image.

    Returns:
        What the format cannot hold, one sentence each.
    """
    require_images(splits)
    start_folder(folder, ("JPEGImages", "Annotations", "ImageSets"))
    categories, truths = joined_truths(splits)
    names = flat_names(splits)
    make_folder(folder / "Annotations")
    for split, dataset in splits.items():
        place_images(dataset, names[split], folder / "JPEGImages", on_image)
        _write_annotations(truths[split], names[split], folder / "Annotations")
    for split in filter(None, splits):
        stems = "".join(f"{PurePosixPath(name).stem}\n" for name in names[split])
        write_text(folder / "ImageSets" / "Main" / f"{_LISTS[split]}.txt", stems)
    labels = np.concatenate([truth.category_labels for truth in truths.values()])
    unused = sorted({*range(len(categories))} - {*labels.tolist()})
    if not unused:
        return ()
    listed = ", ".join(categories.names[label] for label in unused)
    classes = counted(len(unused), "class")
    return (f"{classes} without a box left out, since VOC has no list of classes: {listed}",)


def _write_annotations(truth: GroundTruth, names: list[str], folder: Path) -> None:
    order = np.argsort(truth.image_indices, kind="stable")
    starts = np.searchsorted(truth.image_indices[order], np.arange(len(names) + 1))
    for index, name in enumerate(names):
        rows = order[starts[index] : starts[index + 1]]
        height, width = truth.image_sizes[index].tolist()
        root = _head(name, (height, width))
        for row in rows.tolist():
            _add_object(root, truth, row)
        ElementTree.indent(root)
        text = ElementTree.tostring(root, encoding="unicode")
        path = folder / f"{PurePosixPath(name).stem}.xml"
        path.write_text(f"{text}\n", encoding="utf-8")


def _head(name: str, size: Size) -> ElementTree.Element:
    root = ElementTree.Element("annotation")
    _add(root, "folder", "JPEGImages")
    _add(root, "filename", name)
    told = ElementTree.SubElement(root, "size")
    for side, pixels in (("width", size[1]), ("height", size[0]), ("depth", 3)):
        _add(told, side, str(pixels))
    _add(root, "segmented", "0")
    return root


def _add_object(root: ElementTree.Element, truth: GroundTruth, row: int) -> None:
    one = ElementTree.SubElement(root, "object")
    _add(one, "name", truth.categories.names[int(truth.category_labels[row])])
    _add(one, "pose", "Unspecified")
    _add(one, "truncated", "0")
    _add(one, "difficult", str(int(truth.is_crowd[row])))
    x, y, width, height = truth.boxes_xywh[row].tolist()
    box = ElementTree.SubElement(one, "bndbox")
    corners = (("xmin", x), ("ymin", y), ("xmax", x + width), ("ymax", y + height))
    for side, value in corners:
        _add(box, side, str(int(value)) if value.is_integer() else repr(value))


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text
