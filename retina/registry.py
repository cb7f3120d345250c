"""What hangs on the spine, as module paths that are imported on use.

An instrument reaches a training as a hook, and a user as a command. Where its folder is missing, it
is missing here, and everything else works.
"""

from __future__ import annotations

from importlib.util import find_spec

HOOKS = (
    "retina.instruments.doctor.hook",
    "retina.instruments.anatomy.hook",
    "retina.instruments.replay.hook",
)
"""Each has a function ``make_hook(setup)`` that takes a `retina.experiment.setup.TrainingSetup` and
gives a `retina.training.hooks.Hook`, or None where it is not wanted."""


def is_present(module: str) -> bool:
    """Whether a module can be imported; its package is, the module itself is not."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its package is missing
        return False
