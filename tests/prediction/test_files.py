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

from retina.datasets.exports import WRITERS
from retina.errors import RunError, UserError
from retina.modeling.preprocess import PreprocessConfig
from retina.prediction.inputs import MOST_STEM_BYTES
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
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "out/b.jpg").mkdir(parents=True)  # stands in the way
    files = [*paths[:2], tmp_path / "broken.png", paths[2]]
    run = predict(files, tmp_path / "out", WholeImage(), batch_size=2)
    assert run.num_images == 3
    assert set(results(tmp_path / "out")) == {"a.png", "b.png", "c.png"}
    without = "it could not be written about, but what was found in it is kept: "
    expected = (f"{paths[1]}: {without}", f"{tmp_path}/broken.png: is no")
    for failure, start in zip(run.failures, expected, strict=True):
        assert failure.startswith(start)
    assert (tmp_path / "out/c.jpg").is_file()


def test_names_as_long_as_can_be_have_all_their_files(tmp_path: Path) -> None:
    stems = ["x" * 250 + "1", "x" * 250 + "2", "\u732b" * 83]  # three bytes a letter
    paths = [save(tmp_path / f"{stem}.png", 20, 30) for stem in stems]
    run = predict(paths, tmp_path / "out", WholeImage(), save=("pictures", "crops", "yolo"))
    assert run.failures == ()
    cut = ["x" * MOST_STEM_BYTES, "x" * (MOST_STEM_BYTES - 2) + "_2", "\u732b" * 78]
    assert {path.name for path in (tmp_path / "out").glob("*.jpg")} == {f"{s}.jpg" for s in cut}
    crops = {path.name for path in (tmp_path / "out/crops/thing").iterdir()}
    assert crops == {f"{stem}_1.jpg" for stem in cut}


def test_an_output_that_fails_stops_no_other_and_hides_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [save(tmp_path / f"{name}.png", 20, 30) for name in ("a", "b")]
    (tmp_path / "broken.png").write_bytes(b"no image")
    saved = ("yolo", "json", "csv")

    def no_space(*_: object) -> None:
        raise RunError("yolo: the disk is full")

    monkeypatch.setitem(WRITERS, "yolo", no_space)  # type: ignore[arg-type]
    with pytest.raises(RunError) as caught:
        predict([*paths, tmp_path / "broken.png"], tmp_path / "out", WholeImage(), save=saved)
    first, second, third = str(caught.value).splitlines()
    assert (first, second) == ("yolo: the disk is full", "1 failure:")
    assert third.startswith(f"  {tmp_path}/broken.png: is no image")
    assert set(results(tmp_path / "out")) == {"a.png", "b.png"}
    assert (tmp_path / "out/csv/annotations.csv").is_file()
    monkeypatch.undo()
    save(tmp_path / "broken.png", 20, 30)
    again = [*paths, tmp_path / "broken.png"]
    run = predict(again, tmp_path / "out", WholeImage(), save=saved, resume=True)
    assert (run.num_images, run.failures) == (3, ())
    for name in ("csv/images", "yolo/images/train"):  # with the image that is whole now
        assert len([*(tmp_path / "out" / name).iterdir()]) == 3


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
