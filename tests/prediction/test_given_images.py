"""Whatever a program may give as an image is that image, or one sentence."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import retina
from retina.artifact import make_artifact
from retina.datasets.images import decode_image
from retina.errors import UserError
from retina.modeling.config import ModelConfig
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.prediction.given_images import as_tensor, listed
from retina.structures import Categories

RGB = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
CHW = torch.from_numpy(RGB).permute(2, 0, 1)
GREY = RGB[..., 0]
RGBA = np.concatenate([RGB, RGB[..., :1]], axis=2)


def pixels(image: object) -> np.ndarray:
    tensor = as_tensor(image, "images[0]")
    assert tensor.dtype == torch.uint8
    assert tensor.shape[0] == 3
    return tensor.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    "image",
    [
        RGB,
        RGBA,
        np.asfortranarray(RGB),
        RGB[::-1][::-1],
        PIL.Image.fromarray(RGB),
        PIL.Image.fromarray(RGBA),
        CHW,
        CHW.contiguous(),
        torch.from_numpy(RGBA).permute(2, 0, 1),
        CHW / 255,
        (CHW / 255).double().requires_grad_(),
        (CHW / 255).half(),
    ],
)
def test_every_kind_of_colour_image(image: object) -> None:
    assert np.array_equal(pixels(image), RGB)


@pytest.mark.parametrize(
    "image",
    [
        GREY,
        GREY[..., None],
        torch.from_numpy(GREY)[None],
        torch.from_numpy(GREY)[None] / 255,
        PIL.Image.fromarray(GREY),
        PIL.Image.fromarray(RGBA[..., [0, 1]], mode="LA"),
        PIL.Image.frombytes("I;16", (20, 12), (GREY.astype(np.uint16) * 257).tobytes()),
        PIL.Image.fromarray(GREY.astype(np.float32)),
    ],
)
def test_every_kind_of_grey_image(image: object) -> None:
    assert np.array_equal(pixels(image), np.repeat(GREY[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "YCbCr", "HSV", "PA", "RGBX"])
def test_pillow_images_of_other_modes(mode: str) -> None:
    image = PIL.Image.fromarray(RGB).convert("P" if mode == "PA" else mode).convert(mode)
    assert np.array_equal(pixels(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_a_pillow_image_is_turned_as_its_file_is(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    tags = PIL.Image.Exif()
    tags[0x0112] = 6
    PIL.Image.fromarray(RGB).save(path, exif=tags)
    for image in (path, str(path), PIL.Image.open(path), PIL.Image.open(path).copy()):
        assert np.array_equal(pixels(image), decode_image(path))
        assert pixels(image).shape == (20, 12, 3)


def test_a_pillow_image_is_not_changed() -> None:
    image = PIL.Image.fromarray(RGB).quantize(8)
    image.info["transparency"] = bytes(8)
    pixels(image)
    assert image.mode == "P"
    assert image.info["transparency"] == bytes(8)


def test_one_or_many() -> None:
    for one in ("a.jpg", Path("a.jpg"), RGB, GREY, CHW, PIL.Image.fromarray(RGB)):
        assert len(listed(one)) == 1
    for many in ([RGB, "a.jpg"], (CHW, Path("b")), np.stack([RGB, RGB]), torch.stack([CHW, CHW])):
        assert len(listed(many)) == 2
    assert list(listed(np.array(["a.jpg", "b.jpg"]))) == ["a.jpg", "b.jpg"]
    assert list(listed(np.array([Path("a"), "b"], dtype=object))) == [Path("a"), "b"]
    assert list(listed([])) == []
    assert list(listed(())) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "None is no image; cv2.imread gives it where it cannot read a file"),
        (b"bytes", "bytes are no image; open them with PIL.Image.open"),
        ([RGB], "a list within the list is no image"),
        (5, "int is no image; give a path"),
        (np.float32(3), "float32 is no image"),
        (np.array(3, np.uint8), r"an array \(\) of uint8 is no image; it must be \(height"),
        (np.zeros(9, np.uint8), r"an array \(9,\)"),
        (np.zeros((4, 4, 2), np.uint8), r"an array \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"an array \(0, 4, 3\)"),
        (np.zeros((1, 2, 4, 4, 3), np.uint8), "is no image; it must be"),
        (np.zeros((3, 4, 5), np.uint8), r"its channels come first; turn it with \.transpose"),
        (np.zeros((4, 4, 3), np.float32), "must be uint8, 0 to 255"),
        (np.zeros((4, 4, 3), np.uint16), "of uint16 is no image; it must be uint8"),
        (np.zeros((4, 4), bool), "of bool is no image; it must be uint8"),
        (np.array(["a.jpg"]), "is no image"),
        (np.array([None, "a.jpg"]), "of object is no image"),
        (torch.tensor(3), r"a tensor \(\) of int64 is no image; it must be \(3, height"),
        (torch.zeros(4, 5), r"a tensor \(4, 5\) of float32"),
        (torch.zeros(6, 5, 3), r"its channels come last; turn it with \.permute"),
        (torch.zeros(3, 0, 3), "is no image; it must be"),
        (torch.zeros(3, 4, 5, dtype=torch.int64), "must be uint8, or float within 0 … 1"),
        (torch.full((3, 4, 5), 1.5), r"values from 1\.5 to 1\.5 is no image; floats must lie"),
        (torch.full((3, 4, 5), -0.1), "floats must lie within 0 … 1"),
        (torch.full((3, 4, 5), 200.0), "for 0 to 255 that is tensor / 255"),
        (torch.full((3, 4, 5), torch.nan), "values from nan to nan"),
        (torch.full((3, 4, 5), torch.inf), "values from inf to inf"),
        (PIL.Image.new("RGB", (0, 5)), "it has no pixels"),
        (".", r"\. is a folder; give the files in it"),
    ],
)
def test_the_rest_is_refused_and_the_message_says_which(image: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"^images\[1\]: .*{message}") as caught:
        as_tensor(image, "images[1]")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "None is no image; cv2.imread"),
        (b"bytes", "bytes are no image"),
        (7, "int is no image"),
        ({"image": RGB}, "dict is no image"),
        (io.BytesIO(b"x"), "BytesIO is no image"),
        ((path for path in ["a.jpg"]), r"a generator is no list; make one of it with list\(…\)"),
        ({"a.jpg", "b.jpg"}, "a set is no list"),
    ],
)
def test_what_is_neither_an_image_nor_a_list(images: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"^images: {message}"):
        listed(images)


@pytest.fixture(scope="module")
def detector() -> retina.Predictor:
    model = ModelConfig.model_validate({"backbone": {"kind": "resnet", "name": "resnet18"}})
    artifact = make_artifact(
        model.build(2),
        model=model,
        preprocess=PreprocessConfig(min_size=64, max_size=96),
        postprocess=PostprocessConfig(score_threshold=0.0),
        categories=Categories.from_names(["cat", "dog"]),
    )
    return retina.Predictor.from_artifact(artifact, device="cpu")


def test_one_image_gives_a_list_of_one_and_every_way_the_same(
    detector: retina.Predictor, tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    PIL.Image.fromarray(RGB).save(path)
    (expected,) = detector.predict([RGB], 0.0)
    assert len(expected)
    for image in (str(path), path, RGB, RGBA, CHW, CHW / 255, PIL.Image.open(path), RGB[None]):
        (found,) = detector.predict(image, 0.0)
        assert torch.equal(found.boxes, expected.boxes)
        assert torch.equal(found.scores, expected.scores)
    assert len(detector.predict([path, RGB, CHW], 0.0, batch_size=2)) == 3
    assert detector.predict([]) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": [RGB, RGB, None]}, r"images\[2\]: None is no image"),
        ({"images": "n" * 300}, "n: the image cannot be opened: File name too long"),
        ({"images": "nowhere.jpg"}, r"nowhere\.jpg: no such image file"),
        ({"images": RGB, "score_threshold": 1.5}, r"score_threshold: 1\.5 does not lie"),
        ({"images": RGB, "score_threshold": float("nan")}, "score_threshold: nan does not lie"),
        ({"images": RGB, "score_threshold": "0.5"}, "score_threshold: '0.5' is no number"),
        ({"images": RGB, "batch_size": 0}, "batch_size: 0 is no whole number from 1 on"),
        ({"images": RGB, "batch_size": 2.0}, "batch_size: 2.0 is no whole number"),
    ],
)
def test_arguments_of_predict(
    detector: retina.Predictor, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        detector.predict(**{"batch_size": 1, **arguments})


def test_arguments_of_the_other_functions(detector: retina.Predictor) -> None:
    anything: Any
    with os.scandir(os.fsencode(Path(__file__).parent)) as entries:
        entry = next(entries)  # a path of bytes
    for anything in (None, 3, {"a": 1}, [Path("a")], entry):
        with pytest.raises(UserError, match=r"path: .* is no path"):
            retina.load(anything)
        with pytest.raises(UserError, match=r"detector: .* is no path"):
            retina.evaluate(anything)
        with pytest.raises(UserError, match=r"config: .* is no path"):
            retina.train(anything)
    with pytest.raises(UserError, match="n: no such detector file"):
        retina.load("n" * 300)
    anything = "training.epochs=2"
    with pytest.raises(UserError, match=r"overrides: 'training.epochs=2' is no list"):
        retina.train("demo.yaml", anything)
    anything = 5
    with pytest.raises(UserError, match="data: 5 is no path"):
        retina.evaluate(detector, data=anything)
    with pytest.raises(UserError, match="batch_size: 0 is no whole number"):
        retina.evaluate(detector, data="x", batch_size=0)
    with pytest.raises(UserError, match="num_workers: -1 is no whole number"):
        retina.evaluate(detector, data="x", num_workers=-1)
    anything = "cat"
    with pytest.raises(UserError, match="categories: 'cat' is no list"):
        retina.load_torchvision({}, variant="v2", categories=anything)
    with pytest.raises(UserError, match="state_dict: a str is no state dict"):
        retina.load_torchvision(anything, variant="v2", categories=["cat"])
