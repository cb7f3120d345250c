"""Values of fields that decide little, in the ways that tools write them."""

from __future__ import annotations

_FLAGS = {"true": 1, "yes": 1, "1": 1, "1.0": 1, "false": 0, "no": 0, "0": 0, "0.0": 0, "": 0}


def number_of(value: object) -> float | None:
    """A number, or the one that a text spells; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def flag_of(value: object) -> bool | None:
    """Whether a flag is set, which it is not where there is none; None where it makes no sense."""
    if value is None:
        return False
    meaning = _FLAGS.get(value.strip().lower()) if isinstance(value, str) else value
    return bool(meaning) if meaning in (0, 1) else None
