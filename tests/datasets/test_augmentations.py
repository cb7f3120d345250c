"""Augmentations: the box moves with its object, the seed decides, bad configs are refused."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retina.configuration import Config, ConfigError, parse_yaml, to_yaml, validate
from retina.datasets import augmentations
from retina.datasets.augmentations import AugmentationConfig, TransformConfig
from retina.datasets.dataset import AnnotatedImage
from retina.datasets.pipeline import Pipeline
from retina.errors import UserError

PRESETS = ("flip", "multi_scale", "strong")


class Root(Config):
    augmentation: AugmentationConfig = AugmentationConfig()


def rectangle(seed: int, height: int = 200, width: int = 240) -> AnnotatedImage:
    generator = np.random.default_rng(seed)
    x1, y1 = generator.integers(0, width - 30), generator.integers(0, height - 30)
    x2, y2 = generator.integers(x1 + 20, width + 1), generator.integers(y1 + 20, height + 1)
    image = np.zeros((height, width, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    box = np.array([[x1, y1, x2, y2]], np.float32)
    return AnnotatedImage(image, box, np.array([3]), np.array([False]))


def box_of_pixels(image: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(image.max(axis=2) > 127)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], dtype=np.float32)


def no_partner(index: int) -> AnnotatedImage:
    raise AssertionError("only a mosaic may ask for a partner")


def build(*transforms: dict[str, Any], **settings: Any) -> Pipeline:
    tree = {"augmentation": {"preset": "none", "transforms": list(transforms), **settings}}
    pipeline = validate(tree, Root, source="test").augmentation.build()
    assert pipeline is not None
    return pipeline


def apply(pipeline: Pipeline, annotated: AnnotatedImage, seed: int) -> AnnotatedImage:
    return pipeline(annotated, seed=seed, load_partner=no_partner, num_images=1)


SPATIAL: list[tuple[dict[str, Any], float]] = [
    # transform and the largest distance allowed, in pixels
    ({"name": "HorizontalFlip"}, 0.001),
    ({"name": "VerticalFlip"}, 0.001),
    ({"name": "Transpose"}, 0.001),
    ({"name": "D4"}, 0.001),
    ({"name": "RandomRotate90"}, 0.001),
    ({"name": "Crop", "x_min": 10, "y_min": 20, "x_max": 200, "y_max": 180}, 0.001),
    ({"name": "CenterCrop", "height": 150, "width": 170}, 0.001),
    ({"name": "RandomCrop", "height": 150, "width": 170}, 0.001),
    ({"name": "RandomCropFromBorders"}, 0.001),
    ({"name": "AtLeastOneBBoxRandomCrop", "height": 150, "width": 170}, 0.001),
    ({"name": "BBoxSafeRandomCrop"}, 0.001),
    ({"name": "Pad", "padding": 30}, 0.001),
    ({"name": "PadIfNeeded", "min_height": 256, "min_width": 256}, 0.001),
    ({"name": "RandomSizedBBoxSafeCrop", "height": 150, "width": 170}, 1),
    ({"name": "RandomResizedCrop", "size": [150, 170]}, 1),
    ({"name": "Resize", "height": 99, "width": 311}, 1),
    ({"name": "LongestMaxSize", "max_size": 150}, 1),
    ({"name": "SmallestMaxSize", "max_size": 150}, 1),
    ({"name": "RandomScale", "scale_limit": 0.3}, 1),
    ({"name": "CropAndPad", "percent": [-0.1, 0.1]}, 1),
    ({"name": "Affine", "scale": [0.3, 0.7], "rotate": [-45, 45], "shear": [-20, 20]}, 1),
    ({"name": "Rotate", "limit": [-90, 90]}, 1),
    ({"name": "SafeRotate", "limit": [-90, 90]}, 1.5),
    ({"name": "Perspective", "fit_output": True}, 1.5),
    ({"name": "CoarseDropout"}, 1),
    ({"name": "GridDistortion"}, 1.5),
    ({"name": "ElasticTransform"}, 2),
    ({"name": "OpticalDistortion", "distort_limit": 0.3}, 2),
]
IMAGE_ONLY = (
    *("AutoContrast", "Blur", "CLAHE", "ChannelShuffle", "ColorJitter", "Downscale", "Equalize"),
    *("GaussNoise", "HueSaturationValue", "ISONoise", "ImageCompression", "MotionBlur"),
    *("MedianBlur", "PlanckianJitter", "Posterize", "RandomBrightnessContrast", "RandomGamma"),
    *("RandomFog", "RandomRain", "RandomShadow", "Sharpen", "Solarize", "ToGray", "ToSepia"),
)


@pytest.mark.parametrize(("transform", "tolerance"), SPATIAL, ids=lambda value: str(value))
def test_a_drawn_rectangle_and_its_box_move_together(
    transform: dict[str, Any], tolerance: float
) -> None:
    pipeline = build({**transform, "p": 1.0}, min_visibility=0.0)
    compared = 0
    for seed in range(25):
        before = rectangle(seed)
        after = apply(pipeline, before, seed)
        height, width = after.size
        if len(after.boxes) == 0:
            assert (after.image > 127).mean() < 0.001, "the object is there, its box is gone"
            continue
        x1, y1, x2, y2 = after.boxes[0]
        is_turned = transform["name"] in ("Rotate", "Perspective", "Affine", "SafeRotate")
        if is_turned and not (x1 > 1 and y1 > 1 and x2 < width - 1 and y2 < height - 1):
            continue  # of a turned rectangle that is cut off, the box holds the cut corners too
        np.testing.assert_allclose(after.boxes[0], box_of_pixels(after.image), atol=tolerance)
        compared += 1
    assert compared >= 8


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_move_rectangle_and_box_together(preset: str) -> None:
    config = AugmentationConfig(preset=preset, mosaic_probability=0.0, min_visibility=0.0)  # type: ignore[arg-type]
    pipeline = config.build()
    assert pipeline is not None
    tolerance = 1.0 if preset == "strong" else 0.001
    changed = 0
    for seed in range(60):
        before = rectangle(seed)
        empty = AnnotatedImage(
            np.zeros_like(before.image), before.boxes, before.labels, before.is_crowd
        )
        after, ground = apply(pipeline, before, seed), apply(pipeline, empty, seed)
        # What the rectangle changed in the picture, whatever happened to colour and borders.
        difference = np.abs(after.image.astype(np.int64) - ground.image).max(axis=2)
        is_object = difference > max(20, difference.max() / 2)
        if len(after.boxes) == 0:
            assert not is_object.any()
            continue
        ys, xs = np.nonzero(is_object)
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        np.testing.assert_allclose(after.boxes[0], box, atol=tolerance)
        changed += not np.array_equal(after.image, before.image)
    assert 20 <= changed <= 60


@pytest.mark.parametrize("name", IMAGE_ONLY)
def test_transforms_of_the_pixels_leave_the_boxes_alone(name: str) -> None:
    before = rectangle(3)
    after = apply(build({"name": name, "p": 1.0}), before, seed=11)
    np.testing.assert_array_equal(after.boxes, before.boxes)
    assert after.image.dtype == np.uint8
    assert after.image.shape == before.image.shape


def test_the_seed_alone_decides_whatever_ran_before() -> None:
    config = AugmentationConfig(preset="strong")
    used, fresh = config.build(), config.build()
    assert used is not None
    assert fresh is not None
    partners = [rectangle(index) for index in range(5)]

    def run(pipeline: Pipeline, seed: int) -> AnnotatedImage:
        return pipeline(
            partners[0], seed=seed, load_partner=partners.__getitem__, num_images=len(partners)
        )

    images = set()
    for seed in range(12):
        run(used, seed + 1000)
        first, second = run(used, seed), run(pickle.loads(pickle.dumps(fresh)), seed)
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.boxes, second.boxes)
        images.add(first.image.tobytes())
    assert len(images) == 12


def test_two_transforms_draw_independently_of_each_other() -> None:
    # A seed given to albumentations' own Compose makes these two always happen together.
    pipeline = build({"name": "HorizontalFlip", "p": 0.5}, {"name": "VerticalFlip", "p": 0.5})
    image = np.zeros((4, 4, 3), np.uint8)
    image[0, 0] = 255
    annotated = AnnotatedImage(
        image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    )
    counts: dict[tuple[bool, bool], int] = {}
    for seed in range(400):
        after = apply(pipeline, annotated, seed).image
        y, x = np.argwhere(after[:, :, 0])[0]
        counts[x > 0, y > 0] = counts.get((x > 0, y > 0), 0) + 1
    assert len(counts) == 4
    assert min(counts.values()) > 60  # 100 expected


def test_crowds_keep_their_flag_and_stay_however_little_is_left() -> None:
    pipeline = build(
        {"name": "Crop", "x_min": 0, "y_min": 0, "x_max": 50, "y_max": 50}, min_visibility=0.5
    )
    boxes = np.array([[40, 40, 100, 100], [40, 40, 100, 100], [10, 10, 30, 30]], np.float32)
    annotated = AnnotatedImage(
        np.zeros((100, 100, 3), np.uint8),
        boxes,
        np.array([0, 1, 2]),
        np.array([True, False, False]),
    )
    after = apply(pipeline, annotated, seed=0)
    assert after.labels.tolist() == [0, 2]
    assert after.is_crowd.tolist() == [True, False]
    np.testing.assert_allclose(after.boxes, [[40, 40, 50, 50], [10, 10, 30, 30]], atol=1e-4)


def test_visibility_counts_all_that_was_cut_away_since_the_start() -> None:
    # Two crops that each leave 60 % of the box: 36 % in all.
    crops = (
        {"name": "Crop", "x_min": 0, "y_min": 0, "x_max": 60, "y_max": 100, "p": 1.0},
        {"name": "Crop", "x_min": 0, "y_min": 0, "x_max": 36, "y_max": 100, "p": 1.0},
    )
    annotated = AnnotatedImage(
        np.zeros((100, 100, 3), np.uint8),
        np.array([[0, 0, 100, 100]], np.float32),
        np.array([0]),
        np.array([False]),
    )
    assert len(apply(build(*crops, min_visibility=0.35), annotated, seed=0).boxes) == 1
    assert len(apply(build(*crops, min_visibility=0.37), annotated, seed=0).boxes) == 0


def test_an_image_that_loses_all_its_boxes_stays_as_a_negative() -> None:
    pipeline = build({"name": "Crop", "x_min": 0, "y_min": 0, "x_max": 20, "y_max": 20})
    annotated = AnnotatedImage(
        np.full((100, 100, 3), 7, np.uint8),
        np.array([[50, 50, 90, 90]], np.float32),
        np.array([0]),
        np.array([False]),
    )
    for seed in range(20):
        after = apply(pipeline, annotated, seed)
        if after.size == (20, 20):
            assert after.boxes.shape == (0, 4)
            assert after.labels.shape == after.is_crowd.shape == (0,)
            return
    raise AssertionError("the crop never happened")


coordinate = st.one_of(
    st.floats(-1e4, 1e4, width=32),
    st.sampled_from([0.0, 63.999996, 64.0, 64.00001, 1e-30, -1e-7, 48.0, 1e30, -1e30]),
    st.sampled_from([float("nan"), float("inf"), float("-inf")]),
)


@settings(max_examples=150, deadline=None)
@given(
    boxes=st.lists(st.tuples(*[coordinate] * 4), max_size=6),
    preset=st.sampled_from(PRESETS),
    seed=st.integers(0, 2**63 - 1),
)
def test_no_box_however_absurd_crashes_or_leaves_the_image(
    boxes: list[tuple[float, ...]], preset: Any, seed: int
) -> None:
    table = np.array(boxes, np.float32).reshape(-1, 4)
    generator = np.random.default_rng(1)
    annotated = AnnotatedImage(
        generator.integers(0, 256, (48, 64, 3), dtype=np.uint8),
        table,
        np.arange(len(table)),
        np.arange(len(table)) % 2 == 1,
    )
    pipeline = AugmentationConfig(preset=preset, min_area=0.0, min_visibility=0.0).build()
    assert pipeline is not None
    after = pipeline(annotated, seed=seed, load_partner=lambda index: annotated, num_images=4)
    height, width = after.size
    assert after.image.dtype == np.uint8
    assert after.image.flags.c_contiguous
    assert after.boxes.dtype == np.float32
    assert after.boxes.shape == (len(after.labels), 4)
    assert (after.boxes >= 0).all()
    assert (after.boxes[:, [0, 2]] <= width).all()
    assert (after.boxes[:, [1, 3]] <= height).all()
    assert (after.boxes[:, 2:] > after.boxes[:, :2]).all()
    np.testing.assert_array_equal(after.is_crowd, after.labels % 2 == 1)


BAD = [
    ("{name: HorizontalFlp}", "0.name: no transform of albumentations, did you mean 'HorizontalF"),
    ("{name: Blur, blur_limt: 3}", "0.blur_limt: not an argument of Blur, did you mean 'blur_limi"),
    ("{name: Blur, p: 2}", "0.p: not right for Blur: Input should be less than or equal to 1 (val"),
    ("{name: Blur, blur_limit: many}", "0.blur_limit: not right for Blur: Input should be a valid"),
    ("{name: RandomResizedCrop, size: [9, 9], scale: [1, 2]}", "0.scale: not right for RandomRes"),
    ("{name: RandomCrop, height: 3}", "0.width: required by RandomCrop"),
    ("{p: 0.5}", "0.name: this key is required"),
    ("{name: OneOf}", "0.transforms: 'OneOf' needs transforms inside"),
    ("{name: OneOf, p: 1, transforms: [{name: Blur, p: 0}]}", "0: not right for OneOf: float div"),
    (
        "{name: OneOf, transforms: [{name: Blur}, {name: SomeOf, transforms: [{name: Blurr}]}]}",
        "0.transforms.1.transforms.0.name: no transform of albumentations, did you mean 'Blur'?",
    ),
    ("{name: Blur, transforms: [{name: Blur}]}", "0.transforms: not an argument of Blur"),
    ("{name: Normalize}", "0.name: not possible here: images stay uint8"),
    ("{name: ToTensorV2}", "0.name: not possible here: images are turned into tensors after all"),
    ("{name: ToGray, num_output_channels: 1}", "0.name: not possible here: images must keep three"),
    ("{name: OverlayElements}", "0.name: not possible here: it needs overlay_metadata beside"),
    ("{name: CenterCrop3D, size: [8, 8, 8]}", "0.name: not possible here: it does not move boxes"),
    ("{name: MaskDropout}", "0.name: not possible here: it needs mask beside"),
    ("{name: Mosaic}", "0.name: not possible here: set mosaic_probability instead"),
    ("{name: Lambda}", "0.name: not possible here: a config file cannot hold a function"),
    ("{name: DualTransform}", "0.name: no transform of albumentations"),
]


@pytest.mark.parametrize(("transform", "message"), BAD, ids=[text for text, _ in BAD])
def test_a_bad_transform_is_refused_at_load_with_its_path(transform: str, message: str) -> None:
    tree = {"augmentation": {"transforms": [parse_yaml(transform, "test")]}}
    with pytest.raises(ConfigError) as caught:
        validate(tree, Root, source="a.yaml")
    assert str(caught.value).splitlines()[0] == "a.yaml: 1 problem"
    assert f"augmentation.transforms.{message}" in str(caught.value)


def test_all_problems_of_a_list_are_told_at_once() -> None:
    transforms = [{"name": "Blurr"}, {"name": "Blur", "a": 1, "b": 2}, {"name": "VerticalFlip"}]
    with pytest.raises(ConfigError) as caught:
        validate({"augmentation": {"transforms": transforms}}, Root, source="a.yaml")
    paths = [line.strip().split(":")[0] for line in str(caught.value).splitlines()[1:]]
    assert paths == [f"augmentation.transforms.{path}" for path in ("0.name", "1.a", "1.b")]


def test_the_resolved_config_reads_back_equal() -> None:
    tree = {
        "augmentation": {
            "preset": "strong",
            "transforms": [
                {"name": "OneOf", "p": 0.3, "transforms": [{"name": "Blur", "blur_limit": [3, 5]}]}
            ],
        }
    }
    config = validate(tree, Root, source="a.yaml")
    again = validate(parse_yaml(to_yaml(config), "b.yaml"), Root, source="b.yaml")
    assert again == config
    assert again.augmentation.transforms[0].model_extra == {"p": 0.3}


@pytest.mark.parametrize("preset", ["flip", "multi_scale", "strong"])
def test_without_mirror_a_preset_never_mirrors(preset: str) -> None:
    def build(mirror: bool) -> Pipeline | None:
        config = AugmentationConfig.model_validate(
            {"preset": preset, "mirror": mirror, "mosaic_probability": 0.0}
        )
        return config.build()

    half_white = rectangle(0)
    half_white.image[:] = 0
    half_white.image[:, : half_white.image.shape[1] // 3] = 255

    def is_mirrored(pipeline: Pipeline, seed: int) -> bool:
        image = apply(pipeline, half_white, seed).image.astype(float)
        third = image.shape[1] // 3
        return bool(image[:, -third:].mean() > image[:, :third].mean())

    with_it, without = build(True), build(False)
    assert with_it is not None
    assert any(is_mirrored(with_it, seed) for seed in range(20))
    if without is None:
        assert preset != "strong"
    else:
        assert not any(is_mirrored(without, seed) for seed in range(20))


def test_presets_say_whether_batches_draw_their_size() -> None:
    answers = {
        preset: AugmentationConfig(preset=preset).multi_scale  # type: ignore[arg-type]
        for preset in ("none", *PRESETS)
    }
    assert answers == {"none": False, "flip": False, "multi_scale": True, "strong": True}
    assert AugmentationConfig(preset="none").build() is None


def test_a_crop_larger_than_the_image_is_a_clear_error() -> None:
    pipeline = build({"name": "RandomCrop", "height": 300, "width": 300, "p": 1.0})
    with pytest.raises(UserError, match=r"RandomCrop cannot be applied to an image of 200×240"):
        apply(pipeline, rectangle(0), seed=0)


def test_a_thousand_boxes_keep_their_labels() -> None:
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 400, (1000, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(5, 60, (1000, 2))], axis=1)
    annotated = AnnotatedImage(
        np.zeros((500, 600, 3), np.uint8),
        boxes.astype(np.float32),
        np.arange(1000),
        np.zeros(1000, bool),
    )
    after = apply(build({"name": "HorizontalFlip", "p": 1.0}), annotated, seed=0)
    flipped = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [600, 0, 600, 0]
    assert after.labels.tolist() == list(range(1000))
    np.testing.assert_allclose(after.boxes, flipped, atol=1e-3)


def test_transform_configs_can_be_built_in_python_too() -> None:
    config = AugmentationConfig(
        preset="none", transforms=(TransformConfig(name="VerticalFlip", p=1.0),)
    )
    pipeline = config.build()
    assert pipeline is not None
    before = rectangle(5)
    np.testing.assert_array_equal(apply(pipeline, before, seed=0).image, before.image[::-1])


def test_a_transform_of_our_own_is_one_more_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    library: Any = augmentations._library()

    class Darken(library.ImageOnlyTransform):  # type: ignore[misc]
        def apply(self, image: np.ndarray, **_: Any) -> np.ndarray:
            return image // 2

    monkeypatch.setitem(augmentations._known_transforms(), "Darken", Darken)
    annotated = rectangle(0)
    changed = apply(build({"name": "Darken", "p": 1.0}), annotated, seed=0)
    assert np.array_equal(changed.image, annotated.image // 2)
    assert np.array_equal(changed.boxes, annotated.boxes)
    with pytest.raises(ConfigError, match="not an argument of Darken"):
        build({"name": "Darken", "strength": 1})
