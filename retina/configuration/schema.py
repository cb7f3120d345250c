"""What every config is made of, and how one is told from another by its ``kind``."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
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
    )

    preset_folder: ClassVar[Path | None] = None
    """Where the files lie that a file of this schema may stand on with ``preset: NAME``."""

    removed: ClassVar[Mapping[str, str]] = {}
    """Keys that files of other versions may have, and why they went."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """With the docstring behind each key.

        They are read here and not by pydantic (``use_attribute_docstrings``), which does so where a
        class is made: a third of the time that importing this package took.
        """
        made = handler(schema)
        keys = handler.resolve_ref_schema(made).get("properties", {})
        for name, text in _docstrings(cls).items():
            if name in keys:
                keys[name]["description"] = text
        return made


def _docstrings(model: type[Config]) -> dict[str, str]:
    """What stands behind each key of a config, where it, or the base that has the key, says so."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__[: model.__mro__.index(Config)]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(tree, ast.ClassDef)
        for one, behind in itertools.zip_longest(tree.body, tree.body[1:]):
            if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                found.pop(one.target.id, None)
                match behind:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        found[one.target.id] = inspect.cleandoc(text)
    return found


class OneOf:
    """Says that a field takes one of several configs, told apart by their ``kind``.

    In ``Annotated[Base, OneOf(A, B)]`` a type checker sees ``Base``: only what stands there can be
    read of the field. Another kind is one more argument, and one alone is enough (pydantic's own
    discriminator wants two).

    Args:
        kinds: the configs.
        default: the ``kind`` that is meant where a mapping gives none; None makes it required.
        by_key: keys that alone say which config a mapping is, whatever its ``kind``; and the kind
            of that config.
    """

    def __init__(
        self,
        *kinds: type[Config],
        default: str | None = None,
        by_key: Mapping[str, str] | None = None,
    ) -> None:
        self.kinds = kinds
        self.default = default
        self.by_key = by_key or {}

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {
            tag: handler.generate_schema(kind) for kind in self.kinds for tag in kinds_of(kind)
        }
        discriminator = "kind" if self.default is None else self.kind_of
        return core_schema.tagged_union_schema(choices, discriminator=discriminator)

    def kind_of(self, value: Any) -> Any:
        """The kind of a mapping, or of a config that is validated already."""
        if isinstance(value, dict):
            by_key = (kind for key, kind in self.by_key.items() if value.get(key) is not None)
            return next(by_key, value.get("kind", self.default))
        own = (kinds_of(kind)[0] for kind in self.kinds if type(value) is kind)
        return next(own, getattr(value, "kind", self.default))


def kinds_of(config: type[BaseModel]) -> tuple[str, ...]:
    """The values of ``kind`` that mean a config: of its Literal, or else the default."""
    field = config.model_fields["kind"]
    return get_args(field.annotation) or (field.default,)


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
        has_kind = "kind" in plain.model_fields
        if plain.__name__ == step or (has_kind and step in kinds_of(plain)):
            return plain
    return None
