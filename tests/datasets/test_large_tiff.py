"""Large TIFFs are read by parts: the same pixels as those of the whole file, in little memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from retina.datasets import large_tiff
from retina.datasets.images import decode_image
from retina.datasets.large_tiff import LargeTiff, open_large_tiff
from retina.errors import UnreadableImageError
from retina.geometry.tiles import Window
from tests.datasets.tiff_files import write_tiled  # type: ignore[import-not-found]

WINDOWS = [Window(0, 0, 150, 90), Window(33, 17, 120, 71), Window(149, 89, 150, 90)]


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_tiff, "LARGE_PIXELS", 100)


@pytest.fixture(scope="module")
def picture() -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    return np.asarray(cv2.resize(noise, (150, 90)), dtype=np.uint8)


def opened(path: Path) -> LargeTiff:
    large = open_large_tiff(path)
    assert large is not None
    return large


def assert_same_pixels(path: Path) -> None:
    large, expected = opened(path), decode_image(path)
    assert large.size == expected.shape[:2]
    for window in WINDOWS:
        part = large.read(window)
        assert np.array_equal(part, expected[window.y1 : window.y2, window.x1 : window.x2])


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_strips_have_the_pixels_of_the_whole(
    tmp_path: Path, picture: npt.NDArray[np.uint8], compression: str, mode: str
) -> None:
    path = tmp_path / "a.tif"
    PIL.Image.fromarray(picture).convert(mode).save(path, compression=compression, strip_size=4096)
    assert_same_pixels(path)


def test_deep_strips_with_a_predictor(tmp_path: Path, picture: npt.NDArray[np.uint8]) -> None:
    deep = picture.astype(np.uint16) * 200 + 7
    cv2.imwrite(str(tmp_path / "a.tif"), deep, [cv2.IMWRITE_TIFF_ROWSPERSTRIP, 7])
    assert_same_pixels(tmp_path / "a.tif")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_tiles_have_the_pixels_of_the_whole(
    tmp_path: Path, picture: npt.NDArray[np.uint8], order: str, bits: int
) -> None:
    stored = picture if bits == 8 else picture.astype(np.uint16) * 257
    write_tiled(tmp_path / "a.tif", stored, tile=32, order=order)
    assert_same_pixels(tmp_path / "a.tif")
    assert np.array_equal(opened(tmp_path / "a.tif").read(WINDOWS[0]), picture)


def test_an_overview_is_the_image_shrunk(
    tmp_path: Path, picture: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiled(tmp_path / "a.tif", picture, tile=32)
    monkeypatch.setattr(large_tiff, "OVERVIEW_PIXELS", 400)
    large = opened(tmp_path / "a.tif")
    assert large.reduction == 6
    assert large.overview.shape == (15, 25, 3)
    expected = picture.reshape(15, 6, 25, 6, 3).mean(axis=(1, 3))
    assert np.abs(large.overview - expected).max() <= 1


def test_what_is_no_large_tiff_is_read_as_a_whole(
    tmp_path: Path, picture: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = PIL.Image.fromarray(picture)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "turned.tif", exif=b"", tiffinfo={274: 6})
    image.convert("F").save(tmp_path / "float.tif")  # what is white is known from all samples
    image.save(tmp_path / "small.tif")
    for name in ("a.png", "turned.tif", "float.tif"):
        assert open_large_tiff(tmp_path / name) is None
    monkeypatch.setattr(large_tiff, "LARGE_PIXELS", 150 * 90)
    assert open_large_tiff(tmp_path / "small.tif") is None


@pytest.mark.parametrize(
    ("num_bytes", "told"),
    [(6, "its head breaks off"), (20, "the TIFF breaks off, or its head is damaged")],
)
def test_a_head_that_breaks_off_is_told_in_words(
    tmp_path: Path, picture: npt.NDArray[np.uint8], num_bytes: int, told: str
) -> None:
    path = tmp_path / "a.tif"
    PIL.Image.fromarray(picture).save(path)  # its head comes first
    path.write_bytes(path.read_bytes()[:num_bytes])
    for read in (decode_image, open_large_tiff):
        with pytest.raises(UnreadableImageError) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path}: the image cannot be decoded: {told}; copy it again, or remove it from the set"
        )


def test_a_file_that_breaks_off_is_one_clear_error(
    tmp_path: Path, picture: npt.NDArray[np.uint8]
) -> None:
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_TIFF_ROWSPERSTRIP, 8])
    content = path.read_bytes()
    large = opened(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableImageError, match=r"a\.tif"):
        large.read(Window(0, 0, 150, 90))
    with pytest.raises(UnreadableImageError, match=r"b\.tif: no such image file"):
        open_large_tiff(tmp_path / "b.tif")


def test_memory_is_that_of_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """24 million pixels, which take 72 MB as a whole."""
    monkeypatch.setattr(large_tiff, "_KEPT_BYTES", 2**21)
    path = tmp_path / "a.tif"
    PIL.Image.new("L", (12_000, 2_000), 77).save(path, compression="tiff_lzw")
    large = opened(path)
    tracemalloc.start()
    for x in range(0, 11_000, 4_000):
        assert (large.read(Window(x, 1_000, x + 500, 1_400)) == 77).all()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8e6
