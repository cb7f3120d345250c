"""Reading ahead and finishing behind keep the order, the bounds and the errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from retina.prediction.pipeline import Behind, in_batches, map_ahead, read_ahead


def test_what_is_mapped_ahead_comes_in_order_and_no_more_is_begun_than_allowed() -> None:
    begun: list[int] = []

    def slow_first(number: int) -> int:
        begun.append(number)
        time.sleep(0.05 if number == 0 else 0)
        return number * 10

    values = map_ahead(slow_first, range(20), threads=4, ahead=5)
    assert next(values) == 0
    time.sleep(0.05)
    assert len(begun) <= 6
    assert [*values] == [number * 10 for number in range(1, 20)]


def test_an_error_comes_at_its_turn_and_what_follows_is_left() -> None:
    def fails_at_three(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    values = map_ahead(fails_at_three, iter(range(10**9)), threads=2, ahead=4)
    assert [next(values) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(values)


def test_reading_ahead_is_bounded_and_passes_errors_on() -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(5):
            read.append(number)
            yield number
        raise OSError("the disk")

    values = read_ahead(numbers(), depth=1)
    assert next(values) == 0
    time.sleep(0.05)
    assert len(read) <= 4
    assert [next(values) for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(OSError, match="the disk"):
        next(values)


def test_a_reader_that_is_left_ends_its_thread() -> None:
    before = threading.active_count()
    values = read_ahead(iter(range(10**9)), depth=1)
    next(values)
    values.close()
    assert threading.active_count() == before


def test_work_behind_is_finished_in_order() -> None:
    done: list[int] = []

    def slow_first(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        return number

    with Behind(slow_first, done.append, threads=4, depth=3) as behind:
        for number in range(20):
            behind.put(number)
    assert done == [*range(20)]


def test_an_error_behind_stops_who_gives_and_a_break_finishes_what_was_given() -> None:
    def refuse(number: int) -> None:
        raise OSError(f"number {number}")

    def give() -> None:
        with Behind(lambda number: number, refuse, threads=1, depth=1) as behind:
            for number in range(100):
                behind.put(number)

    with pytest.raises(OSError, match="number 0"):
        give()
    done: list[int] = []

    def break_off() -> None:
        with Behind(lambda number: number, done.append, threads=1, depth=9) as behind:
            behind.put(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert done == [1]


def test_batches_hold_all() -> None:
    assert [*in_batches(iter(range(5)), 2)] == [[0, 1], [2, 3], [4]]
    assert [*in_batches([], 2)] == []
