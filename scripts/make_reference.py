"""Write what is made from the configs: configs/schema.json and docs/config-reference.md.

    python scripts/make_reference.py

Run it after a key, a bound, a default or a docstring of a config has changed; a test compares the
files with what this would write.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retina.configuration import preset_names
from retina.experiment import ExperimentConfig

REPOSITORY = Path(__file__).resolve().parents[1]
SCHEMA = REPOSITORY / "configs" / "schema.json"
PAGE = REPOSITORY / "docs" / "config-reference.md"

EXTENDS = {
    "description": "Another config file that this one is laid over: its path, or the name of one "
    "that comes with the package.",
    "type": "string",
}
INTRODUCTION = """# Every key of a config

Made from the schema that every config is checked against, by `scripts/make_reference.py`. How
files, presets and overrides are laid over each other, and when to use which key, is told in
[configuration](configuration.md).

- A key is written as its dotted path on the command line, `training.epochs=3`, and nested in YAML.
- Sizes are in pixels, times in the unit that the key names, fractions from 0 to 1.
- A preset may set another default. `config.yaml` in the run folder holds every value that was used.
- Of several types, or words, that stand side by side a key takes any.
- A mapping with several kinds takes the kind of its default where none is said.

Editors that know JSON schemas complete these keys and check them while you type, if the first line
of a config says where the schema is; `retina init` writes it:

```yaml
# yaml-language-server: $schema=/…/retina/configs/schema.json
```

The path is that of the package on the machine where `retina init` ran, and nothing but an editor
reads the line: where the config is taken elsewhere, correct or delete it.

