from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.anchor_utils import AnchorGenerator as TorchvisionAnchors
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import _default_anchorgen

from retina.configuration import ConfigError, validate
from retina.errors import UserError
from retina.geometry.anchors import AnchorConfig, AnchorGenerator
from retina.geometry.box_coders import DeltasConfig
from retina.structures import Size

STRIDES = (8, 16, 32, 64, 128)
TORCHVISION = AnchorConfig(round_sizes=True, stride_source="padded_size")


def feature_shapes(padded_size: Size) -> list[Size]:
    return [(math.ceil(padded_size[0] / s), math.ceil(padded_size[1] / s)) for s in STRIDES]


def torchvision_anchors(generator: TorchvisionAnchors, padded_size: Size) -> torch.Tensor:
    images = ImageList(torch.zeros(1, 3, *padded_size), [padded_size])
    maps = [torch.zeros(1, 1, *shape) for shape in feature_shapes(padded_size)]
    return generator(images, maps)[0]


@pytest.mark.parametrize(
    "padded_size", [(800, 1344), (800, 800), (96, 128), (32, 32), (1344, 320), (608, 1056)]
)
def test_equal_to_torchvision_to_the_bit(padded_size: Size) -> None:
    ours = TORCHVISION.build(STRIDES)(feature_shapes(padded_size), padded_size, "cpu")
    assert torch.equal(ours.boxes, torchvision_anchors(_default_anchorgen(), padded_size))
    assert len(ours) == sum(ours.num_per_level)
    assert ours.num_per_cell == (9,) * 5


@settings(max_examples=50)
@given(
    st.lists(st.integers(4, 700), min_size=5, max_size=5),
    st.lists(st.floats(0.25, 5.0, width=32), min_size=1, max_size=4),
    st.integers(1, 8),
    st.integers(1, 8),
)
def test_equal_to_torchvision_for_any_sizes_and_ratios(
    sizes: list[int], ratios: list[float], rows: int, columns: int
) -> None:
    padded_size = (32 * rows, 32 * columns)
    config = TORCHVISION.model_copy(
        update={"sizes": tuple(map(float, sizes)), "ratios": tuple(ratios)}
    )
    reference = TorchvisionAnchors(
        tuple(tuple(int(size * scale) for scale in config.scales) for size in sizes),
        (tuple(ratios),) * 5,
    )
    ours = config.build(STRIDES)(feature_shapes(padded_size), padded_size, "cpu")
    assert torch.equal(ours.boxes, torchvision_anchors(reference, padded_size))


def test_exact_base_boxes_have_their_area_and_ratio() -> None:
    anchors = AnchorConfig().build(STRIDES)(feature_shapes((256, 256)), (256, 256), "cpu")
    first_cell = anchors.boxes[:9].double()
    width, height = (first_cell[:, 2:] - first_cell[:, :2]).unbind(1)
    sides = torch.tensor([32 * 2 ** (i / 3) for i in range(3)] * 3, dtype=torch.float64)
    ratios = torch.tensor([0.5] * 3 + [1.0] * 3 + [2.0] * 3, dtype=torch.float64)
    torch.testing.assert_close(width * height, sides**2, rtol=1e-6, atol=0)
    torch.testing.assert_close(height / width, ratios, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        anchors.boxes[0], torch.tensor([-22.627417, -11.313708, 22.627417, 11.313708])
    )


def test_rounded_sizes_are_torchvisions_whole_pixels() -> None:
    anchors = TORCHVISION.build(STRIDES)(feature_shapes((256, 256)), (256, 256), "cpu")
    squares = anchors.boxes[3:6]
    assert (squares[:, 2] - squares[:, 0]).tolist() == [32.0, 40.0, 50.0]


def test_rows_come_before_columns_and_levels_from_fine_to_coarse() -> None:
    shapes = feature_shapes((256, 512))
    anchors = AnchorConfig().build(STRIDES)(shapes, (256, 512), "cpu")
    centers = (anchors.boxes[:, :2] + anchors.boxes[:, 2:]) / 2
    assert anchors.num_per_level == tuple(9 * h * w for h, w in shapes)
    assert centers[9].tolist() == [8.0, 0.0]  # second cell of the first row
    assert centers[9 * 64].tolist() == [0.0, 8.0]  # first cell of the second row
    assert centers[anchors.num_per_level[0] + 9].tolist() == [16.0, 0.0]


