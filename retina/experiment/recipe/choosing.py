"""Which recipe a data set and a machine get; what is measured afterwards may change its numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from retina.experiment.recipe.choices import Choice, Recipe
from retina.experiment.recipe.facts import Facts, Machine, Split
from retina.wording import counted

FEW_BOXES = 10
"""Classes with fewer boxes can hardly be learned."""

_SMALL_SET = 10_000
"""Images up to which the augmentation is strong."""

_SCRATCH_BATCH = 4
"""The fewest images at a time that live statistics get, where there are as many."""

_LEAST_STEPS = 1000
"""What a training from pretrained weights gets however few its images are."""

ENOUGH_RANDOM_STEPS = 1500
"""The same from random weights: 131 photos came to AP 0.08 in 680 steps, raccoons to 0.30 in
800."""

_EVALUATIONS = 10

_MOST_NAMES = 40
_SIDES = frozenset(("left", "right", "leftward", "rightward", "links", "rechts"))
_ARROWS = frozenset(("arrow", "turn", "direction"))
_TEXT = frozenset(("text", "word", "letter", "character", "digit", "number", "plate", "license"))


@dataclass(frozen=True, slots=True)
class _Size:
    """What a machine can be given.

    Attributes:
        backbone: torchvision's name.
        weights: torchvision's name of its weights.
        channels: of pyramid and head.
        min_size: of the input, where the images are not smaller.
        largest_min_size: up to which small objects may raise it.
        batch_size: images of a step.
        steps: of a whole training.
        lr: the peak of AdamW's learning rate from pretrained weights, for `_RATE_IS_FOR` images.
        why: in words.
    """

    backbone: str
    weights: str
    channels: int
    min_size: int
    largest_min_size: int
    batch_size: int
    steps: int
    lr: float
    why: str


_RATE_IS_FOR = 8
"""Images of a step."""

_MEASURED_RATE = 2e-3
"""From random weights, and for small networks from ImageNet weights: see docs/doctor.md."""

_WIDE_RATE = 1e-3
"""For ResNet-50, whose backbone then has the rate of torchvision's second recipe, 1e-4."""

_V2, _V1 = "IMAGENET1K_V2", "IMAGENET1K_V1"
_LARGE_GPU = _Size("resnet50", _V2, 256, 640, 1024, 16, 8000, _WIDE_RATE, "a GPU of 16 GB or more")
_GPU = _Size("resnet50", _V2, 256, 640, 800, 8, 8000, _WIDE_RATE, "a GPU of 8 to 16 GB")
_SMALL_GPU = _Size("resnet18", _V1, 128, 480, 640, 8, 6000, _MEASURED_RATE, "a small GPU")
_CPU = _Size("resnet18", _V1, 64, 240, 480, 8, 1000, _MEASURED_RATE, "a CPU, which is slow")


def choose_recipe(facts: Facts) -> Recipe:
    """The recipe that is best for some data on a machine, as far as is known today.

    It is the preset `own_data` with what data and machine decide. What the doctor measures takes
    the place of the input size.
    """
    size = _size_of(facts.machine)
    return Recipe(
        (
            Choice(
                "preset",
                "own_data",
                "head, losses and all that is not below; retinanet is the classic head, with nine "
                "anchors a cell, for which `retina data anchors` finds sizes",
            ),
            *_machine(facts),
            *_data(facts),
            *_model(facts, size),
            *_input(facts, size),
            *_augmentation(facts),
            *_optimizer(facts, size),
            *_length(facts, size),
        ),
        largest_min_size=size.largest_min_size,
    )


def _size_of(machine: Machine) -> _Size:
    if machine.device == "cpu":
        return _CPU
    gigabytes = machine.memory / 1e9
    if gigabytes >= 15:  # sold as 16
        return _LARGE_GPU
    return _GPU if gigabytes >= 7.5 else _SMALL_GPU


def _machine(facts: Facts) -> Iterator[Choice]:
    yield Choice(
        "output_dir", f"runs/{facts.name}", "checkpoints, detectors, logs; relative as all paths"
    )
    machine = facts.machine
    found = f"{machine.name}, {counted(machine.num_cores, 'core')}"
    if machine.memory:
        found += f", {machine.memory / 1e9:.0f} GB"
    wanted = "asked for" if machine.given else "takes CUDA, then MPS, then the CPU"
    yield Choice("device", machine.given or "auto", f"{wanted}; here: {found}")


