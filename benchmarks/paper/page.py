"""docs/paper.md from its template: prose by hand, every number from results/paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.paper.crossings import crossings
from benchmarks.paper.kept import KEPT
from benchmarks.paper.page_costs import cost_verdicts, table_1
from benchmarks.paper.page_numbers import Numbers
from benchmarks.paper.verdicts import Verdicts

HERE = Path(__file__).parent

PAGE = Path(__file__).parents[2] / "docs" / "paper.md"


def page(kept: Path = KEPT) -> str:
    """The page as Markdown."""
    environment = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    of, costs = Numbers(kept / "full"), list(table_1())
    return environment.get_template("paper.md.jinja").render(
        of=of,
        table=table,
        verdicts=(*Verdicts(of).rows(), *cost_verdicts(costs)),
        table_1=costs,
        crossings=crossings(kept / "full"),
    )


def write_page() -> None:
    """Write it where it is read."""
    PAGE.write_text(page(), encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    write_page()
