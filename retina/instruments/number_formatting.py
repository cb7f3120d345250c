"""How γ and α are written, in folder names, tables and figures."""

from __future__ import annotations


def shown(value: float | None) -> str:
    """``2``, ``0.25`` or ``none``; two values are never written alike."""
    if value is None:
        return "none"
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def off_is_none(alpha: float | None) -> float | None:
    """An α of 1 weighs nothing, as None does: one loss, one name."""
    return None if alpha == 1 else alpha
