"""`retina data suspects`: the page and the list, whose labels are judged, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Invoke  # type: ignore[import-not-found]


@pytest.fixture(scope="module")
def checkpoint(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that has hardly learnt anything."""
    from retina.experiment import build_experiment, load_experiment

    folder = tmp_path_factory.mktemp("run")
    changes = [f"output_dir={folder}", "training.epochs=1"]
    build_experiment(load_experiment(tiny_config, changes), quiet=True).trainer.run()
    return folder / "checkpoints" / "last.safetensors"


@pytest.fixture
def source(synthetic_data: Path) -> list[str | Path]:
    train = synthetic_data / "train"
    return ["--images", train / "images", "--annotations", train / "annotations.json"]


def test_it_writes_the_page_and_the_list(
    checkpoint: Path, source: list[str | Path], tmp_path: Path, invoke: Invoke
) -> None:
    output = tmp_path / "new" / "folder"
    done = invoke(
        "data", "suspects", checkpoint, *source, "--output", output, "--minimum-score", "0"
    )
    assert done.code == 0, done.err
    assert f"{source[3]}: 24 images, " in done.out
    listed = json.loads((output / "suspects.json").read_text())
    assert listed["format_version"] == 1
    assert listed["num_images"] == 24
    assert listed["source"] == str(source[3])
    kinds = [one["kind"] for one in listed["suspects"]]
    assert kinds.count("wrong_class") == kinds.count("badly_placed") == kinds.count("spurious")
    assert kinds.count("spurious") == listed["num_labels"]
    assert all((Path(source[1]) / one["file_name"]).is_file() for one in listed["suspects"])
    assert (output / "suspects.html").read_text().count("<article") == 300
    assert f"{len(kinds)} possible label errors with a score of 0 or more" in done.out
    assert "probab" not in done.out


@pytest.mark.parametrize(("split", "num_images"), [(None, 24), ("validation", 8)])
def test_it_judges_the_split_of_a_config_that_was_named(
    split: str | None, num_images: int, checkpoint: Path, tmp_path: Path, invoke: Invoke
) -> None:
    config = checkpoint.parents[1] / "config.yaml"
    named = [] if split is None else ["--split", split]
    done = invoke(
        "data", "suspects", checkpoint, "--config", config, *named, "--output", tmp_path,
        "--minimum-score", "0", "--pictures", "2",
    )  # fmt: skip
    assert done.code == 0, done.err
    whose = f"{config}, {split or 'train'}"
    assert f"{whose}: {num_images} images, " in done.out
    listed = json.loads((tmp_path / "suspects.json").read_text())
    assert (listed["num_images"], listed["source"]) == (num_images, whose)
    names = {one["file_name"] for one in listed["suspects"]}
    assert all("/" not in name for name in names)
    assert (tmp_path / "suspects.html").read_text().count("<article") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say whose labels: --data SOURCE, --annotations FILE --images FOLDER, or --config"),
        (
            ["--config", "c.yaml", "--images", "."],
            "either a config or --annotations with --images, not both",
        ),
        (["--config", "c.yaml", "--split", "tran"], "--split: 'tran' is none of train"),
    ],
)
def test_wrong_options_are_explained(
    options: list[str], message: str, checkpoint: Path, invoke: Invoke
) -> None:
    done = invoke("data", "suspects", checkpoint, *options)
    assert done.code == 2
    assert message in done.err


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    checkpoint: Path,
    source: list[str | Path],
    tmp_path: Path,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("looked at images first")

    monkeypatch.setattr("retina.instruments.label_errors.ranking.find_label_errors", never)
    (tmp_path / "file").write_text("")
    done = invoke("data", "suspects", checkpoint, *source, "--output", tmp_path / "file")
    assert done.code == 2
    assert "a file stands where a folder is needed" in done.err
