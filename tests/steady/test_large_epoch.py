"""An epoch over very many images: the processes that load them do not grow.

The classic fault is a Python object for each image: a worker that looks at one writes its reference
count, and the page of memory that it shared with the main process becomes a copy.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.steady.watching import Holdings, read, run_program  # type: ignore[import-not-found]

MIB = 2**20

MOST_OF_A_WORKER = 8 * MIB
"""What a worker may come to have for itself in an epoch: buffers and the code's own objects, and
what its garbage collector once writes to, of all that it inherited. An object of Python for each
image, with its reference count, is more than 100 bytes; of 100,000 images that is more."""


def watch(folder: Path, num_images: int, store: str) -> list[Holdings]:
    run_program("watched_epoch.py", folder / "seen.jsonl", folder / "data", num_images, store)
    shutil.rmtree(folder / "data")
    moments = read(folder / "seen.jsonl")
    assert len(moments) >= 20
    return moments


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_epoch_over_100_000_images_grows_no_process(tmp_path: Path) -> None:
    moments = watch(tmp_path, 100_000, "arrays")
    late = moments[round(0.3 * len(moments)) :]
    assert len({moment.tensors for moment in late}) <= 5  # the batches on their way
    assert late[-1].num_objects - late[0].num_objects < 1000
    # 70,000 images: 30 bytes kept for each would be seen, here and in the workers.
    assert late[-1].rss - late[0].rss < 2 * MIB
    for worker in range(2):
        assert late[-1].workers[worker] - late[0].workers[worker] < 2 * MIB
        assert late[-1].workers[worker] - moments[0].workers[worker] < MOST_OF_A_WORKER


@pytest.mark.slow
def test_a_dict_for_each_image_would_be_seen(tmp_path: Path) -> None:
    moments = watch(tmp_path, 30_000, "dicts")  # less than a third of that epoch
    for worker in range(2):
        assert moments[-1].workers[worker] - moments[0].workers[worker] > MOST_OF_A_WORKER
