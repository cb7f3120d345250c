"""The two kinds of failure that the command line turns into an exit code, and checks of arguments.

The checks are for what a program may give from Python, where nothing else looks at the types.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from operator import index
from os import PathLike, fspath
from pathlib import Path
from typing import Any

_MOST_PROBLEMS = 20


class UserError(ValueError):
    """A mistake in what the user gave: one clear message naming the cause and the fix.

    The command line prints the message without a traceback and exits with 2.
    """


class UnreadableImageError(UserError):
    """One image file is missing, damaged, refused, or not the image that was annotated."""


class TooManyPixelsError(UnreadableImageError):
    """By its head, an image has more pixels than are decoded."""


class RunError(RuntimeError):
    """A fault of the machine or of the run (disk full, out of memory, non-finite loss).

    The command line prints the message without a traceback and exits with 3; the last checkpoint
    is intact.
    """


class DivergedError(RunError):
    """The loss or the weights of a training are not finite: the same training would fail again."""


def all_problems(source: str, problems: Sequence[str]) -> str:
    """One message for everything that is wrong with a file or folder.

    Args:
        source: the file or folder.
        problems: at least one sentence; each may begin with the place itself.
    """
    if len(problems) == 1:
        only = problems[0]
        return only if only.startswith(source) else f"{source}: {only}"
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


def path_given(given: object, argument: str) -> Path:
    """``given`` as a path.

    Raises:
        UserError: it is none; names the argument.
    """
    plain = fspath(given) if isinstance(given, str | PathLike) else None
    if isinstance(plain, str):
        return Path(plain)
    raise UserError(f"{argument}: {_shown(given)} is no path; give one as text or a Path")


def list_given(given: object, argument: str) -> list[Any]:
    """``given`` as a list; a text alone would be read letter by letter.

    Raises:
        UserError: it is a text or no list; names the argument.
    """
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        return list(given)
    raise UserError(f"{argument}: {_shown(given)} is no list; put what is meant into [ ]")


def count_given(given: object, argument: str, *, least: int) -> int:
    """``given`` as a whole number.

    Raises:
        UserError: it is none, or less than ``least``; names the argument.
    """
    try:
        count = index(given)  # type: ignore[arg-type]
    except TypeError:
        count = least - 1
    if count < least or isinstance(given, bool):
        raise UserError(f"{argument}: {_shown(given)} is no whole number from {least} on")
    return count


def _shown(given: object) -> str:
    is_short = given is None or isinstance(given, str | bytes | int | float)
    return repr(given) if is_short else f"a {type(given).__name__}"
