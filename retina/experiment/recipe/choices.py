"""A config as a list of choices, each with its reason, and as YAML that tells them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from retina.configuration import Tree, compose, dump_yaml
from retina.experiment.config import ExperimentConfig

_WIDTH = 100
_STAND_IN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One key of a config.

    Attributes:
        key: dotted: ``optimizer.lr``.
        value: plain, as in YAML.
        why: one sentence without a full stop; it may hold any text, such as names of classes.
    """

    key: str
    value: Any
    why: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """A config for a data set.

    Attributes:
        choices: keys of one mapping stand together.
        largest_min_size: the largest ``preprocess.min_size`` that the machine should be given.
    """

    choices: tuple[Choice, ...]
    largest_min_size: int

    def config(self, overrides: Sequence[str] = ()) -> ExperimentConfig:
        """The typed config, with changes laid over it.

        Raises:
            ConfigError: a change is none of a config.
        """
        tree: Tree = {}
        for choice in self.choices:
            *parents, name = choice.key.split(".")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[name] = choice.value
        return compose(tree, overrides, ExperimentConfig, source="the config for this data")

    def with_choices(self, *changed: Choice) -> Self:
        """The same with other choices: in the place of those of their keys, or at the end."""
        by_key = {choice.key: choice for choice in self.choices}
        by_key |= {choice.key: choice for choice in changed}
        return replace(self, choices=tuple(by_key.values()))

    def in_folder(self, run: Path) -> Self:
        """The same with another run folder."""
        (why,) = (choice.why for choice in self.choices if choice.key == "output_dir")
        return self.with_choices(Choice("output_dir", str(run), why))

    def to_yaml(self, *heading: str) -> str:
        """The config as a YAML file, with a reason at each line.

        Args:
            heading: lines of text for its top.
        """
        head = [line for text in heading for line in _comment(text)]
        return "\n".join([*head, *_lines(self.choices)]) + "\n"


def _lines(choices: Sequence[Choice], depth: int = 0) -> Iterator[str]:
    """The lines of choices that have their first ``depth`` names in common."""
    by_name: dict[str, list[Choice]] = {}
    for choice in choices:
        by_name.setdefault(choice.key.split(".")[depth], []).append(choice)
    for name, inner in by_name.items():
        if depth == 0:
            yield ""
        if inner[0].key.count(".") > depth:
            yield f"{'  ' * depth}{name}:"
            yield from _lines(inner, depth + 1)
        else:
            yield from _explained(name, inner[0], "  " * depth)


def _explained(name: str, choice: Choice, indent: str) -> Iterator[str]:
    """A key with its reason beside it, or above it where that is longer."""
    if isinstance(choice.value, list | dict):
        text = dump_yaml({name: choice.value})
    else:  # a mapping of one scalar would get braces
        text = f"{name}: {dump_yaml([choice.value]).strip()[1:-1]}"
    value = textwrap.indent(text.rstrip("\n"), indent)
    beside = f"{value} # {_printable(choice.why)}"
    if len(beside) <= _WIDTH and "\n" not in beside:
        yield beside
    else:
        yield from _comment(choice.why, indent)
        yield value


def _comment(text: str, indent: str = "") -> list[str]:
    mark = f"{indent}# "
    return textwrap.wrap(
        _printable(text),
        _WIDTH,
        initial_indent=mark,
        subsequent_indent=mark,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _printable(text: str) -> str:
    """The text in one line, without what no YAML file may hold."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else _STAND_IN for letter in line)
