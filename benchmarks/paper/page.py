"""docs/paper.md from its template: prose by hand, every number from results/paper.

python -m benchmarks.paper.page    # writes it from the committed numbers
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.paper.extract import COMMITTED, rollback_factor
from benchmarks.paper.figures import MAP_PRESET, MAP_RATES
from benchmarks.paper.jobs import NEIGHBOURS
from benchmarks.paper.published import (
    CHECKPOINT_INTERVAL_ITERATIONS,
    NUM_STAGES,
    RATES,
    RELEASED_PROBABILITIES,
    TABLE_3,
    iteration_factor,
    row_of,
)
from benchmarks.paper.tables import (
    EXECUTED,
    FINAL,
    INTERVAL,
    LAYERS,
    RATE,
    REBUILDING,
    SECONDS,
    CostRow,
    StudyTables,
    costs,
    difference,
    hours_of,
    name_of,
    only,
    paper_extra_nats,
    percent,
    ratio,
    ratios,
    records,
    row_at,
    share,
)
from benchmarks.paper.verdicts import Claim, Contrast, claims
from sim.cli.tables import in_models
from sim.core.units import SECONDS_PER_HOUR
from sim.reporting.series import at_point
from sim.results.branches import Branches, load_branches
from sim.results.crossed_design import SEEDS
from sim.results.storage import read_json
from sim.strategies import legend_label

PAGE = Path(__file__).parents[2] / "docs" / "paper.md"

REFERENCES = ("redundant", "checkpoint")

ORDER = ("checkpoint", "redundant", "checkfree", "checkfree_plus")

UPLOAD_RATE, BLOCKING = "network.storage.bandwidth_mbit_per_s", "strategies[checkpoint].blocking_share"

AFTER_TWO_LOST = {
    "checkpoint": "all return to the checkpoint",
    "redundant": "all return to the fallback's checkpoint",
    "checkfree": "all return to the fallback's checkpoint",
    "checkfree_plus": "all return to the fallback's checkpoint",
    "one_after_the_other": "both are rebuilt, from weights that no longer exist",
    "checkfree_hybrid": "these two return to the checkpoint, the others do not",
}

Row = Sequence[str]


def render(folder: Path = COMMITTED / "full") -> str:
    """The page as Markdown."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("paper.md.jinja").render(page=Page(folder), table=table, paper=iteration_factor)


def write_page() -> None:
    """Write docs/paper.md."""
    PAGE.write_text(render(), encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Row]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


