"""What every config is made of, and how one is told from another by its ``kind``."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

Tree = dict[str, Any]
"""A config before it is validated: what YAML gives."""


class Config(BaseModel):
    """The base of every configuration: frozen, strictly typed, unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    preset_folder: ClassVar[Path | None] = None
    """Where the files lie that a file of this schema may stand on with ``preset: NAME``."""

    removed: ClassVar[Mapping[str, str]] = {}
    """Keys that files of other versions may have, and why they went."""


class OneOf:
    """Says that a field takes one of several configs, told apart by their ``kind``.

    In ``Annotated[Base, OneOf(A, B)]`` a type checker sees ``Base``: only what stands there can be
    read of the field. Another kind is one more argument, and one alone is enough (pydantic's own
    discriminator wants two).

    Args:
        kinds: the configs.
        default: the ``kind`` that is meant where a mapping gives none; None makes it required.
    """

    def __init__(self, *kinds: type[Config], default: str | None = None) -> None:
        self.kinds = kinds
        self.default = default

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {
            tag: handler.generate_schema(kind)
            for kind in self.kinds
            for tag in get_args(kind.model_fields["kind"].annotation)
        }
        discriminator = "kind" if self.default is None else self._kind_of
        return core_schema.tagged_union_schema(choices, discriminator=discriminator)

    def _kind_of(self, value: Any) -> Any:
        if isinstance(value, dict):
            return value.get("kind", self.default)
        return getattr(value, "kind", self.default)


def field_type(field: FieldInfo) -> Any:
    """The annotation of a field; its `OneOf` where it has one, which says more."""
    return next((mark for mark in field.metadata if isinstance(mark, OneOf)), field.annotation)


def has_kinds(field: FieldInfo) -> bool:
    """Whether a mapping in this field says by its ``kind`` which config it is."""
    return field.discriminator == "kind" or isinstance(field_type(field), OneOf)


def unwrap(annotation: Any) -> Any:
    """Strip ``Annotated`` and ``| None`` where one meaning is left; a `OneOf` is left over."""
    while True:
        if isinstance(annotation, typing.TypeAliasType if hasattr(typing, "TypeAliasType") else ()):
            annotation = annotation.__value__
        elif get_origin(annotation) is Annotated:
            marks = (mark for mark in get_args(annotation)[1:] if isinstance(mark, OneOf))
            annotation = next(marks, get_args(annotation)[0])
        elif get_origin(annotation) in (typing.Union, types.UnionType):
            members = [member for member in get_args(annotation) if member is not type(None)]
            if len(members) != 1:
                return annotation
            annotation = members[0]
        else:
            return annotation


def union_member(annotation: Any, step: str | int) -> Any:
    """The member of a union that pydantic names with ``step`` in a location, or None."""
    if isinstance(annotation, OneOf):
        members: tuple[Any, ...] = annotation.kinds
    elif get_origin(annotation) in (typing.Union, types.UnionType):
        members = get_args(annotation)
    else:
        return None
    for member in members:
        plain = unwrap(member)
        if not (isinstance(plain, type) and issubclass(plain, BaseModel)):
            if getattr(plain, "__name__", None) == step or str(step).startswith(
                getattr(get_origin(plain), "__name__", "\0")
            ):
                return plain
            continue
        kind = plain.model_fields.get("kind")
        if plain.__name__ == step or (kind is not None and step in get_args(kind.annotation)):
            return plain
    return None
