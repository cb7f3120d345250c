"""The command line, as a user runs it: train, stop and go on, evaluate, predict."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from tests.cuda.check import Check, Setting  # type: ignore[import-not-found]
from tests.cuda.small import REPOSITORY, write_config  # type: ignore[import-not-found]

SMALL_STEPS, STEPS = 12, 150


def retina(*arguments: object, code: int = 0) -> str:
    """Run a command; returns what it printed.

    Raises:
        AssertionError: it ended with another exit code; with the end of what it said.
    """
    done = subprocess.run(
        _command(arguments), capture_output=True, text=True, check=False, env=_environment()
    )
    said = (done.stdout + done.stderr)[-1500:]
    assert done.returncode == code, f"exit code {done.returncode} of {arguments[0]}: {said}"
    return done.stdout


def _command(arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "retina", *map(str, arguments)]


def _environment() -> dict[str, str]:
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "120"}


def training_of(setting: Setting) -> tuple[list[str], int, Path]:
    """The arguments of a training, its steps, and a folder of images to predict on."""
    common = [f"device={setting.device.type}", f"output_dir={setting.folder / 'run'}"]
    steps = STEPS if setting.is_gpu else SMALL_STEPS
    # A handful of epochs, so that the schedule comes to its end; on a CPU, few and tiny steps.
    common += [f"training.max_steps={steps}", "training.log_every_steps=2"]
    if setting.is_gpu:
        common += ["training.num_workers=4", "training.precision=auto"]
    if setting.data is None:
        config = write_config(setting.folder, setting.device, num_images=48)
        return [str(config), *common, "training.epochs=50"], steps, setting.folder / "data/train"
    data = setting.data.resolve()
    images = data / "JPEGImages"
    files = [
        f"dataset.{split}.{key}={value}"
        for split, name in (("train", "train"), ("validation", "val"), ("test", "test"))
        for key, value in (
            ("images", images),
            ("annotations", data / "Annotations"),
            ("split", data / "ImageSets" / "Main" / f"{name}.txt"),
        )
    ]
    if not setting.is_gpu:
        files += ["preprocess={min_size: 96, max_size: 128}", "training.num_workers=0"]
    return [str(REPOSITORY / "configs" / "bccd.yaml"), *files, *common], steps, images


def check_commands(setting: Setting) -> str:
    """Train, evaluate and predict: the loss falls, the AP is a number, pictures are written."""
    arguments, steps, images = training_of(setting)
    run = setting.folder / "run"
    retina("train", *arguments)
    config = yaml.safe_load((run / "config.yaml").read_text())
    precision = config["training"]["precision"]
    if setting.is_gpu:
        assert precision == "bf16", f"'auto' took {precision}"
    losses = [row["loss"] for row in _log(run, "train")]
    assert all(math.isfinite(loss) for loss in losses), losses
    third = len(losses) // 3
    first, last = (sum(part) / third for part in (losses[:third], losses[-third:]))
    assert last < 0.9 * first, f"the loss went from {first:.4g} to {last:.4g}"

    best, scores = run / "checkpoints" / "best.safetensors", setting.folder / "scores"
    device = ("--device", setting.device.type)
    retina("evaluate", best, "--config", run / "config.yaml", "--output", scores, *device)
    ap = json.loads((scores / "metrics.json").read_text())["AP"]
    assert isinstance(ap, float), f"AP is {ap}"
    assert math.isfinite(ap), f"AP is {ap}"

    pictures = sorted(images.rglob("*.jpg"))[:4]
    found = setting.folder / "found"
    retina("predict", best, *pictures, "--output", found, "--score-threshold", 0.05, *device)
    assert len(list(found.glob("*.jpg"))) == len(pictures) == 4
    json.loads((found / "detections.json").read_text())
    return f"{precision}, {steps} steps, loss {first:.3g} to {last:.3g}, AP {ap:.3f}"


def check_resume_after_sigterm(setting: Setting) -> str:
    """SIGTERM ends a training with exit code 143 and a checkpoint, from which it goes on."""
    arguments, steps, _ = training_of(setting)
    run = setting.folder / "run"
    output = setting.folder / "output.txt"
    with output.open("w") as file:
        training = subprocess.Popen(
            _command(("train", *arguments)), stdout=file, stderr=file, env=_environment()
        )
        try:
            deadline = time.monotonic() + 60
            while training.poll() is None and len(_log(run, "train")) < 2:
                assert time.monotonic() < deadline, f"no step in a minute: {_end(output)}"
                time.sleep(0.02)
            training.send_signal(signal.SIGTERM)
            code = training.wait(timeout=60)
        finally:
            training.kill()
    assert code == 128 + signal.SIGTERM, f"exit code {code}: {_end(output)}"
    stopped = _log(run, "train")[-1]["step"]
    assert 0 < stopped < steps, f"stopped after {stopped} of {steps} steps"
    said = retina("train", *arguments, "--resume")
    assert "resumed at step" in said, said[-500:]
    seen = [row["step"] for row in _log(run, "train")]
    assert seen[-1] == steps
    assert seen == sorted(set(seen)), "a step is in the log twice"
    return f"stopped after step {stopped}, went on to {steps}"


def _log(run: Path, kind: str) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    if not file.exists():
        return []
    lines = file.read_text().split("\n")[:-1]  # the last one may be half-written
    return [row for line in lines if (row := json.loads(line))["kind"] == kind]


def _end(file: Path) -> str:
    return file.read_text()[-1500:]


COMMAND_CHECKS = [
    Check("commands: train, evaluate, predict", check_commands, seconds=180),
    Check("commands: resume after SIGTERM", check_resume_after_sigterm, seconds=180),
]
