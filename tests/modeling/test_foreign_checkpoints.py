"""Weights as other projects' training scripts leave them."""

from __future__ import annotations

import argparse
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from retina.errors import UserError
from retina.modeling.loading import read_state_dict, read_weights

STATE = {"backbone.body.conv1.weight": torch.ones(2, 3), "head.bias": torch.arange(4.0)}


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def check(path: Path, taken: str) -> None:
    weights = read_weights(path)
    assert list(weights.state_dict) == list(STATE)
    assert all(torch.equal(weights.state_dict[name], STATE[name]) for name in STATE)
    assert weights.taken == taken


def torchvision_checkpoint(**more: Any) -> dict[str, Any]:
    """What references/detection/train.py of torchvision saves after each epoch."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.02, momentum=0.9)
    weight.grad = torch.ones(2)
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[16, 22])
    arguments = argparse.Namespace(
        data_path="coco", lr=0.02, lr_steps=[16, 22], device="cuda", output_dir=Path("out")
    )
    return {
        "model": OrderedDict(STATE),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "args": arguments,
        "epoch": 7,
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
        **more,
    }


@pytest.mark.parametrize("is_zip", [True, False])
def test_what_torchvisions_training_script_writes(tmp_path: Path, is_zip: bool) -> None:
    path = saved(
        tmp_path / "m.pth", torchvision_checkpoint(), _use_new_zipfile_serialization=is_zip
    )
    check(path, "the weights under 'model'")


def test_an_average_is_taken_only_where_nothing_else_is_there(tmp_path: Path) -> None:
    average = {"n_averaged": torch.tensor(9), **{f"module.{k}": v for k, v in STATE.items()}}
    other = {name: value + 1 for name, value in average.items()}
    both = saved(tmp_path / "both.pth", torchvision_checkpoint(model_ema=other))
    check(both, "the weights under 'model', not those under 'model_ema'")
    check(saved(tmp_path / "ema.pth", average), "")
    check(saved(tmp_path / "in.pth", {"model_ema": average}), "the weights under 'model_ema'")


@pytest.mark.parametrize("key", ["model", "model_state_dict", "state_dict", "net", "weights"])
@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.",
     "model.module._orig_mod."],
)  # fmt: skip
def test_keys_and_wrappers(tmp_path: Path, key: str, prefix: str) -> None:
    state = {f"{prefix}{name}": value for name, value in STATE.items()}
    check(saved(tmp_path / "a.pt", state), "")
    check(saved(tmp_path / "b.pt", {key: state, "epoch": 3}), f"the weights under '{key}'")


def test_a_checkpoint_inside_of_another_and_a_part_that_was_compiled(tmp_path: Path) -> None:
    compiled = {name.replace("backbone.", "backbone._orig_mod."): v for name, v in STATE.items()}
    path = saved(tmp_path / "a.pt", {"state_dict": {"model": compiled}, "step": torch.tensor(3)})
    check(path, "the weights under 'state_dict.model'")


def test_the_only_state_dict_under_an_unknown_name_is_taken(tmp_path: Path) -> None:
    one = {"generator": STATE, "epoch": 3, "optimizer": {"state": {0: {"m": torch.ones(1)}}}}
    check(saved(tmp_path / "one.pt", one), "the weights under 'generator'")
    two = saved(tmp_path / "two.pt", {"generator": STATE, "discriminator": STATE})
    with pytest.raises(UserError, match=r"weights \(but discriminator, generator\)"):
        read_weights(two)


def test_what_scripts_keep_beside_the_weights_is_passed_over(tmp_path: Path) -> None:
    beside = {
        "best": np.float64(0.5),
        "epoch": np.int64(3),
        "history": np.arange(3),
        "config": types.SimpleNamespace(lr=0.1, path=Path("x")),
    }
    check(saved(tmp_path / "a.pt", {"model": STATE, **beside}), "the weights under 'model'")


def test_the_objects_of_a_file_are_never_made(tmp_path: Path) -> None:
    made: list[object] = []

    class Watched(argparse.Namespace):
        def __setattr__(self, name: str, value: object) -> None:
            made.append(value)
            super().__setattr__(name, value)

    arguments = argparse.Namespace(a=1)
    path = saved(tmp_path / "a.pt", {"model": STATE, "args": arguments})
    before, argparse.Namespace = argparse.Namespace, Watched  # type: ignore[misc]
    try:
        read_state_dict(path)
    finally:
        argparse.Namespace = before  # type: ignore[misc]
    assert not made


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (nn.Linear(2, 2), r"holds 'torch\.nn\.modules\.linear\.Linear', .*model\.state_dict\(\)"),
        ({"model": nn.Linear(2, 2)}, r"holds 'torch\.nn\.modules\.linear\.Linear'"),
        ({"model": STATE, "run": getattr}, "holds 'getattr'"),
        (argparse.Namespace(a=1), "holds a Namespace, not a state dict"),
        ({"optimizer": {"state": {0: {"m": torch.ones(1)}}}}, r"no tensors .*\(but optimizer\)"),
        ({}, "but nothing"),
    ],
)
def test_what_is_refused_is_told_in_a_line_of_our_own(
    tmp_path: Path, content: Any, words: str
) -> None:
    path = saved(tmp_path / "w.pt", content)
    with pytest.raises(UserError, match=rf"w\.pt: .*{words}") as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "\x1b" not in message
    assert "weights_only" not in message


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"PK\3\4" + b"x" * 99, b"<html>" * 30])
def test_a_damaged_file_is_told_in_words_of_our_own(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_state_dict(tmp_path / name)
    assert str(caught.value).endswith("it is damaged, cut short, or of another format")
