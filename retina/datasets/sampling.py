"""How often and at which sizes training shows the images of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from retina.configuration import Config
from retina.datasets.batch_sampling import BatchSampler
from retina.datasets.dataset import DetectionDataset
from retina.errors import UserError
from retina.structures import FloatArray, IntArray

MULTI_SCALE_FACTORS = (0.8, 0.84, 0.88, 0.92, 0.96, 1.0)
"""640, 672 … 800 where the shortest side is 800."""


class SamplingConfig(Config):
    """How the images of an epoch are drawn and grouped into batches."""

    aspect_buckets: bool = True
    """Keep wide and upright images in different batches, so that less of a batch is padding."""

    scale_factors: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        default=None, min_length=1
    )
    """Multi-scale training: every batch draws one of these factors for its shortest side. Unset:
    0.8 to 1.0 in six steps with the augmentation presets `multi_scale` and `strong`, else 1."""

    repeat_threshold: float | None = Field(default=None, gt=0, le=1)
    """Class-balanced sampling: images of categories that appear in a smaller fraction of the images
    than this are repeated (LVIS uses 0.001). Unset: every image once an epoch."""

    empty_images: Literal["keep", "drop"] = "keep"
    """Whether images without an object are shown, as all background, or left out."""

    drop_last: bool = False
    """Leave out the last batch of an epoch if it is not full."""

    def build(
        self,
        dataset: DetectionDataset,
        *,
        batch_size: int,
        seed: int,
        min_size: int,
        max_size: int,
        stretch: bool = False,
        multi_scale: bool = False,
    ) -> BatchSampler:
        """The batch sampler for training on a data set.

        Args:
            dataset: whose image sizes and labels are read (no image is decoded).
            batch_size: images of a batch over all processes.
            seed: of the whole run.
            min_size: the shortest side (with ``stretch``: the height) in pixels.
            max_size: the longest side (with ``stretch``: the width) in pixels.
            stretch: scale to exactly height × width instead of keeping the aspect ratio.
            multi_scale: whether to draw sizes where the config gives no factors.

        Raises:
            UserError: not one batch can be made.
        """
        factors = self.scale_factors or (MULTI_SCALE_FACTORS if multi_scale else (1.0,))
        repeats = None
        if self.repeat_threshold is not None or self.empty_images == "drop":
            targets = (dataset.targets(index) for index in range(len(dataset)))
            labels = [target.labels[~target.is_crowd].numpy() for target in targets]
            repeats = np.ones(len(labels))
            if self.repeat_threshold is not None:
                repeats = repeat_factors(labels, len(dataset.categories), self.repeat_threshold)
            if self.empty_images == "drop":
                repeats[[len(image) == 0 for image in labels]] = 0.0
        batch_sampler = BatchSampler(
            image_sizes=dataset.image_sizes,
            batch_size=batch_size,
            seed=seed,
            sizes=scaled_sizes(min_size, max_size, factors, stretch=stretch),
            stretch=stretch,
            aspect_buckets=self.aspect_buckets,
            repeat_factors=repeats,
            drop_last=self.drop_last,
        )
        if batch_sampler.num_batches == 0:
            raise UserError(
                f"no batch of {batch_size} images can be made of {len(dataset)} training images: "
                "make training.batch_size smaller or set sampling.drop_last=false"
            )
        return batch_sampler


def scaled_sizes(
    min_size: int, max_size: int, factors: Sequence[float], *, stretch: bool
) -> tuple[tuple[int, int], ...]:
    """One ``(min_size, max_size)`` per factor.

    Keeping the aspect ratio, only the shortest side is scaled and the bound of the longest side
    stays, as detectron2 and torchvision do; stretching, both sides are scaled.
    """
    return tuple(
        (max(1, round(min_size * f)), max(1, round(max_size * f)) if stretch else max_size)
        for f in factors
    )


def repeat_factors(
    labels_per_image: Sequence[IntArray], num_classes: int, threshold: float
) -> FloatArray:
    """How often each image should be seen an epoch, at least once.

    Gupta et al. 2019 (LVIS), section 4: with f(c) the fraction of the images that hold category c,
    r(c) = max(1, sqrt(threshold / f(c))) and an image is repeated as its rarest category asks.

    Returns:
        ``(I,)`` float64.
    """
    present = [np.unique(labels) for labels in labels_per_image]
    counts = np.bincount(np.concatenate([*present, np.zeros(0, np.int64)]), minlength=num_classes)
    fractions = counts / max(1, len(present))
    with np.errstate(divide="ignore"):
        of_category = np.maximum(1.0, np.sqrt(threshold / fractions))
    return np.array([of_category[labels].max(initial=1.0) for labels in present], dtype=np.float64)
