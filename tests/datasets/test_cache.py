"""The image cache: the same pixels, shared by workers however they are started, bounded."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from retina.datasets import cache
from retina.datasets.cache import ImageCache
from retina.structures import SampleRequest
from tests.reading import read_coco  # type: ignore[import-not-found]

CocoWriter = Callable[..., tuple[Path, Path]]
SIZES = np.array([[4, 5], [6, 7], [8, 9]])
BYTES = [4 * 5 * 3, 6 * 7 * 3, 8 * 9 * 3]


def pixels(index: int) -> np.ndarray:
    return np.full((*SIZES[index], 3), 10 + index, dtype=np.uint8)


def test_each_image_is_decoded_once() -> None:
    images = ImageCache(SIZES, limit_bytes=sum(BYTES))
    calls = []
    for index in (2, 0, 2, 1, 0, 2):
        got = images.get(index, lambda index=index: calls.append(index) or pixels(index))
        assert np.array_equal(got, pixels(index))
    assert calls == [2, 0, 1]
    assert images._is_filled.sum() == 3
    assert images.num_bytes == sum(BYTES)


def test_what_a_caller_writes_does_not_reach_the_cache() -> None:
    images = ImageCache(SIZES, limit_bytes=10**6)
    for _ in range(3):
        got = images.get(0, lambda: pixels(0))
        assert np.array_equal(got, pixels(0))
        got[:] = 0


@pytest.mark.parametrize(("limit", "room"), [(0, 0), (BYTES[0] - 1, 0), (sum(BYTES[:2]) + 5, 2)])
def test_images_beyond_the_limit_are_decoded_every_time(limit: int, room: int) -> None:
    images = ImageCache(SIZES, limit_bytes=limit)
    assert len(images) == room
    assert images.num_bytes <= limit
    calls = []
    for _ in range(3):
        images.get(2, lambda: calls.append(2) or pixels(2))
    assert calls == [2, 2, 2]


def test_it_takes_no_more_shared_memory_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_free_shared_memory", lambda: sum(BYTES[:1]))
    assert len(ImageCache(SIZES, limit_bytes=10**12)) == 1


def test_a_pickled_copy_holds_the_same_images() -> None:
    images = ImageCache(SIZES, limit_bytes=10**6)
    images.get(1, lambda: pixels(1))
    copy = pickle.loads(pickle.dumps(images))
    assert np.array_equal(copy.get(1, lambda: pixels(0)), pixels(1))


@pytest.mark.parametrize(("start_method", "num_workers"), [("fork", 2), ("spawn", 1)])
def test_workers_fill_the_cache_of_the_main_process(
    write_coco: CocoWriter, start_method: str, num_workers: int
) -> None:
    folder, path = write_coco()
    dataset = read_coco(folder, path, cache_images=True, cache_limit_gb=1e-3)
    expected = [dataset.load(index).image.copy() for index in range(2)]
    dataset = read_coco(folder, path, cache_images=True, cache_limit_gb=1e-3)
    assert dataset._cache is not None
    assert dataset._cache._is_filled.sum() == 0
    requests = [SampleRequest(index=i, seed=0, max_size=None, augment=False) for i in (0, 1)]
    loader = DataLoader(
        dataset,
        sampler=requests,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context=start_method,
    )
    samples = list(loader)
    assert dataset._cache._is_filled.sum() == 2
    for file in folder.iterdir():
        file.unlink()  # from here on only the cache knows the pixels
    for index, sample in enumerate(samples):
        assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), expected[index])
        assert np.array_equal(dataset.load(index).image, expected[index])


def test_a_cache_with_little_room_is_a_finding(write_coco: CocoWriter) -> None:
    folder, path = write_coco()
    dataset = read_coco(folder, path, cache_images=True, cache_limit_gb=40 * 60 * 3 / 1e9)
    assert "the cache has room for 1 of 2 decoded images" in dataset.report.findings[-1]
    assert read_coco(folder, path, cache_images=True, cache_limit_gb=1e-3).report.findings == ()
