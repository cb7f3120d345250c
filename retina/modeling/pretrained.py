"""Weights of whole classification networks, for backbones."""

from __future__ import annotations

import errno
import hashlib
import json
import sys
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from torch import nn

from retina.configuration import Config
from retina.errors import UserError, did_you_mean
from retina.modeling.loading import StateDict, described, misfits, read_state_dict, without_counters
from retina.modeling.pixels import Pixels
from retina.modeling.torch_files import UNREADABLE, check_records, why_unreadable
from retina.wording import first_line

WEIGHT_FILES = (".safetensors", ".pt", ".pth")

UNKNOWN = "unknown"

INSTEAD = (
    "give model.backbone.weights=FILE; or start from random weights, of which nothing is frozen: "
    "--from-scratch of retina train and retina init"
)
"""What else can be done where the weights of a backbone cannot be fetched."""


class WeightOrigin(Config):
    """Where pretrained weights are from, as a detector file keeps it."""

    name: str
    """Of the weights, or of their file."""
    source: str
    """An address, an id of the Hugging Face Hub, or the name of a local file."""
    sha256: str | None = None
    """Of the file; null where it could not be found any more."""
    licence: str = UNKNOWN
    """Under which they are published, as far as their source says."""

    def describe(self) -> str:
        """All of it in one line."""
        return (
            f"{self.name} from {self.source}, licence: {self.licence}, "
            f"sha256 {self.sha256 or UNKNOWN}"
        )


def is_weight_file(weights: str) -> bool:
    """Whether these weights are a local file, and no name of torchvision's."""
    return weights.endswith(WEIGHT_FILES) or Path(weights).is_file()


def load_pretrained(backbone: nn.Module, *, name: str, weights: str, classifier: str) -> None:
    """Load the weights of the whole network that a backbone is a part of.

    Args:
        backbone: with torchvision's names.
        name: torchvision's name of the network.
        weights: torchvision's name of its weights, or a local file.
        classifier: how the names of the entries begin that are left out.

    Raises:
        UserError: there are no such weights, or they belong to another network.
    """
    state_dict = pretrained_state_dict(name, weights)
    given = {
        key: value
        for key, value in without_counters(state_dict).items()
        if not key.startswith(classifier)
    }
    problems = misfits(without_counters(backbone.state_dict()), given)
    if problems:
        raise UserError(
            f"{weights}: these weights belong to another network than the configured backbone "
            f"({described(problems)})"
        )
    backbone.load_state_dict(given, strict=False)


def pretrained_state_dict(name: str, weights: str) -> StateDict:
    """The entries of a local weight file, or of torchvision's weights of that name.

    Raises:
        UserError: there is no such file or name, or it cannot be fetched.
    """
    if is_weight_file(weights):
        return read_state_dict(weights)
    is_known = name in torchvision.models.list_models()
    known = torchvision.models.get_model_weights(name).__members__ if is_known else {}
    if weights not in known:  # also knows DEFAULT, torchvision's name for the newest
        raise UserError(
            f"backbone.weights: torchvision has no weights '{weights}' for {name}"
            f"{did_you_mean(weights, known)} (known: {', '.join(known) or 'none'}; or give a local "
            f"file ending in {', '.join(WEIGHT_FILES)})"
        )
    return fetch(
        known[weights],
        asked_as=f"model.backbone.weights: '{weights}' of {name}",
        instead=f"; or {INSTEAD}",
    )


def fetch(weights: Any, *, asked_as: str, instead: str = "") -> StateDict:
    """Weights that torchvision has published: from torch's folder of downloads, or the network.

    The hash of what is fetched is checked; nothing stays of what is not whole. A file that lies
    there is taken whatever its hash. Nothing in it is executed.

    Args:
        weights: an entry of one of torchvision's enums.
        asked_as: how the user named them, for the message.
        instead: what else the user can do, the end of the message.

    Raises:
        UserError: they cannot be fetched, or the file that lies there is damaged.
    """
    kept, is_fetched = kept_at(weights.url), False
    try:
        if kept.is_file():
            is_fetched = True
            check_records(kept)
        state_dict: StateDict = weights.get_state_dict(
            progress=sys.stderr.isatty(), check_hash=True, weights_only=True
        )
    except (HTTPException, *UNREADABLE) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # no mistake in what was asked for
        if is_fetched:
            raise UserError(
                f"{asked_as}: {kept} cannot be read as weights: {why_unreadable(error)}. Delete it "
                f"and try again, or put {weights.url} in its place"
            ) from None
        raise UserError(
            f"{asked_as} could not be fetched ({_why_not_fetched(error)}). Fetch {weights.url} "
            f"elsewhere and put it at {kept}{instead}"
        ) from None
    return state_dict


def origin_of(name: str, weights: str) -> WeightOrigin:
    """Where the weights of a local file, or torchvision's of that name, are from.

    Args:
        name: torchvision's name of the network.
        weights: as in `pretrained_state_dict`, which has found them.
    """
    if is_weight_file(weights):
        return origin_of_file(Path(weights))
    entry = torchvision.models.get_model_weights(name)[weights]
    return WeightOrigin(
        name=f"{name}.{entry.name}",
        source=entry.url,
        sha256=sha256_of(kept_at(entry.url)),
        licence=entry.meta.get("license", "BSD-3-Clause (torchvision), trained on ImageNet"),
    )


def origin_of_file(path: Path) -> WeightOrigin:
    """Where the weights of a local file are from, as far as its metadata says."""
    about = _metadata(path)
    return WeightOrigin(
        name=path.name,
        source=about.get("source", path.name),
        sha256=sha256_of(path),
        licence=about.get("licence", about.get("license", UNKNOWN)),
    )


def pixels_of_file(path: Path) -> Pixels | None:
    """What the weights of a local file expect, where its metadata says so.

    They are `pixel_mean` and `pixel_std`, each a JSON list of three numbers for red, green and
    blue, where 1 is white.
    """
    about = _metadata(path)
    try:
        mean, std = (
            tuple(map(float, json.loads(about[key]))) for key in ("pixel_mean", "pixel_std")
        )
        (r, g, b), (red, green, blue) = mean, std
    except (KeyError, ValueError, TypeError):
        return None
    return Pixels("rgb", (r, g, b), (red, green, blue))


def sha256_of(path: Path | None) -> str | None:
    """The SHA-256 of a file in hexadecimal; None where it cannot be read."""
    try:
        with (path or Path()).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _metadata(path: Path) -> dict[str, str]:
    """What the head of a safetensors file says beside its tensors; empty for any other file."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return {}


def _why_not_fetched(error: Exception) -> str:
    if "invalid hash value" in str(error):  # of torch.hub, which has deleted the file
        return f"what came is damaged or cut short, and was not kept; try again: {error}"
    return first_line(error)


def kept_at(url: str) -> Path:
    """Where torch looks for a file before it fetches it."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name


def published_hash(url: str) -> str:
    """How the SHA-256 of a file begins, which is the end of its name: ``…-5905b1c5.pth``."""
    return Path(urlsplit(url).path).stem.rpartition("-")[2]
