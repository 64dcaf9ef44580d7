"""The numbers of docs/paper.md as text: cells of its tables, and figures within its sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from benchmarks.paper.answers import (
    EXECUTED,
    FINAL,
    HIGHEST,
    INTERVAL,
    LAYERS,
    RATE,
    REBUILDING,
    SECONDS,
    paper_extra_nats,
    ratios,
)
from benchmarks.paper.jobs import JOBS
from benchmarks.paper.learning import rollback_factor
from benchmarks.paper.page_cells import Row, difference, hours_of, name_of, only, percent, ratio, records
from benchmarks.paper.page_unsaid import Unsaid
from benchmarks.paper.published import (
    CHECKPOINT_INTERVAL_ITERATIONS,
    FAILURE_FREE_ITERATIONS,
    NUM_STAGES,
    RATES,
    RELEASED_PROBABILITIES,
    TABLE_3,
    row_of,
)
from benchmarks.paper.sides import side
from sim.core.units import SECONDS_PER_HOUR
from sim.reporting.series import at_point
from sim.results.crossed_design import SEEDS
from sim.results.storage import read_json

REFERENCES = ("redundant_text", "redundant_table2", "checkpoint")

ORDER = ("checkpoint", "redundant_text", "redundant_table2", "checkfree", "checkfree_plus")

UPLOAD_RATE, BLOCKING = "network.storage.bandwidth_mbit_per_s", "strategies[checkpoint].blocking_share"


class Numbers(Unsaid):
    """What the template asks for. Intervals are 95 % intervals of means over failure and training seeds."""

    # ---- Table 2 --------------------------------------------------------------------------------

    def table_2(self) -> Iterator[Row]:
        """A row a strategy and rate: seconds an iteration, iterations × failure-free, hours, and the paper's."""
        runs, hours = self.extract("table2").runs, self.against("table2", SECONDS, "none")
        executed = self.against("table2", EXECUTED, "none")
        for rate in RATES:
            for strategy in ORDER:
                row = row_of(strategy, rate)
                seconds = only(runs, strategy, rate)["iteration_seconds"]
                yield (
                    *(percent(rate), name_of(strategy)),
                    *(f"{seconds:.1f}", f"{row.iteration_seconds:.1f}"),
                    *(ratio(only(executed, strategy, rate)), f"{self.paper_ratio(strategy, rate):.2f}"),
                    *(hours_of(only(hours, strategy, rate)), f"{row.train_hours:.0f}"),
                )

    def headline(self) -> Iterator[Row]:
        """A row a strategy and rate: hours against redundant computation, by preset, and checkpointing."""
        against = {name: self.against("table2", SECONDS, name) for name in REFERENCES}
        for rate in RATES:
            for strategy in REBUILDING:
                cells = [ratio(only(table, strategy, rate)) for table in against.values()]
                theirs = [self.paper_hours(strategy, rate, name) for name in ("redundant", "checkpoint")]
                yield percent(rate), name_of(strategy), *cells, *(f"{value:.2f}" for value in theirs)

    def paper_hours(self, strategy: str, rate: float, reference: str) -> float:
        """The paper's ratio of two train times."""
        return row_of(strategy, rate).train_hours / row_of(reference, rate).train_hours

    def ranking(self, rate: float, left_out: str) -> str:
        """Strategies by mean hours to the loss, first to last; one preset of redundant computation left out."""
        rows = self.against("table2", SECONDS, "none")
        rows = rows[(rows[RATE] == rate) & ~rows["strategy"].isin(["none", left_out])].sort_values("mean")
        return " < ".join(
            f"{name_of(row['strategy']).split(',')[0]} {row['mean'] / SECONDS_PER_HOUR:.1f} h" for row in records(rows)
        )

    def rankings(self) -> Iterator[Row]:
        """A row a rate: `ranking` with either preset."""
        for rate in RATES:
            yield percent(rate), self.ranking(rate, "redundant_text"), self.ranking(rate, "redundant_table2")

    def seconds(self, strategy: str) -> str:
        """Of an iteration."""
        return f"{only(self.extract('table2').runs, strategy, HIGHEST)['iteration_seconds']:.1f}"

    def failures(self, rate: float) -> str:
        """Stages that CheckFree loses until the target, on average."""
        runs = at_point(self.extract("table2").to_target(), {"strategy": "checkfree", RATE: rate})
        return f"{(runs['num_failures'] * runs[EXECUTED] / runs['num_iterations_run']).mean():.0f}"

    # ---- other tables and figures -----------------------------------------------------------------

    def trends(self) -> Iterator[Row]:
        """A row a depth and strategy: iterations to a loss × failure-free, by the loss's failure-free iteration."""
        found = self.trend
        places = sorted(found["at"].unique())
        for (layers, strategy), own in found.groupby(["layers_per_stage", "strategy"], sort=False):
            cells = {row["at"]: ratio(row) for row in records(own)}
            yield str(layers), name_of(str(strategy)), *(cells.get(at, "") for at in places)

    def trend_head(self) -> list[str]:
        """Its head."""
        return ["layers a stage", "", *(f"{at:,}" for at in sorted(self.trend["at"].unique()))]

    def costs_more(self, strategy: str, early: int, late: int) -> str:
        """In how many pairs of seeds the shallow proxy's iterations, × failure-free, are more for a later loss."""
        shallow = self.smooth("depth").at({LAYERS: 1})
        found = []
        for at in (early, late):
            executed = shallow.to_target(at).pivot(index=SEEDS, columns="strategy", values=EXECUTED)
            found.append((executed[strategy] / executed["none"]).rename("ratio"))
        pairs = pd.concat(found, keys=("early", "late"), names=["strategy"]).reset_index()
        return side(pairs, "ratio", "late", "early").count(is_below=False)

    def lower_at_end(self, layers: int) -> str:
        """In how many pairs of seeds CheckFree+ ends at a lower loss than CheckFree, by depth."""
        runs = at_point(self.final("depth"), {LAYERS: layers})
        return side(runs, FINAL, "checkfree_plus", "checkfree").count(is_below=True)

    def intervals(self) -> Iterator[Row]:
        """Figure 4b: hours to the target at each rate, by checkpoint interval, and CheckFree+'s."""
        table = self.against("figure4b", SECONDS, "none")
        for interval in (10, 50, 100):
            rows = table[table[INTERVAL] == interval]
            yield f"every {interval}", *(hours_of(only(rows, "checkpoint", rate)) for rate in RATES)
        others = self.against("table2", SECONDS, "none")
        for strategy in ("redundant_text", *REBUILDING):
            yield name_of(strategy), *(hours_of(only(others, strategy, rate)) for rate in RATES)

    def uploads(self) -> Iterator[Row]:
        """Hours to the target with checkpoints every 10 iterations, by what an upload costs."""
        table = self.against("uploads", SECONDS, "none")
        table = table[table["strategy"] == "checkpoint"]
        for mbit_per_s, link in ((500.0, "each stage has 500 Mbit/s"), (71.4, "all stages together have 500 Mbit/s")):
            for share, how in ((0, "hidden behind training"), (1, "training stands still")):
                rows = at_point(table, {UPLOAD_RATE: mbit_per_s, BLOCKING: share})
                yield link, how, *(hours_of(only(rows, "checkpoint", rate)) for rate in RATES)

    def over_frequents(self) -> Iterator[Row]:
        """A row a strategy: `over_frequent` at each rate."""
        for strategy in REBUILDING:
            yield name_of(strategy), *(self.over_frequent(strategy, rate) for rate in RATES)

    def over_frequent(self, strategy: str, rate: float) -> str:
        """Time to the target over that of checkpointing every 10 iterations, and in how many pairs it is longer."""
        saving, others = (self.extract(job).to_target() for job in ("figure4b", "table2"))
        saving = saving[saving[INTERVAL] == 10]
        rows = pd.concat([saving, others[others["strategy"] == strategy]])
        count = side(rows[rows[RATE] == rate], SECONDS, strategy, "checkpoint").count(is_below=False)
        return f"{ratio(only(ratios(rows, [RATE], SECONDS, 'checkpoint'), strategy, rate))}; {count}"

    def swapping(self) -> tuple[str, str]:
        """Figure 4c: final loss of CheckFree+ above plain training's without failures, and iterations to the target."""
        (row,) = self.variants("figure4c", {"checkfree_plus": ""})
        return row[1], row[2]

    def perplexities(self) -> Iterator[Row]:
        """Table 3: perplexity by text, and what failures add in nats a byte; ours per byte, the paper's per token."""
        found = self.perplexity("perplexity")
        ours = zip(*(self.extra_nats(name) for name in REBUILDING), strict=True)
        for (text, means), extras in zip(found.iterrows(), ours, strict=True):
            cells = [f"{means[name]:.2f}" for name in ("none", *REBUILDING)]
            yield f"ours: {text}", *cells, *(f"{extra:.3f}" for extra in extras)
        theirs = zip(*(paper_extra_nats(name) for name in REBUILDING), strict=True)
        for (text, values), extras in zip(TABLE_3.items(), theirs, strict=True):
            yield f"paper: {text}", *(f"{value:.2f}" for value in values), *(f"{extra:.3f}" for extra in extras)

    def losses_at_end(self) -> Iterator[Row]:
        """A row a strategy: loss at the end above the failure-free one's, by rate."""
        found = self.excess("table2")
        for strategy in REBUILDING:
            yield name_of(strategy), *(difference(only(found, strategy, rate)) for rate in RATES)

    def read_from_means(self, strategy: str) -> str:
        """Iterations to the loss, × failure-free, at the three rates, where running means are read."""
        smooth = self.smooth("table2")
        found = ratios(smooth.to_target(), [RATE], EXECUTED, "none")
        return ", ".join(f"{only(found, strategy, rate)['ratio']:.2f}" for rate in RATES)

    # ---- where the published numbers disagree -------------------------------------------------------

    def clocks(self) -> Iterator[Row]:
        """A row a rate: the iteration that released probabilities fit, and rollback arithmetic beside Table 2."""
        for rate, probability in zip(RATES, RELEASED_PROBABILITIES, strict=True):
            implied = SECONDS_PER_HOUR * math.log1p(-probability) / math.log1p(-rate)
            own = -math.expm1(row_of("checkpoint", rate).iteration_seconds / SECONDS_PER_HOUR * math.log1p(-rate))
            factors = [rollback_factor(p, CHECKPOINT_INTERVAL_ITERATIONS, NUM_STAGES) for p in (probability, own)]
            yield (
                *(percent(rate), f"{probability:.4f}", f"{implied:.0f} s", f"{own:.5f}"),
                *(f"{factor:.2f}" for factor in factors),
                f"{self.paper_ratio('checkpoint', rate):.2f}",
                ratio(only(self.against("table2", EXECUTED, "none"), "checkpoint", rate)),
            )

    # ---- how it was made ------------------------------------------------------------------------------

    def inner_recovery_seconds(self) -> float:
        """Mean of CheckFree where no end stage fails."""
        runs = self.extract("end_stages").at({"strategy": "checkfree", "failures.immune_stages": "[0, 1, 6]"}).runs
        return float(runs["mean_recovery_seconds"].mean())

    def steps(self, job: str) -> str:
        """Steps that each run of a job is given."""
        return f"{self.extract(job).runs['num_iterations'].max():,}"

    def target_of(self, job: str) -> str:
        """A job's target, in words."""
        iteration, loss = self.target(job)
        return f"{loss:.3f} nats a byte, at iteration {iteration:,}"

    def num_training_seeds(self, job: str) -> int:
        """Of a job."""
        return int(self.extract(job).runs["training_seed"].nunique())

    def text_hours(self) -> float:
        """Hours of the paper's failure-free iterations under redundant computation with half-size microbatches."""
        return FAILURE_FREE_ITERATIONS * float(self.seconds("redundant_text")) / SECONDS_PER_HOUR

    def made(self) -> dict[str, Any]:
        """On what, and how long each sweep took."""
        return read_json(self.folder / "made_on.json")

    def made_where(self) -> str:
        """The machine and versions."""
        made = self.made()
        return f"2 cores ({made['cpu']}), torch {made['torch']}, Python {made['python']},"

    def minutes(self) -> str:
        """Of all sweeps."""
        seconds = self.made()["seconds"]
        return f"{sum(seconds[job.name] for job in JOBS) / 60:.0f}"
