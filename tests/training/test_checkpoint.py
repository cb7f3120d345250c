import pickle
from pathlib import Path

import pytest
import torch

from retina.errors import UserError
from retina.training.checkpoint import TrainingState, load_state, save_state


def make_state() -> TrainingState:
    return TrainingState(
        config="seed: 0\n",
        step=7,
        steps_per_epoch=5,
        is_evaluated=True,
        detector={"w": torch.arange(3.0)},
        criterion={},
        optimizer={"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 0.1}]},
        scaler={},
        average=None,
        best_metric=0.5,
        epochs_without_gain=1,
        rng_state=torch.get_rng_state(),
    )


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.pt"
    save_state(make_state(), path)
    state = load_state(path)
    assert (state.step, state.steps_per_epoch, state.best_metric) == (7, 5, 0.5)
    assert state.is_evaluated
    assert torch.equal(state.detector["w"], torch.arange(3.0))
    assert torch.equal(state.rng_state, torch.get_rng_state())
    assert list(path.parent.iterdir()) == [path]


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
