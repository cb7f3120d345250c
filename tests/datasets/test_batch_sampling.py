"""Plans: complete, the same for every rank and worker, with the stated rules for buckets."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retina.datasets.batch_sampling import BatchSampler, BatchStream, evaluation_batches, rank_share
from retina.structures import SampleRequest


def batch_sampler(
    num_wide: int = 30,
    num_upright: int = 13,
    *,
    batch_size: int = 8,
    seed: int = 5,
    sizes: tuple[tuple[int, int], ...] = ((800, 1333),),
    **options: object,
) -> BatchSampler:
    image_sizes = np.array([[480, 640]] * num_wide + [[640, 480]] * num_upright).reshape(-1, 2)
    return BatchSampler(
        image_sizes=image_sizes,
        batch_size=batch_size,
        seed=seed,
        sizes=sizes,
        **options,  # type: ignore[arg-type]
    )


def indices(batches: list[list[SampleRequest]]) -> list[int]:
    return [request.index for batch in batches for request in batch]


@settings(max_examples=60, deadline=None)
@given(
    num_wide=st.integers(0, 40),
    num_upright=st.integers(0, 40),
    batch_size=st.integers(1, 9),
    epoch=st.integers(0, 5),
    buckets=st.booleans(),
    drop_last=st.booleans(),
)
def test_every_image_is_seen_once_and_batches_are_full(
    num_wide: int, num_upright: int, batch_size: int, epoch: int, buckets: bool, drop_last: bool
) -> None:
    sampler = batch_sampler(
        num_wide, num_upright, batch_size=batch_size, aspect_buckets=buckets, drop_last=drop_last
    )
    batches = sampler.epoch(epoch)
    total = num_wide + num_upright
    assert len(batches) == sampler.num_batches
    assert all(len(batch) == batch_size for batch in batches[:-1])
    if drop_last:
        assert len(batches) == total // batch_size
        assert max(Counter(indices(batches)).values(), default=1) == 1
    else:
        assert len(batches) == -(-total // batch_size)
        assert sorted(indices(batches)) == list(range(total))
    if buckets:
        kinds = [{request.index < num_wide for request in batch} for batch in batches]
        mixed = [position for position, kind in enumerate(kinds) if len(kind) == 2]
        assert len(mixed) <= 1
        assert all(position >= len(batches) - 2 for position in mixed)


def test_an_epoch_is_a_pure_function_of_seed_and_epoch() -> None:
    sampler = batch_sampler(sizes=((640, 1333), (800, 1333)))
    sampler.epoch(7)
    assert sampler.epoch(2) == batch_sampler(sizes=((640, 1333), (800, 1333))).epoch(2)
    assert indices(sampler.epoch(2)) != indices(sampler.epoch(3))
    assert indices(sampler.epoch(2)) != indices(batch_sampler(seed=6).epoch(2))


def test_seeds_differ_between_samples_and_epochs_and_not_with_the_batch_size() -> None:
    def seeds(batch_size: int, epoch: int) -> dict[int, int]:
        batches = batch_sampler(batch_size=batch_size).epoch(epoch)
        return {request.index: request.seed for batch in batches for request in batch}

    assert seeds(8, 0) == seeds(3, 0)
    everything = [seed for epoch in range(20) for seed in seeds(8, epoch).values()]
    assert len(set(everything)) == len(everything) == 20 * 43
    assert all(0 <= seed < 2**63 for seed in everything)


def test_one_size_for_each_batch_and_all_sizes_in_turn() -> None:
    sizes = ((480, 900), (640, 900), (800, 900))
    sampler = batch_sampler(400, 200, batch_size=4, sizes=sizes)
    drawn: Counter[int] = Counter()
    for batch in sampler.epoch(0):
        shortest = {min(request.max_size or (0, 0)) for request in batch}
        assert len(shortest) == 1
        drawn[shortest.pop()] += 1
        for request in batch:
            assert max(request.max_size or (0, 0)) == 900
    assert set(drawn) == {480, 640, 800}
    assert min(drawn.values()) > 30  # 50 expected


def test_targets_are_upright_for_upright_images() -> None:
    batches = batch_sampler(9, 7).epoch(0)
    targets = {request.index: request.max_size for batch in batches for request in batch}
    assert {targets[index] for index in range(9)} == {(800, 1333)}
    assert {targets[index] for index in range(9, 16)} == {(1333, 800)}


def test_stretching_takes_the_exact_size_and_needs_no_buckets() -> None:
    batches = batch_sampler(9, 7, sizes=((240, 320),), stretch=True).epoch(0)
    requests = [request for batch in batches for request in batch]
    assert {(request.max_size, request.stretch) for request in requests} == {((240, 320), True)}
    assert len(batches) == 2
    assert all({request.index < 9 for request in batch} == {True, False} for batch in batches)


def test_without_shuffling_the_order_is_that_of_the_data_set() -> None:
    batches = batch_sampler(20, 0, shuffle=False).epoch(3)
    assert indices(batches) == list(range(20))


def test_repeats_follow_the_factors_and_the_number_of_samples_is_fixed() -> None:
    factors = np.full(43, 1.0)
    factors[:5] = 2.32
    factors[5] = 4.0
    sampler = batch_sampler(repeat_factors=factors)
    counts = np.zeros((400, 43))
    for epoch in range(400):
        batches = sampler.epoch(epoch)
        assert len(batches) == sampler.num_batches
        np.add.at(counts[epoch], indices(batches), 1)
    assert set(counts.sum(axis=1)) == {sampler.num_samples}
    assert sampler.num_samples == 53  # 37 + 5 * 2 + 4, and 5 * 0.32 rounded
    assert (counts[:, 6:] == 1).all()
    assert (counts[:, 5] == 4).all()
    assert set(counts[:, :5].ravel()) == {2, 3}
    # The parts of 0.32 are stretched to sum up to 2, so 2.4 on average.
    np.testing.assert_allclose(counts[:, :5].mean(axis=0), 2.4, atol=0.12)
    seeds = [request.seed for batch in sampler.epoch(0) for request in batch]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8, 13])
def test_shares_are_even_and_together_the_whole_batch(world_size: int) -> None:
    batch = batch_sampler(batch_size=13).epoch(0)[0]
    shares = [rank_share(batch, rank, world_size) for rank in range(world_size)]
    assert list(itertools.chain(*shares)) == batch
    lengths = [len(share) for share in shares]
    assert min(lengths) >= 1
    assert max(lengths) - min(lengths) <= 1


def test_no_rank_is_left_without_a_sample() -> None:
    batch = batch_sampler().epoch(0)[0][:2]
    shares = [rank_share(batch, rank, 5) for rank in range(5)]
    assert shares == [[batch[0]], [batch[1]], [batch[0]], [batch[1]], [batch[0]]]


def test_a_stream_runs_over_epochs_and_starts_anywhere() -> None:
    sampler = batch_sampler()
    assert sampler.num_batches == 6
    whole = [*sampler.epoch(0), *sampler.epoch(1), *sampler.epoch(2)]
    stream = BatchStream(sampler, first_step=4, stop_step=15)
    assert len(stream) == 11
    assert list(stream) == whole[4:15]
    parts = [list(BatchStream(sampler, 4, 15, rank, 2)) for rank in (0, 1)]
    assert [[*a, *b] for a, b in zip(*parts, strict=True)] == whole[4:15]
    assert list(BatchStream(sampler, 5, 5)) == []


@pytest.mark.parametrize("world_size", [1, 2, 7, 30])
def test_evaluation_shows_every_image_once_as_it_is(world_size: int) -> None:
    batches = [
        batch
        for rank in range(world_size)
        for batch in evaluation_batches(23, 4, rank=rank, world_size=world_size)
    ]
    requests = [request for batch in batches for request in batch]
    assert [request.index for request in requests] == list(range(23))
    assert {(request.max_size, request.augment) for request in requests} == {(None, False)}
    assert max(len(batch) for batch in batches) <= 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, is 0"),
        ({"sizes": ()}, "sizes must hold at least one"),
        ({"repeat_factors": np.full(43, 0.5)}, "at least 1, or 0, per image"),
        ({"repeat_factors": np.full(42, 1.0)}, "one number of at least 1, or 0, per image"),
    ],
)
def test_senseless_arguments_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batch_sampler(**options)  # type: ignore[arg-type]
