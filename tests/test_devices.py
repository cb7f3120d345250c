import pytest
import torch

from retina.devices import pick_precision


def test_fp32_is_float32_and_not_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert pick_precision("bf16", torch.device("cuda", 0)) == "bf16"
    assert torch.backends.cudnn.allow_tf32
    assert pick_precision("fp32", torch.device("cuda", 0)) == "fp32"
    assert not torch.backends.cudnn.allow_tf32
