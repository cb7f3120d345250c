"""Typed, strict configuration from YAML files and dotted overrides.

A config is a tree of frozen pydantic models. It is composed in layers, later ones win:

1. the schema's preset, where the file names one (``preset: NAME``),
2. the file that ``extends: FILE`` names (relative to the file that says so), and so on down,
3. the file itself,
4. the overrides of the command line, ``optimizer.lr=0.005``.

Mappings are merged key by key, with one exception: a mapping whose ``kind`` differs from the one
below replaces it, since the keys of the other kind would mean nothing to it.

YAML is read by the rules of YAML 1.2, so ``1e-4`` is a number and ``no`` and ``on`` are strings.
"""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from retina.errors import UserError

Tree = dict[str, Any]


class ConfigError(UserError):
    """Every problem of one configuration, in one message."""


class Config(BaseModel):
    """The base of every configuration: frozen, strictly typed, unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    presets: ClassVar[Mapping[str, Tree]] = {}
    """Named base layers that a file of this schema may stand on with ``preset: NAME``."""


C = TypeVar("C", bound=Config)

MAX_CHARACTERS = 200_000
"""Of a YAML file; one that is larger is no config."""

MAX_VALUES = 100_000
"""Of a YAML document with its aliases written out: a few lines of them can stand for any number."""

MAX_DEPTH = 50
"""How deep mappings and lists may lie in each other, and how long a chain of ``extends`` may be."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's scalars and without silent duplicate keys."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a string", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which also quotes the strings that YAML 1.2 would read as numbers."""


def _add_scalar(tag: str, pattern: str, first: str) -> None:
    for reader_or_writer in (_Loader, _Dumper):
        reader_or_writer.add_implicit_resolver(tag, re.compile(rf"^(?:{pattern})$"), list(first))


_add_scalar("tag:yaml.org,2002:bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_add_scalar("tag:yaml.org,2002:null", "~|null|Null|NULL|", "~nN")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^$"), [""])
_add_scalar("tag:yaml.org,2002:int", "[-+]?[0-9]+", "-+0123456789")
_add_scalar(
    "tag:yaml.org,2002:float",
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "-+0123456789.",
)

_PLAIN_TAGS = tuple(
    f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")
)


def _refuse_tag(_: yaml.SafeLoader, node: yaml.Node) -> None:
    raise yaml.constructor.ConstructorError(
        None, None, f"the tag {node.tag!r} is not read: a config is plain values", node.start_mark
    )


# The constructors of dates, sets and bytes go too: no key of a config takes one.
_Loader.yaml_constructors = {
    **{tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _PLAIN_TAGS},
    None: _refuse_tag,
}
# YAML 1.2 has no sexagesimal and no octal "010"; PyYAML's constructor would read both.
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


def parse_yaml(text: str, source: str) -> Any:
    """The value of a YAML document.

    Raises:
        ConfigError: the text is no YAML, or too large or too deep for a config; the message names
            ``source``, the line and the column.
    """
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"{source}: longer than {MAX_CHARACTERS} characters; this is no config")
    try:
        value = yaml.load(text, Loader=_Loader)  # a SafeLoader: it builds plain values only
        _count_values(value, source, {}, ())
        return value
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = error.problem or "cannot be parsed"
        raise ConfigError(f"{source}{where}: {problem}") from None
    except ConfigError:
        raise
    except RecursionError:
        raise ConfigError(f"{source}: {_TOO_DEEP}") from None
    except (yaml.YAMLError, LookupError, ValueError, TypeError) as error:
        raise ConfigError(f"{source}: not readable as YAML: {error}") from None


_TOO_DEEP = f"mappings or lists lie more than {MAX_DEPTH} deep in each other"


def _count_values(value: Any, source: str, counted: dict[int, int], above: tuple[int, ...]) -> int:
    """How many values a document holds with its aliases written out.

    Args:
        value: a part of the document.
        source: of the document, for the message.
        counted: the counts of the parts done, by their identity: an alias is its anchor's object.
        above: the identities of the parts that this one lies in.

    Raises:
        ConfigError: there are too many, they lie too deep or in themselves, or text holds a NUL.
    """
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(
            f"{source}: {value[:60]!r} holds a NUL character, which no text or path may"
        )
    if not isinstance(value, dict | list):
        return 1
    if id(value) in above:
        raise ConfigError(f"{source}: an alias stands inside its own anchor")
    if len(above) >= MAX_DEPTH:
        raise ConfigError(f"{source}: {_TOO_DEEP}")
    if id(value) not in counted:
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        inside = (*above, id(value))
        total = 1 + sum(_count_values(part, source, counted, inside) for part in parts)
        if total > MAX_VALUES:
            raise ConfigError(
                f"{source}: stands for more than {MAX_VALUES} values with its aliases written out; "
                "this is no config"
            )
        counted[id(value)] = total
    return counted[id(value)]