VS Code does so with the YAML extension of Red Hat, and so do the editors with
`yaml-language-server`. The schema demands no key, since each may come from a preset or from the
file that `extends` names; what is missing is told by `retina train` and `retina doctor`.
"""


def editor_schema() -> dict[str, Any]:
    """The JSON schema of a config file, or of one that others are laid over: no key is required."""
    schema = _relaxed(ExperimentConfig.model_json_schema())
    keys = {"extends": EXTENDS, **schema["properties"]}
    keys["preset"] = {**keys["preset"], "anyOf": [{"enum": preset_names()}, {"type": "null"}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Retina's config",
        **schema,
        "properties": keys,
    }


def _relaxed(node: Any) -> Any:
    """Without what only a whole config has to fulfil, and without what tells an editor nothing."""
    if isinstance(node, list):
        return [_relaxed(one) for one in node]
    if not isinstance(node, dict):
        return node
    kept: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties" or key == "$defs":
            kept[key] = {name: _relaxed(one) for name, one in value.items()}
        elif key == "description":
            kept[key] = _plain(value)
        elif key == "oneOf":  # where no kind is said, several may fit
            kept["anyOf"] = _relaxed(value)
        elif key == "default":
            kept |= {} if isinstance(value, dict) else {key: value}
        elif key not in ("required", "title", "discriminator"):
            kept[key] = _relaxed(value)
    return kept


def _plain(docstring: str) -> str:
    return " ".join(docstring.replace("``", "`").split())


@dataclass(frozen=True)
class Section:
    """The keys of one mapping of the config.

    Attributes:
        path: the dotted path of the mapping; empty for the whole.
        kind: which of several kinds this is; empty where there is one.
        model: its JSON schema.
    """

    path: str
    kind: str
    model: dict[str, Any]

    @property
    def title(self) -> str:
        """The heading, in Markdown."""
        path = f"`{self.path}`" if self.path else "The file"
        return f"{path}, `kind: {self.kind}`" if self.kind else path

    @property
    def anchor(self) -> str:
        """What links lead to: as sites and code hosts make it of the heading."""
        return re.sub(r"[^\w\- ]", "", self.title.lower()).replace(" ", "-")

    @property
    def link(self) -> str:
        """A link to it, in Markdown."""
        return f"[{self.kind or 'mapping'}](#{self.anchor})"


class Reference:
    """The page that says every key, its type, default, bounds and meaning."""

    def __init__(self) -> None:
        self._schema = ExperimentConfig.model_json_schema()
        self._sections: dict[str, Section] = {}
        self._find(Section("", "", self._schema))

    def to_markdown(self) -> str:
        """The whole page."""
        parts = [INTRODUCTION]
        for section in (Section("", "", self._schema), *self._sections.values()):
            level = "##" if "." not in section.path and not section.kind else "###"
            parts.append(f"{level} {section.title}\n")
            if section.path:
                parts.append(f"{_plain(section.model['description'])}\n")
            parts += self._keys(section)
        return "\n".join(parts).rstrip() + "\n"

    def _keys(self, section: Section) -> Iterator[str]:
        """The table of a section; what stands in that of another kind is only named."""
        rows, elsewhere = [], defaultdict(list)
        for key, field in section.model["properties"].items():
            first = self._first_with(key, field, section)
            if first is not section:
                elsewhere[first.link].append(f"`{key}`")
            elif key != "kind" or "description" in field:
                rows.append(self._row(section, key))
        if rows:
            yield "\n".join(["| key | type | default | what |", "|---|---|---|---|", *rows, ""])
        for link, keys in elsewhere.items():
            yield f"{'And, as' if rows else 'As'} in {link}: {', '.join(keys)}.\n"
        if not rows and not elsewhere:
            yield "It has no keys of its own.\n"

    def _first_with(self, key: str, field: dict[str, Any], section: Section) -> Section:
        """The first kind at the same place that has the same key."""
        same = (one for one in self._sections.values() if section.kind and one.path == section.path)
        found = (one for one in same if one.model["properties"].get(key) == field)
        return next(found, section)

    def _find(self, owner: Section) -> None:
        """Collect the sections below one, each model once, in the order of the keys."""
        for key, field in owner.model["properties"].items():
            names = list(_references(field))
            path = f"{owner.path}.{key}".lstrip(".")
            found = []
            for name in names:
                if name not in self._sections:
                    model = self._schema["$defs"][name]
                    kinds = _kinds(model) if len(names) > 1 else ()
                    self._sections[name] = Section(path, kinds[0] if kinds else "", model)
                    found.append(self._sections[name])
            for section in found:
                self._find(section)

    def _row(self, owner: Section, key: str) -> str:
        field = owner.model["properties"][key]
        names = list(_references(field))
        text = field.get("description") or (
            self._schema["$defs"][names[0]]["description"] if names else ""
        )
        required = key in owner.model.get("required", ())
        cells = (
            f"`{key}`",
            self._type(field),
            "required" if required else self._default(owner, key),
            _linked(_plain(text)),
        )
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    def _default(self, owner: Section, key: str) -> str:
        field = owner.model["properties"][key]
        value = field["default"] if "default" in field else self._value_at(owner.path, key)
        if isinstance(value, dict):
            return f"`kind: {value['kind']}`" if "kind" in value else "as below"
        return f"`{value if isinstance(value, str) else json.dumps(value)}`"

    def _value_at(self, path: str, key: str) -> Any:
        """What the default of a top-level key holds for a key further down."""
        top, *below = [*path.split("."), key]
        value = self._schema["properties"][top]["default"]
        for step in below:
            value = value[step]
        return value

    def _type(self, field: dict[str, Any]) -> str:
        """The type of a key with its bounds, in Markdown."""
        if "$ref" in field:
            return self._sections[_name(field["$ref"])].link
        for key in ("anyOf", "oneOf"):
            if key in field:
                return ", ".join(dict.fromkeys(self._type(one) for one in field[key]))
        if "const" in field or "enum" in field:
            words = [field["const"]] if "const" in field else field["enum"]
            return ", ".join(f"`{word}`" for word in words)
        if field.get("type") == "array":
            return self._list(field)
        if field.get("format") == "path":
            return "path"
        return field.get("type", "text").replace("string", "text") + _bounds(field)

    def _list(self, field: dict[str, Any]) -> str:
        if "prefixItems" in field:
            return "[" + ", ".join(self._type(one) for one in field["prefixItems"]) + "]"
        least = field.get("minItems")
        count = f", {least} or more" if least else ""
        return f"list of {self._type(field.get('items', {}))}{count}"


def _references(field: Any) -> Iterator[str]:
    """The names of the models that a field may hold, as pydantic calls them."""
    if isinstance(field, dict):
        if "$ref" in field:
            yield _name(field["$ref"])
        for key, value in field.items():
            if key in ("anyOf", "oneOf", "items", "prefixItems", "additionalProperties"):
                yield from _references(value)
    elif isinstance(field, list):
        for one in field:
            yield from _references(one)


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def _kinds(model: dict[str, Any]) -> tuple[str, ...]:
    kind = model["properties"].get("kind", {})
    return (kind["const"],) if "const" in kind else tuple(kind.get("enum", ()))


def _bounds(field: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ",".join(f" {sign} {field[key]:g}" for key, sign in signs.items() if key in field)


def _linked(text: str) -> str:
    """The names of pages as links to them, and no `<` that would begin a tag."""
    return re.sub(r"docs/([\w-]+)\.md", r"[\1](\1.md)", text.replace("<", "&lt;"))


def schema_text() -> str:
    """What configs/schema.json shall hold."""
    return json.dumps(editor_schema(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write both files."""
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    PAGE.write_text(Reference().to_markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
