"""What `retina predict` writes: a picture of every image that can have one, and every result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor

from retina.errors import RunError, UserError
from retina.modeling.preprocess import PreprocessConfig
from retina.runtime import Runtime
from retina.structures import Categories, Detections
from tests.prediction.fixed_runtime import predict  # type: ignore[import-not-found]


class WholeImage(Runtime):
    """Finds one object, as large as the image; ends at an image of ``fatal`` pixels' width."""

    categories = Categories.from_names(["thing"])
    preprocess = PreprocessConfig().build()
    thresholds = torch.tensor([0.3]).double()

    def __init__(self, fatal: int = 0) -> None:
        self._fatal = fatal

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        sizes = [(float(image.shape[2]), float(image.shape[1])) for image in images]
        if self._fatal in {width for width, _ in sizes}:
            raise RunError("out of memory")
        return [
            Detections(torch.tensor([[0.0, 0, *size]]), torch.ones(1), torch.zeros(1).long())
            for size in sizes
        ]


def save(path: Path, height: int, width: int) -> Path:
    PIL.Image.new("L", (width, height), 128).save(path)
    return path


def results(folder: Path) -> dict[str, list[float]]:
    rows = json.loads((folder / "detections.json").read_text())
    return {Path(row["file_name"]).name: row["bbox"] for row in rows}


SIZES = {
    (16, 4200): (16, 4200),  # enlarged to 320, JPEG's limit would be passed
    (1, 10_000): (1, 8192),
    (70_000, 1): (8192, 1),
    (2, 1000): (16, 8000),
    (1, 1): (320, 320),
    (4000, 6000): (4000, 6000),  # a photo keeps its size
    (900, 9000): (819, 8192),
}


@pytest.mark.parametrize("size", SIZES)
def test_every_size_of_image_has_its_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    path = save(tmp_path / "a.png", *size)
    run = predict([path], tmp_path / "out", WholeImage())
    assert run.failures == ()
    assert results(tmp_path / "out") == {"a.png": [0, 0, size[1], size[0]]}
    picture = np.asarray(PIL.Image.open(tmp_path / "out/a.jpg"))
    assert picture.shape[:2] == SIZES[size]
    if min(picture.shape[:2]) > 100:  # its box goes round the picture
        assert np.ptp(picture[5:-5, [0, -1]].astype(int), axis=2).min() > 20


def test_a_picture_that_fails_loses_no_result(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{name}.png", 20, 30) for name in ("a", "b", "c")]
    long = tmp_path / ("x" * 254)
    long.write_bytes(paths[0].read_bytes())  # its picture's name would be longer than a name can be
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "out/b.jpg").mkdir(parents=True)  # stands in the way
    files = [*paths[:2], long, tmp_path / "broken.png", paths[2]]
    run = predict(files, tmp_path / "out", WholeImage(), batch_size=2)
    assert run.num_images == 4
    assert set(results(tmp_path / "out")) == {"a.png", "b.png", "c.png", long.name}
    without = "it could not be written about, but what was found in it is kept: "
    expected = (f"{paths[1]}: {without}", f"{long}: {without}", f"{tmp_path}/broken.png: is no")
    for failure, start in zip(run.failures, expected, strict=True):
        assert failure.startswith(start)
    assert (tmp_path / "out/c.jpg").is_file()


def test_a_name_as_long_as_can_be_has_its_picture(tmp_path: Path) -> None:
    path = save(tmp_path / ("x" * 251 + ".png"), 20, 30)
    run = predict([path], tmp_path / "out", WholeImage())
    assert run.failures == ()
    assert (tmp_path / "out" / ("x" * 251 + ".jpg")).is_file()


def test_what_was_found_before_the_run_broke_off_is_kept(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{width}.png", 20, width) for width in (30, 40, 50, 60)]
    with pytest.raises(RunError, match="out of memory"):
        predict(paths, tmp_path / "out", WholeImage(fatal=50), batch_size=2)
    assert set(results(tmp_path / "out")) == {"30.png", "40.png"}


class OneShape(WholeImage):
    """As an export that takes images of one shape only."""

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        for image in images:
            if image.shape[1:] != (20, 30):
                raise UserError("takes images of 20 × 30")
        return super().detect(images)


def test_an_image_that_the_detector_refuses_is_a_failure(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{number}.png", 20, 30 + number % 2) for number in range(4)]
    run = predict(paths, tmp_path / "out", OneShape())
    assert run.failures == tuple(f"{paths[n]}: takes images of 20 × 30" for n in (1, 3))
    assert set(results(tmp_path / "out")) == {"0.png", "2.png"}
