"""Tables for people are readable in a terminal of any width: no value and no heading is cut."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sim.reporting.table import Column, Row, Table, columns_of

WORDS = st.text("abcdefghij0123456789.%()", min_size=1, max_size=14)


def printed(table: Table, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(table)
    return out.getvalue()


@given(st.lists(st.tuples(WORDS, WORDS, WORDS, WORDS), min_size=1, max_size=4), st.integers(32, 120))
def test_no_value_is_cut_at_any_width(rows: list[tuple[Any, ...]], width: int):
    table = Table("Some results", columns_of(("hours\nto end", "over-\nhead", "cost $")), tuple(map(Row, rows)))
    found = printed(table, width)
    assert "…" not in found
    assert all(value in found for row in rows for value in row)
    assert max(map(len, found.splitlines())) <= width


@pytest.mark.parametrize(("width", "is_wide"), [(80, True), (20, False)])
def test_rows_are_blocks_where_columns_would_be_cut(width: int, is_wide: bool):
    columns = (Column("strategy", "left"), Column("over-\nhead"), Column("hours"))
    found = printed(Table("", columns, (Row(("checkpointing", "+3 %", "1.25")), Row(("CheckFree", "+1 %", "")))), width)
    assert ("────" in found) == is_wide
    if not is_wide:
        blocks = ["checkpointing", "overhead", "+3", "%", "hours", "1.25", "CheckFree", "overhead", "+1", "%"]
        assert found.split() == blocks


def test_a_narrow_terminal_leaves_out_optional_columns_and_says_so():
    table = Table(
        "", columns_of(("hours\nto end", "cost\n$"), ("cost\n$",)), (Row(("checkpointing", "26.1", "218.55")),)
    )
    assert "218.55" in printed(table, 40)
    narrow = printed(table, 24)
    assert "218.55" not in narrow
    assert "26.1" in narrow
    assert "Too narrow for: cost $." in " ".join(narrow.split())
    assert "218.55" in printed(table, 12)  # a block of lines has room for all