class Page:
    """Tables and numbers of the template, as text. Intervals are 95 % intervals of means over both kinds of seeds."""

    def __init__(self, folder: Path) -> None:
        self.tables = StudyTables(folder)

    @cached_property
    def costs(self) -> Sequence[CostRow]:
        """Table 1 as measured."""
        return list(costs())

    def claims(self) -> Iterator[Claim]:
        """All claims of the paper with their verdicts."""
        return claims(self.tables)

    # ---- Table 2 --------------------------------------------------------------------------------

    def table_2(self) -> Iterator[Row]:
        """A row per strategy and rate: seconds per iteration, iterations × failure-free, hours, and the paper's."""
        hours, executed = (self.tables.against("table2", metric, "none") for metric in (SECONDS, EXECUTED))
        for rate in RATES:
            for strategy in ORDER:
                row = row_of(strategy, rate)
                seconds = only(self.tables.extract("table2").runs, strategy, rate)["iteration_seconds"]
                yield (
                    *(percent(rate), name_of(strategy)),
                    *(f"{seconds:.1f}", f"{row.iteration_seconds:.1f}"),
                    *(ratio(only(executed, strategy, rate)), f"{iteration_factor(strategy, rate):.2f}"),
                    *(hours_of(only(hours, strategy, rate)), f"{row.train_hours:.0f}"),
                )

    def headline(self) -> Iterator[Row]:
        """A row per strategy and rate: hours against redundant computation and checkpointing."""
        against = [self.tables.against("table2", SECONDS, name) for name in REFERENCES]
        for rate in RATES:
            for strategy in REBUILDING:
                cells = [ratio(only(found, strategy, rate)) for found in against]
                own = row_of(strategy, rate).train_hours
                papers = [own / row_of(name, rate).train_hours for name in REFERENCES]
                yield percent(rate), name_of(strategy), *cells, *(f"{value:.2f}" for value in papers)

    def plus_against_plain(self, rate: float) -> str:
        """Iterations of CheckFree+ to the target ÷ CheckFree's, with the interval."""
        plain, plus = REBUILDING
        return ratio(only(self.tables.against("table2", EXECUTED, plain), plus, rate))

    def factor(self, strategy: str, rate: float) -> str:
        """Mean iterations to the target, × failure-free."""
        return f"{only(self.tables.against('table2', EXECUTED, 'none'), strategy, rate)['ratio']:.2f}"

    def failures(self, rate: float) -> str:
        """Mean number of stages that CheckFree loses until the target."""
        runs = at_point(self.tables.extract("table2").to_target(), {"strategy": "checkfree", RATE: rate})
        return f"{(runs['num_failures'] * runs[EXECUTED] / runs['num_iterations_run']).mean():.0f}"

    def losses_at_end(self) -> Iterator[Row]:
        """A row per strategy: loss at the end above the failure-free one's, by rate."""
        found = self.tables.excess("table2")
        for strategy in REBUILDING:
            yield name_of(strategy), *(difference(only(found, strategy, rate)) for rate in RATES)

    def read_from_means(self, strategy: str) -> str:
        """Iterations to the loss, × failure-free, at the three rates, by running means."""
        found = ratios(self.tables.smooth("table2").to_target(), [RATE], EXECUTED, "none")
        return ", ".join(f"{only(found, strategy, rate)['ratio']:.2f}" for rate in RATES)

    # ---- depth of the proxy ---------------------------------------------------------------------

    def trend_head(self) -> Row:
        """Head of `trends`."""
        return ["layers per stage", "", *(f"{at:,}" for at in sorted(self.tables.trend["at"].unique()))]

    def trends(self) -> Iterator[Row]:
        """A row a depth and strategy: iterations to a loss × failure-free, by the loss's failure-free iteration."""
        found = self.tables.trend
        places = sorted(found["at"].unique())
        for (layers, strategy), own in found.groupby(["layers_per_stage", "strategy"], sort=False):
            cells = {row["at"]: ratio(row) for row in records(own)}
            yield str(layers), name_of(str(strategy)), *(cells.get(at, "") for at in places)

    def costs_more(self, strategy: str, early: int, late: int) -> str:
        """Number of pairs of seeds in which the shallow proxy's factor is higher for a later loss."""
        shallow = self.tables.smooth("depth").at({LAYERS: 1})
        found = []
        for at in (early, late):
            executed = shallow.to_target(at).pivot(index=SEEDS, columns="strategy", values=EXECUTED)
            found.append((executed[strategy] / executed["none"]).rename("ratio"))
        pairs = pd.concat(found, keys=("early", "late"), names=["strategy"]).reset_index()
        return of_pairs(Contrast(pairs, "ratio", "late", "early"), is_below=False)

    def lower_at_end(self, layers: int) -> str:
        """Number of pairs of seeds in which CheckFree+ ends at a lower loss than CheckFree, by depth."""
        runs = at_point(self.tables.final("depth"), {LAYERS: layers})
        return of_pairs(Contrast(runs, FINAL, "checkfree_plus", "checkfree"), is_below=True)

    # ---- other tables and figures of the paper --------------------------------------------------

    def intervals(self) -> Iterator[Row]:
        """Figure 4b: hours to the target at each rate, by checkpoint interval, and other strategies' hours."""
        found = self.tables.against("figure4b", SECONDS, "none")
        for interval in (10, 50, 100):
            rows = found[found[INTERVAL] == interval]
            yield f"every {interval}", *(hours_of(only(rows, "checkpoint", rate)) for rate in RATES)
        others = self.tables.against("table2", SECONDS, "none")
        for strategy in ("redundant", *REBUILDING):
            yield name_of(strategy), *(hours_of(only(others, strategy, rate)) for rate in RATES)

    def over_frequent(self) -> Iterator[Row]:
        """A row per strategy: time ÷ that of checkpointing every 10 iterations; pairs in which it is longer."""
        saving, others = (self.tables.extract(job).to_target() for job in ("figure4b", "table2"))
        for strategy in REBUILDING:
            runs = pd.concat([saving[saving[INTERVAL] == 10], others[others["strategy"] == strategy]])
            found = ratios(runs, [RATE], SECONDS, "checkpoint")
            pairs = [Contrast(runs[runs[RATE] == rate], SECONDS, strategy, "checkpoint") for rate in RATES]
            cells = [ratio(only(found, strategy, rate)) for rate in RATES]
            counts = [of_pairs(one, is_below=False) for one in pairs]
            yield name_of(strategy), *(f"{cell}; {count}" for cell, count in zip(cells, counts, strict=True))

    def uploads(self) -> Iterator[Row]:
        """Hours to the target with checkpoints every 10 iterations, by the cost of an upload."""
        found = self.tables.against("uploads", SECONDS, "none")
        for mbit_per_s, link in ((500.0, "each stage has 500 Mbit/s"), (71.4, "all stages together have 500 Mbit/s")):
            for blocking, how in ((0, "hidden behind training"), (1, "training stops")):
                rows = at_point(found, {UPLOAD_RATE: mbit_per_s, BLOCKING: blocking})
                yield link, how, *(hours_of(only(rows, "checkpoint", rate)) for rate in RATES)

    def swapping(self) -> tuple[str, str]:
        """Figure 4c: final loss of CheckFree+ above plain training's without failures, and iterations to the target."""
        ((_, loss, iterations),) = self.variants("figure4c", {"checkfree_plus": ""})
        return loss, iterations

    def table_1(self) -> Iterator[Row]:
        """Table 1: a row per strategy."""
        for row in self.costs:
            does = {name: "yes" if it_does else "no" for name, it_does in row.recovers.items()}
            yield (
                *(name_of(row.strategy), *map(in_models, row.models)),
                *(share(row.passes_share), share(row.computed_share), does["adjacent"]),
                *(does["first"] if does["first"] == does["last"] else "one of them", does["stage 0"]),
            )

    def perplexities(self) -> Iterator[Row]:
        """Table 3: perplexity by text, and nats per byte added by failures; ours per byte, the paper's per token."""
        found = self.tables.perplexity("perplexity")
        ours = zip(*(self.tables.extra_nats(name) for name in REBUILDING), strict=True)
        for (text, means), extras in zip(found.iterrows(), ours, strict=True):
            cells = [f"{means[name]:.2f}" for name in ("none", *REBUILDING)]
            yield f"ours: {text}", *cells, *(f"{extra:.3f}" for extra in extras)
        papers = zip(*(paper_extra_nats(name) for name in REBUILDING), strict=True)
        for (text, values), extras in zip(TABLE_3.items(), papers, strict=True):
            yield f"paper: {text}", *(f"{value:.2f}" for value in values), *(f"{extra:.3f}" for extra in extras)

    # ---- what the paper does not report ---------------------------------------------------------

    def variants(self, job: str, names: dict[str, str]) -> Iterator[Row]:
        """A row per strategy: final loss above the failure-free one's, and iterations to the target × failure-free."""
        excess, executed = self.tables.excess(job), self.tables.against(job, EXECUTED, "none")
        for strategy, name in names.items():
            here = {"strategy": strategy}
            yield name, difference(row_at(excess, here)), ratio(row_at(executed, here))

    @cached_property
    def branches(self) -> Branches:
        """Single failures."""
        return load_branches(self.tables.folder)

    @property
    def num_branch_seeds(self) -> int:
        """Training seeds of single failures."""
        return int(self.branches.table["training_seed"].nunique())

    def inner_excess(self, after_steps: int) -> str:
        """CheckFree's excess after a failure of one of the stages between the ends."""
        table = self.branches.table
        inner = table["stage"].between(2, NUM_STAGES - 1) & (table["strategy"] == "checkfree")
        found = replace(self.branches, table=table[inner]).excess(("after_steps",))
        return plus_minus(row_at(found, {"after_steps": after_steps}))

    def rules(self, names: dict[str, str]) -> Iterator[Row]:
        """A row a variant: excess loss of a failure above the published rule's, mean over stages."""
        for strategy, name in names.items():
            found = self.branches.difference(strategy, "checkfree")
            yield name, *map(plus_minus, records(found.sort_values("after_steps")))

    def rule(self, strategy: str, after_steps: int) -> str:
        """One number of `rules`."""
        return plus_minus(row_at(self.branches.difference(strategy, "checkfree"), {"after_steps": after_steps}))

    def swapped(self) -> str:
        """Loss of CheckFree+ above CheckFree's at the last compared step without failures."""
        found = self.branches.without_failures("checkfree_plus", "checkfree")
        return plus_minus(row_at(found, {"step": found["step"].max()}))

    def rules_by_stage(self, strategy: str) -> Iterator[Row]:
        """A row a stage between the ends: the same of one variant."""
        found = self.branches.difference(strategy, "checkfree", ("stage", "after_steps"))
        for stage, rows in found[found["stage"].between(2, NUM_STAGES - 1)].groupby("stage"):
            yield str(stage), *map(plus_minus, records(rows.sort_values("after_steps")))

    def excesses(self, strategies: Sequence[str], after_steps: int) -> Iterator[Row]:
        """A row a stage, and one for their mean: excess loss by strategy."""
        found, means = (
            self.branches.excess(by) for by in (("strategy", "stage", "after_steps"), ("strategy", "after_steps"))
        )
        for stage in self.branches.stages:
            here = {"stage": stage, "after_steps": after_steps}
            yield str(stage), *(plus_minus(row_at(found, {"strategy": name, **here})) for name in strategies)
        here = {"after_steps": after_steps}
        yield "mean", *(plus_minus(row_at(means, {"strategy": name, **here})) for name in strategies)

    def by_point(self, job: str, field: str, values: Sequence[Any], strategies: Sequence[str]) -> Iterator[Row]:
        """A row per strategy, a pair of columns a point: final loss above failure-free, iterations × failure-free."""
        excess, executed = self.tables.excess(job), self.tables.against(job, EXECUTED, "none")
        for strategy in strategies:
            points = [{"strategy": strategy, field: value} for value in values]
            cells = [(difference(row_at(excess, here)), ratio(row_at(executed, here))) for here in points]
            yield name_of(strategy), *(cell for pair in cells for cell in pair)

    @cached_property
    def pairs(self) -> Branches:
        """Failures of two neighbouring stages."""
        return load_branches(self.tables.folder / NEIGHBOURS.stem)

    def neighbours(self) -> Iterator[Row]:
        """A row per strategy: cost of the loss of two neighbours, in hours and in loss, mean over pairs of stages."""
        hours = self.pairs.table.groupby("strategy")["seconds"].mean() / SECONDS_PER_HOUR
        found = self.pairs.excess(("strategy", "after_steps"))
        for name in self.pairs.strategies:
            own = records(found[found["strategy"] == name].sort_values("after_steps"))
            excess = map(plus_minus, own) if name in self.pairs.rebuilding else ["0"] * len(own)
            yield name_of(name), AFTER_TWO_LOST[name], f"{hours[name]:.2f}", *excess

    def churn(self) -> Iterator[Row]:
        """Correlated against independent losses: a row per strategy."""
        values = list(self.tables.extract("correlated").runs["failures"].unique())
        return self.by_point("correlated", "failures", values, ("checkpoint", "redundant", *REBUILDING))

    def crossings(self) -> Iterator[Row]:
        """A row a rate: the fastest strategy, and others that may be."""
        found = self.map
        for rate in MAP_RATES:
            yield percent(rate), fastest(found[found[RATE] == rate])

    @cached_property
    def map(self) -> pd.DataFrame:
        """The map over the failure rate."""
        return pd.read_csv(self.tables.folder / f"crossings_{MAP_PRESET}.csv")

    def map_beside(self, strategy: str, rate: float) -> str:
        """Hours of a strategy in the map, and in real runs."""
        (hours,) = at_point(self.map, {"strategy": strategy, RATE: rate})["hours"]
        real = only(self.tables.against("table2", SECONDS, "none"), strategy, rate)["mean"] / SECONDS_PER_HOUR
        return f"{hours:.1f} h for {name_of(strategy)}, where they took {real:.1f}"

    # ---- where the published numbers disagree ---------------------------------------------------

    def clocks(self) -> Iterator[Row]:
        """A row a rate: the iteration time that released probabilities imply, and rollback factors beside Table 2."""
        executed = self.tables.against("table2", EXECUTED, "none")
        for rate, probability in zip(RATES, RELEASED_PROBABILITIES, strict=True):
            implied = SECONDS_PER_HOUR * math.log1p(-probability) / math.log1p(-rate)
            own = -math.expm1(row_of("checkpoint", rate).iteration_seconds / SECONDS_PER_HOUR * math.log1p(-rate))
            factors = [rollback_factor(p, CHECKPOINT_INTERVAL_ITERATIONS, NUM_STAGES) for p in (probability, own)]
            yield (
                *(percent(rate), f"{probability:.4f}", f"{implied:.0f} s", f"{own:.5f}"),
                *(f"{factor:.2f}" for factor in factors),
                f"{iteration_factor('checkpoint', rate):.2f}",
                ratio(only(executed, "checkpoint", rate)),
            )

    # ---- how it was made ------------------------------------------------------------------------

    def steps(self, job: str) -> str:
        """Steps of each run of a job."""
        return f"{self.tables.extract(job).runs['num_iterations'].max():,}"

    def target_of(self, job: str) -> str:
        """A job's target."""
        iteration, loss = self.tables.extract(job).target()
        return f"{loss:.3f} nats per byte, at iteration {iteration:,}"

    def num_pairs(self, job: str) -> int:
        """Number of pairs of a failure and a training seed of a job."""
        return len(self.tables.extract(job).runs[list(SEEDS)].drop_duplicates())

    def num_training_seeds(self, job: str) -> int:
        """Number of training seeds of a job."""
        return int(self.tables.extract(job).runs["training_seed"].nunique())

    @cached_property
    def made(self) -> dict[str, Any]:
        """Versions and hardware."""
        return read_json(self.tables.folder / "made_on.json")


def plus_minus(row: Mapping[str, float]) -> str:
    """A mean with half its interval; alone where all seeds agree."""
    half_width = (row["high"] - row["low"]) / 2
    return f"{row['mean']:+.4f} ± {half_width:.4f}" if half_width > 0 else f"{row['mean']:.0f}"


def of_pairs(found: Contrast, is_below: bool) -> str:
    """The number of pairs of seeds on one side, of all."""
    return "{} of {}".format(*found.count(is_below))


def fastest(rows: pd.DataFrame) -> str:
    """The fastest strategies of a map's cell, and those too close to exclude."""
    best = rows.loc[rows["is_best"], "strategy"].map(map_name)
    others = rows.loc[rows["may_be_first"] & ~rows["is_best"], "strategy"].map(map_name)
    return ", ".join(best) + (f"; too close to call: {', '.join(others)}" if len(others) else "")


def map_name(strategy: str) -> str:
    """A map's strategy in the page."""
    return "redundant" if strategy == MAP_PRESET else legend_label(strategy)


if __name__ == "__main__":
    write_page()
