"""Random changes of training images, by albumentations.

This is the one file that imports albumentations (2.0.8, the last release under the MIT licence),
and it does so when a transform is first needed: the import takes a second.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Sequence
from functools import cache, partial
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from retina.configuration import Config
from retina.datasets.pipeline import Pipeline
from retina.datasets.visibility import VisibilityRule
from retina.errors import did_you_mean

COMPOSITES = ("OneOf", "RandomOrder", "Sequential", "SomeOf")
"""Transforms that hold transforms."""

REFUSED = {
    "CropNonEmptyMaskIfExists": "it needs masks",
    "FromFloat": "it expects float images; here they are uint8 throughout",
    "GridElasticDeform": "it fails on images with more than 512 boxes; ElasticTransform does not",
    "Lambda": "a config file cannot hold a function",
    "Morphological": "it does not move boxes rightly",
    "Mosaic": "set mosaic_probability instead",
    "Normalize": "images stay uint8; the detector normalises them on the device",
    "ToFloat": "images stay uint8; the detector normalises them on the device",
    "ToTensor3D": "images are turned into tensors after all transforms",
    "ToTensorV2": "images are turned into tensors after all transforms",
}
"""What would break the way of an image to the device, each with the reason."""


class TransformConfig(Config):
    """One transform: albumentations' class name and that class's own arguments beside it."""

    model_config = ConfigDict(extra="allow")

    name: str
    """The class, for example `HorizontalFlip`."""

    transforms: tuple[TransformConfig, ...] | None = None
    """The transforms to choose from, for `OneOf`, `SomeOf`, `RandomOrder`, `Sequential`."""

    @model_validator(mode="after")
    def _must_be_buildable(self) -> Self:
        if problems := list(_problems(self)):
            raise ValidationError.from_exception_data(self.name, problems)
        return self

    def build(self) -> Any:
        """The albumentations transform, with the transforms that it holds."""
        arguments = dict(self.model_extra or {})
        if self.transforms is not None:
            arguments["transforms"] = [transform.build() for transform in self.transforms]
        return _known_transforms()[self.name](**arguments)


class AugmentationConfig(Config):
    """Random changes of the training images."""

    preset: Literal["none", "flip", "multi_scale", "strong"] = "flip"
    """`flip` mirrors half of the images; `multi_scale` does so and lets every batch draw its size;
    `strong` adds scale jitter, crops, colour and mosaics to that."""

    mirror: bool = True
    """Whether the preset mirrors images; false where left and right are different classes, or
    where text is read."""

    transforms: tuple[TransformConfig, ...] = ()
    """More transforms, applied in this order after those of the preset."""

    tile: int | None = Field(default=None, ge=32)
    """Show four of five larger images as a random part with sides of so many pixels, at their own
    scale: for small objects, and a detector that predicts with `--tile` of the same number."""

    mosaic_probability: float | None = Field(default=None, ge=0, le=1)
    """How often four images are put together into one. Unset: 0.3 with `strong`, else 0."""

    min_visibility: float = Field(default=0.2, ge=0, le=1)
    """An object of which a smaller fraction of its area is left in the picture is dropped."""

    min_area: float = Field(default=1.0, ge=0)
    """An object of which fewer square pixels are left is dropped."""

    @property
    def multi_scale(self) -> bool:
        """Whether batches draw their size where the sampling does not say otherwise."""
        return self.preset in ("multi_scale", "strong")

    @property
    def keeps_aspect(self) -> bool:
        """Whether every image surely keeps its aspect ratio."""
        return self.preset != "strong" and not self.transforms and self.tile is None

    @property
    def has_mosaic(self) -> bool:
        """Whether images are put together."""
        return self._mosaics > 0

    @property
    def _mosaics(self) -> float:
        if self.mosaic_probability is None:
            return 0.3 if self.preset == "strong" else 0.0
        return self.mosaic_probability

    def build(self) -> Pipeline | None:
        """The augmentation; None if it would change nothing."""
        of_preset = _preset_transforms(self.preset)
        if not self.mirror:
            of_preset = tuple(one for one in of_preset if one.name != "HorizontalFlip")
        transforms = (*of_preset, *self.transforms)
        if not transforms and not self.has_mosaic and self.tile is None:
            return None
        rule = VisibilityRule(self.min_visibility, self.min_area)
        compose = partial(_compose, transforms, rule)
        return Pipeline(compose, mosaic_probability=self._mosaics, rule=rule, tile=self.tile)


def _preset_transforms(preset: str) -> tuple[TransformConfig, ...]:
    flip = TransformConfig(name="HorizontalFlip", p=0.5)
    if preset == "none":
        return ()
    if preset != "strong":
        return (flip,)
    return (
        flip,
        TransformConfig(
            name="OneOf",
            p=0.7,
            transforms=(
                TransformConfig(
                    name="Affine",
                    scale=[0.5, 1.5],
                    translate_percent=[-0.1, 0.1],
                    keep_ratio=True,
                    fill=114,
                ),
                TransformConfig(
                    name="RandomCropFromBorders",
                    crop_left=0.25,
                    crop_right=0.25,
                    crop_top=0.25,
                    crop_bottom=0.25,
                ),
            ),
        ),
        TransformConfig(
            name="RandomBrightnessContrast", brightness_limit=0.2, contrast_limit=0.2, p=0.5
        ),
        TransformConfig(
            name="HueSaturationValue",
            hue_shift_limit=8,
            sat_shift_limit=30,
            val_shift_limit=0,
            p=0.5,
        ),
    )


@cache
def _library() -> Any:
    # albumentations asks the network for a newer version when it is imported, unless told not to.
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    return albumentations


def _compose(configs: Sequence[TransformConfig], rule: VisibilityRule) -> Any:
    """The transforms, with the rule which boxes stay (for those that hide parts of boxes)."""
    library = _library()
    parameters = library.BboxParams(
        format="pascal_voc", min_visibility=rule.min_visibility, check_each_transform=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing moves boxes, if so; that names are old ones
        return library.Compose([config.build() for config in configs], bbox_params=parameters)


@cache
def _known_transforms() -> dict[str, Any]:
    """Every class that a config may name; one of our own is one more entry."""
    library = _library()
    known = {name: getattr(library, name) for name in COMPOSITES}
    for name in dir(library):
        candidate = getattr(library, name)
        if not (inspect.isclass(candidate) and issubclass(candidate, library.BasicTransform)):
            continue
        if candidate not in (
            library.BasicTransform,
            library.DualTransform,
            library.ImageOnlyTransform,
            library.Transform3D,
        ):
            known[name] = candidate
    return known


def _problems(config: TransformConfig) -> list[InitErrorDetails]:
    """Everything that is wrong with one transform (those inside it were looked at before it)."""
    name, given = config.name, config.model_extra or {}
    known = _known_transforms()
    if name not in known:
        hint = did_you_mean(name, known)
        return [_problem(("name",), f"no transform of albumentations{hint}", name)]
    if name in REFUSED:
        return [_problem(("name",), f"not possible here: {REFUSED[name]}", name)]
    parameters = inspect.signature(known[name].__init__).parameters
    accepted = {key: parameters[key].default for key in parameters if key != "self"}
    found = []
    if name in COMPOSITES:
        accepted.pop("transforms")
        if not config.transforms:
            found.append(_problem(("transforms",), f"{name!r} needs transforms inside", None))
    elif config.transforms is not None:
        found.append(_problem(("transforms",), f"not an argument of {name}", "…"))
    for argument, value in given.items():
        if argument not in accepted:
            hint = did_you_mean(argument, accepted) or f"; it takes {', '.join(accepted)}"
            found.append(_problem((argument,), f"not an argument of {name}{hint}", value))
    for argument, default in accepted.items():
        if default is inspect.Parameter.empty and argument not in given:
            found.append(_problem((argument,), f"required by {name}", None))
    return found or _value_problems(config, known[name], {**accepted, **given})


def _value_problems(
    config: TransformConfig, transform: Any, arguments: dict[str, Any]
) -> list[InitErrorDetails]:
    """What the transform itself says about the values of its arguments."""
    name = config.name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if hasattr(transform, "InitSchema"):
                # Asked directly: constructing turns some of its errors into warnings.
                transform.InitSchema(**arguments, strict=True)
            built = config.build()
    except ValidationError as error:
        messages: dict[Any, list[str]] = {}
        for detail in error.errors(include_url=False):
            messages.setdefault(detail["loc"][:1], []).append(
                detail["msg"].removeprefix("Value error, ")
            )
        return [
            _problem(loc, f"not right for {name}: {' / '.join(reasons)}", arguments.get(str(*loc)))
            for loc, reasons in messages.items()
        ]
    except Exception as error:
        return [_problem((), f"not right for {name}: {error}", config.model_extra)]
    if reason := _unfit(built):
        return [_problem(("name",), f"not possible here: {reason}", name)]
    return []


def _unfit(transform: Any) -> str | None:
    """Why a transform cannot be used with boxes and uint8 RGB images, if so."""
    library = _library()
    if isinstance(transform, library.BasicTransform):
        if needs := transform.targets_as_params:
            return f"it needs {', '.join(needs)} beside the image and its boxes"
        if not isinstance(transform, library.ImageOnlyTransform) and (
            "bboxes" not in transform.available_keys
        ):
            return "it does not move boxes"
        if getattr(transform, "num_output_channels", 3) != 3:
            return "images must keep three channels (num_output_channels)"
    return None


def _problem(loc: tuple[int | str, ...], message: str, value: Any) -> InitErrorDetails:
    kind = PydanticCustomError("value_error", "{error}", {"error": message})
    return InitErrorDetails(type=kind, loc=loc, input=value)
