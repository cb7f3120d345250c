"""Every problem of a config in one message: its path, what is wrong, and the nearest name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from retina.configuration.schema import Config, field_type, union_member, unwrap
from retina.errors import UserError, did_you_mean
from retina.wording import counted


class ConfigError(UserError):
    """Every problem of one configuration, in one message."""


def explained(error: ValidationError, schema: type[Config], source: str) -> ConfigError:
    """What pydantic found in the config of that source, in words."""
    lines = [_explain(problem, schema) for problem in error.errors(include_url=False)]
    count = counted(len(lines), "problem")
    body = "\n".join(f"  {line}" for line in lines)
    return ConfigError(f"{source}: {count}\n{body}")


def _explain(problem: Any, schema: type[Config]) -> str:
    """One line for one pydantic problem: path, what is wrong, the value, the nearest name."""
    path, owner = _locate(problem["loc"], schema)
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}…"
    if kind == "extra_forbidden":
        known = list(owner.model_fields) if owner is not None else []
        name = str(problem["loc"][-1])
        removed: Mapping[str, str] = getattr(owner, "removed", {})
        if name in removed:
            return (
                f"{path}: was removed, so that this file is of another version of retina; delete "
                f"the key: {removed[name]}"
            )
        hint = did_you_mean(name, known) or (f"; known here: {', '.join(known)}" if known else "")
        return f"{path}: unknown key{hint} (value {shown})"
    if kind == "missing":
        return f"{path}: this key is required"
    if kind in ("literal_error", "union_tag_invalid"):
        word = str(context.get("tag", value))
        expected = context.get("expected", context.get("expected_tags", ""))
        hint = did_you_mean(word, re.findall(r"'([^']*)'", expected))
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
        current = unwrap(current)
        if isinstance(current, type) and issubclass(current, BaseModel):
            owner = current
            field = current.model_fields.get(str(step))
            current = field_type(field) if field is not None else None
            path.append(str(step))
            continue
        member = union_member(current, step)
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
