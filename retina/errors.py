"""The two kinds of failure that the command line turns into an exit code, and a hint in words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

_MOST_PROBLEMS = 20


class UserError(ValueError):
    """A mistake in what the user gave: one clear message naming the cause and the fix.

    The command line prints the message without a traceback and exits with 2.
    """


class UnreadableImageError(UserError):
    """One image file is missing, damaged, refused, or not the image that was annotated."""


class RunError(RuntimeError):
    """A fault of the machine or of the run (disk full, out of memory, non-finite loss).

    The command line prints the message without a traceback and exits with 3; the last checkpoint
    is intact.
    """


class DivergedError(RunError):
    """The loss or the weights of a training are not finite: the same training would fail again."""


def all_problems(source: str, problems: Sequence[str]) -> str:
    """One message for everything that is wrong with a file: at least one problem."""
    if len(problems) == 1:
        return f"{source}: {problems[0]}"
    shown = "\n".join(f"  {problem}" for problem in problems[:_MOST_PROBLEMS])
    more = len(problems) - _MOST_PROBLEMS
    return f"{source}: {len(problems)} problems\n{shown}" + (
        f"\n  … and {more} more" if more > 0 else ""
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``, did you mean 'x'?`` for the known word that is nearest; empty where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f", did you mean '{near[0]}'?" if near else ""


def one_of(word: str, choices: Sequence[str], option: str) -> Any:
    """``word``, if it is one of the choices; Any, since it fits their Literal type.

    Raises:
        UserError: it is not; names the option, the choices and the nearest of them.
    """
    if word not in choices:
        hint = did_you_mean(word, choices)
        raise UserError(f"{option}: '{word}' is none of {', '.join(choices)}{hint}")
    return word
