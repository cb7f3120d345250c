"""Any network of timm that gives feature maps at the strides 8, 16 and 32 (extra `[timm]`)."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from retina.errors import UserError, did_you_mean
from retina.modeling.backbones.backbone import Backbone, BackboneConfig
from retina.modeling.loading import (
    StateDict,
    described,
    misfits,
    read_state_dict,
    without_counters,
)
from retina.modeling.pixels import Pixels
from retina.modeling.pretrained import (
    INSTEAD,
    UNKNOWN,
    WEIGHT_FILES,
    WeightOrigin,
    is_weight_file,
    kept_at,
    origin_of_file,
    pixels_of_file,
    sha256_of,
)
from retina.wording import first_line

_DEFAULT = "DEFAULT"
"""What `weights` are called that a network's name means, as torchvision calls its newest."""

_STRIDES = (4, 8, 16, 32)
_TRIED_SIZE = (128, 192)
"""Height and width in pixels of the image that shows which maps a network gives."""

_REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, KeyError)
"""What timm's networks raise where they cannot do what is asked of them."""


class TimmConfig(BackboneConfig):
    """A network of timm without its classifier."""

    kind: Literal["timm"] = "timm"
    name: str = "resnet50"
    """timm's name of the network, with or without the tag of its weights (`resnet50.a1_in1k`). Its
    normalisation of pixels is taken into `preprocess` unless the config says another."""
    weights: str | None = None
    """`DEFAULT` (the weights of the name's tag, else timm's first choice), a tag (`a1_in1k`), or a
    local file (`.safetensors`, `.pt`, `.pth`) with timm's entries, whose classifier is left out;
    null starts from random weights. timm fetches what has a tag, once."""
    norm_eps: Annotated[float, Field(ge=0)] | None = None
    """Added to the variance by batch normalisation; null keeps what the network is made with."""
    drop_path_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """How often the last residual block is skipped in training, the others less the earlier they
    are (stochastic depth)."""

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        """Where timm is missing, a config can still be read; its backbone cannot be built."""
        with contextlib.suppress(MissingTimmError):
            _check_name(name)
        return name

    def network(self) -> TimmBackbone:
        """The network of timm, initialised as it does."""
        return TimmBackbone(self.name, drop_path_rate=self.drop_path_rate)

    def load_weights(self, backbone: Backbone, weights: str) -> None:
        """Load the entries of timm's classifier that are the backbone's."""
        assert isinstance(backbone, TimmBackbone)
        backbone.load_classifier(self._entries(weights), source=weights)

    @property
    def expected_pixels(self) -> Pixels | None:
        """What the weights were trained on; None without any, or where a file does not say it."""
        if self.weights is None:
            return None
        if is_weight_file(self.weights):
            return pixels_of_file(Path(self.weights))
        return self._usual_pixels()

    @property
    def default_pixels(self) -> Pixels | None:
        """What the weights expect, else what timm's own weights of this network do."""
        return self.expected_pixels or self._usual_pixels()

    def _usual_pixels(self) -> Pixels | None:
        network = self.name.partition(".")[0]
        try:
            is_tag = self.weights in _tags(network)
            about = _about(f"{network}.{self.weights}" if is_tag else self.name)
        except UserError:
            return None  # `build` tells what is wrong
        mean, std = (tuple(values) for values in (about.mean, about.std))
        return Pixels("rgb", mean, std) if len(mean) == len(std) == 3 else None

    def origin(self) -> WeightOrigin | None:
        """Where the weights are from, once they are loaded; None without any."""
        if self.weights is None:
            return None
        if is_weight_file(self.weights):
            return origin_of_file(Path(self.weights))
        about = _about(self._tagged(self.weights))
        return WeightOrigin(
            name=f"{about.architecture}.{about.tag}",
            source=about.hf_hub_id or about.url or UNKNOWN,
            sha256=sha256_of(_kept_at(about)),
            licence=about.license or UNKNOWN,
        )

    def _entries(self, weights: str) -> StateDict:
        if is_weight_file(weights):
            return read_state_dict(weights)
        timm, name = _timm(), self._tagged(weights)
        try:
            entries: StateDict = timm.create_model(name, pretrained=True).state_dict()
        except (OSError, *_REFUSALS) as error:
            raise _not_fetched(name, error) from None
        return entries

    def _tagged(self, weights: str) -> str:
        """The network's name with the tag of these weights.

        Raises:
            UserError: there are no such weights.
        """
        if weights == _DEFAULT or is_weight_file(weights):
            return self.name
        network, _, tag = self.name.partition(".")
        if tag not in ("", weights):
            raise UserError(
                f"model.backbone.weights: '{weights}' is not the tag of model.backbone.name "
                f"{self.name}; give DEFAULT, or leave the tag out of the name"
            )
        if weights not in (tags := _tags(network)):
            raise UserError(
                f"model.backbone.weights: timm has no weights '{weights}' for {network}"
                f"{did_you_mean(weights, tags)} (known: {', '.join([_DEFAULT, *tags])}; or give a "
                f"local file ending in {', '.join(WEIGHT_FILES)})"
            )
        return f"{network}.{weights}"