@pytest.mark.parametrize(("offset", "center"), [(0.0, 0.0), (0.5, 4.0), (1.0, 8.0)])
def test_center_offset_is_in_strides(offset: float, center: float) -> None:
    config = AnchorConfig(center_offset=offset)
    boxes = config.build(STRIDES)(feature_shapes((64, 64)), (64, 64), "cpu").boxes
    assert ((boxes[0, :2] + boxes[0, 2:]) / 2).tolist() == [center, center]


def test_strides_of_a_padded_image_follow_its_size_or_stay_fixed() -> None:
    padded_size = (800, 1344)
    shapes = feature_shapes(padded_size)
    last_centers = {}
    for source in ("fixed", "padded_size"):
        generator = AnchorConfig(stride_source=source).build(STRIDES)
        anchors = generator(shapes, padded_size, "cpu")
        levels = anchors.boxes.split(list(anchors.num_per_level))
        last_centers[source] = [
            ((level[-1, :2] + level[-1, 2:]) / 2).round().tolist() for level in levels[3:]
        ]
    # P6 is 13 × 21, P7 is 7 × 11; torchvision's strides there are 61 × 64 and 114 × 122.
    assert last_centers["fixed"] == [[20 * 64, 12 * 64], [10 * 128, 6 * 128]]
    assert last_centers["padded_size"] == [[20 * 64, 12 * 61], [10 * 122, 6 * 114]]


def test_float32_also_under_autocast_and_another_default_type() -> None:
    generator = AnchorConfig().build(STRIDES)
    shapes = feature_shapes((512, 512))
    expected = AnchorConfig().build(STRIDES)(shapes, (512, 512), "cpu").boxes
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            anchors = generator(shapes, (512, 512), "cpu")
    finally:
        torch.set_default_dtype(torch.float32)
    assert anchors.boxes.dtype == torch.float32
    assert torch.equal(anchors.boxes, expected)


def test_recent_sizes_are_kept_and_old_ones_forgotten() -> None:
    generator = AnchorConfig().build(STRIDES)
    first = generator(feature_shapes((64, 64)), (64, 64), "cpu")
    assert generator(feature_shapes((64, 64)), (64, 64), "cpu") is first
    for side in range(96, 96 + 32 * 40, 32):
        generator(feature_shapes((32, side)), (32, side), "cpu")
    again = generator(feature_shapes((64, 64)), (64, 64), "cpu")
    assert again is not first
    assert torch.equal(again.boxes, first.boxes)


def test_anchors_made_in_inference_mode_can_take_part_in_training() -> None:
    generator = AnchorConfig().build(STRIDES)
    with torch.inference_mode():
        generator(feature_shapes((32, 32)), (32, 32), "cpu")
    anchors = generator(feature_shapes((32, 32)), (32, 32), "cpu")
    deltas = torch.zeros(len(anchors), 4, requires_grad=True)
    DeltasConfig().build().decode(deltas, anchors.boxes).sum().backward()
    assert deltas.grad is not None
    assert float(deltas.grad[:, 0].sum()) > 0


def test_a_generator_has_nothing_to_save() -> None:
    generator: AnchorGenerator = AnchorConfig().build(STRIDES)
    assert not generator.state_dict()
    assert not list(generator.parameters())


def test_own_scales_for_each_level() -> None:
    config = AnchorConfig(
        sizes=(16.0, 64.0), scales_per_level=((1.0, 2.0), (1.0, 1.5)), ratios=(1.0,)
    )
    anchors = config.build((8, 16))([(1, 1), (1, 1)], (16, 16), "cpu")
    assert (anchors.boxes[:, 2] - anchors.boxes[:, 0]).tolist() == [16.0, 32.0, 64.0, 96.0]


def test_another_number_of_sizes_than_levels_is_refused() -> None:
    with pytest.raises(UserError, match=r"anchors\.sizes has 2 entries, the pyramid has 5 levels"):
        AnchorConfig(sizes=(32.0, 64.0)).build(STRIDES)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"sizes": [32, 64], "scales_per_level": [[1.0], [1.0, 2.0]]}, r"same number .*\[1, 2\]"),
        ({"ratios_per_level": [[1.0]]}, "ratios_per_level has 1 levels, sizes has 5"),
        ({"sizes": [32, -1]}, r"sizes\.1: .*greater than 0"),
        ({"ratios": []}, "ratios: .*at least 1"),
    ],
)
def test_bad_configs_say_why(tree: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(tree, AnchorConfig, source="test")
