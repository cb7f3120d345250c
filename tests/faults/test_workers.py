"""Processes that load images: killed, hung, without shared memory. Each ends the training with one
message that names the fix and exit code 3; nothing hangs, and the last checkpoint is whole."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import RawIOBase
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import Dataset
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from retina.datasets.loading import LoaderConfig, SampleLoader
from retina.datasets.worker_faults import fault_of_workers
from retina.errors import RunError
from retina.training.checkpoint import load_state
from tests.conftest import REPOSITORY, SMALL_RETINA  # type: ignore[import-not-found]
from tests.processes import Launched, small_retina  # type: ignore[import-not-found]

PATIENCE = 240.0
"""Seconds after which a training that should have ended counts as hung."""

TERMS = [
    *("training.num_workers=2", "training.epochs=60", "training.checkpoint_every_steps=1"),
    *("training.evaluate_every_epochs=60", "training.anatomy_every_steps=null"),
]


Process = subprocess.Popen[str] | Launched


def start(*arguments: str, launcher: Sequence[str] = ()) -> Process:
    """``retina`` at the head of a process group of its own."""
    if not launcher:
        return Launched(small_retina, *arguments, environment={"COLUMNS": "200"})
    return subprocess.Popen(
        [*launcher, *SMALL_RETINA, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(REPOSITORY)},
    )


@contextmanager
def training(
    config: Path, folder: Path, *terms: str, launcher: Sequence[str] = ()
) -> Iterator[Process]:
    """A training in a process of its own, past its first checkpoint; killed when the block ends."""
    arguments = ["train", str(config), f"output_dir={folder}", *TERMS, *terms]
    process = start(*arguments, launcher=launcher)
    try:
        wait_until((folder / "checkpoints" / "last.pt").exists, process)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(condition: Callable[[], bool], process: Process) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "the training did not come so far"
        time.sleep(0.05)


def workers_of(process: Process) -> list[int]:
    """The process ids of its children; those of a launcher's only child, where there is one."""
    children = [
        int(pid)
        for path in Path(f"/proc/{process.pid}/task").glob("*/children")
        for pid in path.read_text().split()
    ]
    return sorted(children)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def failure_of(process: Process) -> str:
    """The message with which it ended as it should; fails where it hangs."""
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3, error
    assert "Traceback" not in error
    assert error.count("failed:") == 1
    return error


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")


