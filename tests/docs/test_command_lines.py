"""The command lines of the pages: all of them are parsed, and those of four pages run.

What they name is stood in for by a tiny detector and synthetic pictures. Of an export everything
but the conversion runs; the slow tests convert as well.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
from PIL import Image

import retina.serving.server
from retina.cli.main import make_app
from retina.datasets.synthetic import generate_dataset
from retina.export.exporting import ExportJob, check_form
from retina.runtime.description import ExportDescription
from tests.conftest import REPOSITORY, Done, Invoke  # type: ignore[import-not-found]
from tests.export.conftest import make_detector  # type: ignore[import-not-found]
from tests.small_detector import small_backbone_listed  # type: ignore[import-not-found]

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
RUN = ("export", "tiles", "predict", "serve")
LINE = re.compile(
    r"^ {4}(.*\bretina (?:export|predict|evaluate|info|serve) (?:[^\n]|\\\n)*)", re.MULTILINE
)
QUICK = {
    "predict": ("--device", "cpu"),
    "evaluate": ("--device", "cpu", "--num-workers", "0", "--no-report"),
    "serve": ("--device", "cpu"),
}


def command_lines(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [line.replace("\\\n", " ") for line in LINE.findall(text)]


def words_of(line: str) -> list[str]:
    """What stands behind ``retina``, whatever starts it or is piped to it."""
    return shlex.split(line.partition(" #")[0].rpartition("retina ")[2])


EVERY = [(page.stem, line) for page in PAGES for line in command_lines(page)]
OF_PAGES = [(page, line) for page, line in EVERY if page in RUN]


@pytest.mark.parametrize(("page", "line"), EVERY)
def test_the_options_of_every_line_are_known(page: str, line: str) -> None:
    name, *arguments = words_of(line)
    group = typer.main.get_command(make_app([name]))
    command = group.get_command(None, name)  # type: ignore[attr-defined]
    command.make_context(name, arguments)


def test_lines_are_found_and_wrong_ones_are_refused() -> None:
    assert {page for page, _ in OF_PAGES} == {*RUN}
    assert words_of("torchrun -m retina predict a.pt photos/ --output found  # all") == [
        *("predict", "a.pt", "photos/", "--output", "found")
    ]
    for wrong in ("retina serve a.pt --tiles 640", "retina serve a.pt --queue many"):
        with pytest.raises(Exception, match=r"No such option|valid integer"):
            test_the_options_of_every_line_are_known("", wrong)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the pages name."""
    folder: Path = tmp_path_factory.mktemp("pages")
    with small_backbone_listed():
        make_detector().save(folder / "best.safetensors")
    for run in ("bccd", "photos"):
        checkpoints = folder / "runs" / run / "checkpoints"
        checkpoints.mkdir(parents=True)
        os.link(folder / "best.safetensors", checkpoints / "best.safetensors")
    generate_dataset(folder / "made", num_images=1, num_validation_images=3, seed=1)
    annotated = folder / "made" / "validation"
    content = json.loads((annotated / "annotations.json").read_text())
    for one, name in zip(content["categories"], "abc", strict=False):
        one["name"] = name
    (annotated / "annotations.json").write_text(json.dumps(content))
    for name in ("photos", "data/slides", "data/bccd"):
        shutil.copytree(annotated, folder / name)
    for name in ("holiday", "slides"):
        shutil.copytree(annotated / "images", folder / name)
    pictures = sorted((folder / "holiday").iterdir())
    for picture in pictures:
        Image.open(picture).convert("RGB").save(picture.with_suffix(".jpg"))
    names = [f"holiday/{picture.name}\n" for picture in pictures]
    (folder / "files.txt").write_text("".join(names))
    return folder


@pytest.fixture
def run(
    stand_ins: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Done]]:
    """Runs a line in the folder; it serves nothing and fetches no detector."""
    bind = retina.serving.server.bind
    monkeypatch.chdir(stand_ins)
    monkeypatch.setattr(retina.serving.server, "bind", lambda host, port: bind("127.0.0.1", 0))
    monkeypatch.setattr(retina.serving.server, "serve", lambda *given, on_start: on_start() or 2)

    def run_line(line: str) -> Done:
        name, *arguments = words_of(line)
        for output in ("found", "labels", "scores"):
            shutil.rmtree(output, ignore_errors=True)
        if "|" in line:
            given = "".join(f"{one}\n" for one in sorted(Path("holiday").glob("*.jpg")))
            monkeypatch.setattr("sys.stdin", io.StringIO(given))
        if "RETINA_API_KEY=" in line:
            monkeypatch.setenv("RETINA_API_KEY", "0123456789abcdef")
        words = ["best.safetensors" if word == "coco_v2" else word for word in arguments]
        return invoke(name, *words, *QUICK.get(name, ()))

    with small_backbone_listed():
        yield run_line


def _without_conversion(job: ExportJob) -> ExportDescription:
    """What is left of `ExportJob.run`."""
    check_form(job.form, job.output)
    assert job.examples is not None
    for file in (job.output, job.output.with_suffix(".bin")):
        file.write_bytes(b"")
    return job.describe(None)


@pytest.mark.parametrize("line", [line for _, line in OF_PAGES])
def test_the_lines_run(
    line: str, run: Callable[[str], Done], stand_ins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "bccd.onnx photos" in line:
        pytest.skip("the slow test has the export that this one takes")
    if "street.mp4" in line:
        make_video(stand_ins / "street.mp4")
    monkeypatch.setattr(ExportJob, "run", _without_conversion)
    done = run(line)
    assert done.code == (130 if "retina serve" in line else 0), done.err
    if "retina predict" in line:
        assert " in " in done.out
        output = "labels" if "labels" in line else "found"
        assert (stand_ins / output / "detections.json").is_file()


def make_video(path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for shade in range(6):
            picture = Image.new("RGB", (96, 64), (40 * shade, 0, 0))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())


@pytest.mark.slow
def test_the_exports_of_the_pages_are_written_and_taken(run: Callable[[str], Done]) -> None:
    """In the order of the page: what it exports it predicts with."""
    for package in ("onnxruntime", "openvino", "nncf"):
        pytest.importorskip(package)
    for page, line in OF_PAGES:
        if page == "export":
            # A random network is no trained one: int8 and bf16 move its scores by more.
            loose = " --max-score-shift 1 --max-ap-drop 1" if "--precision" in line else ""
            done = run(line + loose)
            assert done.code == 0, done.err
            assert "retina predict" in line or "verified on" in done.out
