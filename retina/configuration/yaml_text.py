"""YAML by the rules of version 1.2, as plain values and within bounds."""

from __future__ import annotations

import re
import sys
from typing import Any, ClassVar

import yaml

from retina.configuration.errors import ConfigError
from retina.wording import first_line

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
    refused = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if refused is not None:
        raise ConfigError(f"{source}: {_not_text(refused[0])}")
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
        raise ConfigError(f"{source}: not readable as YAML: {first_line(error)}") from None


def _not_text(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # PEP 383: how Python holds a byte that it cannot read
        return (
            "holds bytes that are no text in this system's encoding "
            f"({sys.getfilesystemencoding()}); set PYTHONUTF8=1, or take another name"
        )
    return f"holds the character U+{ord(character):04X}, which YAML does not allow"


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


def dump_yaml(tree: Any) -> str:
    """Plain values as YAML; reading it back gives equal ones."""
    return yaml.dump(
        tree, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True
    )
