"""Decoding: every kind of file gives the right RGB numbers or one clear error."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from retina.datasets.images import decode_image, read_header
from retina.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
SMOOTH = np.ascontiguousarray(
    np.stack(np.broadcast_arrays(*np.ogrid[0:240:12j, 0:200:20j], 90.0), -1).astype(np.uint8)
)


def jpeg(pixels: npt.NDArray[np.uint8] = SMOOTH, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def big_jpeg() -> bytes:
    return jpeg(np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_jpeg_equals_pillow(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(quality=90))
    decoded = decode_image(path)
    assert decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    assert np.array_equal(decoded, np.asarray(Image.open(path).convert("RGB")))


def test_grayscale_jpeg_has_three_equal_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(SMOOTH[..., 0]))
    expected = np.asarray(Image.open(path))
    assert np.array_equal(decode_image(path), np.stack([expected] * 3, axis=-1))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_lossless_rgb_is_exact(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(decode_image(path), RGB)


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    alpha = np.zeros((12, 20, 1), dtype=np.uint8)
    Image.fromarray(np.concatenate([RGB, alpha], axis=2)).save(tmp_path / "a.png")
    assert np.array_equal(decode_image(tmp_path / "a.png"), RGB)


def test_grey_with_alpha(tmp_path: Path) -> None:
    Image.fromarray(RGB[..., :2], mode="LA").save(tmp_path / "a.png")
    assert np.array_equal(decode_image(tmp_path / "a.png"), np.repeat(RGB[..., :1], 3, axis=2))


def test_palette_is_looked_up(tmp_path: Path) -> None:
    indices = np.arange(240, dtype=np.uint8).reshape(12, 20) % 3
    image = Image.fromarray(indices, mode="P")
    image.putpalette([255, 0, 0, 0, 200, 0, 0, 0, 150])
    image.save(tmp_path / "a.png", transparency=1)
    colours = np.array([[255, 0, 0], [0, 200, 0], [0, 0, 150]], dtype=np.uint8)
    assert np.array_equal(decode_image(tmp_path / "a.png"), colours[indices])


def test_one_bit(tmp_path: Path) -> None:
    bits = RGB[..., 0] > 127
    Image.fromarray(bits).save(tmp_path / "a.png")
    expected = np.repeat(bits[..., None], 3, axis=2).astype(np.uint8) * 255
    assert np.array_equal(decode_image(tmp_path / "a.png"), expected)


def test_cmyk_jpeg_is_near_the_rgb_it_came_from(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    difference = decode_image(tmp_path / "a.jpg").astype(int) - SMOOTH
    assert np.abs(difference).max() <= 4


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_divided_by_257_and_rounded(tmp_path: Path, suffix: str, channels: int) -> None:
    values = np.linspace(0, 65535, 12 * 20 * channels).round().astype(np.uint16)
    values = np.random.default_rng(0).permutation(values).reshape(12, 20, channels)
    path = tmp_path / f"a.{suffix}"
    assert cv2.imwrite(str(path), values)
    rgb = np.repeat(values, 3, axis=2) if channels == 1 else values[..., [2, 1, 0]]
    expected = np.rint(rgb / 257).astype(np.uint8)
    assert expected.max() == 255
    assert np.array_equal(decode_image(path), expected)
    assert not np.array_equal(decode_image(path), (rgb >> 8).astype(np.uint8))


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_float_tiff_is_scaled_by_its_range(tmp_path: Path, white: float, channels: int) -> None:
    fractions = np.linspace(0, 1, 12 * 20 * channels).reshape(12, 20, channels)
    path = tmp_path / "a.tif"
    assert cv2.imwrite(str(path), (fractions * white).astype(np.float32))
    rgb = np.repeat(fractions, 3, axis=2) if channels == 1 else fractions[..., ::-1]
    assert np.abs(decode_image(path).astype(float) - rgb * 255).max() <= 0.5 + 1e-3
    assert read_header(path).stored_size == (12, 20)


@pytest.mark.parametrize("value", [-1.0, np.nan, 1e6])
def test_float_tiff_without_a_meaning_is_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(np.full((4, 4), value, dtype=np.float32)).save(path)
    with pytest.raises(UserError, match=r"a\.tif: its float32 samples lie between"):
        decode_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_as_pillow_turns_it(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(exif=exif(orientation)))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert np.array_equal(decode_image(path), expected)
    assert np.array_equal(decode_image(path, expected.shape[:2]), expected)
    assert read_header(path).oriented_size == expected.shape[:2]


def test_exif_orientation_is_left_where_the_annotation_is_of_the_stored_image(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(exif=exif(6)))
    raw = np.asarray(Image.open(path))
    assert decode_image(path, (20, 12)).shape == (20, 12, 3)
    assert np.array_equal(decode_image(path, (12, 20)), raw)


def test_exif_orientation_of_a_png_and_a_tiff(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif(6))
    assert np.array_equal(decode_image(tmp_path / "a.png"), np.rot90(RGB, -1))
    Image.fromarray(RGB).save(tmp_path / "a.tif", tiffinfo={0x0112: 6})
    assert np.array_equal(decode_image(tmp_path / "a.tif"), np.rot90(RGB, -1))


def test_another_size_than_annotated_names_both(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg())
    with pytest.raises(UserError, match=r"a\.jpg: the image is 12×20 .* says 13×20"):
        decode_image(path, (13, 20))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg_is_refused_although_decoders_fill_it_with_grey(
    tmp_path: Path, share: float, progressive: bool
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    data = jpeg(noise, progressive=progressive)
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match=r"cut\.jpg: the image cannot be decoded") as decoding:
        decode_image(path)
    with pytest.raises(UserError, match=r"cut\.jpg: the image cannot be decoded") as looking:
        read_header(path)
    assert str(looking.value) == str(decoding.value)


def test_truncated_jpeg_with_a_whole_thumbnail_or_zeros_at_the_end_is_refused(
    tmp_path: Path,
) -> None:
    data = big_jpeg()
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(jpeg()) + 2) + jpeg()
    with_thumbnail = data[:2] + thumbnail + data[2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(with_thumbnail)
    assert decode_image(path).shape == (200, 300, 3)
    path.write_bytes(with_thumbnail[: len(with_thumbnail) // 2])
    with pytest.raises(UserError, match="breaks off"):
        decode_image(path)
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    with pytest.raises(UserError, match="breaks off"):
        decode_image(path)


def test_bytes_after_the_end_of_a_jpeg_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg() + b"a phone's film of the same moment")
    assert np.array_equal(decode_image(path), np.asarray(Image.open(io.BytesIO(jpeg()))))
    path.write_bytes(jpeg() + bytes(1000))
    assert read_header(path).stored_size == (12, 20)


PICTURES = {
    "noise": np.random.default_rng(1).integers(0, 256, (90, 130, 3), dtype=np.uint8),
    "smooth": SMOOTH,
    "flat": np.full((90, 130, 3), 128, dtype=np.uint8),
    "grey": np.random.default_rng(2).integers(0, 256, (50, 70), dtype=np.uint8),
    "one pixel": np.full((1, 1, 3), 200, dtype=np.uint8),
}


@pytest.mark.parametrize("interval", [0, 3])  # blocks between the marks to start again from
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("name", PICTURES)
def test_a_jpeg_that_lacks_only_its_end_marker_is_whole(
    tmp_path: Path, name: str, progressive: bool, interval: int
) -> None:
    data = jpeg(PICTURES[name], progressive=progressive, restart_marker_blocks=interval)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    expected = decode_image(path)
    for cut in (1, 2):
        path.write_bytes(data[:-cut])
        assert np.array_equal(decode_image(path), expected)
        assert read_header(path).stored_size == expected.shape[:2]


@pytest.mark.parametrize("interval", [0, 3])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("name", ["noise", "flat", "grey"])
def test_a_jpeg_that_lacks_more_breaks_off(
    tmp_path: Path, name: str, progressive: bool, interval: int
) -> None:
    """Wherever it is cut: between two scans, behind a mark to start again from, or elsewhere."""
    data = jpeg(PICTURES[name], progressive=progressive, restart_marker_blocks=interval)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    expected = decode_image(path)
    size, last_scan = len(data), data.rindex(b"\xff\xda")
    cuts = {*range(size // 2, size - 2, size // 20), size - 20, last_scan, last_scan + 2}
    for cut in cuts:
        for filling in (b"", bytes(size - cut)):
            path.write_bytes(data[:cut] + filling)
            try:
                pixels = decode_image(path)
            except UserError as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017
            else:  # of a flat picture the last bytes may say nothing
                assert name != "noise"
                assert np.array_equal(pixels, expected)


def test_zeros_after_a_jpeg_without_its_end_marker(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(big_jpeg())
    expected = decode_image(path)
    path.write_bytes(big_jpeg()[:-2] + bytes(500))
    assert np.array_equal(decode_image(path), expected)
    path.write_bytes(big_jpeg()[:-2] + b"<html>the server broke off</html>")
    with pytest.raises(UserError, match="breaks off"):
        decode_image(path)


def test_a_cmyk_jpeg_without_its_end_marker(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(SMOOTH).convert("CMYK").save(path)
    expected = decode_image(path)
    path.write_bytes(path.read_bytes()[:-2])
    assert np.array_equal(decode_image(path), expected)


def test_every_photo_without_its_end_marker_is_as_before(shared_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photos = sorted(shared_data.rglob("*.jpg"))[::100]
    assert photos
    for photo in photos:
        data = photo.read_bytes()
        path.write_bytes(data[: data.rindex(b"\xff\xd9")])
        assert np.array_equal(decode_image(path), decode_image(photo)), photo
        path.write_bytes(data[: len(data) * 9 // 10])
        with pytest.raises(UserError, match="breaks off"):
            read_header(path)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("end", [b"", bytes(300), b"\0\0\0\0IEND\0\0\0\0", b"\0\0\0\0IE"])
def test_a_png_without_a_sound_end_chunk_is_whole(tmp_path: Path, deep: bool, end: bytes) -> None:
    path = tmp_path / "a.png"
    assert cv2.imwrite(str(path), RGB.astype(np.uint16) * 257 if deep else RGB)
    expected = decode_image(path)
    data = path.read_bytes()
    path.write_bytes(data[:-12] + end)
    assert np.array_equal(decode_image(path), expected)
    path.write_bytes(data[:-40])
    with pytest.raises(UserError, match=r"a\.png: the image cannot be decoded"):
        decode_image(path)


def test_a_gif_without_its_trailer_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    Image.fromarray(RGB).quantize(16).save(path)
    expected = decode_image(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert np.array_equal(decode_image(path), expected)


def test_a_dark_16_bit_tiff_of_either_byte_order(tmp_path: Path) -> None:
    values = np.arange(240, dtype=np.uint16).reshape(12, 20)
    Image.frombytes("I;16", (20, 12), values.tobytes()).save(tmp_path / "little.tif")
    Image.frombytes("I;16B", (20, 12), values.byteswap().tobytes()).save(tmp_path / "big.tif")
    for name in ("little", "big"):
        assert decode_image(tmp_path / f"{name}.tif").max() == 1  # 239 of 65535


# -- What libraries print beside it ----------------------------------------------------------------


def odd_files(folder: Path) -> list[Path]:
    """Files of which Pillow or libpng say something, and which can be read all the same."""
    noisy = np.random.default_rng(1).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    made = {"large.png": io.BytesIO(), "palette.png": io.BytesIO(), "tags.tif": io.BytesIO()}
    Image.new("1", (9_500, 9_500)).save(made["large.png"], "PNG")  # 90 million pixels
    palette = Image.fromarray(noisy).quantize(16)
    palette.save(made["palette.png"], "PNG", transparency=bytes(range(0, 256, 16)))
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tags[282], tags.tagtype[282] = (1.0, 2.0, 3.0), 5
        Image.fromarray(noisy).save(made["tags.tif"], "TIFF", tiffinfo=tags)
    files = {name: content.getvalue() for name, content in made.items()}
    photo = jpeg(noisy, exif=exif(6))
    directory = photo.index(b"\0\x2a\0\0\0\x08") + 6  # of its EXIF data: one entry is there
    files["exif.jpg"] = photo[:directory] + b"\0\x09" + photo[directory + 2 :]
    index = b"MPF\0II*\0\x08\0\0\0\x05\0" + b"\xff" * 40
    part = b"\xff\xe2" + struct.pack(">H", len(index) + 2) + index
    files["several.jpg"] = photo[:2] + part + photo[2:]
    for name, values in (("8.png", noisy), ("16.png", noisy.astype(np.uint16) * 257)):
        data = cv2.imencode(".png", values)[1].tobytes()
        profile = png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"no profile" * 20))
        animation = png_chunk(b"acTL", bytes(8))
        files[f"profile{name}"] = data[:33] + profile + data[33:]
        files[f"animation{name}"] = data[:33] + animation + data[33:]
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


READ_ALL = """
import sys, threading, warnings
from pathlib import Path
import PIL.Image
from retina.datasets.images import decode_image, read_header
def read():
    for path in map(Path, sys.argv[1:]):
        height, width = read_header(path).oriented_size
        assert decode_image(path).shape == (height, width, 3), path
