"""What an exported file says about itself: enough to prepare images, and to trust it.

It is JSON, kept as the format keeps such things: ONNX in its metadata under ``retina``, OpenVINO's
IR in ``rt_info``, a torch program in an extra file ``retina.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from retina.artifact import ArtifactConfig
from retina.configuration import Config, validate
from retina.errors import UserError
from retina.structures import Size

METADATA_KEY = "retina"

ExportPrecision = Literal["fp32", "bf16", "int8"]


class TensorDescription(Config):
    """An input or output of the graph."""

    shape: tuple[int | str, ...]
    """Numbers, and names of what differs from call to call."""
    dtype: str
    """As numpy calls it."""
    meaning: str
    """For people."""


class Verification(Config):
    """What was found when the file was run against the detector it was made of."""

    images: str
    """Which ones."""
    num_images: int
    """How many."""
    num_detections: int
    """That the detector found in them."""
    max_box_difference: float | None
    """Of a corner, in pixels of the image, between detections that are the same; null: none is."""
    max_score_difference: float | None
    """The same of their scores."""
    ties: tuple[str, ...] = ()
    """Detections of only one side that hung on the last digits, each with its image."""
    num_ties: int = 0
    """How many there are; of many, `ties` holds the first."""
    score_shift: float | None = None
    """The mean change of the score of what either of them shows; null where nothing is shown."""
    source_ap: float | None = None
    """AP of the detector on these images; null without annotations."""
    ap: float | None = None
    """AP of the file on the same images."""


class ExportDescription(Config):
    """An exported detector, but for its weights."""

    format_version: Literal[1] = 1
    """Of this layout."""
    version: str
    """Of the program that wrote the file."""
    licence: str
    """Of the program, and of the weights that the training began with where it is known."""
    source: str
    """The detector that it was made of: the name of its file."""
    format: str
    """``onnx``, ``openvino`` or ``torch``."""
    precision: ExportPrecision
    """Of the network's arithmetic."""
    raw: bool
    """Whether the graph ends at the candidates, before the suppression."""
    batch: int | None
    """Images of a call; null: any number."""
    size: Size | None
    """(height, width) of the resized images; null: any."""
    inputs: dict[str, TensorDescription]
    """By name."""
    outputs: dict[str, TensorDescription]
    """By name, in the graph's order."""
    resize: str
    """How an image becomes the graph's input, for people; exactly: ``detector.preprocess``."""
    verification: Verification | None
    """null: the file was written unverified, as asked for by ``--no-verify``."""
    weights_sha256: str | None = None
    """Of the second file, in hexadecimal, where the format has one for the weights."""
    detector: ArtifactConfig
    """Classes, network, mean and deviation, sizes, postprocessing, thresholds."""
    training: dict[str, Any]
    """Facts about the training, for people."""

    def to_json(self) -> str:
        """The text that a file keeps."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False)


def read_description(text: str | None, path: Path) -> ExportDescription:
    """The description that a file holds.

    Args:
        text: what the file keeps for it; None where it keeps nothing.
        path: of the file.

    Raises:
        UserError: it is no export of this project.
    """
    if text is None:
        raise UserError(
            f"{path}: was not written by 'retina export': it does not say how images are prepared "
            "and what its outputs mean"
        )
    try:
        tree = json.loads(text)
    except ValueError:
        raise UserError(f"{path}: its description is damaged; export it again") from None
    return validate(tree, ExportDescription, source=str(path))
