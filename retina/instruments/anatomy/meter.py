"""Adds up what every anchor and class contributes, in bounded memory.

Letters: B images, R anchors over all levels, K classes, L levels, N bins of the logit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from retina.distributed import sum_over_ranks
from retina.instruments.anatomy.elements import EASY_LOGIT, FocalSetting, element_losses
from retina.instruments.anatomy.histogram import LIMIT, NUM_BINS, logit_histogram
from retina.instruments.anatomy.result import LossAnatomy
from retina.objective.classification import IGNORED, anchor_labels
from retina.structures import Assignment, BatchedTargets, DensePredictions

_CHUNK = {"cpu": 1 << 20, "cuda": 1 << 22}
"""Elements at a time: what fits into a processor's cache, or keeps a GPU busy."""


class AnatomyMeter:
    """Sums of the loss and its gradient, and histograms of the logits, over any number of batches.

    Losses are float32; a few thousand rows at a time are summed in it, and the sums in float64.

    Args:
        level_names: of the pyramid levels, finest first.
        class_names: of the labels.
        parameters: of the loss.
        device: where the logits are.
    """

    def __init__(
        self,
        level_names: Sequence[str],
        class_names: Sequence[str],
        parameters: FocalSetting,
        device: torch.device,
    ) -> None:
        self.level_names, self.class_names = tuple(level_names), tuple(class_names)
        self.parameters = parameters
        # MPS has no float64.
        self._device = torch.device("cpu") if device.type == "mps" else device
        self._chunk = _CHUNK.get(self._device.type, _CHUNK["cpu"])
        self.reset()

    def reset(self) -> None:
        """Set all sums to zero, for the next images."""
        levels, classes = len(self.level_names), len(self.class_names)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=self._device)

        self._num_images = 0
        self._sums = zeros(levels, 4, 3, classes)  # count, loss, gradient, its square; by group
        # counts and sums of the logits for the wrong side, of negatives and of positives
        self._histograms = zeros(2, levels, 2, NUM_BINS)

    @torch.no_grad()
    def add(
        self, predictions: DensePredictions, assignment: Assignment, targets: BatchedTargets
    ) -> None:
        """Take in a batch; waits for the device."""
        labels = anchor_labels(assignment, targets, len(self.class_names)).to(self._device)
        start = 0
        for level, logits in enumerate(predictions.class_logits):
            rows = logits.detach().flatten(1, 3)  # (B, HWA, K), a view
            stop = start + rows.shape[1]
            for image, image_labels in zip(rows, labels[:, start:stop], strict=True):
                for part, part_labels in self._chunks(image, image_labels):
                    self._add_rows(level, part, part_labels)
            start = stop
        self._num_images += labels.shape[0]

    def _chunks(self, rows: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        count = max(1, self._chunk // rows.shape[-1])
        for start in range(0, rows.shape[0], count):
            part = rows[start : start + count].to(self._device).float()
            yield part, labels[start : start + count]

    def _add_rows(self, level: int, logits: Tensor, labels: Tensor) -> None:
        """Take in ``(n, K)`` logits of a level, with their ``(n,)`` labels."""
        num_classes = logits.shape[1]
        is_object = (labels >= 0) & (labels < num_classes)
        own = torch.where(is_object, labels, 0).unsqueeze(1)
        is_positive = torch.zeros_like(logits, dtype=torch.bool)
        is_positive.scatter_(1, own, is_object.unsqueeze(1))
        wrong_way = torch.where(is_positive, -logits, logits)
        is_ignored = (labels == IGNORED).unsqueeze(1)
        is_easy = (wrong_way < -EASY_LOGIT) & ~is_positive & ~is_ignored
        is_other = ~(is_easy | is_positive | is_ignored)

        losses = element_losses(wrong_way, is_positive, self.parameters)
        values = (losses.loss, losses.gradient, losses.gradient.square())
        self._sums[level, :, 0] += _dense_sums(values, is_easy)
        self._sums[level, :, 1] += _sparse_sums(values, is_other)
        self._sums[level, :, 2] += _sparse_sums(values, is_positive)
        groups = is_positive.long().masked_fill_(is_ignored, 2)  # those are left out
        self._histograms[:, level] += logit_histogram(wrong_way, groups, num_groups=2)

    def result(self) -> LossAnatomy:
        """The anatomy of everything added so far, over all ranks; waits for the device."""
        images = self._sums.new_tensor([self._num_images])
        parts = (self._sums, self._histograms, images)
        packed = sum_over_ranks(torch.cat([part.flatten() for part in parts])).cpu()
        sums, histograms, images = torch.split(packed, [part.numel() for part in parts])
        counts, logit_sums = histograms.view(self._histograms.shape).numpy()
        return LossAnatomy(
            level_names=self.level_names,
            class_names=self.class_names,
            parameters=self.parameters,
            num_images=int(images.item()),
            sums=sums.view(self._sums.shape).permute(0, 3, 2, 1).numpy(),
            counts=counts,
            logit_sums=logit_sums,
            limit=LIMIT,
        )


def _dense_sums(values: Sequence[Tensor], group: Tensor) -> Tensor:
    """``(4, K)``: count and sums over the rows, of a group that is nearly everything."""
    zero = values[0].new_zeros(())
    sums = [torch.where(group, value, zero).sum(dim=0) for value in values]
    return torch.stack([group.sum(dim=0).double(), *(part.double() for part in sums)])


def _sparse_sums(values: Sequence[Tensor], group: Tensor) -> Tensor:
    """``(4, K)``: the same of a group that is mostly empty."""
    rows, classes = group.nonzero(as_tuple=True)
    chosen = torch.stack(
        [torch.ones_like(values[0][rows, classes]), *(v[rows, classes] for v in values)]
    )
    sums = chosen.new_zeros(len(values) + 1, group.shape[1], dtype=torch.float64)
    return sums.index_add_(1, classes, chosen.double())