@needs_proc
def test_a_killed_worker_ends_the_training_and_its_checkpoint_is_gone_on_with(
    tiny_config: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with training(tiny_config, folder) as process:
        wait_until(lambda: len(workers_of(process)) == 2, process)
        workers = workers_of(process)
        os.kill(workers[0], signal.SIGKILL)
        message = failure_of(process)
    assert "a process that loads images died" in message
    # Its pid; whether PyTorch says how it died depends on where the training was just then.
    assert re.search(rf"DataLoader worker \(pid(\(s\))? {workers[0]}\)", message)
    assert "lower training.num_workers" in message
    assert not any(map(is_alive, workers))
    step = load_state(folder / "checkpoints" / "last.pt").step
    assert 1 <= step < 180
    again = Launched(small_retina, "train", str(folder / "config.yaml"), "--resume").complete()
    assert again.returncode == 0, again.stderr
    assert f"resumed at step {step}" in again.stdout
    assert load_state(folder / "checkpoints" / "last.pt").step == 180


@pytest.mark.slow
@needs_proc
def test_a_worker_that_hangs_is_noticed_and_killed(tiny_config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with training(tiny_config, folder, "loader.timeout=10") as process:
        wait_until(lambda: len(workers_of(process)) == 2, process)
        workers = workers_of(process)
        os.kill(workers[1], signal.SIGSTOP)  # it answers no signal but SIGKILL now
        message = failure_of(process)
    assert "a process that loads images hangs" in message
    assert "no batch came within 10 s" in message
    assert "raise loader.timeout" in message
    assert not any(map(is_alive, workers))
    assert load_state(folder / "checkpoints" / "last.pt").step >= 1


def own_shared_memory(megabytes: float) -> list[str]:
    """A launcher that gives a process a /dev/shm of its own."""
    mount = f"mount -t tmpfs -o size={int(megabytes * 1024)}k tmpfs /dev/shm"
    launcher = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    try:
        done = subprocess.run([*launcher, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if done.returncode:
        pytest.skip(f"no mount namespace may be made here: {done.stderr.decode().strip()}")
    return launcher


def take_what_is_left(file: RawIOBase) -> None:
    with suppress(OSError):
        while True:
            file.write(bytes(1 << 14))


def wait_until_ended(process: Process, meanwhile: Callable[[], None]) -> None:
    end = time.monotonic() + PATIENCE
    while process.poll() is None:
        meanwhile()
        assert time.monotonic() < end, "the training did not end"
        time.sleep(0.01)


@pytest.mark.slow
@needs_proc
def test_shared_memory_that_fills_up_is_named(tiny_config: Path, tmp_path: Path) -> None:
    folder, launcher = tmp_path / "run", own_shared_memory(64)
    with training(tiny_config, folder, launcher=launcher) as process:
        filler = Path(f"/proc/{process.pid}/root/dev/shm/filler")
        # What a finished batch gives back is taken, too: else there may just be room for the next.
        with filler.open("ab", buffering=0) as file:
            wait_until_ended(process, lambda: take_what_is_left(file))
        message = failure_of(process)
    assert "the shared memory (/dev/shm) is full" in message
    assert "--shm-size" in message
    assert "training.num_workers" in message
    assert load_state(folder / "checkpoints" / "last.pt").step >= 1


@pytest.mark.slow
def test_shared_memory_that_is_full_from_the_start(tiny_config: Path, tmp_path: Path) -> None:
    launcher = own_shared_memory(0.125)
    arguments = ["train", str(tiny_config), f"output_dir={tmp_path / 'run'}", *TERMS]
    message = failure_of(start(*arguments, launcher=launcher))
    assert "the shared memory (/dev/shm) is full" in message


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that "
            "dataloader's workers are out of shared memory. Please try to raise your shared memory "
            "limit.",
            "the shared memory (/dev/shm) is full",
        ),
        (
            "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback …\n"
            "RuntimeError: unable to write to file </torch_7_1_0>: No space left on device (28)",
            "is full (RuntimeError: unable to write to file </torch_7_1_0>",
        ),
        (
            "Caught RuntimeError in DataLoader worker process 1.\nOriginal Traceback …\n"
            "RuntimeError: unable to open shared memory object </torch_7> in read-write mode: Too "
            "many open files (24)",
            "ulimit -n",
        ),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "a process that loads images died"),
    ],
)
def test_what_pytorch_says_becomes_what_to_do(error: str, words: str) -> None:
    assert words in str(fault_of_workers(RuntimeError(error)))


class _Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return index


@needs_proc
@pytest.mark.parametrize(
    "error", [EOFError(), ConnectionResetError(104, "reset"), FileNotFoundError(2, "/tmp/listener")]
)
def test_a_worker_that_dies_while_it_hands_over_a_batch(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the main process reads then comes before the system calls the worker dead."""
    killed: list[int] = []

    def broken_off(iterator: Any, *_: Any, **__: Any) -> None:
        signal_handling._remove_worker_pids(id(iterator))  # type: ignore[attr-defined]
        iterator._worker_pids_set = False  # or its signal would tell of the death, in good time
        killed.append(iterator._workers[1].pid)
        os.kill(killed[0], signal.SIGKILL)
        raise error

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_try_get_data", broken_off)
    with pytest.raises(RunError, match="a process that loads images died") as raised:
        list(SampleLoader(_Numbers(), num_workers=2))
    assert f"(pid(s) {killed[0]})" in str(raised.value)


@needs_proc
def test_an_error_of_a_file_is_no_death(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError(2, "No such file", "photo.jpg")

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_try_get_data", failing)
    for num_workers in (1, 0):
        monkeypatch.setattr(_Numbers, "__getitem__", failing)
        with pytest.raises(FileNotFoundError, match=r"photo\.jpg"):
            list(SampleLoader(_Numbers(), num_workers=num_workers))


def test_no_process_and_no_semaphore_left() -> None:
    assert "cannot be started" in str(
        fault_of_workers(BlockingIOError(11, "Resource temporarily unavailable"))
    )
    assert "/dev/shm" in str(fault_of_workers(OSError(28, "No space left on device")))


def test_other_errors_are_none_of_the_workers() -> None:
    assert fault_of_workers(RuntimeError("CUDA error: an illegal memory access")) is None
    assert fault_of_workers(RuntimeError("[Errno 28] No space left on device")) is None
    assert fault_of_workers(PermissionError(13, "Permission denied")) is None


def test_nothing_is_waited_for_for_ever_by_default() -> None:
    assert LoaderConfig().timeout == 600.0
