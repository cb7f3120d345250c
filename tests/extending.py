"""What a newcomer's one line does: adds a kind to a union of configs, for the length of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Union

from retina.configuration import Config


@contextmanager
def one_more_kind(
    owner: type[Config], field: str, member: type[Config], *, above: tuple[type[Config], ...]
) -> Iterator[None]:
    """Let a field take one more kind.

    Args:
        owner: the config with the field.
        field: its annotation is a union of configs told apart by their ``kind``.
        member: the new one.
        above: the configs that the owner is a part of, from it upward.
    """
    info = owner.model_fields[field]
    before: Any = info.annotation

    def rebuild(annotation: Any) -> None:
        info.annotation = annotation
        for model in (owner, *above):
            model.model_rebuild(force=True)

    rebuild(Union[before, member])  # noqa: UP007 - the members are values here
    try:
        yield
    finally:
        rebuild(before)
