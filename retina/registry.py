"""What hangs on the spine, as module paths that are imported on use.

An instrument reaches a training as a hook, and a user as a command. Where its folder is missing, it
is missing here, and everything else works.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

HOOKS = (
    "retina.instruments.doctor.hook",
    "retina.instruments.anatomy.hook",
    "retina.instruments.replay.hook",
)
"""Each has a function ``make_hook(setup)`` that takes a `retina.experiment.setup.TrainingSetup` and
gives a `retina.training.run.Hook`, or None where it is not wanted."""

MEASURES = ("retina.instruments.doctor.recipe",)
"""Each has a function ``measured(recipe, facts, overrides)`` that puts what it measures in the
place of what is only usual, in the config that `retina.experiment.recipe` makes for some data."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the command line.

    Attributes:
        words: how it is called, behind ``retina``; two where it belongs to a group.
        module: its file, whose function ``command`` it is.
        needs: the folder of the instrument that it runs, or None.
    """

    words: tuple[str, ...]
    module: str
    needs: str | None = None


COMMANDS = (
    Command(("init",), "retina.cli.init"),
    Command(("train",), "retina.cli.train"),
    Command(("tune",), "retina.cli.tune", needs="retina.instruments.tuning"),
    Command(("doctor",), "retina.cli.doctor", needs="retina.instruments.doctor"),
    Command(("evaluate",), "retina.cli.evaluate"),
    Command(("compare",), "retina.cli.compare"),
    Command(("thresholds",), "retina.cli.thresholds"),
    Command(("info",), "retina.cli.info"),
    Command(("predict",), "retina.cli.predict"),
    Command(("export",), "retina.cli.export"),
    Command(("serve",), "retina.cli.serve"),
    Command(("data", "synth"), "retina.cli.data_synth"),
    Command(("data", "check"), "retina.cli.data_check"),
    Command(("data", "stats"), "retina.cli.data_stats"),
    Command(("data", "convert"), "retina.cli.data_convert"),
    Command(("data", "split"), "retina.cli.data_split"),
    Command(("data", "fix"), "retina.cli.data_fix"),
    Command(
        ("data", "corrupt"), "retina.cli.data_corrupt", needs="retina.instruments.label_errors"
    ),
    Command(("data", "anchors"), "retina.cli.data_anchors", needs="retina.instruments.doctor"),
    Command(
        ("data", "suspects"), "retina.cli.data_suspects", needs="retina.instruments.label_errors"
    ),
    Command(("loss", "anatomy"), "retina.cli.loss_anatomy", needs="retina.instruments.anatomy"),
    Command(("loss", "lab"), "retina.cli.loss_lab", needs="retina.instruments.anatomy"),
    Command(("debug", "replay"), "retina.cli.debug_replay", needs="retina.instruments.replay"),
    Command(("import", "torchvision"), "retina.cli.import_torchvision"),
)
"""In the order of the help."""


def is_present(module: str) -> bool:
    """Whether a module can be imported; its package is, the module itself is not."""
    try:
        found = find_spec(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the package is there, and what it needs is not
        return False
    return found is not None and found.origin is not None  # else a folder without Python files


def present_commands() -> list[Command]:
    """Those of `COMMANDS` whose file is there, and the instrument that it runs."""
    return [
        command
        for command in COMMANDS
        if is_present(command.module) and (command.needs is None or is_present(command.needs))
    ]
