import subprocess
import sys

import pytest

import retina
from tests.conftest import REPOSITORY  # type: ignore[import-not-found]


def test_importing_the_package_loads_nothing_of_it() -> None:
    code = (
        "import sys; before = set(sys.modules); import retina; dir(retina); retina.__version__\n"
        "print({m for m in set(sys.modules) - before if m.partition('.')[0] != 'retina'})\n"
        "print(sorted(m for m in sys.modules if m.startswith('retina.')))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    others, own = done.stdout.splitlines()
    assert own == "[]"
    assert not {"torch", "numpy", "pydantic", "typer"} & eval(others)


def test_every_name_of_the_public_api_is_there_and_described() -> None:
    assert retina.__all__ == sorted(retina.__all__)
    for name in retina.__all__:
        assert getattr(retina, name).__doc__, name
    assert set(retina.__all__) <= set(dir(retina))
    assert retina.losses.sigmoid_focal_loss is not None


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'retina' has no attribute 'fit'"):
        retina.fit  # noqa: B018
