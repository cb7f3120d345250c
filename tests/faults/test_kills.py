"""``kill -9`` at any moment loses nothing that was saved, and a resume ends as if nothing were."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from retina.artifact import load_artifact
from retina.training.checkpoint import load_state
from tests.conftest import Invoke  # type: ignore[import-not-found]
from tests.faults.doomed import train  # type: ignore[import-not-found]
from tests.faults.run_folders import (  # type: ignore[import-not-found]
    EVERYTHING_ON,
    assert_same_training,
    stop_after,
)

OPTIONS = [*EVERYTHING_ON, "training.checkpoint_every_steps=1", "training.pictures=1"]
KILLED = -9


@pytest.fixture(scope="module")
def undisturbed(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody killed."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    code, output = train([str(tiny_config), f"output_dir={run}", *OPTIONS])
    assert code == 0, output
    return run


def assert_whole(run: Path) -> None:
    """Every file under its own name can be read."""
    for path in (run / "checkpoints").glob("*.pt"):
        load_state(path)
    for path in (run / "checkpoints").glob("*.safetensors"):
        load_artifact(path)


def kill_and_resume(
    tiny_config: Path, folder: Path, undisturbed: Path, *, kills: int, in_writes: bool, seed: int
) -> None:
    """Trainings, each killed until it is through, until so many kills are done."""
    generator = random.Random(seed)
    done = trainings = 0
    while done < kills:
        run = folder / f"run{trainings}"
        trainings += 1
        arguments = [str(tiny_config), f"output_dir={run}", *OPTIONS, "--resume"]
        code, output = KILLED, ""
        while code == KILLED:
            doom = {}
            if done < kills and in_writes:
                doom = {"at_write": generator.randint(1, 30)}
            elif done < kills:
                doom = {"after": generator.uniform(0.1, 2.5)}
            code, output = train(arguments, **doom)
            done += code == KILLED
            assert_whole(run)
        assert code == 0, output
        assert_same_training(undisturbed, run)
    print(f"{done} kills in {trainings} trainings")


@pytest.mark.parametrize("in_writes", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_few_kills(in_writes: bool, tiny_config: Path, undisturbed: Path, tmp_path: Path) -> None:
    kill_and_resume(tiny_config, tmp_path, undisturbed, kills=2, in_writes=in_writes, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("in_writes", [True, False])
def test_fifty_kills(in_writes: bool, tiny_config: Path, undisturbed: Path, tmp_path: Path) -> None:
    kill_and_resume(tiny_config, tmp_path, undisturbed, kills=25, in_writes=in_writes, seed=2)


def test_a_damaged_newest_checkpoint_costs_one_step(
    invoke: Invoke, tiny_config: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = [f"output_dir={run}", *OPTIONS]
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 4, signal.SIGTERM)
        assert invoke("train", tiny_config, *options).code == 143
    last = run / "checkpoints" / "last.pt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    done = invoke("train", tiny_config, *options, "--resume")
    assert done.code == 0, done.err
    assert "last.pt: not a readable training state: the record" in done.out
    assert "resumed at step 3" in done.out
    assert_same_training(undisturbed, run)
