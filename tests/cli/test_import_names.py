"""The names that ``retina import torchvision --categories`` gives to the outputs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from retina.cli.import_torchvision import _read_names
from retina.errors import UserError


def categories(ids: list[Any]) -> bytes:
    return json.dumps({"categories": [{"id": one, "name": f"n{one}"} for one in ids]}).encode()


@pytest.mark.parametrize("ids", [[10, 2, 1], ["10", "2", "1"], [10.0, "2", 1]])
def test_the_outputs_are_in_the_order_of_the_ids(tmp_path: Path, ids: list[Any]) -> None:
    path = tmp_path / "labels.json"
    path.write_bytes(categories(ids))
    one, two, ten = (f"n{number}" for number in reversed(ids))
    assert _read_names(path, 3) == [one, two, ten]
    with_gaps = _read_names(path, 11)
    assert [with_gaps[at] for at in (0, 1, 2, 10)] == ["unused 0", one, two, ten]


def test_a_compressed_annotation_file_is_no_list_of_names(tmp_path: Path) -> None:
    path = tmp_path / "labels.json.gz"
    path.write_bytes(gzip.compress(categories([1, 2])))
    assert _read_names(path, 2) == ["n1", "n2"]
    text = tmp_path / "names.txt"
    text.write_text("cat\n\n dog \n")
    assert _read_names(text, 2) == ["cat", "dog"]


def test_ids_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_bytes(categories([None, 1]))
    with pytest.raises(UserError, match="is no COCO annotation file with 'categories'"):
        _read_names(path, 2)
