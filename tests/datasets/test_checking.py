"""`retina data check`: every image opened, all broken ones listed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retina.datasets.checking import CheckFinding, check_dataset
from tests.reading import read_coco  # type: ignore[import-not-found]

CocoWriter = Callable[..., tuple[Path, Path]]


def many(tree: dict[str, Any]) -> None:
    tree["images"] = [
        {"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 60} for i in range(50)
    ]
    tree["annotations"] = []


def test_every_broken_image_is_listed_in_order(write_coco: CocoWriter) -> None:
    folder, path = write_coco(many)
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    tags = Image.Exif()
    for index in range(50):
        tags[0x0112] = 6 if index == 49 else 1
        Image.fromarray(noise).save(folder / f"{index}.jpg", exif=tags)
    (folder / "3.jpg").unlink()
    data = (folder / "17.jpg").read_bytes()
    (folder / "17.jpg").write_bytes(data[: len(data) // 2])
    (folder / "30.jpg").write_bytes(b"")
    Image.fromarray(noise[:20]).save(folder / "44.jpg")
    progress: list[int] = []
    check = check_dataset(read_coco(folder, path, check_images=False), on_progress=progress.append)
    assert [message.split(": ")[0] for message in check.broken_images.values()] == [
        str(folder / f"{index}.jpg") for index in (3, 17, 30, 44)
    ]
    messages = list(check.broken_images.values())
    assert "no such image file" in messages[0]
    assert "breaks off" in messages[1]
    assert "empty (0 bytes)" in messages[2]
    assert "is 20×60 pixels" in messages[3]
    assert sum(progress) == 50
    assert check.findings == (
        *[CheckFinding(text) for text in check.report.findings],
        CheckFinding(
            "1 of 50 images checked have an EXIF orientation that is not applied, since the "
            "annotated size is that of the unturned image",
            images=(49,),
        ),
    )


def test_a_good_set_is_usable_and_rare_classes_are_named(write_coco: CocoWriter) -> None:
    check = check_dataset(read_coco(*write_coco()))
    assert not check.broken_images
    assert check.report.num_boxes == 3
    text = "2 classes have fewer than 10 boxes: cat (2), dog (1)"
    assert check.findings == (CheckFinding(text, annotations=(0, 1, 2)),)


def test_findings_know_their_boxes_and_images(write_coco: CocoWriter) -> None:
    def change(tree: dict[str, Any]) -> None:
        tree["annotations"][1]["bbox"] = [50, 30, 20, 20]
        tree["images"].append({"id": 9, "file_name": "./b.png"})

    found = {one.text: one for one in check_dataset(read_coco(*write_coco(change))).findings}
    clipped = next(one for text, one in found.items() if "reaching out" in text)
    assert (clipped.images, clipped.annotations) == ((), (1,))
    merged = next(one for text, one in found.items() if "is listed before" in text)
    assert (merged.images, merged.annotations) == ((1,), ())
