from __future__ import annotations

from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from retina.configuration import ConfigError, read_preset, validate
from retina.errors import UserError
from retina.modeling.preprocess import PreparedImages, Preprocess, PreprocessConfig

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def build(**fields: object) -> Preprocess:
    return validate(
        {"min_size": 160, "max_size": 256, **fields}, PreprocessConfig, source=""
    ).build()


@pytest.mark.parametrize(
    "sizes", [[(97, 141), (211, 130), (64, 333)], [(160, 200)], [(1, 1)], [(3, 500), (500, 3)]]
)
def test_equal_to_torchvisions_transform_to_the_bit(
    sizes: list[tuple[int, int]], torchvision_reference: ModuleType
) -> None:
    images = torchvision_reference.random_images(sizes, 0)
    transform = GeneralizedRCNNTransform(160, 256, MEAN, STD).eval()
    reference, _ = transform([image / 255 for image in images])
    prepared: PreparedImages = build().prepare(images)
    assert prepared.sizes == tuple(map(tuple, reference.image_sizes))
    assert prepared.padded_size == tuple(reference.tensors.shape[2:])
    assert torch.equal(prepared.images, reference.tensors)
    assert prepared.images.is_contiguous(memory_format=torch.channels_last)


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 900), st.integers(0, 1000))
def test_input_sizes_are_torchvisions(height: int, width: int, low: int, more: int) -> None:
    scale = min(low / min(height, width), (low + more) / max(height, width))
    # What interpolate(scale_factor=scale, recompute_scale_factor=True) makes, at least one pixel.
    expected = max(1, int(height * scale)), max(1, int(width * scale))
    assert build(min_size=low, max_size=low + more).input_size((height, width)) == expected


def test_an_image_in_another_memory_layout_gives_the_same_numbers() -> None:
    image = torch.randint(0, 256, (3, 90, 70), dtype=torch.uint8)
    rows_of_pixels = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    a, b = build().prepare([image]), build().prepare([rows_of_pixels])
    torch.testing.assert_close(a.images, b.images, atol=1e-5, rtol=1e-5)


def test_training_batch_is_normalised_and_exactly_zero_in_the_padding() -> None:
    images = torch.randint(1, 256, (2, 3, 64, 96), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    batch = build()(images, torch.tensor([[64, 50], [33, 96]]))
    expected = (images.double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(
        3, 1, 1
    )
    torch.testing.assert_close(
        batch[0, :, :, :50].double(), expected[0, :, :, :50], atol=1e-6, rtol=1e-6
    )
    torch.testing.assert_close(batch[1, :, :33].double(), expected[1, :, :33], atol=1e-6, rtol=1e-6)
    assert float(batch[0, :, :, 50:].abs().max()) == 0
    assert float(batch[1, :, 33:].abs().max()) == 0
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch.dtype == torch.float32


def test_both_paths_agree_on_images_that_need_no_resizing() -> None:
    images = torch.randint(0, 256, (2, 3, 160, 224), dtype=torch.uint8)
    preprocess = build()
    prepared = preprocess.prepare(list(images))
    sizes = torch.tensor([[160, 224], [160, 224]])
    assert torch.equal(prepared.images, preprocess(images, sizes))


def test_detectron2_sees_bgr_less_the_mean() -> None:
    image = torch.randint(0, 256, (3, 800, 800), dtype=torch.uint8)
    tree = read_preset("detectron2")["preprocess"]
    prepared = validate(tree, PreprocessConfig, source="preset").build().prepare([image])
    mean = torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
    expected = image[[2, 1, 0]].float() - mean
    torch.testing.assert_close(prepared.images[0], expected, atol=1e-3, rtol=1e-5)


def test_stretching_fills_the_height_and_width() -> None:
    images = [torch.zeros(3, 50, 400, dtype=torch.uint8), torch.zeros(3, 90, 20, dtype=torch.uint8)]
    prepared = build(stretch=True, min_size=96, max_size=128).prepare(images)
    assert prepared.sizes == ((96, 128), (96, 128))
    assert prepared.padded_size == (96, 128)


@pytest.mark.parametrize(
    ("divisor", "padded"), [(1, (160, 200)), (32, (160, 224)), (128, (256, 256))]
)
def test_padded_to_multiples(divisor: int, padded: tuple[int, int]) -> None:
    image = torch.full((3, 160, 200), 7, dtype=torch.uint8)
    assert build(size_divisor=divisor).prepare([image]).padded_size == padded


def test_padded_to_a_fixed_size_or_refused() -> None:
    image = torch.full((3, 160, 200), 7, dtype=torch.uint8)
    prepared = build(pad_to=[320, 256]).prepare([image])
    assert prepared.padded_size == (320, 256)
    assert float(prepared.images[:, :, 160:].abs().max()) == 0
    assert float(prepared.images[:, :, :, 200:].abs().max()) == 0
    with pytest.raises(UserError, match="resized to 160×200 does not fit into 160×192"):
        build(pad_to=[160, 192]).prepare([image])


def test_antialias_is_a_choice() -> None:
    stripes = torch.zeros(3, 640, 640, dtype=torch.uint8)
    stripes[:, ::4] = 255
    plain, filtered = (build(antialias=flag).prepare([stripes]).images for flag in (False, True))
    assert float(filtered.std()) < 0.1 * float(plain.std()) or not torch.equal(plain, filtered)
    # A quarter of the rows is white: with a filter every output row shows that average.
    white = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    average = (0.25 * white + 0.75 * black).view(3, 1, 1).expand(3, 100, 100)
    torch.testing.assert_close(filtered[0, :, 20:120, 20:120], average, atol=0.02, rtol=0)


def test_nothing_of_it_is_in_a_state_dict() -> None:
    assert not build().state_dict()


@pytest.mark.parametrize(
    "image", [torch.zeros(3, 4, 4), torch.zeros(1, 4, 4).byte(), torch.zeros(3, 0, 4).byte()]
)
def test_what_is_no_image_is_refused(image: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"must be \(3, height, width\) uint8"):
        build().prepare([image])


def test_a_zero_deviation_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"std\.1: .*greater than 0"):
        validate({"std": [1.0, 0.0, 1.0]}, PreprocessConfig, source="test")
