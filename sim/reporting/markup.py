"""Tables as LaTeX (booktabs), Markdown and CSV."""

from __future__ import annotations

import csv
import io

from sim.reporting.style import latex
from sim.reporting.table import Table


def latex_table(table: Table) -> str:
    """A `tabular` environment, which needs the package booktabs, below its title as a comment."""
    aligned = "".join(column.align[0] for column in table.columns)
    head = " & ".join(latex(column.title) for column in table.columns)
    lines = [f"% {text}" for text in (table.title, table.note) if text]
    lines += [rf"\begin{{tabular}}{{{aligned}}}", r"\toprule", rf"{head} \\", r"\midrule"]
    for row, cells in zip(table.rows, table.cells, strict=True):
        lines += [r"\addlinespace"] * row.begins_group + [" & ".join(map(latex, cells)) + r" \\"]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def markdown_table(table: Table) -> str:
    """A table of Markdown, below its title."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    rules = ["---" if column.align == "left" else "---:" for column in table.columns]
    rows = [line([column.title for column in table.columns]), line(rules), *map(line, table.cells)]
    return "\n\n".join(filter(None, (table.title, "\n".join(rows), table.note)))


def csv_table(table: Table) -> str:
    """The cells as comma-separated values."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.title for column in table.columns])
    writer.writerows(table.cells)
    return text.getvalue().rstrip("\n")
