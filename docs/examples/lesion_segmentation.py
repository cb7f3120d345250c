"""Lesions of about 0.5 % of the pixels: five losses, the same small U-Net, on invented images.

    python docs/examples/lesion_segmentation.py --seeds 5

The images are drawn by `draw`: tissue of several scales, vessels, benign masses that are larger
than lesions, bright specks that are smaller, and lesions from barely visible to plain.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from side_by_side import (
    Candidate,
    LossFunction,
    Trial,
    arguments,
    average_precision,
    compare,
    precision_recall,
    recall_at_precision,
    report,
)
from torch import Tensor, nn

from retina.losses import dice_loss, sigmoid_focal_loss, unified_focal_loss

SIZE = 64
LESION_RATE = 0.005
"""The share of lesion pixels, for the prior initialisation."""


@dataclass(frozen=True)
class Budget:
    """How much is drawn and trained: images, and optimizer steps."""

    train: int = 640
    validation: int = 256
    test: int = 512
    steps: int = 160
    batch_size: int = 16
    tuning_seeds: tuple[int, ...] = (101, 102)


SMOKE = Budget(16, 16, 16, steps=1, batch_size=4, tuning_seeds=(101,))


@functools.cache
def draw(num_images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images ``(N, 1, 64, 64)`` with noise of variance 1, and masks ``(N, 1, 64, 64)``, 1 = lesion.

    An image has a number of lesions from Poisson(1), each an ellipse with half axes of 1.3 to 3.5
    pixels and a contrast of 1 to 4 standard deviations of the noise. Around them: tissue (noise
    of four scales), one vessel (a bright curve 2 to 3 pixels wide), one benign mass (half axes of 5
    to 10 pixels, contrast 1 to 2.5, soft) in half of the images, and four specks of one pixel.
    """
    dice = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(num_images, *shape, 1, 1, generator=dice)

    noise = torch.randn(num_images, SIZE, SIZE, generator=dice)
    image = noise + sum(_tissue(num_images, cells, dice) for cells in (4, 8, 16, 32))
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    course = between(10, 54) + between(2, 12) * torch.sin(x * between(0.05, 0.15) + between(0, 6))
    image = image + between(1, 3) * torch.exp(-(((y - course) / between(0.8, 1.4)) ** 2))
    mass = _ellipse(
        x, y, between(8, 56), between(8, 56), between(5, 10), between(5, 10), between(0, 3)
    )
    present = (between(0, 1) < 0.5).float()
    image = image + present * between(1, 2.5) * torch.sigmoid(4 * (1 - mass))
    specks = torch.rand(num_images, SIZE, SIZE, generator=dice) < 4 / SIZE**2
    image = image + 5 * specks

    most = 5
    count = torch.poisson(torch.ones(num_images), generator=dice).clamp(max=most)
    place = (between(4, SIZE - 4, most), between(4, SIZE - 4, most))
    axes = (between(1.3, 3.5, most), between(1.3, 3.5, most))
    distance = _ellipse(x, y, *place, *axes, between(0, 3, most))  # (N, most, 64, 64)
    shown = (torch.arange(most) < count[:, None])[:, :, None, None]
    bright = between(1, 4, most) * torch.sigmoid(6 * (1 - distance)) * shown
    image = image + bright.amax(1)
    mask = ((distance <= 1) & shown).any(1)
    return image.unsqueeze(1), mask.unsqueeze(1).float()


def _tissue(num_images: int, cells: int, dice: torch.Generator) -> Tensor:
    """Smooth noise that changes over ``SIZE / cells`` pixels."""
    coarse = torch.randn(num_images, 1, cells, cells, generator=dice)
    fine = F.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic", align_corners=False)
    return 0.5 * fine.squeeze(1)


def _ellipse(
    x: Tensor, y: Tensor, cx: Tensor, cy: Tensor, a: Tensor, b: Tensor, angle: Tensor
) -> Tensor:
    """The distance of each pixel from the centre, 1 on the ellipse."""
    along = (x - cx) * angle.cos() + (y - cy) * angle.sin()
    across = (y - cy) * angle.cos() - (x - cx) * angle.sin()
    return ((along / a) ** 2 + (across / b) ** 2).sqrt()


