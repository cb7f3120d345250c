"""What a newcomer's one line does: lists one more kind of config, for the length of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from retina.configuration import Config, OneOf


@contextmanager
def one_more_kind(
    owner: type[Config], field: str, member: type[Config], *, above: tuple[type[Config], ...]
) -> Iterator[None]:
    """Let a field take one more kind.

    Args:
        owner: the config with the field, which is marked `OneOf`.
        field: its name.
        member: the new kind.
        above: the configs that the owner is a part of, from it upward.
    """
    (mark,) = (mark for mark in owner.model_fields[field].metadata if isinstance(mark, OneOf))
    before = mark.kinds

    def rebuild(kinds: tuple[type[Config], ...]) -> None:
        mark.kinds = kinds
        for model in (owner, *above):
            model.model_rebuild(force=True)

    rebuild((*before, member))
    try:
        yield
    finally:
        rebuild(before)
