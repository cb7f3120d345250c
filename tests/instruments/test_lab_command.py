"""``retina loss lab`` as a user runs it."""

import json
import shutil
from pathlib import Path

import pytest

from retina.cli import loss_lab as lab
from tests.conftest import Invoke  # type: ignore[import-not-found]


@pytest.fixture(scope="module")
def run_folder(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of a training."""
    from retina.experiment import build_experiment, load_experiment

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    overrides = [f"output_dir={folder}", "training.max_steps=2", "training.pictures=0"]
    build_experiment(load_experiment(tiny_config, overrides), quiet=True).trainer.run()
    return folder


def test_the_images_are_looked_at_once_and_any_grid_replayed(
    run_folder: Path, invoke: Invoke
) -> None:
    checkpoint = run_folder / "checkpoints" / "last.safetensors"
    command = ("loss", "lab", checkpoint, "--images-limit", "4", "--num-workers", "0")
    first = invoke(*command)
    assert first.code == 0, first.err
    assert "kept in" in first.out
    found = json.loads((run_folder / "lab" / "lab.json").read_text())
    assert found["num_images"] == 4
    assert len(found["cells"]) == 25
    assert "suggestion" not in found  # nobody has shown that one would agree with trainings
    assert "about the gradient of this detector" in first.out
    assert (run_folder / "lab" / "lab.png").read_bytes().startswith(b"\x89PNG")

    second = invoke(*command, "--gammas", "3,1", "--alphas", "none,0.5")
    assert second.code == 0, second.err
    assert "taken from" in second.out
    cells = json.loads((run_folder / "lab" / "lab.json").read_text())["cells"]
    assert [(cell["gamma"], cell["alpha"]) for cell in cells] == [
        (1.0, 0.5), (1.0, None), (3.0, 0.5), (3.0, None),
    ]  # fmt: skip

    more = invoke("loss", "lab", checkpoint, "--images-limit", "5", "--num-workers", "0")
    assert "5 images" in more.out
    assert "kept in" in more.out


def test_the_results_lie_in_the_run_folder_of_a_detector_and_else_beside_it(
    run_folder: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("lab"))
    (tmp_path / "run" / "other").mkdir()
    shutil.copy(run_folder / "checkpoints" / "last.safetensors", tmp_path / "run" / "other")
    options = ("--images-limit", "1", "--num-workers", "0")
    monkeypatch.chdir(tmp_path / "run" / "checkpoints")
    assert invoke("loss", "lab", "last.safetensors", *options).code == 0
    assert (tmp_path / "run" / "lab" / "lab.json").exists()
    other = invoke(
        "loss", "lab", "../other/last.safetensors", "--config", "../config.yaml", *options
    )
    assert other.code == 0, other.err
    assert (tmp_path / "run" / "other" / "lab" / "lab.json").exists()


def test_other_crowd_flags_are_another_sample(
    run_folder: Path, synthetic_data: Path, tmp_path: Path, invoke: Invoke
) -> None:
    tree = json.loads((synthetic_data / "validation" / "annotations.json").read_text())
    path = tmp_path / "annotations.json"

    def sampled() -> str:
        path.write_text(json.dumps(tree))
        done = invoke(
            "loss", "lab", run_folder / "checkpoints" / "last.safetensors", "--num-workers", "0",
            "--annotations", path, "--images", synthetic_data / "validation" / "images",
            "--output", tmp_path / "lab", "--images-limit", "2",
        )  # fmt: skip
        assert done.code == 0, done.err
        return str(done.out)

    assert "kept in" in sampled()
    assert "taken from" in sampled()
    tree["annotations"][0]["iscrowd"] = 1
    assert "kept in" in sampled()


def test_the_table_fits_a_terminal_of_80_columns(run_folder: Path, invoke: Invoke) -> None:
    checkpoint = run_folder / "checkpoints" / "last.safetensors"
    done = invoke("loss", "lab", checkpoint, "--images-limit", "2", "--num-workers", "0")
    table = done.out[done.out.index("shares in %") : done.out.index("This is about")]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--gammas", "1,-2"), "--gammas: '-2' is no number from 0 on"),
        (("--gammas", "one"), "--gammas: 'one' is no number from 0 on"),
        (("--gammas", ","), "--gammas: give at least one"),
        (("--alphas", "0"), "alpha=0 would give the foreground no loss at all"),
        (("--alphas", "non"), "--alphas: 'non': write a number in (0, 1), or none"),
        (("--split", "vali"), "--split: 'vali' is none of train, validation, test"),
        (("--images", "photos"), "--images needs --annotations"),
    ],
)
def test_a_wrong_option_is_told(
    options: tuple[str, str], message: str, run_folder: Path, invoke: Invoke
) -> None:
    done = invoke("loss", "lab", run_folder / "checkpoints" / "last.safetensors", *options)
    assert done.code == 2
    assert message in done.err


def test_images_without_objects_have_nothing_to_weigh(
    run_folder: Path, synthetic_data: Path, tmp_path: Path, invoke: Invoke
) -> None:
    tree = json.loads((synthetic_data / "validation" / "annotations.json").read_text())
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps({**tree, "annotations": []}))
    done = invoke(
        "loss", "lab", run_folder / "checkpoints" / "last.safetensors", "--num-workers", "0",
        "--annotations", empty, "--images", synthetic_data / "validation" / "images",
        "--output", tmp_path / "lab",
    )  # fmt: skip
    assert done.code == 2
    assert "no anchor of its 8 images is foreground" in done.err


def test_an_output_that_is_a_file_is_refused_before_anything_is_computed(
    run_folder: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab").write_text("mine")
    monkeypatch.setattr(lab, "_sample", lambda *arguments: pytest.fail("it began"))
    checkpoint = run_folder / "checkpoints" / "last.safetensors"
    done = invoke("loss", "lab", checkpoint, "--output", tmp_path / "lab")
    assert done.code == 2
    assert "a file stands where a folder is needed" in done.err
    assert (tmp_path / "lab").read_text() == "mine"


def test_an_alpha_of_one_weighs_nothing() -> None:
    assert lab.parse_alphas("1,none,0.5") == (0.5, None)
