"""A training takes no more memory after 3,000 steps than after its first evaluations.

Counts are asserted, never times. What is alive is counted after a garbage collection, between two
steps, in the same place of the epoch.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.steady.watching import Holdings, read, run_program, slope  # type: ignore[import-not-found]

STEPS_PER_EPOCH = 12  # 24 images, 2 at a time

BOUNDED = {
    "rich.progress.ProgressSample": 1000,
    # What torch.multiprocessing remembers of storages that came from workers.
    "torch.multiprocessing.reductions.StorageWeakRef": 256,
    "builtins.method": 256,
}
"""Types that fill up something of a fixed length."""

BYTES_OF_A_BATCH = 2 * 3 * 64 * 64
"""The images of a step as uint8: the least that a step could leave behind and be worth the name."""


def watch(config: Path, folder: Path, steps: int, *options: str) -> list[Holdings]:
    """Look before every second epoch of a training with everything on; the later two thirds."""
    every = max(2, steps // 300) * STEPS_PER_EPOCH
    run_program(
        "watched_training.py",
        *(folder / "seen.jsonl", every, "train", config, f"output_dir={folder / 'run'}"),
        *("preprocess={min_size: 40, max_size: 64}", "augmentation.preset=strong"),
        *("model.pyramid.channels=8", "model.head.num_groups=2", "training.average_decay=0.99"),
        *("training.epochs=1000", "training.batch_size=2", f"training.max_steps={steps}"),
        *("training.log_every_steps=20", f"training.evaluate_every_epochs={steps // 75}"),
        *("training.anatomy_every_steps=50", *options),
    )
    moments = read(folder / "seen.jsonl")
    assert len(moments) >= 10
    return moments[len(moments) // 3 :]


def assert_no_new_objects(late: list[Holdings], *, most: int) -> None:
    """No more than ``most`` objects were added to those that fill something of a fixed length."""
    counts = [
        moment.num_objects - sum(moment.objects.get(name, 0) for name in BOUNDED) for moment in late
    ]
    assert max(counts) - counts[0] <= most, late[-1].more_than(late[0])
    for name, limit in BOUNDED.items():
        assert late[-1].objects.get(name, 0) - late[0].objects.get(name, 0) <= limit, name


@pytest.mark.slow
def test_300_steps_leave_no_object_and_no_tensor(tiny_config: Path, tmp_path: Path) -> None:
    # One padded size: the anchors of each are kept.
    late = watch(tiny_config, tmp_path, 300, "preprocess.pad_to=[64, 64]")
    assert late[-1].step - late[0].step >= 150
    assert len({moment.tensors for moment in late}) == 1
    # Batches differ in size and number of objects; the last one is kept until it is judged.
    spread = max(m.tensor_bytes for m in late) - min(m.tensor_bytes for m in late)
    assert spread <= 2 * BYTES_OF_A_BATCH
    # One object in every third step would be more.
    assert_no_new_objects(late, most=50)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_3000_steps_leave_the_memory_flat(tiny_config: Path, tmp_path: Path) -> None:
    late = watch(tiny_config, tmp_path, 3000, "training.num_workers=2")
    steps = [moment.step for moment in late]
    assert steps[-1] - steps[0] >= 1500
    # A worker may be a batch ahead of the other: seven tensors, of four batches at most.
    tensors = [moment.tensors for moment in late]
    assert max(tensors) - min(tensors) <= 4 * 7
    spread = max(m.tensor_bytes for m in late) - min(m.tensor_bytes for m in late)
    assert spread <= (2 + 4) * BYTES_OF_A_BATCH
    assert_no_new_objects(late, most=150)

    # What the allocator loses to fragments is allowed, a third of a step's images is not.
    own = slope(steps, [moment.rss for moment in late])
    assert own < BYTES_OF_A_BATCH / 3
    for worker in range(2):
        assert slope(steps, [moment.workers[worker] for moment in late]) < BYTES_OF_A_BATCH / 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_300_steps_leave_the_memory_of_the_gpu_as_it_was(tiny_config: Path, tmp_path: Path) -> None:
    options = ["device=cuda", "preprocess={stretch: true, min_size: 64, max_size: 64}"]
    late = watch(tiny_config, tmp_path, 300, *options, "augmentation.preset=flip")
    assert late[0].device > 0
    assert late[-1].device == late[0].device
