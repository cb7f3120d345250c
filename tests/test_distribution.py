"""What would be published: built from this checkout, installed on the pinned versions, and used.

Nothing of the checkout is on the path of what is installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

import retina
from tests.conftest import REPOSITORY  # type: ignore[import-not-found]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PINS = str(REPOSITORY / "constraints.txt")


def run(*command: str | Path, cwd: Path) -> str:
    """What a command says; it must end well."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def environment() -> dict[str, str]:
    """This one, without what leads to the checkout."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**own, "PIP_CONSTRAINT": PINS, "COLUMNS": "200"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is made of it; or those about to be published."""
    if "RETINA_DISTRIBUTIONS" in os.environ:
        return Path(os.environ["RETINA_DISTRIBUTIONS"])
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--outdir", folder, REPOSITORY, cwd=folder)
    return folder


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def contents(wheel: Path) -> dict[str, str]:
    """The hash of each file in a wheel but its list of them."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: hashlib.sha256(archive.read(name)).hexdigest()
            for name in archive.namelist()
            if not name.endswith("/RECORD")
        }


def shipped() -> set[str]:
    """The files of the package and the configs, as they are in an installation."""
    package = [*(REPOSITORY / "retina").rglob("*"), *(REPOSITORY / "configs").rglob("*")]
    files = [path for path in package if path.is_file() and "__pycache__" not in path.parts]
    names = [path.relative_to(REPOSITORY).as_posix() for path in files]
    return {f"retina/{name}" if name.startswith("configs/") else name for name in names}


def test_the_wheel_holds_the_package_and_the_sdist_makes_the_same(
    built: Path, tmp_path: Path
) -> None:
    wheel = only(built, "*.whl")
    assert wheel.name == f"retina_detector-{retina.__version__}-py3-none-any.whl"
    of_sdist = contents(wheel)
    inside = {name for name in of_sdist if ".dist-info/" not in name}
    assert inside == shipped()
    assert {Path(name).suffix for name in inside} >= {".py", ".html", ".css", ".js", ".yaml"}
    assert {"retina/py.typed", "retina/configs/schema.json"} <= inside
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, REPOSITORY, cwd=tmp_path)
    assert contents(only(tmp_path, "*.whl")) == of_sdist


def test_the_sdist_holds_no_data_no_runs_no_caches(built: Path) -> None:
    with tarfile.open(only(built, "*.tar.gz")) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
    names = [member.name.partition("/")[2] for member in members]
    tops = {name.partition("/")[0] for name in names}
    files = {"README.md", "CHANGELOG.md", "LICENSE", "PKG-INFO", "pyproject.toml", ".gitignore"}
    assert tops == {"retina", "configs", "tests", *files}
    assert not [name for name in names if re.search(r"(^|/)(\.\w+|__pycache__|runs)/|\.pyc$", name)]
    known = {".py", ".html", ".css", ".js", ".yaml", ".json", ".md", ".toml", ".typed", ".j2", ""}
    assert {Path(name).suffix for name in names} <= known
    assert sum(member.size for member in members) < 10e6


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment that has only the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    programs = folder / "bin"
    run(programs / "pip", "install", "--quiet", "--no-compile", only(built, "*.whl"), cwd=folder)
    return programs


def write_pictures(folder: Path) -> None:
    """Grey pictures with a bright square or a dark one in each, and COCO's file about them."""
    folder.mkdir()
    images, annotations = [], []
    for number in range(40):
        random = np.random.default_rng(number)
        pixels = random.integers(90, 130, (64, 96, 3), np.uint8)
        x, y, side = (int(random.integers(4, high)) for high in (60, 30, 30))
        side += 12
        pixels[y : y + side, x : x + side] = 230 if number % 2 else 20
        Image.fromarray(pixels).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 96, "height": 64})
        width, height = min(side, 96 - x), min(side, 64 - y)
        annotations.append(
            {"id": number, "image_id": number, "category_id": number % 2, "iscrowd": 0,
             "bbox": [x, y, width, height], "area": width * height}
        )  # fmt: skip
    categories = [{"id": 0, "name": "dark"}, {"id": 1, "name": "bright"}]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "_annotations.coco.json").write_text(json.dumps(tree))


def test_what_is_installed_goes_from_pictures_to_boxes(installed: Path, tmp_path: Path) -> None:
    program = installed / "retina"
    assert run(program, "--version", cwd=tmp_path) == f"retina {retina.__version__}\n"
    where = run(installed / "python", "-c", "import retina; print(retina.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    write_pictures(tmp_path / "photos")
    run(program, "init", "photos", "--output", "my.yaml", "--from-scratch", cwd=tmp_path)
    schema = re.match(
        r"# yaml-language-server: \$schema=file://(.*)\n", (tmp_path / "my.yaml").read_text()
    )
    assert schema is not None
    assert json.loads(Path(schema[1]).read_text())["title"] == "Retina's config"
    options = ["output_dir=first", "training.max_steps=4", "training.num_workers=0"]
    small = ["preprocess={min_size: 64, max_size: 96}", "postprocess.score_threshold=0.001"]
    said = run(program, "train", "my.yaml", "--from-scratch", *options, *small, cwd=tmp_path)
    assert "done: 4 steps" in said
    assert "<html" in (tmp_path / "first" / "evaluation" / "report.html").read_text()
    detector = "first/checkpoints/best.safetensors"
    shown = ["--score-threshold", "0.001", "--output", "found"]
    run(program, "predict", detector, "photos", *shown, cwd=tmp_path)
    assert json.loads((tmp_path / "found" / "detections.json").read_text())
    assert len([*(tmp_path / "found").glob("*.jpg")]) == 40
    load = "from retina.experiment import load_experiment as load; print(load('nano.yaml', {}))"
    data = ["dataset.train.images=a", "dataset.train.annotations=b", "output_dir=c"]
    assert "seed=0" in run(installed / "python", "-c", load.format(data), cwd=tmp_path)


def test_an_extra_is_installed_by_the_name_that_messages_tell(
    built: Path, installed: Path, tmp_path: Path
) -> None:
    """The wheel stands for the one that will be published."""
    synth = ["data", "synth", "shapes", "--images", "4", "--validation-images", "2"]
    run(installed / "retina", *synth, cwd=tmp_path)
    small = ["preprocess={min_size: 64, max_size: 96}", "training.max_steps=1", "output_dir=run"]
    options = [*small, "training.num_workers=0", "evaluation.report=false"]
    run(installed / "retina", "train", "shapes", "--from-scratch", *options, cwd=tmp_path)
    serve = [installed / "retina", "serve", "run/checkpoints/best.safetensors", "--port", "0"]
    refused = subprocess.run(
        serve, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    (wanted,) = re.findall(r"pip install '(.*)'", refused.stderr)
    assert wanted == "retina-detector[serve]"
    run(installed / "pip", "install", "--quiet", "--find-links", built, wanted, cwd=tmp_path)
    with subprocess.Popen(
        serve,
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as service:
        try:
            assert service.stdout is not None
            said = ""
            while not (address := re.search(r"http://127\.0\.0\.1:\d+", said)):
                line = service.stdout.readline()
                assert line, said
                said += line
            with urlopen(address[0], timeout=60) as page:
                assert b"<html" in page.read()
        finally:
            service.terminate()
