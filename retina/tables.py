"""A table once, for the terminal, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import rich.table


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: its header, for people.
        key: its values in the rows, and its name in CSV.
        format: how a value is shown on the terminal and in Markdown.
        justify: which side of the column the values stand at.
        wrap: whether long values go on in the next line of a narrow terminal.
        style: rich's style of a value on the terminal, say ``"bold"``.
    """

    name: str
    key: str
    format: Callable[[Any], str] = str
    justify: Literal["left", "right"] = "left"
    wrap: bool = True
    style: Callable[[Any], str] | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of values under columns.

    Attributes:
        title: a line above it; empty for none.
        columns: in order.
        rows: the value of every column's key; further keys are for `section` and `row_style`.
        look: on the terminal: ``box`` draws a frame, ``lines`` only a line below the header, and
            ``tight`` moreover has a single space between columns.
        has_header: whether the names of the columns stand above them on the terminal.
        section: a key; where its value changes from one row to the next, a line is drawn.
        row_style: rich's style of a row on the terminal.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    look: Literal["box", "lines", "tight"] = "box"
    has_header: bool = True
    section: str | None = None
    row_style: Callable[[Mapping[str, Any]], str] | None = None

    def to_terminal(self) -> rich.table.Table:
        """The table as rich prints it; what stands in a value is never taken for markup."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            title=escape(self.title) or None,
            title_justify="left",
            show_header=self.has_header,
        )
        if self.look != "box":
            table.box, table.show_edge = box.SIMPLE_HEAD, False
            table.padding = (0, 1, 0, 0) if self.look == "lines" else 0
        for column in self.columns:
            table.add_column(
                Text(column.name),
                justify=column.justify,
                no_wrap=not column.wrap,
                overflow="fold" if column.wrap else "ellipsis",
            )
        for number, row in enumerate(self.rows):
            table.add_row(
                *(
                    Text(text, style=column.style(row[column.key]) if column.style else "")
                    for column, text in zip(self.columns, self._shown(row), strict=True)
                ),
                style=self.row_style(row) if self.row_style else None,
                end_section=self._ends_section(number),
            )
        return table

    def to_markdown(self) -> str:
        """The table in Markdown, without its title; ends with a line break."""
        rules = ["---:" if column.justify == "right" else "---" for column in self.columns]
        rows = [[column.name for column in self.columns], *map(self._shown, self.rows)]
        cells = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in rows]
        lines = [f"| {' | '.join(row)} |" for row in cells]
        return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]]) + "\n"

    def to_csv(self) -> str:
        """The values themselves, under a line with the keys; None is left empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([column.key for column in self.columns])
        writer.writerows([row[column.key] for column in self.columns] for row in self.rows)
        return text.getvalue()

    def _shown(self, row: Mapping[str, Any]) -> list[str]:
        return [column.format(row[column.key]) for column in self.columns]

    def _ends_section(self, number: int) -> bool:
        if self.section is None or number + 1 == len(self.rows):
            return False
        return bool(self.rows[number][self.section] != self.rows[number + 1][self.section])
