import dataclasses
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from retina.errors import UserError
from retina.training.checkpoint import load_state, previous_of, save_state
from retina.training.generators import restore_generators
from tests.training.states import make_state  # type: ignore[import-not-found]


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.pt"
    save_state(make_state(), path)
    state = load_state(path)
    assert (state.step, state.steps_per_epoch, state.best_metric) == (7, 5, 0.5)
    assert state.is_evaluated
    assert torch.equal(state.detector["w"], torch.arange(3.0))
    assert state.log == {"metrics.jsonl": 120}
    assert list(path.parent.iterdir()) == [path]


def test_the_generators_go_on_where_they_were(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    draw()
    save_state(make_state(), tmp_path / "last.pt")
    wanted = draw()
    draw()
    (states,) = load_state(tmp_path / "last.pt").generators
    restore_generators(states)
    assert draw() == wanted


def test_the_state_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    for step in (1, 2, 3):
        save_state(dataclasses.replace(make_state(), step=step), path)
    assert (load_state(path).step, load_state(previous_of(path)).step) == (3, 2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


def test_every_flipped_byte_of_the_weights_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    state = make_state()
    save_state(state, path)
    whole = path.read_bytes()
    start = whole.index(state.detector["w"].numpy().tobytes())
    for offset in range(12):
        damaged = bytearray(whole)
        damaged[start + offset] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged"):
            load_state(path)


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "owned"),))  # type: ignore[return-value]

    path = tmp_path / "last.pt"
    path.write_bytes(pickle.dumps({"config": Evil()}))
    with pytest.raises(UserError, match=r"last\.pt: not a readable training state"):
        load_state(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"PK\x03\x04 half a file"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"last\.pt"):
        load_state(path)


def test_another_programs_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save({"model": {}}, path)
    with pytest.raises(UserError, match="not a training state of this project"):
        load_state(path)
