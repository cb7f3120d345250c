"""A table once, for the terminal, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from retina.wording import writable

if TYPE_CHECKING:
    import rich.console
    import rich.table


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: its header, for people.
        key: its values in the rows, and its name in CSV.
        format: how a value is shown on the terminal and in Markdown.
        justify: which side of the column the values stand at.
        style: rich's style of a value on the terminal, say ``"bold"``.
    """

    name: str
    key: str
    format: Callable[[Any], str] = str
    justify: Literal["left", "right"] = "left"
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
        num_keys: so many of the first columns say what a row is about, and stand in each part of a
            table that is too wide for the terminal.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    look: Literal["box", "lines", "tight"] = "box"
    has_header: bool = True
    section: str | None = None
    row_style: Callable[[Mapping[str, Any]], str] | None = None
    num_keys: int = 1

    def to_terminal(self) -> rich.console.RenderableType:
        """The table as rich prints it; what stands in a value is never taken for markup.

        Where it is too wide, it is told in parts below each other, each with the first column:
        names are folded, and no number is cut. Characters that the output cannot write have their
        stand-ins before the widths are measured.
        """
        return _OnTerminal(self)

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


_NARROW = 11
"""Characters that a column of text is not made narrower than."""

_NUMBER = re.compile(r"[-+−]?[\d.,:]+[%×]?")

_BETWEEN = {"box": 3, "lines": 2, "tight": 1}
"""Characters of each look between two columns."""

_AT_EDGES = {"box": 1, "lines": -1, "tight": -1}
"""What a table is wider than its columns, each with those characters."""


@dataclass(frozen=True, slots=True)
class _OnTerminal:
    """A table that is laid out when rich tells how wide the terminal is."""

    table: Table

    def __rich_console__(
        self, console: rich.console.Console, options: rich.console.ConsoleOptions
    ) -> rich.console.RenderResult:
        table = self.table
        names = [writable(column.name, options.encoding) for column in table.columns]
        rows = [
            [writable(cell, options.encoding) for cell in table._shown(row)] for row in table.rows
        ]
        seen = [names, *rows] if table.has_header else rows
        widths = [_needed_width(column) for column in zip(*seen, strict=True)]
        title = writable(table.title, options.encoding)
        for part in self._parts(widths, options.max_width):
            yield self._part(part, title, names, rows, widths)
            title = ""

    def _parts(self, widths: Sequence[int], available: int) -> list[list[int]]:
        """The columns of each part, the keys in all of them."""
        look, keys = self.table.look, list(range(self.table.num_keys))
        parts = [keys]
        for column in range(len(keys), len(widths)):
            with_it = [*parts[-1], column]
            needed = sum(widths[i] + _BETWEEN[look] for i in with_it) + _AT_EDGES[look]
            if needed > available and parts[-1] != keys:
                parts.append([*keys, column])
            else:
                parts[-1] = with_it
        return parts

    def _part(
        self,
        part: Sequence[int],
        title: str,
        names: Sequence[str],
        rows: Sequence[Sequence[str]],
        widths: Sequence[int],
    ) -> rich.table.Table:
        from rich import box
        from rich.markup import escape
        from rich.table import Table as RichTable
        from rich.text import Text

        table = self.table
        shown = RichTable(
            title=escape(title) or None, title_justify="left", show_header=table.has_header
        )
        if table.look != "box":
            shown.box, shown.show_edge = box.SIMPLE_HEAD, False
            shown.padding = (0, 1, 0, 0) if table.look == "lines" else 0
        for i in part:
            shown.add_column(
                Text(names[i]),
                justify=table.columns[i].justify,
                min_width=None if i < table.num_keys else widths[i],
                overflow="fold",
            )
        for number, (row, cells) in enumerate(zip(table.rows, rows, strict=True)):
            styled = [(table.columns[i], cells[i]) for i in part]
            shown.add_row(
                *(
                    Text(text, style=column.style(row[column.key]) if column.style else "")
                    for column, text in styled
                ),
                style=table.row_style(row) if table.row_style else None,
                end_section=table._ends_section(number),
            )
        return shown


def _needed_width(cells: Sequence[str]) -> int:
    """How narrow a column may be: no number is cut, and of text enough is left to read it."""
    from rich.cells import cell_len

    whole = max((cell_len(line) for cell in cells for line in cell.splitlines()), default=0)
    numbers = (word for cell in cells for word in cell.split() if _NUMBER.fullmatch(word))
    return min(whole, max((_NARROW, *map(cell_len, numbers))))