before = PIL.Image.MAX_IMAGE_PIXELS, list(warnings.filters)
others = [threading.Thread(target=read) for _ in range(2)]
for thread in others: thread.start()
read()
for thread in others: thread.join()
assert before == (PIL.Image.MAX_IMAGE_PIXELS, list(warnings.filters))
"""


@pytest.mark.slow
@pytest.mark.parametrize("option", ["default", "error"])
def test_odd_files_are_read_without_a_word_of_libraries(tmp_path: Path, option: str) -> None:
    paths = odd_files(tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", option, "-c", READ_ALL, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == ""


def test_warnings_of_others_stay_as_they_are(tmp_path: Path) -> None:
    """Shown once for each place, not again after each image."""
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for _ in range(3):
            decode_image(tmp_path / "a.png")
            warnings.warn("said once", stacklevel=1)
    assert [str(one.message) for one in seen] == ["said once"]


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "webp"])
def test_truncated_files_of_other_formats_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(1).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=rf"a\.{suffix}: "):
        decode_image(path)


def test_a_png_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 0x10
    (tmp_path / "a.png").write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"a\.png: the image cannot be decoded"):
        decode_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"this is no image, but long enough to be one", "is no image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "cannot be decoded|is no image"),
        (b"\xff\xd8\xff\xe0", "cannot be decoded|is no image"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        decode_image(path)
    assert str(caught.value).startswith(str(path))
    with pytest.raises(UserError, match=message):
        read_header(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.jpg: no such image file"):
        decode_image(tmp_path / "nowhere.jpg")
    with pytest.raises(UserError, match="cannot be opened: Is a directory"):
        decode_image(tmp_path)


def test_a_bomb_is_refused_without_being_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
        + png_chunk(b"IEND", b"")
    )
    with pytest.raises(UserError, match="claims to hold more than 178956970 pixels"):
        decode_image(path)
