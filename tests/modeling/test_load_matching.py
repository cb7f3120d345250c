from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from retina.configuration import validate
from retina.errors import UserError
from retina.modeling.config import ModelConfig
from retina.modeling.detector import RetinaNet
from retina.modeling.loading import Mismatch, load_matching, read_state_dict


def build(num_classes: int, seed: int, norm: str = "batch", channels: int = 16) -> RetinaNet:
    torch.manual_seed(seed)
    tree = {
        "backbone": {"name": "resnet18", "norm": norm},
        "pyramid": {"channels": channels},
        "head": {"num_convs": 1},
    }
    return validate(tree, ModelConfig, source="test").build(num_classes)


def test_the_same_architecture_loads_entirely() -> None:
    source, target = build(3, 0), build(3, 1)
    report = load_matching(target, source.state_dict())
    assert report.is_complete
    assert all(
        torch.equal(a, b)
        for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )
    assert report.describe() == f"{len(report.loaded)} of {len(report.loaded)} weights loaded"


def test_another_class_count_keeps_everything_but_the_class_logits() -> None:
    source, target = build(3, 0), build(5, 1)
    fresh = {name: value.clone() for name, value in target.state_dict().items()}
    report = load_matching(target, source.state_dict())
    assert report.mismatched == (
        Mismatch("head.classification.output.weight", (45, 16, 3, 3), (27, 16, 3, 3)),
        Mismatch("head.classification.output.bias", (45,), (27,)),
    )
    assert report.missing == report.unexpected == ()
    skipped = {mismatch.name for mismatch in report.mismatched}
    for name, value in target.state_dict().items():
        assert torch.equal(value, fresh[name] if name in skipped else source.state_dict()[name])
    lines = report.describe().splitlines()
    assert lines[0] == f"{len(report.loaded)} of {len(report.loaded) + 2} weights loaded"
    assert lines[2] == (
        "not loaded, other shape: head.classification.output.bias is (45,) here, (27,) in the file"
    )


def test_missing_and_unexpected_weights_are_named() -> None:
    source, target = build(3, 0), build(3, 1)
    state = dict(source.state_dict())
    state["head.extra.weight"] = state.pop("head.box_regression.output.bias")
    report = load_matching(target, state)
    assert report.missing == ("head.box_regression.output.bias",)
    assert report.unexpected == ("head.extra.weight",)
    assert "not loaded, not in the file: head.box_regression.output.bias" in report.describe()
    assert "not used, unknown to this detector: head.extra.weight" in report.describe()


@pytest.mark.parametrize(("source_norm", "target_norm"), [("batch", "frozen"), ("frozen", "sync")])
def test_counters_of_batches_are_no_weights(source_norm: str, target_norm: str) -> None:
    source, target = build(3, 0, source_norm), build(3, 1, target_norm)
    report = load_matching(target, source.state_dict())
    assert report.is_complete
    assert torch.equal(target.backbone.bn1.running_var, source.backbone.bn1.running_var)


def test_a_file_of_which_nothing_fits_is_refused() -> None:
    with pytest.raises(UserError, match=r"none of the 1 weights fits .*foreign\.weight"):
        load_matching(build(3, 0), {"foreign.weight": torch.zeros(2)})


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_reading_files(tmp_path: Path, wrapper: str | None) -> None:
    state = {"a.weight": torch.arange(6.0).view(2, 3)}
    save_file(state, tmp_path / "w.safetensors")
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        assert torch.equal(read_state_dict(tmp_path / name)["a.weight"], state["a.weight"])


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path("must_not_exist").touch, ())


def test_a_pickle_with_code_is_refused_and_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Harmful()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt: not a plain state dict"):
        read_state_dict(tmp_path / "evil.pt")
    assert not (tmp_path / "must_not_exist").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"not weights at all" * 9])
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}: "):
        read_state_dict(tmp_path / name)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "w.pt")
    data = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"w\.pt: "):
        read_state_dict(tmp_path / "w.pt")


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"w\.pt: holds no tensors"):
        read_state_dict(tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"list\.pt: holds a list, not a state dict"):
        read_state_dict(tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"none\.pt: no such weight file"):
        read_state_dict(tmp_path / "none.pt")
