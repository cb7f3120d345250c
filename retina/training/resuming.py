"""What a resumed training goes on from, and whether its config still means the same training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retina.configuration import Tree, differences, parse_yaml, validate
from retina.distributed import broadcast_object, is_main_process
from retina.errors import UserError
from retina.modeling.pretrained import WeightOrigin
from retina.training.checkpoint import TrainingState, load_state, previous_of
from retina.training.run_folder import LAST_STATE

REFUSED = {
    "model": "the weights would get another meaning",
    "optimizer.kind": "its state would get another meaning",
    "preprocess": "the weights were trained on other inputs",
    "seed": "the position in the epoch would mean other images",
    "sampling": "the position in the epoch would mean other images",
    "training.batch_size": "the position in the epoch would mean other images",
}
"""Keys, also those below them, that may not change between two parts of a training, and why."""

SWITCHES = {"training.average_decay": "the average of the weights would begin, or be lost, midway"}
"""Keys that may change, but not from or to null, and why."""

ALLOWED = ("model.initialize_from", "model.backbone.weights")
"""What would be below `REFUSED`, but serves the start alone."""


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """A training state that a run goes on from.

    Attributes:
        state: everything.
        path: its file.
        passed_over: why a newer one was not taken, or empty.
    """

    state: TrainingState
    path: Path
    passed_over: str = ""

    def config(self) -> Tree:
        """The resolved config of the run, as it was when the state was written.

        Raises:
            UserError: it is none.
        """
        tree = parse_yaml(self.state.config, str(self.path))
        if not isinstance(tree, dict) or not isinstance(tree.get("training", {}), dict):
            raise UserError(f"{self.path}: not a training state of this project: it has no config")
        return tree

    def origin(self) -> WeightOrigin | None:
        """Where the weights are from that the training began with; None for random ones.

        Raises:
            UserError: the state does not say it as it should.
        """
        known = self.state.pretrained
        return None if known is None else validate(known, WeightOrigin, source=str(self.path))


def find_resume_point(last: Path) -> ResumePoint | None:
    """The newest training state that is whole, or None where there is none; all ranks must call it.

    A damaged newest one is renamed to ``last.damaged``: the next one that is saved would make it
    the state before, in the place of the only good one.

    Args:
        last: where the newest is.

    Raises:
        UserError: there are states, and none can be read.
    """
    found: tuple[Path | None, str, str] = (None, "", "")
    if is_main_process():
        found = _newest(path for path in (last, previous_of(last)) if path.exists())
    path, passed_over, failure = broadcast_object(found)
    if failure:
        raise UserError(failure)
    if passed_over and is_main_process():
        last.replace(last.with_suffix(".damaged"))
    return None if path is None else ResumePoint(load_state(path), path, passed_over)


def _newest(paths: Iterable[Path]) -> tuple[Path | None, str, str]:
    problems = []
    for path in paths:
        try:
            load_state(path)
        except UserError as error:
            problems.append(str(error))
        else:
            return path, "; ".join(problems), ""
    return None, "", "; ".join(problems)


def where_it_begins(folder: Path, point: ResumePoint | None) -> tuple[str, ...]:
    """What is not as one may think when a training is resumed, a line each.

    Args:
        folder: the run folder.
        point: the state in it, or None where there is none.

    Raises:
        UserError: the state has no config.
    """
    if point is None:
        return (
            f"nothing to resume: {folder} holds no checkpoint ({folder / LAST_STATE}), so the "
            "training starts at step 0",
        )
    before = Path(str(point.config().get("output_dir", folder)))
    if before.resolve() == folder.resolve():
        return ()
    return (
        f"the run was moved: its last checkpoint was written in {before}, it goes on in {folder}",
    )


def changes_since(point: ResumePoint, config: str) -> tuple[str, ...]:
    """What a config says otherwise than that of the training state, a line for each key.

    The run folder is left out: `where_it_begins` is about it.

    Args:
        point: the state to go on from.
        config: the resolved config as YAML.

    Raises:
        UserError: a change would make the two parts different trainings; names key and reason.
    """
    changed = differences(point.config(), parse_yaml(config, "the config"))
    changed.pop("output_dir", None)
    lines = {key: f"{key}: {old} → {new}" for key, (old, new) in changed.items()}
    reasons = {key: _refusal(key, *values) for key, values in changed.items()}
    wrong = [f"{lines[key]} ({reason})" for key, reason in reasons.items() if reason]
    if wrong:
        raise UserError(
            f"{point.path}: cannot be resumed with this config: {'; '.join(wrong)}. Resume with "
            "the run's own config.yaml, or give another output_dir; to start from its weights, "
            f"model.initialize_from={point.path.with_name('last.safetensors')}"
        )
    return tuple(lines.values())


def _refusal(key: str, old: Any, new: Any) -> str:
    """Why a key may not change from one value to another; empty where it may."""
    if _is_under(key, ALLOWED):
        return ""
    if key in SWITCHES and (old is None) != (new is None):
        return SWITCHES[key]
    return next((reason for refused, reason in REFUSED.items() if _is_under(key, [refused])), "")


def _is_under(key: str, prefixes: Iterable[str]) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)