def _data(facts: Facts) -> Iterator[Choice]:
    for name in ("train", "validation", "test"):
        split: Split | None = getattr(facts, name)
        if split is None:
            if name == "validation":
                yield Choice("dataset.validation", None, "a single image: none to score on")
            continue
        report = split.dataset.report
        counts = (
            f"{counted(report.num_images, 'image')} ({report.num_empty_images} without objects), "
            f"{counted(report.num_boxes, 'box')}"
        )
        for key, value in split.keys.items():
            about = f"{split.why}; {counts}" if key == "source" else _about_key(key)
            yield Choice(f"dataset.{name}.{key}", value, about)
        if name == "train":
            yield _classes(facts)


def _about_key(key: str) -> str:
    return {
        "images": "where its images are",
        "split": "which of its splits",
        "classes": "those to learn: others are in no training image",
        "fraction": "this part of the images",
        "leave_out_fraction": "all images but the part that validation has",
    }[key]


def _classes(facts: Facts) -> Choice:
    """What becomes of classes without objects; all classes, in the order of their labels."""
    splits = [split for split in (facts.validation, facts.test) if split is not None]
    seen = zip(*(split.counts for split in (facts.train, *splits)), strict=True)
    rows = [
        (name, count, any(others))
        for name, (count, *others) in zip(facts.categories.distinct_names, seen, strict=True)
    ]
    empty = [name for name, count, _ in rows if not count]
    scored = [name for name, count, is_scored in rows if is_scored and not count]
    is_dropped = bool(empty) and not scored
    listed = [f"{name} ({count})" for name, count, _ in rows if count or not is_dropped]
    rare = [name for name, count, _ in rows if 0 < count < FEW_BOXES]
    about = [
        f"{counted(len(listed), 'class')}{' in this order' * (len(listed) > 1)}, with the number "
        f"of training boxes: {_few(listed, _MOST_NAMES)}"
    ]
    if rare:
        about.append(
            f"rare, hard to learn from fewer than {FEW_BOXES} boxes: {_few(rare, 10)} "
            "(sampling.repeat_threshold shows their images more often)"
        )
    if is_dropped:
        about.append(f"no class, since no image has one: {_few(empty, 10)}")
    elif scored:
        about.append(
            f"scored, though no training image has one, so nothing can learn it: {_few(scored, 10)}"
        )
    return Choice(
        "dataset.train.unused_categories", "drop" if is_dropped else "keep", "; ".join(about)
    )


def _model(facts: Facts, size: _Size) -> Iterator[Choice]:
    yield Choice("model.backbone.name", size.backbone, f"for {size.why}")
    if facts.from_scratch:
        yield Choice("model.backbone.weights", None, "random: --from-scratch was asked for")
        yield Choice("model.backbone.frozen_stages", 0, "all of it has to learn")
        yield Choice("model.backbone.norm", "batch", "random weights need live statistics")
    else:
        yield Choice(
            "model.backbone.weights",
            size.weights,
            f"trained on ImageNet, fetched once by torchvision: {_why_weights(facts)} "
            "(--from-scratch does without)",
        )
        yield Choice("model.backbone.frozen_stages", 2, "edges and colours are known already")
    yield Choice("model.pyramid.channels", size.channels, f"for {size.why}")


def _why_weights(facts: Facts) -> str:
    count = len(facts.train.dataset)
    if count < _SMALL_SET:
        return f"{counted(count, 'image')} are too few to learn all of it from nothing"
    return "a training from nothing takes several times as long"


def _input(facts: Facts, size: _Size) -> Iterator[Choice]:
    shorter = facts.shorter_side
    min_size = min(size.min_size, max(32, round(shorter / 32) * 32))
    larger = " (larger finds smaller objects, and takes longer)"
    why = f"usual for {size.why}{larger}"
    if min_size < size.min_size:
        why = f"the shorter side of half of the images is below {shorter:.0f}{larger}"
    yield Choice("preprocess.min_size", min_size, why)
    yield Choice("preprocess.max_size", max_size_of(min_size), "longer images are scaled down")


def max_size_of(min_size: int) -> int:
    """The limit of the longer side that goes with a shorter side: 5 : 3, as 1333 and 800."""
    return round(min_size * 5 / 3)


