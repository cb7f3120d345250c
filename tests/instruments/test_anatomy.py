"""The sums, histograms and curves of the loss anatomy against hand-made cases and exact sorts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from retina.instruments.anatomy import AnatomyMeter, FocalSetting, LossAnatomy
from retina.instruments.anatomy.curves import PAPER_GAMMAS, cumulative_loss, focal, loss_curves
from retina.instruments.anatomy.elements import element_losses
from retina.instruments.anatomy.figures import cumulative_figure, shares_figure
from retina.instruments.anatomy.histogram import LIMIT, NUM_BINS
from retina.instruments.anatomy.report import summary, to_json
from retina.losses.focal import sigmoid_focal_loss
from retina.structures import Assignment, BatchedTargets, DensePredictions, Targets

CPU = torch.device("cpu")


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def measured(
    levels: list[torch.Tensor],
    labels: list[list[int]],
    parameters: FocalSetting,
    *,
    ignored: tuple[tuple[int, int], ...] = (),
) -> LossAnatomy:
    """The anatomy of ``(B, R_l, K)`` logits; ``labels`` are ``(B, R)``, K for background."""
    num_classes = levels[0].shape[-1]
    wanted = torch.tensor(labels)
    batch = wanted.shape[0]
    is_foreground = wanted < num_classes
    is_ignored = torch.zeros_like(is_foreground)
    for place in ignored:
        is_ignored[place] = True
    # One object of each class in every image: the row of an object is its label.
    objects = Targets(
        boxes=torch.zeros(num_classes, 4),
        labels=torch.arange(num_classes),
        is_crowd=torch.zeros(num_classes, dtype=torch.bool),
    )
    meter = AnatomyMeter(
        [f"P{3 + number}" for number in range(len(levels))],
        [f"class {number}" for number in range(num_classes)],
        parameters,
        CPU,
    )
    meter.add(
        DensePredictions(
            class_logits=tuple(level[:, :, None, None, :] for level in levels), box_codes=()
        ),
        Assignment(torch.where(is_foreground, wanted, 0), is_foreground, is_ignored),
        BatchedTargets.from_targets([objects] * batch),
    )
    return meter.result()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0, (0.5, 2.0, 3.0)])
@pytest.mark.parametrize("alpha", [None, 0.25, (0.2, 0.5, 0.9)])
def test_elements_are_the_focal_loss_and_its_gradient(gamma: Any, alpha: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (6 * torch.randn(400, 3, generator=generator)).double().requires_grad_()
    is_positive = torch.rand(400, 3, generator=generator) < 0.3
    columns = []
    for k in range(3):
        columns.append(
            sigmoid_focal_loss(
                logits[:, k],
                is_positive[:, k].double(),
                gamma=gamma[k] if isinstance(gamma, tuple) else gamma,
                alpha=alpha[k] if isinstance(alpha, tuple) else alpha,
            )
        )
    expected = torch.stack(columns, dim=1)
    (gradient,) = torch.autograd.grad(expected.sum(), logits)

    plain = logits.detach().float()
    found = element_losses(
        torch.where(is_positive, -plain, plain), is_positive, FocalSetting(gamma, alpha)
    )

    torch.testing.assert_close(found.loss.double(), expected.detach(), rtol=2e-5, atol=1e-12)
    torch.testing.assert_close(found.gradient.double(), gradient.abs(), rtol=2e-5, atol=1e-12)


@pytest.mark.parametrize("z", [-1e4, -200.0, 200.0, 1e4])
def test_elements_far_out_are_finite(z: float) -> None:
    found = element_losses(
        torch.tensor([[z]]), torch.tensor([[False]]), FocalSetting(gamma=2.0, alpha=None)
    )
    assert found.loss.item() == max(0.0, z)
    assert found.gradient.item() == float(z > 0)


def test_cross_entropy_of_five_elements_by_hand() -> None:
    # One image, one class, five anchors: p is the probability of the class.
    p = [0.05, 0.4, 0.95, 0.8, 0.5]
    logits = torch.tensor([[[logit(x)] for x in p]])
    anatomy = measured([logits], [[1, 1, 1, 0, 0]], FocalSetting(gamma=0.0, alpha=None))

    whole = anatomy.overall()
    assert [part.count for part in whole.parts] == [1, 2, 2]
    # Cross-entropy: -log(1 - p) of a negative, with gradient p; -log(p) of a positive, 1 - p.
    easy, other, positives = -math.log(0.95), -math.log(0.6) - math.log(0.05), -math.log(0.4)
    assert [part.loss for part in whole.parts] == pytest.approx([easy, other, positives], rel=1e-6)
    assert whole.easy_negatives.gradient_l1 == pytest.approx(0.05, rel=1e-6)
    assert whole.other_negatives.gradient_l1 == pytest.approx(0.4 + 0.95, rel=1e-6)
    assert whole.positives.gradient_l1 == pytest.approx(0.2 + 0.5, rel=1e-6)
    assert whole.other_negatives.gradient_l2 == pytest.approx(math.hypot(0.4, 0.95), rel=1e-6)
    assert whole.positives.gradient_share == pytest.approx(0.7 / 2.1, rel=1e-6)
    squares = 0.05**2 + 0.4**2 + 0.95**2 + 0.2**2 + 0.5**2
    assert whole.positives.gradient_square_share == pytest.approx(0.29 / squares, rel=1e-6)
    assert sum(part.loss_share for part in whole.parts) == pytest.approx(1.0)
    assert sum(part.gradient_share for part in whole.parts) == pytest.approx(1.0)


def test_gamma_two_takes_a_hundredth_of_the_easy_and_a_quarter_of_the_even() -> None:
    # The paper's numbers: factor 100 at p_t = 0.9, 4 at 0.5.
    logits = torch.tensor([[[logit(0.1)], [logit(0.5)]]])
    plain = measured([logits], [[1, 1]], FocalSetting(gamma=0.0, alpha=None))
    focused = measured([logits[:, :1]], [[1]], FocalSetting(gamma=2.0, alpha=None))
    assert focused.overall().loss == pytest.approx(-math.log(0.9) / 100, rel=1e-5)
    focused = measured([logits[:, 1:]], [[1]], FocalSetting(gamma=2.0, alpha=None))
    assert focused.overall().loss == pytest.approx(math.log(2) / 4, rel=1e-6)
    assert plain.overall().loss == pytest.approx(math.log(2) - math.log(0.9), rel=1e-6)


def test_levels_and_classes_are_kept_apart() -> None:
    # Two classes, two levels; the positive is class 1 on the second level.
    fine = torch.tensor([[[logit(0.01), logit(0.3)], [logit(0.02), logit(0.04)]]])
    coarse = torch.tensor([[[logit(0.2), logit(0.6)]]])
    anatomy = measured([fine, coarse], [[2, 2, 1]], FocalSetting(gamma=0.0, alpha=None))

    levels = [[part.count for part in level.parts] for level in anatomy.per_level()]
    assert levels == [[3, 1, 0], [0, 1, 1]]
    classes = [[part.count for part in one.parts] for one in anatomy.per_class()]
    assert classes == [[2, 1, 0], [1, 1, 1]]
    first, second = anatomy.per_class()
    assert first.other_negatives.loss == pytest.approx(-math.log(0.8), rel=1e-6)
    assert second.positives.loss == pytest.approx(-math.log(0.6), rel=1e-6)
    assert anatomy.per_level()[0].loss == pytest.approx(
        -math.log(0.99 * 0.7 * 0.98 * 0.96), rel=1e-6
    )
    assert anatomy.level_names == ("P3", "P4")
    assert anatomy.num_images == 1


def test_ignored_anchors_count_nowhere() -> None:
    logits = torch.tensor([[[5.0], [-1.0]], [[2.0], [0.0]]])
    anatomy = measured(
        [logits], [[1, 1], [1, 0]], FocalSetting(gamma=0.0, alpha=None), ignored=((0, 0), (1, 1))
    )
    whole = anatomy.overall()
    assert [part.count for part in whole.parts] == [0, 2, 0]
    assert anatomy.counts.sum() == 2
    assert anatomy.histogram().positives.sum() == 0


def test_batches_add_up_to_one_large_batch_whatever_the_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(2, 50, 4, generator=generator)
    labels = torch.randint(0, 5, (2, 50), generator=generator).tolist()
    at_once = measured([logits], labels, FocalSetting(2.0, 0.25))
    monkeypatch.setattr("retina.instruments.anatomy.meter._CHUNK", {"cpu": 12})
    in_parts = measured([logits], labels, FocalSetting(2.0, 0.25))
    # Elements are float32, and torch's kernels round the ends of an array differently.
    np.testing.assert_allclose(in_parts.sums, at_once.sums, rtol=1e-6)
    np.testing.assert_array_equal(in_parts.sums[..., 0], at_once.sums[..., 0])
    np.testing.assert_array_equal(in_parts.counts, at_once.counts)


def test_half_precision_logits_are_computed_in_float32() -> None:
    logits = torch.tensor([[[-9.0], [3.0]]])
    exact = measured([logits], [[1, 0]], FocalSetting(2.0, 0.25))
    half = measured([logits.bfloat16()], [[1, 0]], FocalSetting(2.0, 0.25))
    np.testing.assert_array_equal(half.sums, exact.sums)


def test_histogram_of_probabilities_has_its_bars_where_they_belong() -> None:
    probabilities = [1e-9, 0.3, 1 - 1e-6, 0.5001]
    logits = torch.tensor([[[-logit(p)] for p in probabilities]])  # p_t of negatives
    histogram = measured([logits], [[1, 1, 1, 1]], FocalSetting(2.0, 0.25)).histogram()

    filled = np.flatnonzero(histogram.negatives)
    assert histogram.negatives[filled].tolist() == [1, 1, 1, 1]
    for place, p in zip(filled, sorted(probabilities), strict=True):
        low, high = histogram.logit_edges[place : place + 2]
        assert low <= logit(p) < high
    widths = np.diff(histogram.logit_edges)
    assert widths == pytest.approx(np.full(256, 0.25))


def test_logits_beyond_the_bins_keep_their_exact_loss() -> None:
    # Two very wrong negatives, far beyond the last bin: the loss is linear there.
    logits = torch.tensor([[[1e4], [100.0], [-1e4]]])
    anatomy = measured([logits], [[1, 1, 1]], FocalSetting(gamma=0.0, alpha=None))
    counts, sums = anatomy.counts[0, 0], anatomy.logit_sums[0, 0]
    assert counts[-1] == 2
    assert counts[0] == 1
    assert focal(sums[-1:] / 2, 0.0)[0] * 2 == pytest.approx(1e4 + 100)
    assert anatomy.overall().loss == pytest.approx(1e4 + 100)


def test_not_a_number_breaks_nothing() -> None:
    logits = torch.tensor([[[float("nan")], [float("inf")], [-2.0]]])
    anatomy = measured([logits], [[1, 1, 0]], FocalSetting(2.0, 0.25))
    assert anatomy.counts.sum() == 3


@pytest.mark.parametrize("gamma", PAPER_GAMMAS)
@pytest.mark.parametrize("side", [0, 1])
def test_cumulative_curves_agree_with_sorting_every_sample(gamma: float, side: int) -> None:
    # Logits as a trained detector has them: most negatives easy, a long tail of hard ones.
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(1, 200_000, 1, generator=generator) * 2 - 5
    labels = (torch.rand(200_000, generator=generator) > 0.01).long()
    logits[0, labels == 0] += 4
    anatomy = measured([logits], [labels.tolist()], FocalSetting(2.0, 0.25))
    curve = cumulative_loss(anatomy.counts[0, side], anatomy.logit_sums[0, side], gammas=(gamma,))

    signed = torch.where(labels == 0, -logits[0, :, 0], logits[0, :, 0]).double()
    wrong_way = signed[labels == (0 if side else 1)]
    loss = torch.sigmoid(wrong_way) ** gamma * torch.nn.functional.softplus(wrong_way)
    running = np.concatenate([[0.0], loss.sort().values.cumsum(0).numpy()])
    exact = np.interp(curve.fractions, np.linspace(0, 1, len(running)), running / running[-1])
    assert curve.num_samples == len(wrong_way)
    np.testing.assert_allclose(curve.values[gamma], exact, atol=5e-5)
    top = np.interp(0.99, np.linspace(0, 1, len(running)), running / running[-1])
    assert curve.hardest[gamma] == pytest.approx(1 - top, abs=5e-5)


def test_there_is_no_cumulative_curve_of_nothing() -> None:
    empty = np.zeros(NUM_BINS)
    curve = cumulative_loss(empty, empty, gammas=(2.0,))
    assert (curve.num_samples, curve.values, curve.hardest) == (0, {}, {})


def test_a_side_without_samples_is_null_in_the_file_and_said_in_the_picture() -> None:
    anatomy = measured([torch.tensor([[[-3.0], [1.0]]])], [[1, 1]], FocalSetting(2.0, 0.25))
    curves = to_json(anatomy, {})["cumulative_loss"]
    assert curves["foreground"] == {"num_samples": 0, "hardest_percent": None, "values": None}
    assert list(curves["background"]["values"]) == ["0", "0.5", "1", "2", "5"]
    foreground, background = cumulative_figure(anatomy).axes
    assert [text.get_text() for text in foreground.texts] == ["no samples"]
    assert list(foreground.lines) == []
    assert foreground.get_legend() is None
    assert (len(background.lines), len(background.texts)) == (5, 0)
    assert len(summary(anatomy)) == 3
    # Only a positive: the background has no hardest percent to speak of.
    assert len(summary(measured([torch.zeros(1, 1, 1)], [[0]], FocalSetting(2.0, 0.25)))) == 2


def test_the_panels_of_the_shares_keep_their_tick_labels_apart() -> None:
    anatomy = measured([torch.tensor([[[-3.0], [1.0]]])], [[1, 0]], FocalSetting(2.0, 0.25))
    figure = shares_figure(anatomy)
    figure.canvas.draw()
    left, right = figure.axes
    last = left.xaxis.get_ticklabels()[-1].get_window_extent()
    first = right.xaxis.get_ticklabels()[0].get_window_extent()
    assert first.x0 - last.x1 > first.width / 2


def test_loss_curves_pass_through_the_papers_points() -> None:
    curves = loss_curves(np.array([0.5, 0.9]))
    assert curves[0.0] == pytest.approx([math.log(2), -math.log(0.9)])
    assert curves[2.0] == pytest.approx([math.log(2) / 4, -math.log(0.9) / 100])
    assert curves[5.0][0] == pytest.approx(math.log(2) / 32)
    assert list(curves) == [0.0, 0.5, 1.0, 2.0, 5.0]


def test_the_bins_are_as_fine_as_the_curves_need() -> None:
    # The error of a bin of width w is about (1 + γ)² w² / 24 of its loss.
    width = 2 * LIMIT / NUM_BINS
    assert (1 + max(PAPER_GAMMAS)) ** 2 * width**2 / 24 < 5e-5
