"""timm itself, and its weights by the names that it gives to networks."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from retina.errors import UserError, did_you_mean
from retina.modeling.loading import StateDict
from retina.modeling.pretrained import INSTEAD, WEIGHT_FILES, kept_at
from retina.wording import first_line

DEFAULT = "DEFAULT"
"""What `weights` are called that a network's name means, as torchvision calls its newest."""

REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, KeyError)
"""What timm's networks raise where they cannot do what is asked of them."""


class MissingTimmError(UserError):
    """timm is not installed."""


def timm_package() -> Any:
    """The package timm, imported when it is needed.

    Raises:
        MissingTimmError: says how to install it.
    """
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise MissingTimmError(
            "model.backbone.kind: 'timm' needs the package timm; "
            "pip install 'retina-detector[timm]'"
        ) from None


def tags_of(network: str) -> list[str]:
    """The tags of all weights that timm has of a network."""
    return [name.partition(".")[2] for name in timm_package().list_pretrained(f"{network}.*")]


def check_name(name: str) -> None:
    """Refuse what timm has no network or no tag of, also its addresses of code and files.

    Raises:
        UserError: names the nearest.
    """
    network, _, tag = name.partition(".")
    networks = timm_package().list_models()
    if network not in networks:
        raise UserError(f"timm has no network '{network}'{did_you_mean(network, networks)}")
    if tag and tag not in (tags := tags_of(network)):
        raise UserError(
            f"timm has no weights '{tag}' of {network}{did_you_mean(tag, tags)} "
            f"(known: {', '.join(tags) or 'none'})"
        )


def tagged(name: str, weights: str) -> str:
    """A network's name with the tag of weights, which are `DEFAULT` or a tag.

    Raises:
        UserError: there are no such weights.
    """
    network, _, tag = name.partition(".")
    tags = tags_of(network)
    if weights == DEFAULT and tags:
        return name
    if tag not in ("", weights):
        raise UserError(
            f"model.backbone.weights: '{weights}' is not the tag of model.backbone.name "
            f"{name}; give DEFAULT, or leave the tag out of the name"
        )
    if weights not in tags:
        known = f"known: {', '.join([DEFAULT, *tags])}; or give" if tags else "it has none; give"
        raise UserError(
            f"model.backbone.weights: timm has no weights '{weights}' for {network}"
            f"{did_you_mean(weights, tags)} ({known} a local file ending in "
            f"{', '.join(WEIGHT_FILES)})"
        )
    return f"{network}.{weights}"


def about_weights(name: str) -> Any:
    """What timm says of the weights that a network's name with its tag means."""
    check_name(name)
    return timm_package().get_pretrained_cfg(name)


def kept_weights(about: Any) -> Path | None:
    """Where timm's fetched weights lie; None where they are not found."""
    if not about.hf_hub_id:
        return kept_at(about.url) if about.url else None
    found = _hub().try_to_load_from_cache(about.hf_hub_id, _file_on_hub(about))
    return Path(found) if isinstance(found, str) else None


def fetch_weights(name: str) -> StateDict:
    """The entries of the classifier that a network's name with its tag means; fetched once.

    Raises:
        UserError: they cannot be fetched; says what to fetch elsewhere.
    """
    _check_hub_answers(name)
    try:
        entries: StateDict = timm_package().create_model(name, pretrained=True).state_dict()
    except (OSError, *REFUSALS) as error:
        raise _not_fetched(name, error) from None
    return entries


def _check_hub_answers(name: str) -> None:
    """Ask the Hugging Face Hub once, where timm would ask it twelve times for most of a minute.

    Raises:
        UserError: there is no answer, and the weights have not been fetched before.
    """
    about, hub = about_weights(name), _hub()
    if not about.hf_hub_id or kept_weights(about) is not None:
        return
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(about.hf_hub_id, _file_on_hub(about)))
    except hub.errors.HfHubHTTPError:
        pass  # an answer: it may have the weights in a file of another name, for which timm asks
    except Exception as error:  # each version of the hub's client has errors of another library
        raise _not_fetched(name, error) from None


def _hub() -> Any:
    return importlib.import_module("huggingface_hub")  # timm needs it


def _file_on_hub(about: Any) -> str:
    return about.hf_hub_filename or "model.safetensors"


def _not_fetched(name: str, error: Exception) -> UserError:
    about = about_weights(name)
    url = about.url
    if about.hf_hub_id:
        url = f"https://huggingface.co/{about.hf_hub_id}/resolve/main/{_file_on_hub(about)}"
    where = f"Fetch {url} elsewhere and" if url else "timm knows no address of them:"
    return UserError(
        f"model.backbone.weights: timm's weights of {name} could not be fetched "
        f"({first_line(error)}). {where} {INSTEAD}"
    )