def merge(base: Any, top: Any) -> Any:
    """``top`` laid over ``base``; see the module's docstring for the rule."""
    if not (isinstance(base, dict) and isinstance(top, dict)):
        return top
    if "kind" in top and top["kind"] != base.get("kind", top["kind"]):
        return top
    merged = dict(base)
    for key, value in top.items():
        merged[key] = merge(base[key], value) if key in base else value
    return merged


def read_tree(path: Path | str) -> Tree:
    """The raw content of a YAML file, merged over the files that it extends.

    Raises:
        ConfigError: a file is missing or no YAML mapping, or the files extend each other in a ring.
    """
    return _read_tree(Path(path), ())


def _read_tree(path: Path, above: tuple[Path, ...]) -> Tree:
    here = path.resolve()
    if here in above:
        raise ConfigError(f"{path}: 'extends' leads back to this file")
    if len(above) >= MAX_DEPTH:
        raise ConfigError(f"{path}: more than {MAX_DEPTH} files extend each other")
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    tree = parse_yaml(text, str(path))
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys to values, this is not one")
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str):
        raise ConfigError(f"{path}: extends: must be the path of one file, not {base!r}")
    below = _read_tree(path.parent / base, (*above, here))
    merged: Tree = merge(below, tree)
    return merged


def apply_override(tree: Tree, override: str) -> Tree:
    """``tree`` with one ``dotted.path=value`` laid over it; the value is read as YAML.

    Raises:
        ConfigError: there is no ``=``, or the path leads through something that is no mapping.
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys) or len(keys) > MAX_DEPTH:
        raise ConfigError(
            f"'{override}' is no override: write key=value, for example optimizer.lr=0.005"
        )
    value = parse_yaml(text, f"the value of the override '{override}'")
    changed: Tree = _with(tree, keys, value, override)
    return changed


def _with(node: Any, keys: Sequence[str], value: Any, override: str) -> Any:
    if not keys:
        # An override of a whole object is laid over what is there, like a file's mapping.
        return merge(node, value)
    key, rest = keys[0], keys[1:]
    if isinstance(node, list):
        if not key.isdigit() or int(key) >= len(node):
            raise ConfigError(
                f"'{override}': '{key}' is no position of a list with {len(node)} entries (from 0)"
            )
        copy = list(node)
        copy[int(key)] = _with(node[int(key)], rest, value, override)
        return copy
    if node is None:
        node = {}
    if not isinstance(node, dict):
        raise ConfigError(f"'{override}': the key before '{key}' holds {node!r}, not a mapping")
    if key == "kind" and not rest:
        return merge(node, {"kind": value})
    return {**node, key: _with(node.get(key), rest, value, override)}


def load_config(path: Path | str, overrides: Sequence[str], schema: type[C]) -> C:
    """Read, compose and validate a config file.

    Args:
        path: the YAML file.
        overrides: ``dotted.path=value`` each, applied in order.
        schema: the model to validate against.

    Raises:
        ConfigError: with every problem of the file in one message.
    """
    tree = read_tree(path)
    # The preset comes first, wherever it was named: the other overrides lie over its keys.
    for override in sorted(overrides, key=lambda text: not text.startswith("preset=")):
        if not override.startswith("preset="):
            tree = _with_default_kinds(_on_preset(tree, schema, str(path)), schema)
        tree = apply_override(tree, override)
    return validate(tree, schema, source=str(path))


def validate(tree: Any, schema: type[C], *, source: str) -> C:
    """The typed config of a raw tree; ``source`` names it in the error message.

    Raises:
        ConfigError: with every problem in one message.
    """
    tree = _with_default_kinds(_on_preset(tree, schema, source), schema)
    try:
        # JSON mode: strict types, yet a list may become a tuple and a string a path.
        return schema.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        lines = [_explain(problem, schema) for problem in error.errors(include_url=False)]
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        body = "\n".join(f"  {line}" for line in lines)
        raise ConfigError(f"{source}: {count}\n{body}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: {error}") from None


def _on_preset(tree: Any, schema: type[Config], source: str) -> Any:
    name = tree.get("preset") if isinstance(tree, dict) else None
    if name is None or not schema.presets:
        return tree
    if not isinstance(name, str) or name not in schema.presets:
        known = ", ".join(schema.presets)
        raise ConfigError(
            f"{source}: 1 problem\n  preset: there is no preset {name!r}"
            f"{_did_you_mean(str(name), list(schema.presets))}; known: {known}"
        )
    return merge(schema.presets[name], tree)


def _with_default_kinds(tree: Any, schema: type[BaseModel]) -> Any:
    """``tree`` with the ``kind`` of each field's default where a mapping does not say one.

    So ``optimizer: {lr: 0.1}`` changes the default optimizer instead of being no optimizer at all.
    """
    if not isinstance(tree, dict):
        return tree
    filled = dict(tree)
    for name, field in schema.model_fields.items():
        value = filled.get(name)
        if not isinstance(value, dict):
            continue
        if field.discriminator == "kind" and "kind" not in value:
            default = field.get_default(call_default_factory=True)
            if isinstance(default, BaseModel):
                value = {"kind": getattr(default, "kind", None), **value}
        inner = _unwrap(field.annotation)
        if field.discriminator == "kind":
            inner = _union_member(inner, value.get("kind", ""))
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            value = _with_default_kinds(value, inner)
        filled[name] = value
    return filled


def to_yaml(config: Config) -> str:
    """The config as YAML with every field; reading it back gives an equal config."""
    tree = config.model_dump(mode="json")
    return yaml.dump(
        tree, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True
    )


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f", did you mean '{near[0]}'?" if near else ""


def _explain(problem: Any, schema: type[Config]) -> str:
    """One line for one pydantic problem: path, what is wrong, the value, the nearest name."""
    path, owner = _locate(problem["loc"], schema)
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}…"
    if kind == "extra_forbidden":
        known = list(owner.model_fields) if owner is not None else []
        name = str(problem["loc"][-1])
        hint = _did_you_mean(name, known) or (f"; known here: {', '.join(known)}" if known else "")
        return f"{path}: unknown key{hint} (value {shown})"
    if kind == "missing":
        return f"{path}: this key is required"
    if kind in ("literal_error", "union_tag_invalid"):
        word = str(context.get("tag", value))
        expected = context.get("expected", context.get("expected_tags", ""))
        hint = _did_you_mean(word, re.findall(r"'([^']*)'", expected))
        where = f"{path}.kind" if kind == "union_tag_invalid" else path
        return f"{where}: '{word}' is none of {expected}{hint}"
    if kind == "union_tag_not_found":
        return f"{path}: a key 'kind' must say which one (value {shown})"
    message = str(context["error"]) if kind == "value_error" else problem["msg"]
    message = message[:1].lower() + message[1:]
    if kind == "value_error" and not path:
        return message
    return f"{path or 'the config'}: {message} (value {shown})"


def _locate(loc: Sequence[str | int], schema: type[Config]) -> tuple[str, type[BaseModel] | None]:
    """The dotted path of a problem, without union tags, and the model that owns its last key."""
    path: list[str] = []
    current: Any = schema
    owner: type[BaseModel] | None = schema
    for step in loc:
        current = _unwrap(current)
        if isinstance(current, type) and issubclass(current, BaseModel):
            owner = current
            field: FieldInfo | None = current.model_fields.get(str(step))
            current = field.annotation if field is not None else None
            path.append(str(step))
            continue
        member = _union_member(current, step)
        if member is not None:
            current = member
            if isinstance(member, type) and issubclass(member, BaseModel):
                owner = member
            continue
        arguments = get_args(current)
        if get_origin(current) is dict and len(arguments) == 2:
            current = arguments[1]
        elif arguments:
            position = step if isinstance(step, int) and step < len(arguments) else 0
            current = arguments[position] if arguments[-1] is not Ellipsis else arguments[0]
        if arguments or isinstance(step, int):
            path.append(str(step))
    return ".".join(path), owner


def _unwrap(annotation: Any) -> Any:
    """Strip ``Annotated`` and ``| None`` where one meaning is left."""
    while True:
        if isinstance(annotation, typing.TypeAliasType if hasattr(typing, "TypeAliasType") else ()):
            annotation = annotation.__value__
        elif get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (typing.Union, types.UnionType):
            members = [member for member in get_args(annotation) if member is not type(None)]
            if len(members) != 1:
                return annotation
            annotation = members[0]
        else:
            return annotation


def _union_member(annotation: Any, step: str | int) -> Any:
    """The member of a union that pydantic names with ``step`` in a location, or None."""
    if get_origin(annotation) not in (typing.Union, types.UnionType):
        return None
    for member in get_args(annotation):
        plain = _unwrap(member)
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
