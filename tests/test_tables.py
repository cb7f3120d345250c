"""One table for the terminal, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import re
from typing import Literal

import pytest
from rich.cells import cell_len
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


def printed(table: Table, *, width: int = 80, encoding: str = "utf-8") -> list[str]:
    content = io.BytesIO()
    console = Console(file=io.TextIOWrapper(content, encoding=encoding), width=width)
    console.print(table.to_terminal())
    console.file.flush()
    return [line.rstrip() for line in content.getvalue().decode(encoding).splitlines()]


def scores(look: Literal["box", "lines", "tight"], names: list[str]) -> Table:
    """As those of an evaluation: a name, and more numbers than a narrow terminal has room for."""
    keys = ["objects", "AP", "AP50", "AP75", "APs", "APm", "APl", "AR100", "F1"]
    return Table(
        title="per category",
        columns=(Column("category", "name"), *(Column(k, k, justify="right") for k in keys)),
        rows=tuple(
            {"name": name, **{key: f"0.{row}{i}7" for i, key in enumerate(keys)}}
            for row, name in enumerate(names)
        ),
        look=look,
    )


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


@pytest.mark.parametrize("look", ["box", "lines", "tight"])
@pytest.mark.parametrize("width", [30, 40, 50, 60, 65, 80])
def test_a_narrow_terminal_keeps_every_name_and_every_number(
    look: Literal["box", "lines", "tight"], width: int
) -> None:
    names = ["dog", "traffic light", "a/very/long/path/to/a_class_with_a_name", "人行横道"]
    lines = printed(scores(look, names), width=width)
    assert all(cell_len(line) <= width for line in lines)
    words = [word for line in lines for word in line.replace("│", " ").split()]
    for row in range(len(names)):
        for i in range(9):
            assert words.count(f"0.{row}{i}7") == 1
    # What is left without the numbers are the names, in each part, folded or not.
    text = re.sub(r"0\.\d+|[^\w/]", "", "".join(lines))
    parts = text.count("category") - 1  # once in the title
    assert parts >= (3 if width < 40 else 1)
    assert [text.count("".join(name.split())) for name in names] == [parts] * len(names)


def test_the_keys_stand_in_each_part_and_a_long_number_is_never_cut() -> None:
    table = Table(
        "",
        (
            Column("γ", "gamma"),
            Column("α", "alpha"),
            Column("anchors", "a", "{:,}".format, justify="right"),
            Column("elements", "b", "{:,}".format, justify="right"),
        ),
        ({"gamma": 2, "alpha": 0.25, "a": 1_234_567_890, "b": 9_876_543_210},),
        look="tight",
        num_keys=2,
    )
    assert printed(table, width=22) == [
        "γ α          anchors",
        "────────────────────",
        "2 0.25 1,234,567,890",
        "γ α         elements",
        "────────────────────",
        "2 0.25 9,876,543,210",
    ]


def test_a_terminal_that_lacks_characters_has_straight_columns_of_stand_ins() -> None:
    table = Table(
        "γ ≥ 1",
        (Column("γ", "gamma"), Column("size", "size"), Column("AP", "ap", justify="right")),
        ({"gamma": 2, "size": "640×480", "ap": "–"}, {"gamma": 10, "size": "up to 32²", "ap": "1"}),
    )
    assert printed(table, encoding="cp1252") == [
        "gamma >= 1",
        "+------------------------+",
        "| gamma | size      | AP |",
        "|-------+-----------+----|",
        "| 2     | 640×480   |  – |",
        "| 10    | up to 32² |  1 |",
        "+------------------------+",
    ]
    assert printed(table, encoding="ascii")[4:6] == [
        "| 2     | 640x480    |  - |",
        "| 10    | up to 32^2 |  1 |",
    ]
