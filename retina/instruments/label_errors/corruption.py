"""Label errors made on purpose, to measure how well they are found or borne.

Four kinds: an object without its box, a box of the wrong class, a box beside its object, and a box
where no object is. Everything comes from one seed, and everything that was done is listed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from retina.errors import UserError
from retina.instruments.label_errors.corrupted_boxes import Box, free_box, shifted_box

CorruptionKind = Literal["missing", "wrong_class", "shifted", "spurious"]

SHIFTED_IOU = (0.3, 0.6)
"""The overlap of a shifted box with what it was: clearly wrong, yet clearly about this object."""

_TRIES = 200

Record = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptionRates:
    """How many errors of each kind, as a share of the annotated objects.

    Crowd regions and boxes without a width or a height are no objects here.

    Attributes:
        missing: objects that lose their box.
        wrong_class: objects that get another class, each with the same chance.
        shifted: objects whose box is moved and scaled until it overlaps the old one by
            `SHIFTED_IOU`.
        spurious: boxes added on the background, each of the size and class of a random object.
    """

    missing: float = 0.0
    wrong_class: float = 0.0
    shifted: float = 0.0
    spurious: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            rate = getattr(self, field.name)
            _check_rate(f"the rate of {field.name}", rate)
        changed = self.missing + self.wrong_class + self.shifted
        if changed > 1:
            raise ValueError(
                f"missing, wrong_class and shifted together change {changed:.0%} of the objects; "
                "an object suffers one error at most, so they must not exceed 1"
            )

    @classmethod
    def evenly(cls, rate: float) -> Self:
        """A total rate, a quarter of it for each kind."""
        _check_rate("the rate of all errors", rate)
        return cls(missing=rate / 4, wrong_class=rate / 4, shifted=rate / 4, spurious=rate / 4)


def _check_rate(what: str, rate: float) -> None:
    if not 0 <= rate <= 1:  # nor is nan
        raise ValueError(
            f"{what} must be within 0 … 1, is {rate}; it is a share of the objects: 0.05 for 5 %"
        )


@dataclass(frozen=True, slots=True)
class Corruption:
    """One error that was made.

    Attributes:
        kind: what was done.
        image_id: the image.
        annotation_id: the annotation that was removed, changed or added.
        before: its ``bbox`` (COCO's ``[x, y, width, height]``) and ``category_id``; None if added.
        after: the same afterwards; None if removed.
    """

    kind: CorruptionKind
    image_id: int
    annotation_id: int
    before: Record | None
    after: Record | None


@dataclass(frozen=True, slots=True)
class CorruptedAnnotations:
    """A COCO file's content with errors, and the list of them, in the order of annotation ids."""

    content: Record
    corruptions: tuple[Corruption, ...]

    def listed(self, rates: CorruptionRates, *, seed: int) -> Record:
        """The content of ``corruption.json``."""
        return {
            "format_version": 1,
            "seed": seed,
            "rates": asdict(rates),
            "num_objects": self.num_objects,
            "corruptions": [asdict(one) for one in self.corruptions],
        }

    @property
    def num_objects(self) -> int:
        """How many objects there were before."""
        added = sum(one.kind == "spurious" for one in self.corruptions)
        removed = sum(one.kind == "missing" for one in self.corruptions)
        return sum(map(_is_object, self.content["annotations"])) - added + removed


def corrupt(
    content: Mapping[str, Any], rates: CorruptionRates, *, seed: int
) -> CorruptedAnnotations:
    """Make label errors in the content of a COCO annotation file, which is not changed itself.

    Raises:
        UserError: the errors cannot be made: a wrong class needs two classes, a spurious box a
            free place.
    """
    maker = _ErrorMaker(copy.deepcopy(dict(content)), np.random.default_rng(seed))
    maker.change(rates)
    maker.add_spurious(rates.spurious)
    corruptions = sorted(maker.done, key=lambda one: one.annotation_id)
    return CorruptedAnnotations(maker.content, tuple(corruptions))


class _ErrorMaker:
    """Works through the kinds; an object that a kind cannot be done to is left to the next one."""

    def __init__(self, content: Record, random: np.random.Generator) -> None:
        self.content = content
        self.done: list[Corruption] = []
        self._random = random
        self._sizes = {one["id"]: (one["height"], one["width"]) for one in content["images"]}
        self._objects = [one for one in content["annotations"] if _is_object(one)]
        self._classes = sorted({one["category_id"] for one in self._objects})
        self._taken: dict[int, list[Box]] = {image_id: [] for image_id in self._sizes}
        self._crowds: dict[int, list[Box]] = {image_id: [] for image_id in self._sizes}
        for one in content["annotations"]:
            places = self._crowds if one.get("iscrowd") else self._taken
            places[one["image_id"]].append(list(one["bbox"]))

    def change(self, rates: CorruptionRates) -> None:
        """Remove, relabel and shift objects, each object once at most."""
        if rates.wrong_class and len(self._classes) < 2:
            raise UserError(
                "a wrong class needs a data set whose objects are of two classes; give the rates "
                "of the other kinds only (--missing, --shifted, --spurious)"
            )
        order = [self._objects[row] for row in self._random.permutation(len(self._objects))]
        removed: set[int] = set()
        steps: tuple[tuple[CorruptionKind, float, Callable[[Record], Record | None]], ...] = (
            ("shifted", rates.shifted, self._shifted),  # first: some boxes cannot be shifted
            ("wrong_class", rates.wrong_class, self._relabelled),
            ("missing", rates.missing, lambda one: {}),
        )
        for kind, rate, change in steps:
            wanted, left = round(rate * len(self._objects)), []
            for one in order:
                changes = change(one) if wanted else None
                if changes is None:
                    left.append(one)
                    continue
                wanted -= 1
                before = _facts(one)
                one.update(changes)
                if kind == "missing":
                    removed.add(one["id"])
                elif kind == "shifted":
                    self._taken[one["image_id"]].append(list(one["bbox"]))
                after = None if kind == "missing" else _facts(one)
                self.done.append(Corruption(kind, one["image_id"], one["id"], before, after))
            if wanted:
                raise UserError(
                    f"{wanted} more errors of the kind '{kind}' cannot be made; lower its rate"
                )
            order = left
        self.content["annotations"] = [
            one for one in self.content["annotations"] if one["id"] not in removed
        ]

    def add_spurious(self, rate: float) -> None:
        """Put boxes where nothing is annotated."""
        wanted = round(rate * len(self._objects))
        next_id = 1 + max((one["id"] for one in self._objects), default=0)
        next_id = max([next_id, *(one["id"] + 1 for one in self.content["annotations"])])
        image_ids = list(self._sizes)
        models = [(list(one["bbox"]), one["category_id"]) for one in self._objects]
        for annotation_id in range(next_id, next_id + wanted):
            for _ in range(_TRIES):
                image_id = image_ids[self._random.integers(len(image_ids))]
                model, category_id = models[self._random.integers(len(models))]
                box = free_box(
                    model,
                    self._taken[image_id],
                    self._sizes[image_id],
                    self._random,
                    crowds=self._crowds[image_id],
                )
                if box is not None:
                    break
            else:
                raise UserError(
                    "there is no room for more spurious boxes: the annotated ones cover the "
                    "images; lower the rate"
                )
            self._taken[image_id].append(box)
            added = {
                "id": annotation_id,
                "image_id": image_id,
                "category_id": category_id,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            self.content["annotations"].append(added)
            self.done.append(Corruption("spurious", image_id, annotation_id, None, _facts(added)))

    def _relabelled(self, one: Record) -> Record:
        others = [category for category in self._classes if category != one["category_id"]]
        return {"category_id": others[self._random.integers(len(others))]}

    def _shifted(self, one: Record) -> Record | None:
        size = self._sizes[one["image_id"]]
        box = shifted_box(one["bbox"], size, self._random, overlap=SHIFTED_IOU)
        return None if box is None else {"bbox": box, "area": box[2] * box[3]}


def _is_object(one: Mapping[str, Any]) -> bool:
    return not one.get("iscrowd") and one["bbox"][2] > 0 and one["bbox"][3] > 0


def _facts(one: Mapping[str, Any]) -> Record:
    return {"bbox": list(one["bbox"]), "category_id": one["category_id"]}


def corruption_files(folder: Path) -> tuple[Path, Path]:
    """Where the annotations with errors and the list of the errors are written."""
    return folder / "annotations.json", folder / "corruption.json"
