"""A trained detector on disk: one safetensors file that is enough to predict with.

The weights are the tensors; the architecture, the classes, the preprocessing and the thresholds
are JSON in the file's metadata. Nothing in it is code, and nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from retina.configuration import Config, validate
from retina.errors import UserError
from retina.modeling.config import ModelConfig
from retina.modeling.detector import RetinaNet
from retina.modeling.detector_names import names_hint
from retina.modeling.loading import build_with_weights
from retina.modeling.postprocess import PostprocessConfig
from retina.modeling.preprocess import PreprocessConfig
from retina.modeling.pretrained import WeightOrigin
from retina.modeling.thresholds import ThresholdsConfig
from retina.modeling.torch_files import UNREADABLE, why_unreadable
from retina.storage import replacing
from retina.structures import Categories
from retina.wording import first_line

FORMAT_VERSION = 2
"""1 had a single ``display_threshold`` in the place of ``thresholds``; it is read as well."""

METADATA_KEY = "retina"


class CategoriesConfig(Config):
    """`Categories` as the metadata of a detector file holds them."""

    names: tuple[str, ...]
    """The name of every class, in the order of the labels."""
    dataset_ids: tuple[int, ...]
    """The category id of every class in the data set it was trained on, in the same order."""

    def build(self) -> Categories:
        """The categories."""
        return Categories(self.names, self.dataset_ids)


class ArtifactConfig(Config):
    """Everything about a trained detector but its weights."""

    format_version: Annotated[int, Field(ge=1, le=FORMAT_VERSION)] = FORMAT_VERSION
    """The version of this layout."""
    categories: CategoriesConfig
    """Names and original ids of the labels."""
    model: ModelConfig
    """The network, without pretrained weights of its own."""
    preprocess: PreprocessConfig
    """How an image becomes the network's input."""
    postprocess: PostprocessConfig
    """How the network's output becomes detections."""
    thresholds: ThresholdsConfig = ThresholdsConfig()
    """Scores from which on detections are shown to people, where they name none themselves."""
    pretrained: WeightOrigin | None = None
    """Where the weights are from that the training began with; null: random ones, or not kept."""

    @model_validator(mode="after")
    def _check_thresholds(self) -> Self:
        misfit = self.thresholds.misfit(len(self.categories.names))
        if misfit is not None:
            raise ValueError(f"thresholds: {misfit}")
        return self


@dataclass(frozen=True)
class Artifact:
    """A trained detector, ready to be built or saved.

    Attributes:
        config: everything but the weights.
        state_dict: the weights of `RetinaNet`, in host memory.
        training: free facts about the training (step, epoch, metrics), for people.
    """

    config: ArtifactConfig
    state_dict: Mapping[str, Tensor]
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def categories(self) -> Categories:
        """What the labels mean."""
        return self.config.categories.build()

    def build_detector(self) -> RetinaNet:
        """The network with its weights, in evaluation mode.

        Raises:
            UserError: the weights do not fit the architecture.
        """
        model, num_classes = self.config.model, len(self.categories)
        try:
            detector = build_with_weights(lambda: model.build(num_classes), self.state_dict)
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"the weights do not fit the architecture: {error}") from None
        return detector.eval()

    def with_thresholds(self, thresholds: ThresholdsConfig) -> Artifact:
        """The same detector that shows its detections from other scores on.

        Raises:
            ValueError: they are those of another number of classes.
        """
        misfit = thresholds.misfit(len(self.categories))
        if misfit is not None:
            raise ValueError(f"thresholds: {misfit}")
        return replace(self, config=self.config.model_copy(update={"thresholds": thresholds}))

    def save(self, path: Path) -> None:
        """Write the file in one step; see `retina.storage.replacing` for the errors."""
        about = {"config": self.config.model_dump(mode="json"), "training": dict(self.training)}
        tensors = {
            name: tensor.detach().to("cpu").contiguous().clone()
            for name, tensor in self.state_dict.items()
        }
        content = save(tensors, metadata={METADATA_KEY: json.dumps(about)})
        with replacing(path) as aside:
            aside.write_bytes(content)


def make_artifact(
    detector: RetinaNet,
    *,
    model: ModelConfig,
    preprocess: PreprocessConfig,
    postprocess: PostprocessConfig,
    categories: Categories,
    training: Mapping[str, Any] | None = None,
    thresholds: ThresholdsConfig | None = None,
    pretrained: WeightOrigin | None = None,
) -> Artifact:
    """The artifact of a detector in memory; its file will not ask for pretrained weights again."""
    config = ArtifactConfig(
        categories=CategoriesConfig(names=categories.names, dataset_ids=categories.dataset_ids),
        model=ModelConfig(
            **{name: getattr(model, name) for name in ModelConfig.model_fields}
        ).without_pretrained_weights(),
        preprocess=preprocess,
        postprocess=postprocess,
        thresholds=thresholds or ThresholdsConfig(),
        pretrained=pretrained,
    )
    return Artifact(config=config, state_dict=detector.state_dict(), training=training or {})


def load_artifact(path: Path | str) -> Artifact:
    """Read a detector file.

    Raises:
        UserError: the file is missing, empty, damaged, or no detector of this project.
    """
    path = Path(path)
    if not os.path.isfile(path):  # noqa: PTH113  # no error where the name is too long
        hint = names_hint(path)
        raise UserError(f"{path}: no such detector file{hint}; train one, or import one")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty (0 bytes); take another checkpoint")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            if METADATA_KEY not in metadata:
                raise UserError(
                    f"{path}: a safetensors file, but not a detector that retina has saved"
                )
            state_dict = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except UserError:
        raise
    except UNREADABLE as error:
        hint = ""
        if path.suffix in (".pt", ".pth"):
            hint = (
                "; a .pt file is a training state or a foreign state dict: predict with the "
                ".safetensors file beside it, or convert it with 'retina import torchvision'"
            )
        raise UserError(
            f"{path}: not a readable detector file ({why_unreadable(error)}){hint}"
        ) from None
    try:
        about = json.loads(metadata[METADATA_KEY])
        config = validate(_as_of_now(about["config"]), ArtifactConfig, source=str(path))
        training = about.get("training", {})
        if not isinstance(training, dict):
            raise TypeError("'training' is no mapping")
        config.categories.build()
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: its description cannot be read: {first_line(error)}") from None
    return Artifact(config=config, state_dict=state_dict, training=training)


def _as_of_now(tree: Any) -> Any:
    """The description of a file of format 1 as one of today; any other as it is."""
    if not isinstance(tree, dict) or tree.get("format_version") != 1:
        return tree
    tree = {**tree, "format_version": FORMAT_VERSION}
    if "display_threshold" in tree:
        tree["thresholds"] = {"common": tree.pop("display_threshold")}
    return tree