class UNet(nn.Module):
    """Three scales of 16, 32 and 64 channels.

    Four neighbouring pixels are four channels on the way in and four logits on the way out: all the
    detail at a quarter of the cost.
    """

    def __init__(self, prior: bool) -> None:
        """The last bias: with ``prior`` all pixels start at the rate of lesions, else at 1/2."""
        super().__init__()
        self.fine_in, self.middle_in = _block(4, 16), _block(16, 32)
        self.coarse = _block(32, 64)
        self.middle_out, self.fine_out = _block(64 + 32, 32), _block(32 + 16, 16)
        self.logits = nn.Conv2d(16, 4, 1)
        start = math.log(LESION_RATE / (1 - LESION_RATE)) if prior else 0.0
        nn.init.constant_(self.logits.bias, start)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the images' shape ``(N, 1, H, W)``."""
        fine = self.fine_in(F.pixel_unshuffle(images, 2))  # (N, 16, H/2, W/2)
        middle = self.middle_in(F.max_pool2d(fine, 2))  # (N, 32, H/4, W/4)
        coarse = self.coarse(F.max_pool2d(middle, 2))  # (N, 64, H/8, W/8)
        middle = self.middle_out(torch.cat([_double(coarse), middle], dim=1))
        fine = self.fine_out(torch.cat([_double(middle), fine], dim=1))
        return F.pixel_shuffle(self.logits(fine), 2)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        convolution = nn.Conv2d(width, outputs, 3, padding=1, bias=False)
        layers += [convolution, nn.GroupNorm(4, outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _double(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="nearest")


def train(images: Tensor, masks: Tensor, trial: Trial, seed: int, budget: Budget) -> UNet:
    """AdamW with a one-cycle schedule, random flips; the weights of the last step."""
    torch.manual_seed(seed)
    network = UNet(trial.prior).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=trial.lr, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, trial.lr, budget.steps, pct_start=0.2)
    dice = torch.Generator().manual_seed(seed)
    for _ in range(budget.steps):
        chosen = torch.randint(len(images), (budget.batch_size,), generator=dice)
        flips = [dim for dim in (2, 3) if torch.rand((), generator=dice) < 0.5]
        batch, wanted = images[chosen].flip(flips), masks[chosen].flip(flips)
        optimizer.zero_grad()
        trial.loss(network(batch), wanted).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def weighted_cross_entropy(weight: float) -> LossFunction:
    """Cross-entropy in which a lesion's pixel counts ``weight`` times."""

    def loss(logits: Tensor, masks: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, masks, pos_weight=torch.tensor(weight))

    return loss


def focal(gamma: float, alpha: float) -> LossFunction:
    """The focal loss, summed and divided by the number of lesion pixels in the batch."""

    def loss(logits: Tensor, masks: Tensor) -> Tensor:
        total = sigmoid_focal_loss(logits, masks, alpha=alpha, gamma=gamma, reduction="sum")
        return total / masks.sum().clamp(min=1)

    return loss


def dice(smooth: float) -> LossFunction:
    """Dice over the whole batch: a third of the images have no lesion."""
    return lambda logits, masks: dice_loss(logits, masks, smooth=smooth, pool_batch=True)


def unified_focal(gamma: float, delta: float) -> LossFunction:
    """The asymmetric Unified Focal Loss over the whole batch."""
    return lambda logits, masks: unified_focal_loss(
        logits, masks, gamma=gamma, delta=delta, pool_batch=True
    )


LR = (3e-3, 1e-2, 3e-2)
CANDIDATES = (
    Candidate("cross-entropy", lambda: weighted_cross_entropy(1.0), {"lr": 1e-2}, {"lr": LR}),
    Candidate(
        "weighted cross-entropy",
        weighted_cross_entropy,
        {"lr": 1e-2, "weight": 10.0},
        {"lr": LR, "weight": (3.0, 10.0, 100.0)},
    ),
    Candidate(
        "focal",
        focal,
        {"lr": 1e-2, "gamma": 2.0, "alpha": 0.25},
        {"lr": LR, "gamma": (1.0, 2.0, 3.0), "alpha": (0.25, 0.5, 0.75)},
    ),
    Candidate("Dice", dice, {"lr": 1e-2, "smooth": 1e-6}, {"lr": LR, "smooth": (1e-6, 10.0)}),
    Candidate(
        "Unified Focal",
        unified_focal,
        {"lr": 1e-2, "gamma": 0.5, "delta": 0.6},
        {"lr": LR, "gamma": (0.25, 0.5, 0.75), "delta": (0.4, 0.6, 0.8)},
    ),
)


@torch.inference_mode()
def predict(network: UNet, images: Tensor) -> Tensor:
    """Logits ``(N·64·64,)``."""
    return torch.cat([network(part).flatten() for part in images.split(64)])


def best_threshold(logits: Tensor, truth: Tensor) -> float:
    """The logit from which on a pixel is called lesion, for the highest Dice."""
    precision, recall = precision_recall(logits, truth)
    dice_scores = 2 * precision * recall / (precision + recall).clamp(min=1e-9)
    return float(logits.unique().flip(0)[dice_scores.argmax()])


def dice_score(logits: Tensor, truth: Tensor, threshold: float) -> float:
    """The Dice coefficient over all pixels of all images."""
    called = (logits >= threshold).float()
    return float(2 * (called * truth).sum() / (called.sum() + truth.sum()))


def measure(trial: Trial, seed: int, budget: Budget, num_unseen: int) -> dict[str, float]:
    """Train on one seed's images; the threshold comes from validation images, the rest is new."""
    network = train(*draw(budget.train, 3 * seed), trial, seed, budget)
    images, masks = draw(budget.validation, 3 * seed + 1)
    threshold = best_threshold(predict(network, images), masks.flatten())
    images, masks = draw(num_unseen, 3 * seed + 2)
    logits, truth = predict(network, images), masks.flatten()
    return {
        "Dice": dice_score(logits, truth, threshold),
        "Dice at p = 0.5": dice_score(logits, truth, 0.0),
        "average precision": average_precision(logits, truth),
        "recall at precision 0.9": recall_at_precision(logits, truth, 0.9),
        "recall at precision 0.5": recall_at_precision(logits, truth, 0.5),
    }


def main() -> None:
    """Tune and test every loss, and print the table."""
    options = arguments(__doc__)
    torch.set_num_threads(1)
    budget = SMOKE if options.smoke else Budget()
    started = time.perf_counter()

    def validate(trial: Trial) -> float:
        outcomes = [measure(trial, seed, budget, budget.validation) for seed in budget.tuning_seeds]
        return sum(outcome["Dice"] for outcome in outcomes) / len(outcomes)

    def test(trial: Trial, seed: int) -> dict[str, float]:
        return measure(trial, seed, budget, budget.test)

    report(compare(CANDIDATES, validate, test, options.seeds), started, options.json)


if __name__ == "__main__":
    main()
