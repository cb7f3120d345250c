"""The RetinaNets that torchvision has published, trained on COCO."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchvision.models import get_model_weights

from retina.errors import UserError
from retina.modeling.detector_names import PublishedName
from retina.modeling.importers.torchvision import Variant
from retina.modeling.loading import StateDict
from retina.modeling.pretrained import (
    WeightOrigin,
    fetch,
    kept_at,
    published_hash,
    sha256_of,
)

ARCHITECTURES: dict[Variant, str] = {
    "v1": "retinanet_resnet50_fpn",
    "v2": "retinanet_resnet50_fpn_v2",
}
"""What torchvision calls its two RetinaNets."""

UNUSED = ("__background__", "N/A")
"""What torchvision calls the 11 of its 91 class outputs that no object of COCO trains."""

_VARIANTS: dict[PublishedName, Variant] = {"coco_v1": "v1", "coco_v2": "v2"}


@dataclass(frozen=True, slots=True)
class PublishedDetector:
    """What is known of a published detector before it is fetched.

    Attributes:
        name: of it.
        variant: which of torchvision's two RetinaNets it is.
        weights: the entry of torchvision's enum.
    """

    name: PublishedName
    variant: Variant
    weights: Any

    @property
    def preset(self) -> str:
        """The preset whose model all of its weights fit into."""
        return f"torchvision_{self.variant}"

    @property
    def norm_eps(self) -> float | None:
        """Epsilon of the backbone's batch norms; None for the preset's."""
        return official_norm_eps(self.variant)

    @property
    def categories(self) -> list[str]:
        """The name of each of its 91 class outputs, `UNUSED` ones among them."""
        return list(self.weights.meta["categories"])


@dataclass(frozen=True, slots=True)
class PublishedSource:
    """Where the weights of a published detector come from.

    Attributes:
        name: ``RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1``.
        url: which file it is.
        sha256: of the file that was fetched, 64 hexadecimal digits.
    """

    name: str
    url: str
    sha256: str


def published(name: PublishedName) -> PublishedDetector:
    """The published detector of that name."""
    variant = _VARIANTS[name]
    return PublishedDetector(name, variant, get_model_weights(ARCHITECTURES[variant]).COCO_V1)


def official_norm_eps(variant: Variant) -> float | None:
    """The epsilon that torchvision gives to the batch norms of its own COCO_V1 weights.

    None is for that of the preset, 1e-5. Those of v1 were trained with 0, as
    `torchvision.models.detection.retinanet_resnet50_fpn` says (``overwrite_eps``).
    """
    return 0.0 if variant == "v1" else None


def fetch_published(name: PublishedName) -> StateDict:
    """The weights under torchvision's names, as in `fetch_official`."""
    return fetch_official(published(name).weights, asked_as=name)


def fetch_official(weights: Any, *, asked_as: str, instead: str = "") -> StateDict:
    """As `fetch`, and a file that lies there already must be the one that was published.

    Some of these files are older than the format of `torch.save` that has checksums: damage would
    be taken for weights.

    Raises:
        UserError: they cannot be had, says what to fetch and where to put it; or the file that lies
            there is damaged or another.
    """
    kept, begins = kept_at(weights.url), published_hash(weights.url)
    sha256 = sha256_of(kept)
    if sha256 is not None and not sha256.startswith(begins):
        raise UserError(
            f"{asked_as}: {kept} is damaged, or not the file that was published: its SHA-256 "
            f"begins with {sha256[: len(begins)]}, not {begins}. Delete it and try again, or put "
            f"{weights.url} in its place"
        )
    return fetch(weights, asked_as=asked_as, instead=instead)


def published_file(name: PublishedName) -> Path:
    """Where the weights of a published detector are kept once they are fetched."""
    return kept_at(published(name).weights.url)


def published_source(name: PublishedName) -> PublishedSource:
    """Name, address and hash of a published detector that was fetched."""
    weights = published(name).weights
    with published_file(name).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return PublishedSource(str(weights), weights.url, sha256)


def origin_of_published(weights: Any) -> WeightOrigin:
    """Where an entry of torchvision's enums is from, as a detector file keeps it."""
    return WeightOrigin(
        name=str(weights),
        source=weights.url,
        sha256=sha256_of(kept_at(weights.url)),
        licence="BSD-3-Clause (torchvision), trained on COCO",
    )
