"""The focal loss of every anchor and class, and how hard it pulls at the logit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from retina.instruments.number_formatting import shown

EASY = 0.9
"""A negative with p_t above this is easy: the focal loss at γ = 2 takes it for at most a hundredth
of its cross-entropy (Lin et al. 2017, section 3.2)."""

EASY_LOGIT = math.log(EASY / (1 - EASY))
"""The logit of `EASY`."""


@dataclass(frozen=True, slots=True)
class FocalSetting:
    """The γ and α of a focal loss: scalars, or one per class; α None weighs nothing."""

    gamma: float | tuple[float, ...]
    alpha: float | tuple[float, ...] | None

    def __str__(self) -> str:
        return f"γ = {_shown(self.gamma)}, α = {_shown(self.alpha)}"


def _shown(value: float | tuple[float, ...] | None) -> str:
    if isinstance(value, tuple):
        return f"{min(value):.2g} … {max(value):.2g} by class"
    return shown(value)


@dataclass(frozen=True, slots=True)
class ElementLosses:
    """What each anchor and class adds to the loss.

    Attributes:
        loss: of the shape of the logits, float32.
        gradient: |∂loss/∂logit|, of the same shape.
    """

    loss: Tensor
    gradient: Tensor


def element_losses(
    wrong_way: Tensor, is_positive: Tensor, parameters: FocalSetting
) -> ElementLosses:
    """The focal loss and the size of its gradient, in closed form.

    With z the logit for the wrong side, 1 - p_t = σ(z) and -log(p_t) = softplus(z), hence
    FL = α_t σ(z)^γ softplus(z), and |FL'| = α_t σ(z)^γ (γ p_t softplus(z) + 1 - p_t) (Lin et al.
    2017, appendix B). Both grow with z whatever γ is.

    Args:
        wrong_way: ``(..., K)`` float32, the logit z: negated on positives.
        is_positive: ``(..., K)`` bool.
        parameters: γ and α; where they are per class, K of them.
    """
    wrong = torch.sigmoid(wrong_way)
    cross_entropy = F.softplus(wrong_way)
    alpha = parameters.alpha
    gamma = wrong.new_tensor(parameters.gamma)  # () or (K,)
    weight = wrong.square() if parameters.gamma == 2 else wrong**gamma
    if alpha is not None and alpha != 1:
        foreground = wrong.new_tensor(alpha)
        weight = weight * torch.where(is_positive, foreground, 1 - foreground)
    gradient = weight * (gamma * (1 - wrong) * cross_entropy + wrong)
    return ElementLosses(loss=weight * cross_entropy, gradient=gradient)
