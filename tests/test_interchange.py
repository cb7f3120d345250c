"""Detections as the objects of other libraries."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import supervision as sv
import torch

from retina.errors import UserError
from retina.structures import Categories, Detections

CATEGORIES = Categories(("dog", "cat"), (17, 3), {3: "a/cat"})
FOUND = Detections(
    torch.tensor([[1.0, 2, 30, 40.5], [5, 6, 7, 8]]),
    torch.tensor([0.75, 0.5]),
    torch.tensor([1, 0]),
)
NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))


def test_supervision_takes_and_tracks_them() -> None:
    made = FOUND.to_supervision(CATEGORIES)
    assert made.xyxy.tolist() == [[1.0, 2, 30, 40.5], [5, 6, 7, 8]]
    assert made.confidence is not None
    assert made.confidence.tolist() == [0.75, 0.5]
    assert made.class_id is not None
    assert made.class_id.tolist() == [1, 0]
    assert list(made["class_name"]) == ["cat", "dog"]
    assert [name for _, _, _, _, _, data in made[made.confidence > 0.6] for name in data.values()]
    drawn = sv.BoxAnnotator(thickness=1).annotate(np.zeros((50, 50, 3), np.uint8), made)
    assert drawn.any()
    nothing = NOTHING.to_supervision(CATEGORIES)
    assert len(nothing) == 0
    assert len(sv.Detections.merge([nothing, made])) == 2


def test_pandas_has_a_row_for_each() -> None:
    frame = FOUND.to_pandas(CATEGORIES)
    expected = pd.DataFrame(
        {
            "x1": np.float32([1, 5]),
            "y1": np.float32([2, 6]),
            "x2": np.float32([30, 7]),
            "y2": np.float32([40.5, 8]),
            "score": np.float32([0.75, 0.5]),
            "label": [1, 0],
            "category_id": ["a/cat", 17],
            "category_name": ["cat", "dog"],
        }
    )
    pd.testing.assert_frame_equal(frame, expected)
    nothing = NOTHING.to_pandas(CATEGORIES)
    assert len(nothing) == 0
    assert nothing.dtypes.to_dict() == frame.dtypes.to_dict()
    numbered = Categories(("dog", "cat"), (17, 3))
    assert FOUND.to_pandas(numbered)["category_id"].tolist() == [3, 17]
    for found in (FOUND, NOTHING):
        assert found.to_pandas(numbered)["category_id"].dtype == np.int64


@pytest.mark.parametrize("name", ["supervision", "pandas"])
def test_categories_of_something_else_are_refused(name: str) -> None:
    one = Categories(("dog",), (17,))
    with pytest.raises(
        UserError, match=r"^categories: has 1, and something of number 1 \(from 0\)"
    ):
        getattr(FOUND, f"to_{name}")(one)
    for found in (FOUND, NOTHING):
        with pytest.raises(UserError, match=r"^categories: a NoneType is given; give"):
            getattr(found, f"to_{name}")(None)


@pytest.mark.parametrize("name", ["supervision", "pandas"])
def test_a_library_that_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"needs {name}, .*'retina-detector\[interchange\]'"):
        getattr(FOUND, f"to_{name}")(CATEGORIES)
