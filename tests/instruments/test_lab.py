"""The replay against the sums over every anchor and class, and the file of the sample."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from retina.instruments.anatomy.elements import EASY_LOGIT, FocalSetting, element_losses
from retina.instruments.anatomy.lab.replay import NOISE_RATE, replay
from retina.instruments.anatomy.lab.sample import LabSample, LabSampler, load_sample, save_sample
from retina.runtime.splits import ForwardedBatch
from retina.structures import (
    Anchors,
    Assignment,
    BatchedTargets,
    DensePredictions,
    Targets,
)

GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)
ALPHAS = (0.1, 0.25, 0.9, None)


def one_batch(logits: Tensor, labels: Tensor) -> tuple[ForwardedBatch, Assignment]:
    """Two images; ``labels (2, R)``: class of the object that each anchor is on, K, or -1."""
    batch, num_anchors, num_classes = logits.shape
    assert batch == 2
    is_foreground = (labels >= 0) & (labels < num_classes)
    # Every class is one object, in this order.
    targets = BatchedTargets.from_targets(
        [
            Targets(
                boxes=torch.tensor([[0.0, 0.0, 4.0, 4.0]]).repeat(num_classes, 1),
                labels=torch.arange(num_classes),
                is_crowd=torch.zeros(num_classes, dtype=torch.bool),
            )
        ]
        * 2
    )
    assignment = Assignment(
        target_index=torch.where(is_foreground, labels, 0),
        is_foreground=is_foreground,
        is_ignored=labels < 0,
    )
    half = num_anchors // 2
    levels = (logits[:, :half], logits[:, half:])
    predictions = DensePredictions(
        class_logits=tuple(level.view(2, 1, -1, 1, num_classes) for level in levels),
        box_codes=tuple(torch.zeros(2, 1, level.shape[1], 1, 4) for level in levels),
    )
    anchors = Anchors(torch.zeros(num_anchors, 4), (half, num_anchors - half), (1, 1))
    return ForwardedBatch(predictions, anchors, targets, (1, 2)), assignment


def sample_of(logits: Tensor, labels: Tensor) -> LabSample:
    batch, assignment = one_batch(logits, labels)
    sampler = LabSampler(logits.shape[-1])
    sampler.add(batch, lambda anchors, targets: assignment)
    return sampler.sample()


@pytest.fixture(scope="module")
def problem() -> tuple[Tensor, Tensor]:
    """600 anchors × 5 classes in each of two images: mostly easy background, some of it hard."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 600, 5, generator=generator) * 2.5 - 4
    labels = torch.full((2, 600), 5)
    chosen = torch.rand(2, 600, generator=generator)
    labels[chosen < 0.1] = torch.randint(0, 5, (int((chosen < 0.1).sum()),), generator=generator)
    labels[chosen > 0.95] = -1
    return logits, labels


def exact(logits: Tensor, labels: Tensor, gamma: float, alpha: float | None) -> dict[str, float]:
    """Every sum element by element, every wrong label one by one."""
    num_classes = logits.shape[-1]
    logits, labels = logits.double().reshape(-1, num_classes), labels.reshape(-1)
    logits, labels = logits[labels >= 0], labels[labels >= 0]
    is_positive = torch.nn.functional.one_hot(labels, num_classes + 1)[:, :-1].bool()

    def of(positive: Tensor) -> tuple[Tensor, Tensor]:
        losses = element_losses(
            torch.where(positive, -logits, logits), positive, FocalSetting(gamma, alpha)
        )
        return losses.loss, losses.gradient

    loss, gradient = of(is_positive)
    easy = ~is_positive & (logits < -EASY_LOGIT)
    result = {"loss": float(loss.sum()), "gradient": float(gradient.sum())}
    for name, group in (("easy", easy), ("positive", is_positive)):
        result[f"{name} loss"] = float(loss[group].sum())
        result[f"{name} gradient"] = float(gradient[group].sum())
    # Half of the wrong labels are missing, the other half of another class, each as likely.
    pull = wrong_before = 0.0
    foreground = labels < num_classes
    for row in torch.nonzero(foreground).flatten().tolist():
        own = int(labels[row])
        for other in range(num_classes):
            if other == own:
                continue
            weight = 0.5 / (num_classes - 1)
            pull += weight * float(_gradient(logits[row, own], False, gamma, alpha))
            pull += weight * float(_gradient(logits[row, other], True, gamma, alpha))
            wrong_before += weight * float(gradient[row, own] + gradient[row, other])
        pull += 0.5 * float(_gradient(logits[row, own], False, gamma, alpha))
        wrong_before += 0.5 * float(gradient[row, own])
    result["noise pull"] = pull / wrong_before
    result["noise share"] = (
        NOISE_RATE * pull / (result["gradient"] + NOISE_RATE * (pull - wrong_before))
    )
    return result