class MissingTimmError(UserError):
    """timm is not installed."""


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError:
        raise MissingTimmError(
            "model.backbone.kind: 'timm' needs the package timm; pip install 'retina[timm]'"
        ) from None


def _tags(network: str) -> list[str]:
    """The tags of all weights that timm has of a network."""
    return [name.partition(".")[2] for name in _timm().list_pretrained(f"{network}.*")]


def _check_name(name: str) -> None:
    """Refuse what timm has no network or no tag of, also its addresses of code and files.

    Raises:
        UserError: names the nearest.
    """
    network, _, tag = name.partition(".")
    networks = _timm().list_models()
    if network not in networks:
        raise UserError(f"timm has no network '{network}'{did_you_mean(network, networks)}")
    if tag and tag not in (tags := _tags(network)):
        raise UserError(
            f"timm has no weights '{tag}' of {network}{did_you_mean(tag, tags)} "
            f"(known: {', '.join(tags) or 'none'})"
        )


def _about(name: str) -> Any:
    """What timm says of the weights that a network's name with its tag means."""
    _check_name(name)
    return _timm().get_pretrained_cfg(name)


def _file_on_hub(about: Any) -> str:
    return about.hf_hub_filename or "model.safetensors"


def _kept_at(about: Any) -> Path | None:
    """Where timm's fetched weights lie; None where they are not found."""
    if not about.hf_hub_id:
        return kept_at(about.url) if about.url else None
    hub = importlib.import_module("huggingface_hub")  # timm needs it
    found = hub.try_to_load_from_cache(about.hf_hub_id, _file_on_hub(about))
    return Path(found) if isinstance(found, str) else None


def _not_fetched(name: str, error: Exception) -> UserError:
    about = _about(name)
    url = about.url
    if about.hf_hub_id:
        url = f"https://huggingface.co/{about.hf_hub_id}/resolve/main/{_file_on_hub(about)}"
    where = f"Fetch {url} elsewhere and" if url else "timm knows no address of them:"
    return UserError(
        f"model.backbone.weights: timm's weights of {name} could not be fetched "
        f"({first_line(error)}). {where} {INSTEAD}"
    )


@dataclass(frozen=True, slots=True)
class _Layout:
    """What a network of timm gives.

    Attributes:
        indices: timm's numbers of its feature maps C3 to C5, and of C2 where it has one.
        channels: their widths.
        ends: the submodule that gives each of them, as timm calls it.
        stem_end: the submodule that gives the last finer map; None where there is none.
        is_channels_last: whether a map is ``(B, H, W, C)``.
    """

    indices: tuple[int, ...]
    channels: tuple[int, ...]
    ends: tuple[str, ...]
    stem_end: str | None
    is_channels_last: bool


