"""One model of a table for people: rich prints it, notebooks show it, the HTML report renders it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, product
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.jupyter import JupyterMixin
from rich.table import Table as RichTable
from rich.text import Text

CUT = "…"
"""The end of a value that rich has cut."""


@dataclass(frozen=True)
class Column:
    """A column: heading with the unit (line breaks are for terminals alone), and the format of its values.

    is_optional: whether a terminal that is too narrow for all columns leaves it out.
    """

    heading: str
    align: Literal["left", "right"] = "right"
    format: Callable[[Any], str] = str
    is_optional: bool = False

    @property
    def title(self) -> str:
        """The heading on one line."""
        return self.heading.replace("-\n", "").replace("\n", " ")


@dataclass(frozen=True)
class Row:
    """A value for each column. begins_group: a line separates it from the row before."""

    values: tuple[Any, ...]
    begins_group: bool = False


@dataclass(frozen=True)
class Table(JupyterMixin):
    """A table for people: rich prints it, a notebook shows it, the HTML report renders it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""

    @cached_property
    def cells(self) -> list[list[str]]:
        """The formatted values, a list for each row."""
        formats = [column.format for column in self.columns]
        return [[format_(value) for format_, value in zip(formats, row.values, strict=True)] for row in self.rows]

    def limited(self, most: int, where: str) -> Table:
        """Return at most so many rows. where: the place of the others, for the note."""
        if len(self.rows) <= most:
            return self
        rest = f"{len(self.rows) - most:,} more rows {where}"
        return replace(self, rows=self.rows[:most], note=f"{self.note} {rest}".strip())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table; in a narrow terminal with closer or fewer columns, or as a block of lines for each row."""
        in_content = sum(text.count(CUT) for text in (self.title, self.note, *chain(*self.cells)))
        for table, space in product((self, self._without_optional()), (1, 0)):
            printed = list(console.render(table._as_columns(space), options))
            if sum(segment.text.count(CUT) for segment in printed) <= in_content:
                yield from printed
                return
        yield Text("\n".join(self._as_blocks()))

    def _without_optional(self) -> Table:
        """Return the table without its optional columns, which the note names."""
        kept = [number for number, column in enumerate(self.columns) if not column.is_optional]
        if len(kept) == len(self.columns):
            return self
        left_out = ", ".join(column.title for column in self.columns if column.is_optional)
        note = f"{self.note} Too narrow for: {left_out}.".strip()
        rows = tuple(replace(row, values=tuple(row.values[number] for number in kept)) for row in self.rows)
        return Table(self.title, tuple(self.columns[number] for number in kept), rows, note)

    def _as_blocks(self) -> list[str]:
        """The first value of each row, and below it a line for each other one."""
        lines = [self.title, ""] if self.title else []
        titles = [column.title for column in self.columns[1:]]
        width = max(map(len, titles), default=0)
        for first, *others in self.cells:
            known = [(title, value) for title, value in zip(titles, others, strict=True) if value]
            lines += [first, *(f"  {title:<{width}}  {value}" for title, value in known), ""]
        return lines + [self.note] * bool(self.note)

    def _as_columns(self, space: int) -> RichTable:
        look: dict[str, Any] = {"title_justify": "left", "box": SIMPLE_HEAD, "pad_edge": False}
        look["padding"] = 0, space, 0, 0
        title = Text(self.title, style="table.title")  # a Text is never read as markup
        table = RichTable(title=title, caption=Text(self.note, style="table.caption") if self.note else None, **look)
        for column in self.columns:
            table.add_column(Text(column.heading), justify=column.align)
        for row, cells in zip(self.rows, self.cells, strict=True):
            if row.begins_group:
                table.add_section()
            table.add_row(*map(Text, cells))
        return table


STRATEGY = Column("strategy", "left")


def columns_of(headings: Iterable[str], optional: Collection[str] = ()) -> tuple[Column, ...]:
    """Return a column for the strategy and one of numbers for each heading. optional: headings of optional ones."""
    return (STRATEGY, *(Column(heading, is_optional=heading in optional) for heading in headings))
