import platform
from pathlib import Path

import pytest
import torch

from retina import processor
from retina.devices import pick_precision


def test_fp32_is_float32_and_not_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert pick_precision("bf16", torch.device("cuda", 0)) == "bf16"
    assert torch.backends.cudnn.allow_tf32
    assert pick_precision("fp32", torch.device("cuda", 0)) == "fp32"
    assert not torch.backends.cudnn.allow_tf32


def measured(monkeypatch: pytest.MonkeyPatch, home: Path | str, speed_up: float) -> str:
    """What ``auto`` takes on a CPU whose convolutions are that much faster in bf16."""
    processor.multiplies_bf16.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    monkeypatch.setattr(processor, "measure_bf16", lambda: speed_up)
    chosen = pick_precision("auto", torch.device("cpu"))
    processor.multiplies_bf16.cache_clear()
    return chosen


def test_auto_takes_bf16_where_it_was_measured_to_be_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert measured(monkeypatch, tmp_path / "fast", 5.0) == "bf16"
    assert measured(monkeypatch, tmp_path / "slow", 0.7) == "fp32"
    # It is measured once: what was found first holds.
    assert measured(monkeypatch, tmp_path / "fast", 0.7) == "bf16"
    (file,) = (tmp_path / "fast" / "retina").iterdir()
    for broken in ("", "[]", "{}", '{"speed_up": null}'):
        file.write_text(broken)
        assert measured(monkeypatch, tmp_path / "fast", 0.7) == "fp32"
        file.unlink()


def test_a_home_that_cannot_be_written_to_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    assert measured(monkeypatch, tmp_path / "file", 5.0) == "bf16"


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    assert measured(monkeypatch, "", 5.0) == "bf16"


def test_what_something_else_may_have_disturbed_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert measured(monkeypatch, tmp_path, 1.3) == "bf16"
    assert measured(monkeypatch, tmp_path, 1.1) == "fp32"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="knows the instructions of x86 only")
def test_the_measurement_says_what_the_hardware_has() -> None:
    flags = torch.cpu.get_capabilities()
    has = bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))
    assert (processor.measure_bf16() >= processor.WORTH) == has
