"""From evidence to the probability that a label is wrong.

A logistic regression tells made-up errors from the labels as they are. These hold real errors too,
which weaken it but do not turn it round (learning from positive and unlabelled examples; Elkan and
Noto 2008). It is linear in a few features, each also relative to what is usual for the class, so
that a difficult class does not look wrong as a whole. A rare one does, a little, of being the wrong
class: where any class is mistaken for any other, a larger share of its labels comes from others.

Letters: S examples, F features, C outcomes (the first is "fine").
"""

from __future__ import annotations

import torch
from torch import Tensor

ASSUMED_RATE = 0.1
"""The share of labels with an error of each kind that the scores take for granted. One detector
cannot tell how many errors there are, only which labels look like them most; many made-up ones make
the fit one about where errors begin."""

_CLASS_STRENGTH = 10.0
"""A class is taken to be as usual as all others with the weight of this many labels."""

_FURTHEST = 6.0
"""In standard deviations: beyond it, more is not stranger."""


def label_design(features: Tensor, labels: Tensor, is_real: Tensor) -> Tensor:
    """The regression's input for labels.

    Args:
        features: ``(S, 7)`` as `retina.instruments.label_errors.evidence.LabelEvidence` has them.
        labels: ``(S,)`` int64.
        is_real: ``(S,)`` bool, labels as they are; they say what is usual.

    Returns:
        ``(S, F)`` float64.
    """
    features = features.double()
    own, other, _, overlap, seen, own_anchors, other_anchors = features.T
    together = torch.stack(
        [
            (1 - overlap) * seen.sigmoid(),  # seen well, but elsewhere
            own - other,
            own_anchors - other_anchors,
            (other - own).relu(),
        ],
        dim=1,
    )
    for_class = features - _usual(features, labels, is_real)
    scaled = _scaled(torch.cat([features, for_class, together], dim=1), is_real)
    return torch.cat([scaled, scaled[:, : features.shape[1]] ** 2 / 3], dim=1)


def detection_design(features: Tensor, labels: Tensor, is_matched: Tensor) -> Tensor:
    """The regression's input for detections.

    Args:
        features: ``(S, 6)`` as `DetectionEvidence` has them.
        labels: ``(S,)`` int64.
        is_matched: ``(S,)`` bool, detections of labelled objects; they say what is usual.

    Returns:
        ``(S, F)`` float64.
    """
    features = features.double()
    score, overlaps = features[:, :1], features[:, 2:]
    for_class = (features - _usual(features, labels, is_matched))[:, :2]
    design = torch.cat([features, for_class, overlaps**2, overlaps[:, :1] * score], dim=1)
    return _scaled(design, torch.ones_like(is_matched))


def error_probabilities(
    design: Tensor, outcomes: Tensor, *, num_outcomes: int, num_labels: int
) -> Tensor:
    """How probable every outcome is for every example, fitted to these examples themselves.

    Args:
        design: ``(S, F)`` float64.
        outcomes: ``(S,)`` int64: 0 for what is, others for errors
            that were made up.
        num_outcomes: C.
        num_labels: how many labels there are; rates of errors are shares of them.

    Returns:
        ``(S, C)`` float64.
    """
    counts = torch.bincount(outcomes, minlength=num_outcomes).double()
    weights = (ASSUMED_RATE * num_labels / counts.clamp(min=1))[outcomes]
    weights[outcomes == 0] = 1.0
    return _fitted(design, outcomes, weights, num_outcomes)


def _fitted(design: Tensor, outcomes: Tensor, weights: Tensor, num_outcomes: int) -> Tensor:
    """``(S, C)`` the probabilities of a multinomial logistic regression with a unit L2 penalty."""
    coefficients = design.new_zeros(design.shape[1], num_outcomes).requires_grad_()
    intercepts = design.new_zeros(num_outcomes).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [coefficients, intercepts], max_iter=200, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        log_probabilities = (design @ coefficients + intercepts).log_softmax(dim=1)
        misfit = -(weights * log_probabilities.gather(1, outcomes.unsqueeze(1))[:, 0]).sum()
        total = misfit + coefficients.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return (design @ coefficients + intercepts).softmax(dim=1).detach()


def _usual(features: Tensor, labels: Tensor, is_usual: Tensor) -> Tensor:
    """``(S, F)`` the median of each example's class, drawn to that of all where it has few."""
    of_all = features[is_usual].median(dim=0).values
    medians = of_all.repeat(int(labels.max()) + 1, 1)
    for label in sorted(set(labels[is_usual].tolist())):
        rows = features[is_usual & (labels == label)]
        share = len(rows) / (len(rows) + _CLASS_STRENGTH)
        medians[label] = share * rows.median(dim=0).values + (1 - share) * of_all
    return medians[labels]


def _scaled(design: Tensor, is_usual: Tensor) -> Tensor:
    usual = design[is_usual]
    spread = usual.std(dim=0, correction=0).clamp(min=1e-6)
    return ((design - usual.mean(dim=0)) / spread).clamp(-_FURTHEST, _FURTHEST)
