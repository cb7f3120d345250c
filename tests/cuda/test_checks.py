"""The checks of `scripts/gpu_check.sh`, as tests; without a GPU all of them are skipped."""

from pathlib import Path

import pytest
import torch

from tests.cuda.check import Check, Setting  # type: ignore[import-not-found]
from tests.cuda.checks import CHECKS  # type: ignore[import-not-found]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_on_the_gpu(check: Check, tmp_path: Path) -> None:
    check.run(Setting(torch.device("cuda", 0), tmp_path))


def test_every_check_has_a_name_of_its_own() -> None:
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names))
