"""The look of all tables that compare strategies: their names at the left, figures at the right."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.table import Table


def strategy_table(title: str, headings: Iterable[str]) -> Table:
    """An empty table with a column of strategies' names, and one of figures for each heading."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("strategy")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table
