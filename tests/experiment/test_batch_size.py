"""``training.batch_size: auto``."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from retina.datasets.batch_sampling import BatchSampler
from retina.experiment import batch_size, build_experiment, load_experiment
from retina.experiment.batch_size import LargestImage, largest_fitting, largest_image
from retina.experiment.parts import build_dataset
from retina.structures import Size
from tests.conftest import REPOSITORY, Invoke  # type: ignore[import-not-found]
from tests.experiment.small_device import install  # type: ignore[import-not-found]
from tests.faults.run_folders import (  # type: ignore[import-not-found]
    EVERYTHING_ON,
    assert_same_training,
)


def batch_size_of(folder: Path) -> object:
    return yaml.safe_load((folder / "config.yaml").read_text())["training"]["batch_size"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 16, 33])
def test_the_search_finds_every_largest_number_in_few_tries(limit: int) -> None:
    for largest in range(limit + 4):
        tried: list[int] = []

        def fits(number: int, largest: int = largest, tried: list[int] = tried) -> bool:
            tried.append(number)
            return number <= largest

        assert largest_fitting(fits, limit) == min(largest, limit)
        assert all(1 <= number <= limit for number in tried)
        assert len(tried) == len(set(tried)) <= 2 * math.ceil(math.log2(limit + 1)) + 1


def test_it_doubles_and_then_halves_the_rest() -> None:
    tried: list[int] = []

    def fits(number: int) -> bool:
        tried.append(number)
        return number <= 11

    assert largest_fitting(fits, 1000) == 11
    assert tried == [1, 2, 4, 8, 16, 12, 10, 11]


@pytest.mark.parametrize(
    ("sizes", "keeps_aspect", "expected"),
    [
        ([(60, 80)], True, (480, 640)),
        ([(60, 80)], False, (480, 800)),  # a crop may be wider
        ([(60, 80), (100, 50)], True, (800, 640)),  # that meet in one batch
        ([(60, 80), (100, 50)], False, (800, 800)),
    ],
)
def test_the_largest_size_of_a_plan(sizes: list[Size], keeps_aspect: bool, expected: Size) -> None:
    batch_sampler = BatchSampler(
        image_sizes=np.array(sizes * 4), batch_size=3, seed=0, sizes=[(400, 800), (480, 800)]
    )
    assert batch_sampler.largest_size(keeps_aspect=keeps_aspect) == expected
    if keeps_aspect:
        planned = [
            r.pad_at_least for e in range(20) for batch in batch_sampler.epoch(e) for r in batch
        ]
        assert max(size[0] for size in planned if size) == expected[0]
        assert max(size[1] for size in planned if size) == expected[1]


def test_the_batches_that_are_tried_are_as_large_and_full_as_any(tiny_config: Path) -> None:
    plain, strong = (
        load_experiment(tiny_config, ["output_dir=unused", f"augmentation.preset={preset}"])
        for preset in ("flip", "strong")
    )
    train = build_dataset(plain, "train")
    fullest = max(len(train.targets(index)) for index in range(len(train)))
    batch_sampler = BatchSampler(
        image_sizes=train.image_sizes, batch_size=8, seed=0, sizes=[(64, 96)]
    )
    image = largest_image(plain, train, batch_sampler)
    assert image.size[0] % 32 == image.size[1] % 32 == 0
    assert image.num_objects == fullest
    assert largest_image(strong, train, batch_sampler).num_objects == 4 * fullest  # mosaic

    batch = LargestImage(size=(64, 96), num_objects=50, num_crowd=2).batch(3)
    assert batch.images.shape == (3, 3, 64, 96)
    assert batch.targets.is_object.sum(dim=1).tolist() == [50, 50, 50]
    assert batch.targets.crowd_rows == (0, 1)
    assert (batch.targets.boxes[..., 2:] > batch.targets.boxes[..., :2]).all()
    assert (batch.targets.boxes[..., 2:] <= torch.tensor([96, 64])).all()


def test_a_run_is_bit_identical_to_one_with_the_number_written_down(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    automatic, written = tmp_path / "automatic", tmp_path / "written"
    options = [*EVERYTHING_ON, "training.clip_norm=1.0"]  # two accumulated parts
    with monkeypatch.context() as patch:
        tried = install([5], patch.setattr)
        done = invoke(
            *("train", tiny_config, f"output_dir={automatic}", "training.batch_size=auto"), *options
        )
    assert done.code == 0, done.err
    assert "training.batch_size: auto took 10 images (5 of up to 3 × " in done.out
    assert "optimizer.reference_batch_size=16 scales it in proportion (to 0.00125)" in done.out
    assert batch_size_of(automatic) == 10
    sizes = dict.fromkeys(tried)  # each once, in order
    assert list(sizes)[:5] == [1, 2, 4, 8, 6]
    assert max(size for size in tried[tried.index(6) + 1 :]) == 5  # nothing larger was trained

    done = invoke("train", tiny_config, f"output_dir={written}", "training.batch_size=10", *options)
    assert done.code == 0, done.err
    assert_same_training(automatic, written)

    # A resume takes the number that was decided, also where none could be decided now.
    monkeypatch.setattr(batch_size, "PROBED_DEVICES", ())
    again = ["training.batch_size=auto", *options, "--resume"]
    done = invoke("train", tiny_config, f"output_dir={automatic}", *again)
    assert done.code == 0, done.err
    assert "the training is already complete" in done.out
    assert batch_size_of(automatic) == 10


@pytest.mark.slow
def test_processes_agree_on_what_fits_on_each_of_them(tiny_config: Path, tmp_path: Path) -> None:
    program = REPOSITORY / "tests" / "experiment" / "small_device.py"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", str(program), "5,3", "train", str(tiny_config)),
            *(f"output_dir={tmp_path / 'run'}", "training.batch_size=auto", "training.max_steps=2"),
            "training.collective_timeout_minutes=1",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("auto took 6 images (3 of up to") == 1
    assert "in 1 micro-batch on each of 2 processes" in done.stdout
    assert batch_size_of(tmp_path / "run") == 6


def test_no_more_than_the_data_set_has(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = install([1000], monkeypatch.setattr)
    terms = ["training.batch_size=auto", "training.max_steps=1"]
    done = invoke("train", tiny_config, f"output_dir={tmp_path / 'run'}", *terms)
    assert done.code == 0, done.err
    assert batch_size_of(tmp_path / "run") == max(tried) == 24


def test_not_even_one_image_fits(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install([0], monkeypatch.setattr)
    folder = tmp_path / "run"
    done = invoke("train", tiny_config, f"output_dir={folder}", "training.batch_size=auto")
    assert done.code == 2
    assert "not even one image of 3 × " in done.err
    assert "preprocess.min_size" in done.err
    assert not folder.exists()


def test_another_error_of_a_tried_step_is_not_taken_for_a_lack_of_memory(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **options: object) -> None:
        raise RuntimeError("shapes do not match")

    install([8], monkeypatch.setattr)
    monkeypatch.setattr("retina.training.forward.ForwardPass.losses", broken)
    overrides = [f"output_dir={tmp_path / 'run'}", "training.batch_size=auto"]
    with pytest.raises(RuntimeError, match="shapes do not match"):
        build_experiment(load_experiment(tiny_config, overrides), quiet=True)


def test_a_cpu_is_refused(invoke: Invoke, tiny_config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = invoke("train", tiny_config, f"output_dir={folder}", "training.batch_size=auto")
    assert done.code == 2
    assert "training.batch_size: 'auto' needs a GPU, the device is cpu; write a number" in done.err
    assert not folder.exists()


def test_what_needs_a_number_before_a_training_says_so(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    overrides = (f"output_dir={tmp_path / 'run'}", "training.batch_size=auto")
    done = invoke("doctor", tiny_config, *overrides)
    assert done.code == 2
    assert "training.batch_size: 'auto' is decided when a training begins" in done.err


@pytest.mark.parametrize("value", ["0", "2.5", "automatic", "true", "[8]"])
def test_what_is_no_batch_size(
    invoke: Invoke, tiny_config: Path, tmp_path: Path, value: str
) -> None:
    folder = tmp_path / "run"
    done = invoke("train", tiny_config, f"output_dir={folder}", f"training.batch_size={value}")
    assert done.code == 2
    problem = "training.batch_size: input should be a whole number greater than or equal to 1"
    assert f"{problem}, or 'auto' (value" in done.err
