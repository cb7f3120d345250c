"""Loading: exact padding, the same batches from any number of workers, clear errors from them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from retina.datasets.augmentations import AugmentationConfig
from retina.datasets.batch_sampling import BatchSampler, BatchStream, evaluation_batches
from retina.datasets.dataset import AnnotatedImage
from retina.datasets.folder import FolderDataset
from retina.datasets.loading import Collate, LoaderConfig, collate, original_message
from retina.errors import RunError, UserError
from retina.structures import Batch, Sample, Targets
from tests.reading import read_coco  # type: ignore[import-not-found]


def write_dataset(folder: Path, num_images: int) -> FolderDataset:
    """Noise of various sizes with random boxes."""
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(num_images):
        height, width = (int(side) for side in generator.integers(60, 130, 2))
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), pixels)
        images.append(
            {"id": 1000 + index, "file_name": f"{index}.png", "height": height, "width": width}
        )
        for _ in range(index % 4):
            x, y, w, h = generator.uniform(5, 25, 4).tolist()
            annotation = {"image_id": 1000 + index, "category_id": 1, "bbox": [x, y, w, h]}
            crowd = {"iscrowd": int(generator.random() < 0.3), "area": w * h}
            annotations.append({"id": len(annotations) + 1, **annotation, **crowd})
    tree = {
        "images": images,
        "categories": [{"id": 1, "name": "noise"}],
        "annotations": annotations,
    }
    (folder / "annotations.json").write_text(json.dumps(tree))
    return read_coco(folder, folder / "annotations.json")


class DeadlyDataset(FolderDataset):
    """Kills the process that loads an image, as the kernel does when memory is short."""

    def load(self, index: int) -> AnnotatedImage:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


def sample(height: int, width: int, num_objects: int, value: int) -> Sample:
    pixels = torch.full((height, width, 3), value, dtype=torch.uint8)
    pixels[0, 0] = torch.tensor([1, 2, 3], dtype=torch.uint8)
    targets = Targets(
        boxes=torch.arange(num_objects * 4, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(num_objects),
        is_crowd=torch.arange(num_objects) % 2 == 1,
    )
    return Sample(pixels.permute(2, 0, 1), targets, image_id=value)


def test_collate_by_hand() -> None:
    # Memory that was used before: the padding must be written, not hoped for.
    torch.full((10_000_000,), 255, dtype=torch.uint8)
    batch = collate([sample(33, 20, 2, 50), sample(10, 64, 0, 60)], size_divisor=32)
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    expected = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    expected[0, :, :33, :20] = 50
    expected[1, :, :10, :64] = 60
    expected[:, :, 0, 0] = torch.tensor([1, 2, 3], dtype=torch.uint8)
    assert torch.equal(batch.images, expected)
    assert batch.valid_sizes.tolist() == [[33, 20], [10, 64]]
    assert batch.image_sizes == ((33, 20), (10, 64))
    assert batch.targets.boxes.tolist() == [[[0, 1, 2, 3], [4, 5, 6, 7]], [[0] * 4] * 2]
    assert batch.targets.labels.tolist() == [[0, 1], [0, 0]]
    assert batch.targets.is_crowd.tolist() == [[False, True], [False, False]]
    assert batch.targets.is_object.tolist() == [[True, True], [False, False]]
    assert batch.image_ids == (50, 60)


def test_collate_of_images_without_objects_keeps_one_row() -> None:
    batch = collate([sample(8, 8, 0, 1)], size_divisor=1)
    assert batch.targets.boxes.shape == (1, 1, 4)
    assert not batch.targets.is_object.any()
    assert batch.padded_size == (8, 8)


def test_collate_to_a_fixed_size() -> None:
    assert collate([sample(33, 20, 1, 1)], pad_to=(40, 50)).padded_size == (40, 50)
    with pytest.raises(UserError, match="resized to 33×20 does not fit into 32×50"):
        collate([sample(33, 20, 1, 1)], pad_to=(32, 50))


def batch_sampler_of(dataset: FolderDataset) -> BatchSampler:
    return BatchSampler(
        image_sizes=dataset.image_sizes,
        batch_size=5,
        seed=3,
        sizes=((48, 90), (64, 90)),
    )


def load(
    dataset: FolderDataset,
    num_workers: int,
    start_method: Any = None,
    *,
    pin_memory: bool = False,
) -> list[Batch]:
    dataset.augmentation = AugmentationConfig(preset="strong").build()
    loader = LoaderConfig(start_method=start_method).build(
        dataset,
        batch_sampler_of(dataset).epoch(1),
        Collate(32),
        num_workers=num_workers,
        pin_memory=pin_memory,
    )
    assert len(loader) == 4
    return list(loader)


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second) == 4
    for one, other in zip(first, second, strict=True):
        for name in ("images", "valid_sizes"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        for name in ("boxes", "labels", "is_crowd", "is_object"):
            assert torch.equal(getattr(one.targets, name), getattr(other.targets, name)), name
        assert one.image_ids == other.image_ids
        assert one.image_sizes == other.image_sizes


@pytest.mark.parametrize(("num_workers", "start_method"), [(1, "fork"), (2, "fork"), (1, "spawn")])
def test_the_same_seed_gives_the_same_batches_from_any_workers(
    num_workers: int, start_method: str, tmp_path: Path
) -> None:
    dataset = write_dataset(tmp_path, 18)
    batches = load(dataset, 0)
    assert sorted(image_id for batch in batches for image_id in batch.image_ids) == list(
        range(1000, 1018)
    )
    assert sum(int(batch.targets.is_object.sum()) for batch in batches) > 5
    assert_equal(batches, load(dataset, num_workers, start_method))
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in batches)


def test_a_loader_over_a_stream_goes_on_into_the_next_epoch(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, 18)
    sampler = batch_sampler_of(dataset)
    stream = BatchStream(sampler, first_step=3, stop_step=6)
    loader = LoaderConfig().build(dataset, stream, Collate(32), num_workers=2)
    expected = [sampler.epoch(0)[3], *sampler.epoch(1)[:2]]
    assert [batch.image_ids for batch in loader] == [
        tuple(request.index + 1000 for request in batch) for batch in expected
    ]


def test_evaluation_loads_images_as_they_are_on_disk(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path, 5)
    dataset.augmentation = AugmentationConfig(preset="strong").build()
    loader = LoaderConfig().build(dataset, evaluation_batches(5, 2), Collate(32), num_workers=0)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    for position, batch in enumerate(batches):
        for row, (height, width) in enumerate(batch.image_sizes):
            original = dataset.load(2 * position + row)
            pixels = batch.images[row, :, :height, :width].permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(pixels, original.image)
            count = int(batch.targets.is_object[row].sum())
            np.testing.assert_array_equal(batch.targets.boxes[row, :count].numpy(), original.boxes)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_image_gives_its_own_message_from_any_worker(
    num_workers: int, tmp_path: Path
) -> None:
    dataset = write_dataset(tmp_path, 6)
    path = tmp_path / "4.png"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"4\.png") as direct:
        dataset.load(4)
    loader = LoaderConfig().build(
        dataset, evaluation_batches(6, 2), Collate(32), num_workers=num_workers
    )
    with pytest.raises(UserError) as caught:
        list(loader)
    assert str(caught.value) == str(direct.value)


def test_the_message_of_an_error_that_came_from_no_worker_is_its_own() -> None:
    assert original_message(UserError("a.jpg: broken")) == "a.jpg: broken"


def test_a_worker_that_dies_is_a_fault_of_the_run_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
    dataset = DeadlyDataset(write_dataset(tmp_path, 2).table, images=tmp_path)
    loader = LoaderConfig().build(dataset, evaluation_batches(2, 2), Collate(32), num_workers=1)
    with pytest.raises(RunError, match=r"lower training\.num_workers"):
        list(loader)
