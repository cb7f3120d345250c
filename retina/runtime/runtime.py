"""What turns images into detections, whatever computes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from retina.errors import UserError
from retina.modeling.preprocess import Preprocess
from retina.modeling.thresholds import ThresholdsConfig
from retina.structures import Categories, Detections, Size


class Runtime(ABC):
    """A trained detector that can be run.

    Attributes:
        categories: the classes; labels index them.
        preprocess: the rule by which an image becomes the network's input.
        thresholds: ``(K,)`` float64, the score from which on a detection of each class is worth
            showing to people; `detect` leaves nothing out for it.
        thresholds_config: the same, and how they were chosen.
    """

    categories: Categories
    preprocess: Preprocess
    thresholds: Tensor
    thresholds_config: ThresholdsConfig

    @abstractmethod
    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """The objects in each image, highest score first.

        Args:
            images: ``(3, height, width)`` uint8 RGB tensors of any sizes, run as one batch.

        Returns:
            In host memory, in pixels of the image as it was given.

        Raises:
            RunError: memory ran out; the message names the size of the batch.
        """

    def input_shapes(self, size: Size) -> tuple[tuple[int, int, int, int], ...]:
        """The padded shapes at which the network sees an image of a size, one of each kind of view.

        Images for which they are the same may run together: none of them is padded for another.

        Args:
            size: height and width of the image.

        Raises:
            UserError: the network cannot take an image of this size.
        """
        return (self.preprocess.input_shape([size]),)

    def at_scale(self, factor: float) -> Runtime:
        """The same detector with an input that is larger or smaller by a factor.

        Raises:
            UserError: the input has a fixed size.
        """
        raise UserError(
            f"scale {factor:g}: this detector's input has a fixed size; leave the scales of "
            "--test-time away"
        )
