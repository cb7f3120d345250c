"""Functions run in processes that have PyTorch imported: each is spared its seconds of start.

They are forked from a server that has only imported things, so nothing else is shared.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import Any

LOADED_ONCE = [
    "retina.experiment",
    "retina.training.trainer",
    "retina.cli.train",
    "albumentations",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "tests.small_detector",
    "tests.processes",
]
PATIENCE = 300.0


def small_retina(*arguments: str) -> None:
    """``retina`` whose configs may name the small backbone."""
    from retina.__main__ import main
    from tests.small_detector import small_backbone_listed  # type: ignore[import-not-found]

    sys.argv = ["retina", *arguments]
    with small_backbone_listed():
        main()


class Launched:
    """A process that runs a function of a module; it is used as a `subprocess.Popen` is.

    It leads a process group of its own.

    Args:
        function: what it runs.
        arguments: of the function.
        environment: what is added to the environment.
        cwd: its working directory.
    """

    def __init__(
        self,
        function: Callable[..., object],
        *arguments: Any,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LOADED_ONCE)
        self._folder = Path(tempfile.mkdtemp())
        self._process = context.Process(
            target=_run,
            args=(
                multiprocessing.get_start_method(),
                *(function, arguments, {**os.environ, **(environment or {})}, cwd, self._folder),
            ),
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code, or minus the signal that ended it."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            self._process.join()
            raise TimeoutExpired(str(self._process), timeout, *self._written())
        return self._process.exitcode

    def communicate(self, timeout: float = PATIENCE) -> tuple[str, str]:
        """What it has written when it has ended."""
        self.wait(timeout)
        written = self._written()
        shutil.rmtree(self._folder)
        return written

    def complete(self, timeout: float = PATIENCE) -> CompletedProcess[str]:
        """How it ended."""
        out, err = self.communicate(timeout)
        return CompletedProcess([], self.wait(), out, err)

    def _written(self) -> tuple[str, str]:
        return (self._folder / "out").read_text(), (self._folder / "err").read_text()


def _run(
    start_method: str,
    function: Callable[..., object],
    arguments: tuple[Any, ...],
    environment: dict[str, str],
    cwd: Path | None,
    folder: Path,
) -> None:
    os.setsid()
    multiprocessing.set_start_method(start_method, force=True)  # for processes that load images
    os.environ.clear()
    os.environ.update(environment)
    for number, name in enumerate(("out", "err"), start=1):
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, number)
    if cwd is not None:
        os.chdir(cwd)
    code: object = 0
    try:
        function(*arguments)
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()  # which multiprocessing would leave out
    sys.exit(code)  # type: ignore[arg-type]


def run_pair(function: Callable[..., object], *arguments: Any) -> CompletedProcess[str]:
    """Run a function in two processes that train together, as ``torchrun`` does.

    As there, an end with an error ends the other one as well. The exit code is that of the first
    with an error, the output that of both.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    pair = [
        Launched(
            function,
            *arguments,
            environment={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    while all(process.poll() is None for process in pair):
        time.sleep(0.02)
    first, second = sorted(pair, key=lambda process: process.poll() is None)
    if first.poll():
        with suppress(TimeoutExpired):
            second.wait(10)
    ends = [process.complete() for process in pair]
    code = first.returncode or second.returncode
    assert code is not None
    return CompletedProcess(
        [], code, "".join(end.stdout for end in ends), "".join(end.stderr for end in ends)
    )
