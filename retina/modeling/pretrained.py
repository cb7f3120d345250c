"""Weights of whole classification networks, for backbones."""

from __future__ import annotations

import pickle
from pathlib import Path
from urllib.parse import urlsplit

import torch
import torchvision
from torch import nn

from retina.errors import UserError, did_you_mean
from retina.modeling.loading import StateDict, described, misfits, read_state_dict, without_counters
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
    entry = known[weights]
    try:
        state_dict: StateDict = entry.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"model.backbone.weights: '{weights}' of {name} could not be fetched "
            f"({first_line(error)}). Fetch {entry.url} elsewhere and put it at "
            f"{_kept_at(entry.url)}; or start from random weights: retina train --from-scratch, or "
            "model.backbone.weights=null"
        ) from None
    return state_dict


def _kept_at(url: str) -> Path:
    """Where torch looks for a file before it fetches it."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
