"""What the network is fed: normalised pixels, augmented batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from retina.configuration import Tree
from retina.datasets.dataset import DetectionDataset
from retina.instruments.doctor.context import CheckContext
from retina.instruments.doctor.findings import CheckResult, Finding
from retina.instruments.doctor.trial import batch_sampler_of
from retina.modeling.detector_names import DetectorSource
from retina.modeling.pixels import IMAGENET, Pixels
from retina.modeling.preprocess import Preprocess, PreprocessConfig
from retina.prediction.detectors import load_detector
from retina.prediction.drawing import Picture, draw_targets
from retina.prediction.image_grids import image_grid
from retina.prediction.picture_size import scaled, size_of
from retina.runtime.splits import spread_indices
from retina.storage import replacing
from retina.structures import Categories, Sample
from retina.wording import counted

_IMAGES = 32
_WIDEST = 5.0
"""Normalised pixels usually spread by about 1; a spread of more than this is another scale."""

_MOST_DRAWN = 12
_SMALLEST_SIDE = 320
_COLUMNS = 4


def check_normalisation(context: CheckContext) -> CheckResult:
    """Mean and spread of the normalised pixels, and the constants that make them."""
    config = context.config.preprocess
    mean, std = pixel_statistics(context.train, config.build(), spread(context.train))
    findings = list(_constants(context))
    if not findings and not _is_in_0_255(config):
        findings += _scale(mean, std)
    shown = ", ".join(f"{m:+.2f} ± {s:.2f}" for m, s in zip(mean, std, strict=True))
    numbers = {
        f"{what}_{channel}": value
        for what, values in (("mean", mean), ("std", std))
        for channel, value in zip(config.channel_order, values, strict=True)
    }
    return CheckResult(f"{config.channel_order}: {shown}", tuple(findings), dict(numbers))


def spread(dataset: DetectionDataset) -> list[int]:
    """A few images, evenly spread."""
    return spread_indices(len(dataset), _IMAGES)


def pixel_statistics(
    dataset: DetectionDataset, preprocess: Preprocess, indices: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel that the network sees, over whole images."""
    sums, squares, count = np.zeros(3), np.zeros(3), 0
    for index in indices:
        image = torch.from_numpy(np.require(dataset.load(index).image, requirements="W"))
        pixels = image.permute(2, 0, 1)[None]  # (1, 3, H, W)
        normalised: torch.Tensor = preprocess(pixels, torch.tensor([pixels.shape[-2:]]))
        values = normalised.double().numpy()[0].reshape(3, -1)
        sums, squares = sums + values.sum(axis=1), squares + (values**2).sum(axis=1)
        count += values.shape[1]
    mean = sums / max(1, count)
    return mean.tolist(), np.sqrt(np.maximum(0, squares / max(1, count) - mean**2)).tolist()


def _constants(context: CheckContext) -> Iterator[Finding]:
    config, model = context.config.preprocess, context.config.model
    if model.initialize_from is not None:
        yield from _differs_from_start(config, model.initialize_from)
        return
    expected = model.backbone.expected_pixels
    if max(config.mean) > 1.5 or max(config.std) > 1.5:
        yield Finding(
            code="normalisation_scale",
            level="error",
            what=f"preprocess.mean {_list(config.mean)} and std {_list(config.std)} are for pixels "
            "of 0 to 255; here 1 is white",
            why="All images would look alike to the network: nearly one constant colour.",
            fix="Divide them by 255.",
            patch=_patch(_divided(config.mean), _divided(config.std)),
            numbers={"largest_mean": max(config.mean), "largest_std": max(config.std)},
        )
    elif _near(config.mean, IMAGENET.std) and _near(config.std, IMAGENET.mean):
        yield Finding(
            code="normalisation_mean_and_std_swapped",
            level="warning" if expected is None else "error",
            what="preprocess.mean and preprocess.std have each other's values",
            why="The pixels are neither centred nor scaled as the weights expect.",
            fix="Exchange them.",
            patch=_patch(IMAGENET.mean, IMAGENET.std),
        )
    elif _near(config.mean, IMAGENET.mean[::-1]):
        yield Finding(
            code="normalisation_order",
            level="warning" if expected is None else "error",
            what=f"preprocess.mean {_list(config.mean)} is ImageNet's as blue, green, red",
            why="Mean and std are always red, green, blue here, also where channel_order is bgr.",
            fix="Write them as red, green, blue.",
            patch=_patch(IMAGENET.mean, IMAGENET.std),
        )
    elif expected is not None and not _is_near(config.pixels, expected):
        yield Finding(
            code="normalisation_not_of_weights",
            level="error",
            what=f"model.backbone.weights {model.backbone.weights} were trained on "
            f"{_named(expected)}; preprocess says {_named(config.pixels)}",
            why="Pretrained filters see other colours than they learned: much of what they know is "
            "lost.",
            fix="Use the normalisation of the weights.",
            patch=_patch_of(expected),
        )