def _augmentation(facts: Facts) -> Iterator[Choice]:
    count = len(facts.train.dataset)
    preset: Literal["strong", "multi_scale"] = "strong" if count < _SMALL_SET else "multi_scale"
    does = {
        "strong": "scales, crops, colours and mosaics make more of them",
        "multi_scale": "enough to need no more than other sizes",
    }
    yield Choice("augmentation.preset", preset, f"{counted(count, 'image')}: {does[preset]}")
    yield _mirror(facts.categories.names)


def _mirror(names: Sequence[str]) -> Choice:
    """Whether images are mirrored, by what the names of the classes say."""
    words = {name: _words(name) for name in names}
    sided = [name for name in names if words[name] & _SIDES]
    letters = [name for name in names if len(name.strip()) == 1]
    doubtful = [name for name in names if words[name] & (_ARROWS | _TEXT)]
    key = "augmentation.mirror"
    if sided:
        return Choice(key, False, f"left and right differ: {_few(sided)}; mirrored, they are wrong")
    if len(letters) > len(names) / 2:
        return Choice(key, False, f"letters and digits are none when mirrored: {_few(letters)}")
    if doubtful:
        return Choice(
            key,
            True,
            f"half of the images are mirrored. Do left and right, or text, matter to "
            f"{_few(doubtful)}? Then false",
        )
    return Choice(
        key, True, "half of the images are mirrored; false where left and right, or text, matter"
    )


def _words(name: str) -> set[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return {word.lower() for word in re.split(r"[\W\d_]+", apart) if word}


def _few(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _optimizer(facts: Facts, size: _Size) -> Iterator[Choice]:
    lr = _MEASURED_RATE if facts.from_scratch else size.lr
    batch_size = _batch_size(facts, size)
    start = "random weights" if facts.from_scratch else f"{size.backbone} from ImageNet weights"
    here = "" if batch_size == _RATE_IS_FOR else f", here with its square root for {batch_size}"
    yield Choice(
        "optimizer.lr",
        float(f"{lr * math.sqrt(batch_size / _RATE_IS_FOR):.2g}"),
        f"the peak; {lr:g} at {_RATE_IS_FOR} images a step for {start}{here}",
    )
    if facts.from_scratch:
        yield Choice("optimizer.backbone_lr_factor", 1.0, "it learns from nothing as the rest does")
    else:
        yield Choice("optimizer.backbone_lr_factor", 0.1, "it needs less than what is fresh")


def _batch_size(facts: Facts, size: _Size) -> int:
    count = len(facts.train.dataset)
    least = min(count, _SCRATCH_BATCH) if facts.from_scratch else 1
    return max(least, min(size.batch_size, count // 4))


def _length(facts: Facts, size: _Size) -> Iterator[Choice]:
    count, batch_size = len(facts.train.dataset), _batch_size(facts, size)
    an_epoch = math.ceil(count / batch_size)
    least, most = (10, 150) if facts.from_scratch else (6, 100)
    least_steps = ENOUGH_RANDOM_STEPS if facts.from_scratch else _LEAST_STEPS
    suit = max(size.steps, least_steps)
    epochs = min(most, max(least, round(suit / an_epoch)))
    steps = max(epochs * an_epoch, least_steps)
    yield Choice(
        "training.epochs",
        epochs,
        f"{counted(an_epoch, 'step')} each, {epochs * an_epoch} in all: about {suit} suit "
        f"{size.why}, within {least} and {most} passes over the images",
    )
    yield Choice(
        "training.min_steps",
        least_steps,
        "so many at least, however few the images are"
        + (f": {steps / an_epoch:.3g} passes" if steps > epochs * an_epoch else ""),
    )
    yield Choice(
        "training.batch_size",
        batch_size,
        f"for {size.why}" if batch_size == size.batch_size else f"of {counted(count, 'image')}",
    )
    if facts.validation is not None:
        scored = len(facts.validation.dataset)
        shown = steps * batch_size // max(1, scored)  # scoring should not take the most time
        evaluations = max(1, min(_EVALUATIONS, shown, math.ceil(steps / an_epoch)))
        yield Choice(
            "training.evaluations",
            evaluations,
            f"over the whole training, evenly, {counted(scored, 'image')} each",
        )
    yield Choice(
        "training.checkpoint_every_minutes", 10, "besides: what a crash of the machine may cost"
    )
    cores = facts.machine.num_cores
    workers = 1 if facts.machine.device == "cpu" else max(1, min(8, cores - 1))
    yield Choice(
        "training.num_workers",
        workers,
        f"processes that load images; {counted(cores, 'core')}"
        + (", which the network needs" if facts.machine.device == "cpu" else ""),
    )
