"""What is printed, on outputs that do not know every character."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from retina.registry import COMMANDS
from tests.conftest import REPOSITORY, SMALL_RETINA, Done, Invoke  # type: ignore[import-not-found]

ENCODINGS = ("ascii", "cp1252", "cp1251", "gbk", "cp932", "cp949", "cp437")

InvokeIn = Callable[..., Done]


@pytest.fixture
def invoke_in(monkeypatch: pytest.MonkeyPatch) -> InvokeIn:
    """Runs the command line in this process, its output in an encoding, as strict as a pipe is."""
    from retina.__main__ import main

    def run(encoding: str, *arguments: str | Path) -> Done:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        monkeypatch.setattr(sys, "argv", ["retina", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            monkeypatch.undo()
        for stream in streams:
            stream.flush()
        out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)  # type: ignore[attr-defined]
        return Done(code, out, err)

    return run


@pytest.fixture(scope="module")
def detector(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import retina

    run = tmp_path_factory.mktemp("runs") / "run"
    retina.train(tiny_config, [f"output_dir={run}", "training.max_steps=1"], quiet=True)
    return run / "checkpoints" / "last.safetensors"


@pytest.mark.parametrize(
    "encoding",
    [
        pytest.param(one, marks=[] if one in ("ascii", "gbk") else pytest.mark.slow)
        for one in ENCODINGS
    ],
)
@pytest.mark.parametrize("words", [(), *(one.words for one in COMMANDS)], ids=" ".join)
def test_every_help_can_be_written(
    invoke_in: InvokeIn, encoding: str, words: tuple[str, ...]
) -> None:
    done = invoke_in(encoding, *words, "--help")
    assert done.code == 0, done.err
    assert "Usage:" in done.out
    assert "\\u" not in done.out


@pytest.mark.parametrize(
    "encoding",
    ["ascii", *(pytest.param(one, marks=pytest.mark.slow) for one in ("cp1251", "cp932"))],
)
def test_every_output_can_be_written(
    invoke_in: InvokeIn, encoding: str, detector: Path, tiny_config: Path, tmp_path: Path
) -> None:
    run, cpu = detector.parents[1], "--device=cpu"
    config = ["--config", run / "config.yaml"]
    for words in (
        ("evaluate", detector, cpu, "--num-workers=0"),
        ("data", "stats", *config),
        ("data", "check", *config),
        ("data", "anchors", run / "config.yaml"),
        ("data", "suspects", detector, *config, cpu),
        ("loss", "anatomy", detector, cpu, "--num-workers=0"),
        ("loss", "lab", detector, cpu, "--num-workers=0", "--output", tmp_path / "lab"),
        ("doctor", run / "config.yaml", "--quick", "--output", tmp_path / "doctor"),
        ("train", tiny_config, f"output_dir={tmp_path / 'run'}", "training.max_steps=1"),
        ("train", run / "config.yaml", "training.max_steps=2", "--resume"),
    ):
        done = invoke_in(encoding, *words)
        assert done.code in (0, 1), done.err
        assert done.out


def test_stand_ins_are_readable_and_what_an_encoding_has_stays(
    invoke_in: InvokeIn, detector: Path, tmp_path: Path
) -> None:
    words = ("loss", "lab", detector, "--device=cpu", "--num-workers=0", "--output", tmp_path)
    assert "gamma|alpha" in invoke_in("cp1252", *words).out
    assert "anchors x classes" in invoke_in("ascii", *words).out
    assert "anchors × classes" in invoke_in("cp1252", *words).out
    assert "γ|   α" in invoke_in("gbk", *words).out


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_messages_name_files_of_any_script(
    invoke_in: InvokeIn, encoding: str, tmp_path: Path
) -> None:
    for name, shown in {
        "fotos é": "fotos ",
        "снимки": "",
        "写真": "",
        "사진": "",
        "γ×": "",
        os.fsdecode(b"raw \xff"): "raw \\xff",
    }.items():
        done = invoke_in(encoding, "data", "check", tmp_path / name)
        assert done.code == 2
        assert "no such file or folder" in done.err
        assert shown in done.err


def test_classes_and_images_of_any_script(
    invoke_in: InvokeIn, synthetic_data: Path, tmp_path: Path
) -> None:
    images = tmp_path / "写真"
    shutil.copytree(synthetic_data / "validation" / "images", images)
    tree = json.loads((synthetic_data / "validation" / "annotations.json").read_text())
    tree["categories"][0]["name"] = "γ-собака 犬"
    (tmp_path / "标注.json").write_text(json.dumps(tree))
    next(images.iterdir()).write_bytes(b"")
    data = ("--images", images, "--annotations", tmp_path / "标注.json")
    for encoding in ENCODINGS:
        assert invoke_in(encoding, "data", "stats", *data).code == 0
        done = invoke_in(encoding, "data", "check", *data)
        assert done.code == 1
        assert "cannot be used" in done.out


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"PYTHONIOENCODING": "cp1252"}, marks=pytest.mark.slow),
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["cp1252", "C"],
)
def test_a_redirected_process_writes_all_the_same(
    environment: dict[str, str], detector: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*SMALL_RETINA, "loss", "lab", detector, "--device=cpu", "--num-workers=1"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )
    assert done.returncode == 0, done.stderr
    assert b"gamma|alpha" in done.stdout
    assert b"Error" not in done.stderr


def test_a_program_that_trains_is_not_stopped_by_its_output(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import retina

    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    options = [f"output_dir={tmp_path / 'снимки'}", "training.max_steps=1"]
    retina.train(tiny_config, options, resume=True)
    assert b"nothing to resume" in stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_a_path_that_a_locale_cannot_read_is_refused_with_the_fix(
    invoke: Invoke, tiny_config: Path, tmp_path: Path
) -> None:
    done = invoke("train", tiny_config, "output_dir=" + os.fsdecode(b"runs/\xff"))
    assert done.code == 2
    assert "output_dir=runs/\\xff" in done.err
    assert "bytes that are no text in this system's encoding (utf-8)" in done.err
    assert "PYTHONUTF8=1" in done.err


def test_folders_whose_names_are_no_text(
    invoke: Invoke, detector: Path, synthetic_data: Path, tiny_config: Path, tmp_path: Path
) -> None:
    raw = tmp_path / os.fsdecode(b"raw \xff")
    shutil.copytree(synthetic_data / "validation", raw)
    data = ("--images", raw / "images", "--annotations", raw / "annotations.json")
    for words in (
        ("data", "stats", *data),
        ("evaluate", detector, *data, "--device=cpu", "--output", raw / "scores"),
        ("loss", "anatomy", detector, *data, "--device=cpu", "--output", tmp_path / "anatomy"),
        ("data", "suspects", detector, *data, "--device=cpu", "--output", tmp_path / "suspects"),
    ):
        done = invoke(*words)
        assert done.code == 0, done.err
    shutil.copytree(detector.parents[1], raw / "run")
    done = invoke("train", raw / "run/config.yaml", "--resume")
    assert done.code == 2
    assert "raw \\xff/run: the path holds bytes that are no text" in done.err


def test_a_name_between_colons_is_no_picture(
    invoke: Invoke, synthetic_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / ":dog:"
    shutil.copytree(synthetic_data / "validation", folder)
    done = invoke(
        "data", "check", "--images", folder / "images", "--annotations", folder / "annotations.json"
    )
    assert done.code == 0, done.err
    assert f"{folder}/annotations.json: 8 images" in done.out