def _differs_from_start(config: PreprocessConfig, start: DetectorSource) -> Iterator[Finding]:
    if isinstance(start, Path) and start.suffix != ".safetensors":
        return  # another program's, which does not say what its pixels were
    theirs = load_detector(start).config.preprocess.pixels
    if _is_near(theirs, config.pixels):
        return
    yield Finding(
        code="normalisation_not_of_weights",
        level="error",
        what=f"{start} was trained with channel_order {theirs.channel_order}, mean "
        f"{_list(theirs.mean)}, std {_list(theirs.std)}; this config says otherwise",
        why="Its weights see other colours than they learned.",
        fix="Use the normalisation of the weights.",
        patch=_patch_of(theirs),
    )


def _scale(mean: Sequence[float], std: Sequence[float]) -> Iterator[Finding]:
    if max(std) < _WIDEST and max(map(abs, mean)) < _WIDEST and min(std) > 1 / 50:
        return
    yield Finding(
        code="normalisation_far_off",
        level="error",
        what="the normalised pixels are "
        + ", ".join(f"{m:+.2f} ± {s:.2f}" for m, s in zip(mean, std, strict=True))
        + " (red, green, blue or the reverse); about 0 ± 1 is usual",
        why="Initial weights and learning rates are made for inputs of that scale.",
        fix="Use ImageNet's mean and std, or the data set's own, where 1 is white.",
        patch=_patch(IMAGENET.mean, IMAGENET.std),
        numbers={"largest_std": max(std), "smallest_std": min(std)},
    )


def _is_in_0_255(config: PreprocessConfig) -> bool:
    """Whether pixels are meant to keep their scale, as the weights of Detectron want it."""
    return all(abs(value - 1 / 255) < 1e-6 for value in config.std)


def _is_near(pixels: Pixels, others: Pixels) -> bool:
    is_near = _near(pixels.mean, others.mean) and _near(pixels.std, others.std)
    return is_near and pixels.channel_order == others.channel_order


def _named(pixels: Pixels) -> str:
    return f"{pixels.channel_order.upper()}, mean {_list(pixels.mean)}, std {_list(pixels.std)}"


def _near(values: Sequence[float], others: Sequence[float]) -> bool:
    return all(abs(a - b) < 0.02 for a, b in zip(values, others, strict=True))


def _divided(values: Sequence[float]) -> list[float]:
    return [round(value / 255, 4) for value in values]


def _list(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"


def _patch(mean: Sequence[float], std: Sequence[float]) -> Tree:
    return {"preprocess": {"mean": list(mean), "std": list(std)}}


def _patch_of(pixels: Pixels) -> Tree:
    tree: Tree = {"channel_order": pixels.channel_order}
    return {"preprocess": tree | {"mean": list(pixels.mean), "std": list(pixels.std)}}


def draw_batch(context: CheckContext) -> CheckResult:
    """Write ``batch.png``: the first batch of the training, augmented, with its boxes."""
    requests = batch_sampler_of(context).epoch(0)[0][:_MOST_DRAWN]
    samples = [context.train[request] for request in requests]
    pictures = [_drawn(sample, context.train.categories) for sample in samples]
    ratio = float(np.median([picture.shape[0] / picture.shape[1] for picture in pictures]))
    height = round(400 * min(max(ratio, 0.25), 4.0))  # a strip is shown as far as it fits
    grid = image_grid(pictures, columns=_COLUMNS, cell=(height, 400))
    with replacing(context.folder / "batch.png") as aside:
        PIL.Image.fromarray(grid).save(aside, format="PNG")
    boxes = sum(len(sample.targets) for sample in samples)
    return CheckResult(
        summary=f"{counted(len(samples), 'image')} with {counted(boxes, 'box')}: look at batch.png",
        numbers={"images": len(samples), "boxes": boxes},
        images=("batch.png",),
    )


def _drawn(sample: Sample, categories: Categories) -> Picture:
    image = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())
    picture = scaled(image, smallest_side=_SMALLEST_SIDE)
    targets = sample.targets.rescaled(size_of(image), size_of(picture))
    return draw_targets(picture, targets, categories)
