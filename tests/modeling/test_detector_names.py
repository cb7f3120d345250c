from __future__ import annotations

from pathlib import Path

import pytest

from retina.artifact import load_artifact
from retina.configuration import validate
from retina.errors import UserError
from retina.experiment.config import InitializedModelConfig
from retina.modeling.detector_names import as_text, detector_given
from retina.modeling.loading import read_weights


def test_a_text_may_be_a_name_and_a_path_is_a_file() -> None:
    assert detector_given("coco_v2", "x") == "coco_v2"
    for given in ("./coco_v2", Path("coco_v2")):
        assert detector_given(given, "x") == Path("coco_v2")
    for given in ("coco_v2.safetensors", "runs/coco_v2", "COCO_V2"):
        assert detector_given(given, "x") == Path(given)
    with pytest.raises(UserError, match="x: 5 is no path"):
        detector_given(5, "x")


@pytest.mark.parametrize("text", ["coco_v1", "./coco_v1", "runs/a.safetensors", "b.pth"])
def test_a_config_keeps_what_was_meant(text: str) -> None:
    config = validate({"initialize_from": text}, InitializedModelConfig, source="test")
    assert as_text(detector_given(text, "")) == text
    written = config.model_dump(mode="json")
    assert written["initialize_from"] == text
    assert validate(written, InitializedModelConfig, source="test") == config


def test_a_misspelt_name_is_answered_with_the_nearest_and_all() -> None:
    for word, near in (("coco_v3", "coco_v2"), ("COCO_V1", "coco_v1"), ("cocov2", "coco_v2")):
        with pytest.raises(UserError, match=f"^{word}: no such .*did you mean '{near}'") as caught:
            load_artifact(word)
        assert "(published: coco_v1, coco_v2)" in str(caught.value)
    with pytest.raises(UserError, match=r"no published detector of that name \(published"):
        read_weights("nothing_like_it")
    for path in ("coco_v3.safetensors", "runs/coco_v3"):
        with pytest.raises(UserError, match="no such detector file; train one"):
            load_artifact(path)
