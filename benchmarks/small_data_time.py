"""Times of a training step and of detection: ours beside torchvision's, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torchvision_peer import PeerConfig, PeerRuntime, PeerTraining

from retina.datasets.dataset import DetectionDataset
from retina.experiment import load_experiment
from retina.experiment.parts import build_dataset
from retina.instruments.doctor.context import CheckContext
from retina.instruments.doctor.trial import first_batches, start_trial
from retina.runtime import Runtime
from retina.structures import SampleRequest

_BATCHES = 8
_IMAGES = 8


def compare(
    config: Path, peers: Sequence[PeerConfig], *, from_scratch: bool, threads: int, rounds: int
) -> list[dict[str, Any]]:
    """How many times as long the peer takes as our config does.

    Args:
        config: of our training.
        peers: of one set; each has a line.
        from_scratch: whether ours has no pretrained weights.
        threads: of all.
        rounds: of a step of each, alternating, after two to warm up.
    """
    torch.set_num_threads(threads)
    experiment = load_experiment(config)
    if from_scratch:
        experiment = experiment.from_scratch()
    train = build_dataset(experiment, "train")
    context = CheckContext(experiment, train)
    trial = start_trial(context)
    batches = first_batches(context, _BATCHES)
    train.augmentation = None
    trainings = [PeerTraining(peer, train) for peer in peers]
    numbers = iter(range(10**6))
    lr = experiment.optimizer.lr / 25  # as in the warm-up
    steps: list[Callable[[], Any]] = [
        lambda: trial.advance(batches[next(numbers) % _BATCHES], lr),
        *(training.step for training in trainings),
    ]
    images = _images(train)
    runtimes: list[Runtime] = [
        trial.runtime,
        *(
            PeerRuntime(training.network, train.categories, trial.runtime.preprocess)
            for training in trainings
        ),
    ]
    of_steps = _alternating(steps, rounds)
    detections = [_detection(runtime, images) for runtime in runtimes]
    of_images = [[value / _IMAGES for value in times] for times in _alternating(detections, rounds)]
    return [
        {
            "peer": f"torchvision {peer.backbone} {peer.precision}",
            **_row("step", of_steps[0], of_steps[number]),
            **_row("image", of_images[0], of_images[number]),
        }
        for number, peer in enumerate(peers, start=1)
    ]


def _images(train: DetectionDataset) -> list[torch.Tensor]:
    asked = [SampleRequest(index, seed=0, max_size=None, augment=False) for index in range(_IMAGES)]
    return [train[request].image for request in asked]


def _detection(runtime: Runtime, images: Sequence[torch.Tensor]) -> Callable[[], None]:
    def detect() -> None:
        for image in images:
            runtime.detect([image])

    return detect


def _alternating(functions: Sequence[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """The seconds of each function in each round."""
    times: list[list[float]] = [[] for _ in functions]
    for number in range(rounds + 2):
        for function, own in zip(functions, times, strict=True):
            began = time.perf_counter()
            function()
            if number >= 2:
                own.append(time.perf_counter() - began)
    return times


def _row(name: str, ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    return {
        f"{name}_ms": round(1000 * statistics.median(ours)),
        f"{name}_peer_ms": round(1000 * statistics.median(theirs)),
        f"{name}_ratio": round(statistics.median(ratios), 2),
        f"{name}_ratio_lowest": round(min(ratios), 2),
        f"{name}_ratio_highest": round(max(ratios), 2),
    }
