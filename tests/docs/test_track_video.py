"""The example of tracking, where the library trackers is installed."""

from __future__ import annotations

import importlib
from pathlib import Path

import av
import numpy as np
import pytest

from retina.prediction.predictor import Predictor
from retina.prediction.video import VideoWriter
from tests.prediction.fixed_runtime import TwoObjects  # type: ignore[import-not-found]

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


def test_objects_keep_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackers")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    writer = VideoWriter(tmp_path / "clip.mp4")
    for number in range(8):
        writer.add(np.full((48, 64, 3), 100, np.uint8), number / 25)
    writer.finish()
    example = importlib.import_module("track_video")
    lines = [
        line.split("  ")
        for line in example.followed(Predictor(TwoObjects()), str(tmp_path / "clip.mp4"))
    ]
    assert lines
    number_of = {name: {line[1] for line in lines if line[2] == name} for name in ("cat/kitten",)}
    assert len(number_of["cat/kitten"]) == 1
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].frames == 8
