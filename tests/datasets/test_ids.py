"""What spells a number is that number; any other text is an id of its own."""

from __future__ import annotations

from typing import Any

import pytest

from retina.datasets.ids import NO_ID, Ids, canonical_id


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        *((0, 0), (-3, -3), (42.0, 42), ("42", 42), (" 42 ", 42), ("42.0", 42), ("-1", -1)),
        *(("007", "007"), ("frame_7", "frame_7"), ("4.5", "4.5"), ("1e3", "1e3")),
        *((2**63 - 1, 2**63 - 1), (2**63, None), (4.5, None), (True, None), (None, None)),
        *(("", None), (" ", None), ([1], None), (float("nan"), None), (float("inf"), None)),
        ("9" * 19, None),
    ],
)
def test_what_an_id_means(value: Any, meaning: Any) -> None:
    assert canonical_id(value) == meaning
    assert type(canonical_id(value)) is type(meaning)


def test_numbers_stay_and_texts_are_numbered() -> None:
    numbers, wrong = Ids.of([7, 3, 5])
    assert (numbers.numbers.tolist(), dict(numbers.originals), len(wrong)) == ([7, 3, 5], {}, 0)
    digits, _ = Ids.of(["7", 3, 5.0])
    assert digits.numbers.tolist() == [7, 3, 5]
    assert dict(digits.originals) == {7: "7"}
    texts, _ = Ids.of(["b", 7, "a", "b"])
    assert texts.numbers.tolist() == [1, 2, 3, 1]
    assert dict(texts.originals) == {1: "b", 2: 7, 3: "a"}


def test_references_mean_the_same_id_in_any_spelling() -> None:
    digits, _ = Ids.of(["7", 3, 5.0])
    assert digits.positions_of([3, "3", 7, 7.0, "5.0", 1, "x", None, [3]]).tolist() == [
        *(1, 1, 0, 0, 2, -1, -1, -1, -1)
    ]
    texts, _ = Ids.of(["b", 7, "a"])
    assert texts.positions_of(["a", "7", 7, 1, 2, "b"]).tolist() == [2, 1, 1, -1, -1, 0]
    assert Ids.of([7, 3, 5])[0].positions_of([5, 7, 4, 2**70]).tolist() == [2, 0, -1, -1]
    assert Ids.of([])[0].positions_of([1]).tolist() == [-1]


def test_what_is_no_id_is_pointed_at_and_never_found() -> None:
    ids, wrong = Ids.of([7, None, True, "a"])
    assert wrong.tolist() == [1, 2]
    assert ids.numbers[1:3].tolist() == [NO_ID, NO_ID]
    assert ids.positions_of([None, True, 7]).tolist() == [-1, -1, 0]
