"""Options that take one of a few words."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from retina.errors import UserError


def one_of(word: str, choices: Sequence[Any], option: str) -> Any:
    """``word``, if it is one of the choices.

    Raises:
        UserError: it is not; names the option, the choices and the nearest of them.
    """
    if word in choices:
        return word
    near = difflib.get_close_matches(word, choices, n=1)
    hint = f", did you mean '{near[0]}'?" if near else ""
    raise UserError(f"{option}: '{word}' is none of {', '.join(choices)}{hint}")
