"""Image files that are damaged or gone: named, or passed over by `skip`.

What is passed over is counted, listed and bounded, and is the same on every rank and from any
number of workers."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import pytest
import torch

from retina.datasets import image_files, images
from retina.datasets.augmentations import AugmentationConfig
from retina.datasets.batch_sampling import BatchSampler, evaluation_batches
from retina.datasets.folder import FolderDataset
from retina.datasets.loading import Collate, LoaderConfig
from retina.errors import UnreadableImageError, UserError
from retina.structures import Batch, BatchedTargets, Targets, UnreadableImage
from retina.training.checkpoint import load_state
from retina.training.hooks.unreadable_images import UnreadableImages
from retina.training.trainer import Trainer
from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.processes import (  # type: ignore[import-not-found]
    Launched,
    run_pair,
    small_retina,
)
from tests.reading import read_coco  # type: ignore[import-not-found]

SKIP = "loader.unreadable_images=skip"


@dataclass(frozen=True)
class Place:
    """A copy of a small data set, and the config of a training on it."""

    config: Path
    data: Path
    run: Path

    def image(self, number: int, split: str = "train") -> Path:
        tree = json.loads((self.data / split / "annotations.json").read_text())
        path: Path = self.data / split / "images" / tree["images"][number]["file_name"]
        return path

    def listed(self) -> list[dict[str, Any]]:
        lines = (self.run / "unreadable_images.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def place(tmp_path: Path, synthetic_data: Path, tiny_config: Path) -> Place:
    data = tmp_path / "data"
    shutil.copytree(synthetic_data, data)
    config = tmp_path / "experiment.yaml"
    text = tiny_config.read_text().replace(str(synthetic_data), str(data))
    config.write_text(f"{text}\noutput_dir: {tmp_path / 'run'}\n")
    return Place(config, data, tmp_path / "run")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def read(place: Place, *, max_unreadable: int) -> FolderDataset:
    folder = place.data / "train"
    return read_coco(
        folder / "images",
        folder / "annotations.json",
        check_images=False,
        max_unreadable=max_unreadable,
    )


def batches_of(dataset: FolderDataset, num_workers: int, preset: Any = "none") -> list[Batch]:
    dataset.augmentation = AugmentationConfig(preset=preset).build()
    sampler = BatchSampler(
        image_sizes=dataset.image_sizes, batch_size=5, seed=3, sizes=((48, 90), (64, 90))
    )
    loader = LoaderConfig().build(dataset, sampler.epoch(0), Collate(32), num_workers=num_workers)
    return list(loader)


@pytest.mark.parametrize("preset", ["none", "strong"])  # strong: with mosaic
def test_others_take_their_place_the_same_from_any_workers(place: Place, preset: str) -> None:
    whole = batches_of(read(place, max_unreadable=5), 0, preset)
    place.image(3).unlink()
    truncate(place.image(10))
    dataset = read(place, max_unreadable=5)
    batches = batches_of(dataset, 0, preset)
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 4]
    files = {one.file for batch in batches for one in batch.unreadable}
    assert files == {str(place.image(3)), str(place.image(10))}
    reasons = {one.reason for batch in batches for one in batch.unreadable}
    assert any("no such image file" in reason for reason in reasons)
    assert any("breaks off" in reason or "cannot be decoded" in reason for reason in reasons)
    gone = {int(dataset.image_ids[3]), int(dataset.image_ids[10])}
    for before, after in zip(whole, batches, strict=True):
        assert not gone & set(after.image_ids)
        for row, (old, new) in enumerate(zip(before.image_ids, after.image_ids, strict=True)):
            assert (old == new) == (old not in gone)
            if not after.unreadable:
                assert torch.equal(before.images[row], after.images[row])
    for num_workers in (1, 2):
        again = batches_of(read(place, max_unreadable=5), num_workers, preset)
        for one, other in zip(batches, again, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.targets.boxes, other.targets.boxes)
            assert one.image_ids == other.image_ids
            assert one.unreadable == other.unreadable


def test_a_bad_tile_of_a_mosaic_is_replaced(place: Place) -> None:
    dataset = read(place, max_unreadable=5)
    dataset.augmentation = AugmentationConfig(mosaic_probability=1.0).build()
    sampler = BatchSampler(
        image_sizes=dataset.image_sizes, batch_size=24, seed=0, sizes=((64, 96),)
    )
    (requests,) = sampler.epoch(0)
    place.image(7).unlink()
    samples = [dataset[request] for request in requests if request.index != 7]
    met = [sample for sample in samples if sample.unreadable]
    assert met  # 69 tiles of 24 images
    assert {one.file for sample in met for one in sample.unreadable} == {str(place.image(7))}


def test_the_image_in_its_place_has_the_same_orientation(place: Place) -> None:
    dataset = read(place, max_unreadable=24)
    wide = dataset.image_sizes[:, 1] >= dataset.image_sizes[:, 0]
    assert 0 < wide.sum() < len(wide)
    ids = dataset.image_ids.tolist()
    sampler = BatchSampler(
        image_sizes=dataset.image_sizes, batch_size=24, seed=0, sizes=((64, 96),)
    )
    (requests,) = sampler.epoch(0)
    for request in requests[:8]:
        path = place.image(request.index)
        kept = path.read_bytes()
        path.unlink()
        taken = ids.index(dataset[request].image_id)
        assert taken != request.index
        assert wide[taken] == wide[request.index]
        path.write_bytes(kept)


def test_where_nothing_can_be_read_the_image_that_was_asked_for_is_named(place: Place) -> None:
    dataset = read(place, max_unreadable=24)
    for path in (place.data / "train" / "images").iterdir():
        path.unlink()
    sampler = BatchSampler(
        image_sizes=dataset.image_sizes, batch_size=24, seed=0, sizes=((64, 96),)
    )
    request = sampler.epoch(0)[0][0]
    with pytest.raises(UnreadableImageError, match=place.image(request.index).name):
        dataset[request]


def test_an_evaluation_never_takes_another_image(place: Place) -> None:
    place.image(3).unlink()
    dataset = read(place, max_unreadable=5)
    (requests,) = evaluation_batches(len(dataset), len(dataset))
    with pytest.raises(UnreadableImageError, match=place.image(3).name):
        dataset[requests[3]]


def test_the_list_counts_each_file_once_and_goes_on_after_a_resume(tmp_path: Path) -> None:
    def batch(*files: str) -> Batch:
        return Batch(
            images=torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
            valid_sizes=torch.tensor([[2, 2]]),
            targets=BatchedTargets.from_targets([Targets.empty()]),
            image_ids=(1,),
            image_sizes=((2, 2),),
            unreadable=tuple(UnreadableImage(file, f"{file}: broken") for file in files),
        )

    said: list[str] = []

    def at(step: int) -> Any:
        return SimpleNamespace(step=step, progress=SimpleNamespace(message=said.append))

    path = tmp_path / "unreadable_images.jsonl"
    images = UnreadableImages(path, limit=2)
    images.before_step(5, [batch("a.jpg", "a.jpg")])
    images.flush(at(5))
    images.before_step(6, [batch("a.jpg")])
    images.flush(at(6))
    assert said == ["passed over (1 of at most 2): a.jpg: broken"]
    assert len(images) == 1

    again = UnreadableImages(path, limit=2)
    again.before_step(7, [batch("a.jpg"), batch("b.jpg")])
    again.flush(at(7))
    assert said[1:] == ["passed over (2 of at most 2): b.jpg: broken"]
    again.before_step(8, [batch("c.jpg")])
    with pytest.raises(UserError, match=r"3 image files .* allows \(2\); they are listed in"):
        again.flush(at(8))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["step"], row["file"]) for row in rows] == [
        *((5, "a.jpg"), (7, "b.jpg"), (8, "c.jpg"))
    ]
    assert rows[0]["reason"] == "a.jpg: broken"


def test_error_is_the_default() -> None:
    assert LoaderConfig().max_unreadable == 0
    assert LoaderConfig(unreadable_images="skip").max_unreadable == 100


def test_a_training_passes_over_what_it_may(invoke: Invoke, place: Place) -> None:
    place.image(3).unlink()
    truncate(place.image(10))
    done = invoke("train", place.config, SKIP, "training.epochs=1")
    assert done.code == 0, done.err
    assert sorted(row["file"] for row in place.listed()) == sorted(
        str(place.image(number)) for number in (3, 10)
    )
    assert "done: 3 steps" in done.out
    for number in (3, 10):
        assert done.out.count(f"of at most 100): {place.image(number)}") == 1


def test_more_than_the_limit_is_an_error_before_the_training(invoke: Invoke, place: Place) -> None:
    for number in (3, 10):
        place.image(number).unlink()
    done = invoke("train", place.config, SKIP, "loader.max_unreadable_images=1")
    assert done.code == 2
    assert "2 of 24 images are not in" in done.err


def test_an_unreadable_validation_image_is_an_error_by_either_policy(
    invoke: Invoke, place: Place
) -> None:
    bad = place.image(2, "validation")
    truncate(bad)
    done = invoke("train", place.config, SKIP)
    assert done.code == 2
    assert str(bad) in done.err


def vanishing(names: list[str], *arguments: str) -> None:
    """``retina`` whose images vanish after its second step."""
    advance = Trainer._advance

    def and_vanish(trainer: Trainer, *rest: Any) -> None:
        advance(trainer, *rest)
        if trainer.training_run.step == 2:
            for name in names:
                Path(name).unlink()

    Trainer._advance = and_vanish  # type: ignore[method-assign]
    small_retina(*arguments)


def mid_epoch(place: Place, *terms: str, gone: range) -> subprocess.CompletedProcess[str]:
    """A training whose images vanish in the midst of it."""
    names = [str(place.image(number)) for number in gone]
    launched = Launched(
        vanishing, names, "train", str(place.config), *terms, environment={"COLUMNS": "300"}
    )
    done: subprocess.CompletedProcess[str] = launched.complete()
    return done


TERMS = [
    *("training.batch_size=4", "training.checkpoint_every_steps=1", "training.num_workers=1"),
    "loader.prefetch_factor=1",
]


def test_an_image_that_vanishes_in_mid_epoch_is_named_and_the_checkpoint_is_whole(
    place: Place,
) -> None:
    done = mid_epoch(place, *TERMS, gone=range(12, 24))
    assert done.returncode == 2, done.stderr
    assert "no such image file" in done.stderr
    assert str(place.data / "train" / "images") in done.stderr
    assert "Traceback" not in done.stderr
    assert 2 <= load_state(place.run / "checkpoints" / "last.pt").step < 12
    assert not (place.run / "unreadable_images.jsonl").exists()


def test_images_that_vanish_in_mid_epoch_are_passed_over_up_to_the_limit(place: Place) -> None:
    done = mid_epoch(place, *TERMS, SKIP, "loader.max_unreadable_images=3", gone=range(14, 24))
    assert done.returncode == 2, done.stderr
    assert "more than loader.max_unreadable_images allows (3)" in done.stderr
    listed = [row["file"] for row in place.listed()]
    assert len(listed) == len(set(listed)) > 3
    assert set(listed) <= {str(place.image(number)) for number in range(14, 24)}
    step = load_state(place.run / "checkpoints" / "last.pt").step
    assert 2 <= step < 12


def test_two_ranks_pass_over_the_same_files_as_one_does(
    invoke: Invoke, place: Place, tmp_path: Path
) -> None:
    place.image(3).unlink()
    truncate(place.image(10))
    terms = [
        *(SKIP, "model.backbone.norm=frozen", "preprocess.pad_to=[96, 96]"),
        *("optimizer={kind: sgd, lr: 0.02}", "training.epochs=1", "device=cpu"),
    ]
    one, two = tmp_path / "one", tmp_path / "two"
    assert invoke("train", place.config, f"output_dir={one}", *terms).code == 0
    launched = run_pair(small_retina, "train", str(place.config), f"output_dir={two}", *terms)
    assert launched.returncode == 0, launched.stderr
    rows = [
        sorted(
            (json.loads(line)["file"], json.loads(line)["step"])
            for line in (folder / "unreadable_images.jsonl").read_text().splitlines()
        )
        for folder in (one, two)
    ]
    assert len(rows[0]) == 2
    assert rows[0] == rows[1]
    losses = [
        [
            row["loss"]
            for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
            if row["kind"] == "train"
        ]
        for folder in (one, two)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert np.isfinite(losses[0]).all()


# -- faults of the machine, for which no image may be passed over ----------------------------------


HEADERS = 24
"""All images of the training set are looked at before the training begins."""


def fail_once(patch: pytest.MonkeyPatch, code: int, *, at: int, in_read: bool = False) -> None:
    """Opening, or reading, the image file that is the so-many-th from now on fails."""
    opened: list[Path] = []
    real = images.open_image_file

    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(code, os.strerror(code))

    def refused(path: str, *_: object) -> int:
        raise OSError(code, os.strerror(code), path)

    def opening(path: Path) -> IO[bytes]:
        opened.append(path)
        if len(opened) != at:
            return real(path)
        if in_read:
            return Failing()
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(image_files, "_without_waiting", refused)
            return real(path)

    patch.setattr(images, "open_image_file", opening)


FAULTS = {
    errno.EMFILE: "too many files are open",
    errno.EIO: "the storage failed",
    errno.ESTALE: "the storage failed",
    errno.ENOMEM: "have no memory",
}


@pytest.mark.parametrize("at", [5, HEADERS + 5])
@pytest.mark.parametrize("in_read", [False, True])
@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_of_the_machine_is_no_bad_image(
    code: int, in_read: bool, at: int, place: Place, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_once(monkeypatch, code, at=at, in_read=in_read)
    steps = "training.max_steps=2"
    done = invoke("train", place.config, SKIP, steps, "dataset.validation=null")
    assert done.code == 3, done.err
    assert "Traceback" not in done.err
    assert "failed: " in done.err
    assert FAULTS[code] in done.err
    assert os.strerror(code) in done.err
    assert ".png" in done.err or ".jpg" in done.err
    assert not (place.run / "unreadable_images.jsonl").exists()


def test_a_fault_of_the_storage_in_a_worker_is_one_clear_error(
    place: Place, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_once(monkeypatch, errno.EIO, at=HEADERS + 5)
    options = ["training.max_steps=2", "training.num_workers=1", "dataset.validation=null"]
    done = invoke("train", place.config, SKIP, *options)
    assert done.code == 3, done.err
    assert "the storage failed (OSError: [Errno 5]" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "code", [errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EISDIR, errno.ELOOP]
)
def test_a_fault_of_the_file_is_a_bad_image(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: str, *_: object) -> int:
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(image_files, "_without_waiting", refused)
    with pytest.raises(UnreadableImageError, match=r"a\.png"):
        images.decode_image(tmp_path / "a.png")


def test_predict_ends_where_the_storage_fails(
    place: Place, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with exit code 1 and the rest of the images listed as unreadable."""
    assert (
        invoke("train", place.config, "training.max_steps=1", "dataset.validation=null").code == 0
    )
    fail_once(monkeypatch, errno.EIO, at=5)
    detector = place.run / "checkpoints" / "last.safetensors"
    folder = place.data / "train" / "images"
    done = invoke("predict", detector, folder, "--output", place.run / "out", "--device", "cpu")
    assert done.code == 3, done.err
    assert "failed: the storage failed ([Errno 5]" in done.err
