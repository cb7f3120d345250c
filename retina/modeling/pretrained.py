"""Weights of whole classification networks, for backbones."""

from __future__ import annotations

import errno
import sys
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
import torchvision
from torch import nn

from retina.errors import UserError, did_you_mean
from retina.modeling.loading import StateDict, described, misfits, read_state_dict, without_counters
from retina.modeling.torch_files import UNREADABLE, check_records, why_unreadable
from retina.wording import first_line

WEIGHT_FILES = (".safetensors", ".pt", ".pth")


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
        instead="; or start from random weights: retina train --from-scratch, or "
        "model.backbone.weights=null",
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