@cache
def _layout(name: str) -> _Layout:
    """Found by trying a network without memory.

    Raises:
        UserError: the network gives no such maps, or not of every image.
    """
    _check_name(name)
    with torch.device("meta"):
        network = _features(name).eval()
        info = network.feature_info
        strides, channels, names = info.reduction(), info.channels(), info.module_name()
        last = {stride: index for index, stride in enumerate(strides)}
        if not set(_STRIDES[1:]) <= set(last):
            raise UserError(
                f"model.backbone.name: timm's {name} gives feature maps of the strides "
                f"{', '.join(map(str, strides))}; 8, 16 and 32 are needed"
            )
        used = {stride: last[stride] for stride in _STRIDES if stride in last}
        finer = [index for stride, index in last.items() if stride < _STRIDES[0]]
        layout = _Layout(
            indices=tuple(info.out_indices[index] for index in used.values()),
            channels=tuple(channels[index] for index in used.values()),
            ends=tuple(names[index] for index in used.values()),
            stem_end=names[finer[-1]] if finer else None,
            is_channels_last=getattr(network, "output_fmt", None) == "NHWC",
        )
        _check_maps(name, network, used, layout.is_channels_last)
    return layout


def _check_maps(
    name: str, network: nn.Module, used: Mapping[int, int], is_channels_last: bool
) -> None:
    height, width = _TRIED_SIZE
    try:
        with torch.no_grad():
            maps = network(torch.zeros(1, 3, height, width))
    except _REFUSALS as error:
        raise UserError(
            f"model.backbone.name: timm's {name} takes no image of {height}×{width} pixels, and a "
            f"detector has images of every size ({first_line(error)})"
        ) from None
    for stride, index in used.items():
        shape = tuple(maps[index].shape)
        size = shape[1:3] if is_channels_last else shape[2:4]
        if size != (height // stride, width // stride):
            raise UserError(
                f"model.backbone.name: timm's {name} gives a map of {size[0]}×{size[1]} cells at "
                f"stride {stride} of an image of {height}×{width} pixels, not "
                f"{height // stride}×{width // stride}: its cells do not lie where anchors would"
            )


def _features(name: str, *, drop_path_rate: float = 0.0, **kwargs: Any) -> Any:
    """A network of timm with random weights, which gives feature maps.

    Raises:
        UserError: there is none of this name.
    """
    kwargs |= {"pretrained": False, "features_only": True}
    timm = _timm()
    try:
        try:
            return timm.create_model(name, drop_path_rate=drop_path_rate, **kwargs)
        except TypeError as error:
            if "drop_path_rate" not in str(error):
                raise
            if drop_path_rate:
                raise UserError(
                    f"model.backbone.drop_path_rate: timm's {name} has no paths to drop; give 0"
                ) from None
            return timm.create_model(name, **kwargs)
    except UserError:
        raise
    except _REFUSALS as error:
        raise UserError(
            f"model.backbone.name: timm's {name} gives no feature maps ({first_line(error)})"
        ) from None


class TimmBackbone(Backbone):
    """A network of timm that gives its feature maps; its submodules have timm's names.

    timm runs it. The stages only say what is frozen: each ends with the submodule that gives its
    map, and the stem with the last finer map, or before the first stage where there is none.
    """

    def __init__(self, name: str, *, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        layout = _layout(name)
        self.name, self.channels = name, layout.channels
        self.is_channels_last = layout.is_channels_last
        self.network: nn.Module = _features(
            name, drop_path_rate=drop_path_rate, out_indices=layout.indices
        )
        self._stages = _stages(self.network, layout)

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """The stem and what gives C2 to C5; all in the last where timm runs it in another order."""
        names = ((), (), (), (), ("",)) if self._stages is None else self._stages
        return [[self.network.get_submodule(name) for name in stage] for stage in names]

    def freeze(self, num_stages: int) -> None:
        """Let the first stages never learn.

        Raises:
            UserError: the network is no sequence of stages, so that only all of it can be frozen.
        """
        if self._stages is None and num_stages not in (0, 5):
            raise UserError(
                f"model.backbone.frozen_stages: timm's {self.name} is no sequence of stages; "
                "give 0, or 5 for all of it"
            )
        super().freeze(num_stages)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The feature maps ``(B, channels, H, W)``, C5 last, of images ``(B, 3, H, W)``."""
        maps: Sequence[Tensor] = self.network(images)[-self.num_maps :]
        if self.is_channels_last:  # (B, H, W, C)
            return tuple(one.permute(0, 3, 1, 2) for one in maps)
        return tuple(maps)

    def load_classifier(self, entries: Mapping[str, Tensor], *, source: str) -> None:
        """Load what a classifier's entries have of this network, which must be all of it.

        Args:
            entries: under timm's names; those that only its classifier has are left out.
            source: where they are from, for the message.

        Raises:
            UserError: an entry is missing, unknown, or of another shape.
        """
        with torch.device("meta"):
            classifier = _timm().create_model(self.name, pretrained=False).state_dict()
        tensors = self.network.state_dict()
        wrapper = _wrapper(self.network)
        own = {_plain(name.removeprefix(wrapper)): name for name in tensors}
        wanted = {name: tensors[own[_plain(name)]] for name in classifier if _plain(name) in own}
        given = {
            name: value
            for name, value in without_counters(entries).items()
            if name in wanted or name not in classifier
        }
        problems = misfits(without_counters(wanted), given)
        if problems:
            raise UserError(
                f"{source}: these weights belong to another network than timm's {self.name} "
                f"({described(problems)})"
            )
        loaded = {own[_plain(name)]: value for name, value in given.items()}
        self.network.load_state_dict(loaded, strict=False)


def _plain(name: str) -> str:
    """A name by which a classifier's submodule is found among the features'.

    There `stages.0` may be called `stages_0`.
    """
    return name.replace("_", ".")


def _wrapper(network: nn.Module) -> str:
    """What timm puts before all names of a network that it leaves as it is."""
    only, *others = (name for name, _ in network.named_children())
    return f"{only}." if only in ("model", "body") and not others else ""


def _stages(network: nn.Module, layout: _Layout) -> tuple[tuple[str, ...], ...] | None:
    """The submodules of the five stages by name; None where the network is no sequence of them."""
    wrapper = _wrapper(network)
    order = list(_in_order(network.get_submodule(wrapper[:-1]), layout))
    plain = [_plain(name) for name in order]
    ends = [_plain(end) for end in layout.ends]
    stem_end = None if layout.stem_end is None else _plain(layout.stem_end)
    if any(end not in plain for end in ends) or (stem_end is not None and stem_end not in plain):
        return None
    names = [wrapper + name for name in order]
    first = plain.index(ends[0]) if stem_end is None else plain.index(stem_end) + 1
    borders = [0, first, *([first] * (4 - len(ends))), *(plain.index(end) + 1 for end in ends)]
    covered = {id(p) for name in names for p in network.get_submodule(name).parameters()}
    if borders != sorted(borders) or any(id(p) not in covered for p in network.parameters()):
        return None
    borders[-1] = len(names)
    return tuple(tuple(names[start:stop]) for start, stop in pairwise(borders))


def _in_order(network: nn.Module, layout: _Layout) -> Iterator[str]:
    """Names of the submodules in the order they are run; a sequence that a map is from, apart."""
    ends = [_plain(end) for end in (*layout.ends, layout.stem_end or "")]
    for name, child in network.named_children():
        if any(end.startswith(_plain(name) + ".") for end in ends):
            yield from (f"{name}.{inner}" for inner, _ in child.named_children())
        else:
            yield name
