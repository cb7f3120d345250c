"""Messages in the words of the command that was called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retina.cli.options import in_options
from retina.datasets.worker_faults import fault_of_workers
from tests.conftest import Invoke  # type: ignore[import-not-found]

FAULTS = (
    "DataLoader worker (pid 7) is killed by signal: Killed. ",
    "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
    "workers are out of shared memory.",
    "DataLoader worker (pid 7): unable to open shared memory object: Too many open files",
)


@pytest.mark.parametrize("text", FAULTS)
@pytest.mark.parametrize("command", ["evaluate", "loss"])
def test_a_command_with_options_names_no_key_of_a_config(text: str, command: str) -> None:
    fault = str(fault_of_workers(RuntimeError(text)))
    assert "training.num_workers" in fault
    assert in_options(fault, ["train", "config.yaml"]) == fault
    told = in_options(fault, [command, "a.safetensors"])
    assert "--num-workers" in told
    assert "training." not in told
    assert "loader." not in told


def other_classes(synthetic_data: Path, tmp_path: Path, num_known: int) -> Path:
    tree = json.loads((synthetic_data / "validation" / "annotations.json").read_text())
    for category in tree["categories"][num_known:]:
        category["name"] = f"other {category['name']}"
    path = tmp_path / "other.json"
    path.write_text(json.dumps(tree))
    return path


def test_what_to_do_about_unknown_classes_is_what_the_command_can_do(
    invoke: Invoke, tiny_config: Path, synthetic_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = [f"output_dir={run}", "training.max_steps=1", "dataset.validation=null"]
    assert invoke("train", tiny_config, *options).code == 0
    detector = run / "checkpoints/last.safetensors"
    images = synthetic_data / "validation/images"
    none = other_classes(synthetic_data, tmp_path, 0)
    for command in (("evaluate",), ("loss", "anatomy"), ("data", "suspects")):
        done = invoke(*command, detector, "--annotations", none, "--images", images)
        assert done.code == 2
        assert "Correct the names" in done.err
        assert "classes'" not in done.err  # nothing would be left
    some = other_classes(synthetic_data, tmp_path, 3)
    done = invoke("data", "suspects", detector, "--annotations", some, "--images", images)
    assert "under 'classes' to leave the others out, in a config that --config names" in done.err
    done = invoke(
        "train", tiny_config, f"output_dir={tmp_path / 'other'}",
        f"dataset.validation.annotations={some}",
    )  # fmt: skip
    assert done.code == 2
    assert "under 'classes' to leave the others out" in done.err
    assert "--config" not in done.err


def test_a_folder_of_annotations_asks_for_its_images_by_the_option(
    invoke: Invoke, tmp_path: Path
) -> None:
    (tmp_path / "xml").mkdir()
    (tmp_path / "r.json").write_text("[]")
    done = invoke(
        "evaluate", "--detections", tmp_path / "r.json", "--annotations", tmp_path / "xml"
    )
    assert done.code == 2
    assert "say where its images are with --images FOLDER" in done.err
