"""What every classification loss is to the rest of the code: a module, and its config."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from retina.configuration import Config
from retina.losses.focal import FocalSums
from retina.wording import counted


class ClassificationLoss(nn.Module, ABC):
    """The summed classification loss of the anchors of one level.

    What a loss learns during training are buffers of its state dict.
    """

    needs_quality: ClassVar[bool] = False
    """Whether the target is how well the predicted box fits, which then must be computed."""

    @abstractmethod
    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        row_weights: Tensor | None = None,
        quality: Tensor | None = None,
    ) -> FocalSums:
        """The loss, and the share of it that comes from the foreground.

        Args:
            logits: ``(B, HWA, K)``.
            labels: ``(B, HWA)`` int64: ``0 .. K-1`` the class, K the background, `IGNORED`.
            row_weights: ``(B, HWA)`` factors of the anchors, not differentiated; None is 1.
            quality: ``(B, HWA)`` in 0..1, not differentiated: the overlap (IoU) of the predicted
                with the matched box, read on the foreground; None unless `needs_quality`.
        """

    def end_step(self) -> None:
        """Called once in each optimizer step on every rank, after its backward passes."""
        return


@dataclass(frozen=True, slots=True)
class FocalView:
    """The sigmoid focal loss through which instruments look at a classification loss.

    They see the same logits, and the same anchors as foreground; where ``difference`` is not None,
    not the same sums.

    Attributes:
        gamma: its focusing parameter.
        alpha: the weight of the foreground, or one per class; None weighs nothing.
        difference: what the loss does otherwise, a clause for people; None where it is this loss.
        lacks_class_counts: whether it was asked for without the class counts that it depends on.
    """

    gamma: float
    alpha: float | tuple[float, ...] | None
    difference: str | None = None
    lacks_class_counts: bool = False


class ClassificationConfig(Config, ABC):
    """The config of a classification loss, and all that others read of it.

    A new loss derives from it in a file of its own, with ``kind: Literal["..."] = "..."``, its
    settings and `build`, and gets one line in the list of ``__init__.py``.
    """

    kind: str

    @property
    def needs_class_counts(self) -> bool:
        """Whether `build` has to be told the class counts of the training set."""
        return False

    @abstractmethod
    def build(self, class_counts: Sequence[int] | None = None) -> ClassificationLoss:
        """The loss.

        Args:
            class_counts: the objects of each class in the training set, where `needs_class_counts`.

        Raises:
            ValueError: the loss cannot do without the counts.
        """

    def check_classes(self, class_names: Sequence[str]) -> None:
        """Refuse a setting per class that is not one per class; `check_one_per_class` does it.

        Raises:
            ValueError: names the key and both counts.
        """
        return

    def focal_view(self, class_counts: Sequence[int] | None = None) -> FocalView:
        """The focal loss that stands for this one; cross-entropy unless a loss knows a nearer one.

        Args:
            class_counts: the objects of each class in the training set, if they are known.
        """
        return self._seen_through(gamma=0.0)

    def _seen_through(self, *, gamma: float, alpha: float | None = None) -> FocalView:
        return FocalView(gamma, alpha, f"it is {self.kind}, which weighs them otherwise")


def check_one_per_class(
    key: str, values: Sequence[float], what: str, class_names: Sequence[str]
) -> None:
    """Raise ValueError unless there are as many values as classes.

    Args:
        key: of the setting in ``objective.classification``.
        values: of the setting.
        what: they are, in the plural, for the message.
        class_names: in the order of the labels.
    """
    count = len(class_names)
    if len(values) != count:
        raise ValueError(
            f"objective.classification.{key}: {len(values)} {what} for {counted(count, 'class')} "
            f"({', '.join(class_names[:5])}{' …' if count > 5 else ''})"
        )
