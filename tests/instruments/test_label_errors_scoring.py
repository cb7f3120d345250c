"""The regression against a reference, and what its probabilities mean."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize

from retina.instruments.label_errors.scoring import (
    ASSUMED_RATE,
    detection_design,
    error_probabilities,
    label_design,
)


def test_it_is_the_penalised_regression_that_scipy_finds():
    generator = torch.Generator().manual_seed(0)
    outcomes = torch.arange(60) % 3
    centers = torch.tensor([[0.0, 0.0], [1.5, 0.0], [0.0, 1.5]])
    design = (centers[outcomes] + torch.randn(60, 2, generator=generator)).double()
    ours = error_probabilities(design, outcomes, num_outcomes=3, num_labels=20)

    x, y = design.numpy(), outcomes.numpy()
    weights = np.where(y == 0, 1.0, ASSUMED_RATE * 20 / 20)

    def log_probabilities(flat: np.ndarray) -> np.ndarray:
        scores = x @ flat[:6].reshape(2, 3) + flat[6:]
        return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)

    def loss(flat: np.ndarray) -> float:
        misfit = -(weights * log_probabilities(flat)[np.arange(60), y]).sum()
        return float(misfit + (flat[:6] ** 2).sum())

    best = minimize(loss, np.zeros(9), method="BFGS", options={"gtol": 1e-9})
    expected = np.exp(log_probabilities(best.x))
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5)


def test_without_evidence_an_error_is_as_probable_as_assumed():
    outcomes = torch.tensor([0] * 100 + [1] * 100)
    design = torch.zeros(200, 1, dtype=torch.float64)
    found = error_probabilities(design, outcomes, num_outcomes=2, num_labels=100)
    expected = ASSUMED_RATE / (1 + ASSUMED_RATE)
    assert float((found[:, 1] - expected).abs().max()) < 1e-6


def test_a_difficult_class_is_not_suspicious_as_a_whole():
    """Class 1 always scores low: beside its own median its labels are as usual as class 0's."""
    features = torch.zeros(400, 7)
    labels = torch.arange(400) % 2
    features[:, 0] = torch.where(labels == 0, 2.0, -2.0) + torch.linspace(-1.0, 1.0, 400)
    design = label_design(features, labels, torch.ones(400, dtype=torch.bool))
    for_class = design[:, 7]  # after the seven features as they are
    means = [float(for_class[labels == label].mean()) for label in (0, 1)]
    assert abs(means[0] - means[1]) < 0.7
    raw = [float(design[labels == label, 0].mean()) for label in (0, 1)]
    assert abs(raw[0] - raw[1]) > 1.8


def test_the_designs_have_no_infinities_where_nothing_varies():
    features, labels = torch.zeros(5, 7), torch.zeros(5, dtype=torch.int64)
    yes = torch.ones(5, dtype=torch.bool)
    assert torch.isfinite(label_design(features, labels, yes)).all()
    assert torch.isfinite(detection_design(features[:, :6], labels, yes)).all()
