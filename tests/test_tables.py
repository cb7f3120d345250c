"""One table for the terminal, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
from typing import Literal

import pytest
from rich.console import Console

from retina.tables import Column, Table


def make(look: Literal["box", "lines", "tight"] = "box", *, has_header: bool = True) -> Table:
    return Table(
        title="a [title]",
        columns=(
            Column("name", "name"),
            Column("AP", "ap", "{:.2f}".format, justify="right", style=lambda ap: "bold"),
        ),
        rows=(
            {"name": "[red]x|y", "ap": 0.125, "kind": 1},
            {"name": "a\nb", "ap": 1.0, "kind": 2},
        ),
        look=look,
        has_header=has_header,
        section="kind",
        row_style=lambda row: "red" if row["kind"] == 2 else "",
    )


def printed(table: Table) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    console.print(table.to_terminal())
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_terminal_takes_no_value_for_markup_and_draws_a_line_between_sections() -> None:
    assert printed(make()) == [
        "a [title]",
        "┏━━━━━━━━━━┳━━━━━━┓",
        "┃ name     ┃   AP ┃",
        "┡━━━━━━━━━━╇━━━━━━┩",
        "│ [red]x|y │ 0.12 │",
        "├──────────┼──────┤",
        "│ a        │ 1.00 │",
        "│ b        │      │",
        "└──────────┴──────┘",
    ]
    assert printed(make("tight"))[1:4] == ["name       AP", "─────────────", "[red]x|y 0.12"]
    assert printed(make("lines"))[1] == "name        AP"
    assert "name" not in "".join(printed(make(has_header=False)))


def test_a_style_is_that_of_a_value_or_a_row() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    console.print(make("tight").to_terminal())
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "\x1b[1m0.12" in text
    assert "\x1b[1;31m1.00" in text


def test_markdown() -> None:
    assert make().to_markdown() == (
        "| name | AP |\n|---|---:|\n| [red]x\\|y | 0.12 |\n| a b | 1.00 |\n"
    )


def test_csv_holds_the_values_themselves() -> None:
    rows = list(csv.reader(io.StringIO(make().to_csv())))
    assert rows == [["name", "ap"], ["[red]x|y", "0.125"], ["a\nb", "1.0"]]


@pytest.mark.parametrize("look", ["box", "lines", "tight"])
def test_an_empty_table_has_its_header(look: Literal["box", "lines", "tight"]) -> None:
    table = Table("", (Column("name", "name"),), (), look)
    assert any("name" in line for line in printed(table))
    assert table.to_markdown() == "| name |\n|---|\n"
    assert table.to_csv() == "name\n"
