"""The RetinaNets that torchvision has published, trained on COCO."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchvision.models import get_model_weights

from retina.modeling.detector_names import PublishedName
from retina.modeling.importers.torchvision import Variant
from retina.modeling.loading import StateDict
from retina.modeling.pretrained import fetch, kept_at, published_hash

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
        is_as_published: whether the hash begins as the file's name says. torch looks at that when
            it fetches a file, not when one lies there.
    """

    name: str
    url: str
    sha256: str
    is_as_published: bool


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
    """The weights under torchvision's names, from torch's folder of downloads or the network.

    Raises:
        UserError: they cannot be had; says what to fetch and where to put it.
    """
    return fetch(published(name).weights, asked_as=name)


def published_file(name: PublishedName) -> Path:
    """Where the weights of a published detector are kept once they are fetched."""
    return kept_at(published(name).weights.url)


def published_source(name: PublishedName) -> PublishedSource:
    """Name, address and hash of a published detector that was fetched."""
    weights = published(name).weights
    with published_file(name).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    is_as_published = sha256.startswith(published_hash(weights.url))
    return PublishedSource(str(weights), weights.url, sha256, is_as_published)
