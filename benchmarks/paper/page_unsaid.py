"""Tables of docs/paper.md on what the paper leaves unsaid: variants, single failures, neighbours, churn, the map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from benchmarks.paper.answers import EXECUTED, RATE, REBUILDING, SECONDS, Answers
from benchmarks.paper.page_cells import Row, behind, difference, name_of, only, ratio, records, row_at
from sim.core.units import SECONDS_PER_HOUR
from sim.reporting.series import at_point

AFTER_TWO_LOST = {
    "checkpoint": "all go back to the checkpoint",
    "redundant": "all go back to the fallback's checkpoint",
    "checkfree": "all go back to the fallback's checkpoint",
    "checkfree_plus": "all go back to the fallback's checkpoint",
    "one_after_the_other": "both are rebuilt, from weights that are gone",
    "checkfree_hybrid": "these two come from the checkpoint, the others stay",
}


class Unsaid(Answers):
    """Rows of these tables, as text."""

    def variants(self, job: str, names: dict[str, str]) -> Iterator[Row]:
        """A row a strategy: final loss above the failure-free one's, and iterations to the target × failure-free."""
        excess, executed = self.excess(job), self.against(job, EXECUTED, "none")
        for strategy, name in names.items():
            here = {"strategy": strategy}
            yield name, difference(row_at(excess, here)), ratio(row_at(executed, here))

    def by_point(self, job: str, field: str, values: Sequence[Any], strategies: Sequence[str]) -> Iterator[Row]:
        """A row a strategy, a pair of columns a point: final loss above failure-free, iterations × failure-free."""
        excess, executed = self.excess(job), self.against(job, EXECUTED, "none")
        for strategy in strategies:
            cells: list[str] = []
            for value in values:
                here = {"strategy": strategy, field: value}
                cells += [difference(row_at(excess, here)), ratio(row_at(executed, here))]
            yield name_of(strategy), *cells

    def single_head(self) -> list[str]:
        """The head of it: when each failure strikes."""
        places = self.behind("one_failure")["at_seconds"].unique()
        return [f"lost at {seconds / SECONDS_PER_HOUR:.1f} h" for seconds in sorted(places)]

    def single(self) -> Iterator[Row]:
        """A row a strategy and stage: iterations behind at the end of training, by when the stage was lost."""
        found = self.behind("one_failure")
        for strategy, rows in found.groupby("strategy", sort=False):
            for stage, own in rows.groupby("stages", sort=False):
                cells = [behind(row) for row in records(own.sort_values("at_seconds"))]
                yield name_of(str(strategy)), str(stage), *cells

    def map_beside(self, strategy: str, rate: float) -> str:
        """Hours of a strategy in the map, and what they are in real runs."""
        found = pd.read_csv(self.folder / "crossings_paper_text.csv")
        (hours,) = at_point(found, {"strategy": strategy, RATE: rate})["hours"]
        real = only(self.against("table2", SECONDS, "none"), strategy, rate)["mean"] / SECONDS_PER_HOUR
        return f"{hours:.1f} h for {name_of(strategy)}, where they took {real:.1f}"

    def churn(self) -> Iterator[Row]:
        """Correlated against independent losses: a row a strategy."""
        values = list(self.extract("correlated").runs["failures"].unique())
        return self.by_point("correlated", "failures", values, ("checkpoint", "redundant", *REBUILDING))

    def consecutive(self) -> Iterator[Row]:
        """A row a strategy: what the loss of two neighbours costs, in hours and iterations."""
        for row in records(self.behind("consecutive")):
            name, hours = row["strategy"], f"{row['hours']:.2f}"
            yield name_of(name), AFTER_TWO_LOST[name], hours, f"{row['repeated']:.0f}", behind(row)