def _gradient(logit: Tensor, positive: bool, gamma: float, alpha: float | None) -> Tensor:
    wrong_way = -logit if positive else logit
    parameters = FocalSetting(gamma, alpha)
    return element_losses(wrong_way, torch.tensor(positive), parameters).gradient


def test_a_replay_agrees_with_the_sums_over_every_element(
    problem: tuple[Tensor, Tensor],
) -> None:
    """A bin of width w errs by about (1 + γ)² w² / 24 of its loss: 2.3e-5 at γ = 5."""
    logits, labels = problem
    sample = sample_of(logits, labels)
    assert sample.num_images == 2
    assert sample.num_objects == 10
    assert sample.num_elements == int((labels >= 0).sum()) * 5
    assert len(sample.own_class) == int(((labels >= 0) & (labels < 5)).sum())
    cells = iter(replay(sample, GAMMAS, ALPHAS))
    for gamma in GAMMAS:
        for alpha in ALPHAS:
            cell, truth = next(cells), exact(logits, labels, gamma, alpha)
            assert (cell.gamma, cell.alpha) == (gamma, alpha)
            for shares, kind in ((cell.loss, "loss"), (cell.gradient, "gradient")):
                easy, positives = truth[f"easy {kind}"], truth[f"positive {kind}"]
                assert shares.easy_negatives == pytest.approx(easy / truth[kind], rel=3e-5)
                assert shares.positives == pytest.approx(positives / truth[kind], rel=3e-5)
                total = shares.easy_negatives + shares.other_negatives + shares.positives
                assert total == pytest.approx(1.0)
            assert cell.noise_pull == pytest.approx(truth["noise pull"], rel=3e-5)
            assert cell.noise_share == pytest.approx(truth["noise share"], rel=3e-5)


def test_easy_negatives_end_at_p_t_of_nine_tenths() -> None:
    just_easy, just_not = math.log(0.0999 / 0.9001), math.log(0.1001 / 0.8999)
    logits = torch.tensor([just_easy, just_easy, just_not, 0.0]).view(1, 4, 1).repeat(2, 1, 1)
    labels = torch.tensor([[1, 1, 1, 0]] * 2)
    cell = replay(sample_of(logits, labels), [0.0], [None])[0]
    easy, other, positive = 4 * 0.0999, 2 * 0.1001, 2 * 0.5  # the gradient of cross-entropy
    total = easy + other + positive
    assert cell.gradient.easy_negatives == pytest.approx(easy / total, rel=1e-5)
    assert cell.gradient.positives == pytest.approx(positive / total, rel=1e-5)


def test_a_logit_beyond_the_histogram_keeps_its_loss() -> None:
    logits = torch.tensor([500.0, -500.0, 0.0, 2.0]).view(1, 4, 1).repeat(2, 1, 1)
    labels = torch.tensor([[1, 1, 1, 0]] * 2)
    cell = replay(sample_of(logits, labels), [2.0], [None])[0]
    total = 500 + 0.25 * math.log(2) + (0.119203 * 0.119203) * 0.126928
    assert cell.loss.other_negatives == pytest.approx((500 + 0.25 * math.log(2)) / total, rel=1e-6)
    assert cell.loss.easy_negatives == pytest.approx(0.0, abs=1e-12)


def test_with_one_class_a_wrong_label_is_a_missing_one() -> None:
    logits = torch.tensor([2.0, -3.0]).view(1, 2, 1).repeat(2, 1, 1)
    cell = replay(sample_of(logits, torch.tensor([[0, 1]] * 2)), [0.0], [0.25])[0]
    wrong, right = 0.75 * 0.880797, 0.25 * 0.119203  # α_t σ(±2)
    assert cell.noise_pull == pytest.approx(wrong / right, rel=1e-5)


def test_a_sample_is_read_back_only_under_its_own_fingerprint(
    problem: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    sample, path = sample_of(*problem), tmp_path / "sample.safetensors"
    assert load_sample(path, "a") is None
    save_sample(path, sample, "a")
    assert load_sample(path, "b") is None
    again = load_sample(path, "a")
    assert again is not None
    assert replay(again, GAMMAS, ALPHAS) == replay(sample, GAMMAS, ALPHAS)
    path.write_bytes(path.read_bytes()[:100])
    assert load_sample(path, "a") is None
