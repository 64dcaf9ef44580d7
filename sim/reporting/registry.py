"""The kinds of figures that results can give: for each, the tables that it draws and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from sim.core.text import shortened, suggestion
from sim.reporting.ledger import ledger_figure
from sim.reporting.loss import AGAINST, LossTables, is_single, loss_figure
from sim.reporting.nodes import nodes_figure
from sim.reporting.notes import notes, prices_in_words
from sim.reporting.outcomes import choose_field, intervals_figure, means_figure
from sim.reporting.recovery import spikes_figure, swapping_figure, variants_figure
from sim.reporting.series import at_point, point_in_words, points_in
from sim.reporting.style import PAPER, SLIDE, Form
from sim.results.outcome_tables import (
    checkpoint_intervals,
    ledger_hours,
    money_to_loss,
    nodes_over_time,
    target_of,
    time_to_loss,
)
from sim.results.recovery_tables import above_failure_free, half_lives, spikes, swapping_cost
from sim.results.selection import MissingError, comparable, swept_fields
from sim.results.storage import Results, read_json
from sim.scenario.loading import load_scenario
from sim.scenario.scenario import Scenario

Tables = Mapping[str, pd.DataFrame]
"""What a figure draws: its own table, named "", and others, by what they have beside it."""

VARIANTS = ("reinit", "checkfree")


@dataclass(frozen=True)
class Source:
    """Results as figures draw them.

    field: what is to be on the x axis, where a kind leaves the choice. point: whose scenario is told below the figure,
    if not the first one's for all.
    """

    results: Results
    form: Form = PAPER
    field: str | None = None
    point: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, results: Results, form: Form = PAPER, field: str | None = None) -> Source:
        """Of some results. ValueError where their runs cannot be compared, or the field was not swept."""
        found = cls(comparable(results), form, field)
        choose_field(found.results.runs, found.fields, field)
        return found

    @cached_property
    def fields(self) -> list[str]:
        """The swept fields."""
        return swept_fields(self.results)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """All runs that have not failed."""
        return self.results.runs.dropna(subset=["kind"])

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario of the point."""
        return load_scenario(self._run / "scenario.yaml")

    @cached_property
    def notes(self) -> list[str]:
        """What the numbers are of."""
        lines = notes(self.scenario, str(read_json(self._run / "run.json")["corpus"]))
        points = points_in(self.runs, self.fields)
        if len(points) > 1 and self.point is None:
            lines[0] += f" That is at {point_in_words(points[0])}, one of {len(points)} points."
        return lines

    @property
    def seeds(self) -> str:
        """How many seeds there are, in words."""
        nums = {what: self.runs[f"{what}_seed"].nunique() for what in ("failure", "training")}
        return " and ".join(f"{num} {what} seed{'s' if num > 1 else ''}" for what, num in nums.items())

    @property
    def _run(self) -> Path:
        """The folder of a run at the point."""
        folder, point = self.results.folder, self.point or points_in(self.runs, self.fields)[0]
        name = str(at_point(self.runs, point)["run"].iloc[0])
        return folder if folder.name == name else folder / name


@dataclass(frozen=True)
class Plot:
    """A kind of figure. tables: MissingError, saying what is needed, where the results cannot give it.

    by_point: whether it has a panel for each point of a sweep; on slides, each has a slide of its own.
    """

    name: str
    summary: str
    tables: Callable[[Source], Tables]
    figure: Callable[[Source, Tables], Figure]
    by_point: bool = True

    def draw(self, source: Source) -> Figure:
        """The figure, on paper."""
        return self.figure(source, self.tables(source))

    def figures(self, source: Source, tables: Tables) -> Iterator[tuple[str, Figure]]:
        """The figures and their files' names."""
        first = next(iter(tables.values()))
        points = points_in(first, [name for name in source.fields if name in first])
        if source.form is not SLIDE:
            yield self.name, self.figure(source, tables)
        elif len(points) == 1 or not self.by_point:
            yield f"{self.name}_slide", self.figure(source, tables)
        else:
            for number, point in enumerate(points, start=1):
                there = {name: at_point(table, point) for name, table in tables.items()}
                yield f"{self.name}_slide_{number}", self.figure(replace(source, point=point), there)


def loss_tables(source: Source) -> Tables:
    """Of loss curves against time and against iteration."""
    tables: dict[str, pd.DataFrame] = {}
    for against in AGAINST:
        curves, runs, marks = LossTables.of(source.results, against)
        tables |= {against: curves, f"{against}_runs": runs, f"{against}_failures": marks}
    return tables


def loss_figure_of(source: Source, tables: Tables) -> Figure:
    """Loss curves."""
    over_time, over_iterations = (
        LossTables(tables[against], tables[f"{against}_runs"], tables[f"{against}_failures"]) for against in AGAINST
    )
    means = (
        ""
        if is_single(over_time.curves)
        else (
            ": lines are means, over time as long as all runs train; shaded: from the lowest run to the highest; "
            "thin: runs"
        )
    )
    lines = [*source.notes, f"{source.seeds}{means}."]
    return loss_figure(over_time, over_iterations, source.fields, target_of(source.results.runs), lines, source.form)


def variant_tables(source: Source) -> Tables:
    """Of strategies that fill a lost stage anew in different ways, beside the failure-free run."""
    runs = source.results.runs
    own = [name for name in source.fields if name.startswith("strategies")]
    variants = runs[runs["kind"].isin(VARIANTS)].drop_duplicates(["strategy", *own])
    if len(variants) < 2:
        raise MissingError(
            "no two ways to fill a lost stage are there: run scenarios/reinit.yaml, or several strategies of kind "
            "reinit or checkfree that differ in their options"
        )
    chosen = Results(source.results.folder, runs[runs["kind"].isin((*VARIANTS, "none"))])
    above = above_failure_free(chosen)
    losses, of_runs, marks = LossTables.of(chosen, "iteration")
    return {"": above, "losses": losses, "losses_runs": of_runs, "losses_failures": marks}


def variants_of(source: Source, tables: Tables) -> Figure:
    """The ablation of re-initialisation."""
    losses = LossTables(tables["losses"], tables["losses_runs"], tables["losses_failures"])
    lines = [*source.notes, f"{source.seeds}. Without failures: of the same training seed."]
    if not is_single(losses.curves):
        lines[-1] += " Lines are means; shaded: from the lowest run to the highest; thin: runs."
    return variants_figure(losses, tables[""], source.fields, lines, source.form)


def means_to(unit: str, what: str) -> Callable[[Source, Tables], Figure]:
    """Draws what it takes to the target loss, in a unit."""

    def figure(source: Source, tables: Tables) -> Figure:
        target = target_of(source.results.runs)
        label = f"{what} to {'the target loss' if target is None else f'loss {target:g}'}"
        lines = [*source.notes, of_intervals(source, tables[""])]
        if unit == "usd":
            lines.append(prices_in_words(source.scenario.cluster))
        return means_figure(tables[""], source.fields, unit, label, lines, source.field, source.form)

    return figure


def ledger_of(source: Source, tables: Tables) -> Figure:
    """Where the hours went."""
    means = ": means over failure seeds, of runs that finished" if (tables[""]["num_runs"] > 1).any() else ""
    lines = [*source.notes, f"{source.seeds}{means}."]
    return ledger_figure(tables[""], lines, source.fields, source.form)


def intervals_of(source: Source, tables: Tables) -> Figure:
    """The ablation of the checkpoint interval."""
    lines = [*source.notes, of_intervals(source, tables[""])]
    return intervals_figure(tables[""], source.fields, target_of(source.results.runs), lines, source.form)


def swapping_of(source: Source, tables: Tables) -> Figure:
    """What swapped routes cost."""
    pairs = int(tables[""]["num_pairs"].max())
    many = (
        "one pair of runs"
        if pairs == 1
        else f"means over {pairs} pairs of runs; shaded: from the lowest to the highest"
    )
    lines = [
        *source.notes,
        "Only runs that met no failure, beside failure-free ones of the same training seed: swapped routes alone make "
        f"the difference. Lines: {many}.",
    ]
    fields = [name for name in source.fields if name in tables[""]]
    return swapping_figure(tables[""], fields, lines, source.form)


def spikes_of(source: Source, tables: Tables) -> Figure:
    """Spikes and half-lives."""
    own = tables[""]
    is_clean = (own["baseline"] == "failure-free run").all()
    compared = "minus that of the failure-free run at the same step" if is_clean else "with the noise of its batches"
    lines = [
        *source.notes,
        f"{source.seeds}. Excess: training loss {compared}, above its mean over the 10 steps before the failure. Left: "
        "means over recoveries that changed weights, as far as half of them get before the next failure; shaded: their "
        "quartiles. Right: medians and quartiles.",
    ]
    return spikes_figure(own, tables["half_lives"], source.fields, lines, source.form)


def nodes_tables(source: Source) -> Tables:
    """Of nodes over time, if there is anything to see."""
    found = nodes_over_time(source.results)
    if (found.groupby("run")["num_nodes"].nunique() == 1).all():
        raise MissingError(
            "the number of nodes never changes: nobody is lost, or is replaced at once (cluster.provisioning_seconds: "
            "0)"
        )
    return {"": found}


def nodes_of(source: Source, tables: Tables) -> Figure:
    """Nodes over time."""
    scenario = source.scenario
    num_needed = (scenario.workload.num_stages + 1) * scenario.cluster.nodes_per_stage
    lines = [
        *source.notes,
        "Nodes that are there, idle spares among them. All strategies meet the same churn; a mark is where a run ends.",
    ]
    return nodes_figure(tables[""], source.fields, num_needed, lines, source.form)


def of_intervals(source: Source, means: pd.DataFrame) -> str:
    """What the marks and lines of means are."""
    if (means["num_runs"] <= 1).all():
        return f"{source.seeds}: one run each, no interval."
    words = f"{source.seeds}: marks are means, lines and bands their 95 % intervals, with a caret where they go on"
    few = means[means["num_reached"] < means["num_runs"]] if "num_reached" in means else means.iloc[:0]
    if few.empty:
        return f"{words}."
    first = few.iloc[0]
    return f"{words}; {first['num_reached']}/{first['num_runs']}: so many runs got there, and the mean is theirs."


def reached(table: Callable[[Results], pd.DataFrame]) -> Callable[[Source], Tables]:
    """The one table of what it takes to the target, if any run gets there."""

    def tables(source: Source) -> Tables:
        found = table(source.results)
        if not found["num_reached"].any():
            raise MissingError(
                "no run reaches its target loss: it needs a learner (training.learner: torch), more steps, or a higher "
                "training.target_validation_loss"
            )
        return {"": found}

    return tables


def alone(table: Callable[[Results], pd.DataFrame]) -> Callable[[Source], Tables]:
    """The one table that a kind draws."""
    return lambda source: {"": table(source.results)}


PLOTS = {
    plot.name: plot
    for plot in (
        Plot("loss", "validation loss against simulated time and iteration", loss_tables, loss_figure_of),
        Plot(
            "time_to_loss",
            "hours to the target loss",
            reached(time_to_loss),
            means_to("hours", "simulated hours"),
            False,
        ),
        Plot("money_to_loss", "dollars to a loss", reached(money_to_loss), means_to("usd", "US dollars"), False),
        Plot("ledger", "where the hours went", alone(ledger_hours), ledger_of),
        Plot("checkpoint_interval", "hours by checkpoint interval", alone(checkpoint_intervals), intervals_of),
        Plot("reinit", "loss by the way a lost stage is filled", variant_tables, variants_of),
        Plot("swapping", "what swapped routes cost", alone(swapping_cost), swapping_of),
        Plot(
            "spikes",
            "loss after recoveries, and its half-life",
            lambda source: {"": spikes(source.results), "half_lives": half_lives(source.results)},
            spikes_of,
        ),
        Plot("nodes", "nodes over time", nodes_tables, nodes_of),
    )
}


def figure_of(kind: str, results: Results, form: Form = PAPER, field: str | None = None) -> Figure:
    """One kind of figure of results, for notebooks. ValueError for an unknown kind, or where they cannot give it."""
    if kind not in PLOTS:
        raise ValueError(f"kind {shortened(kind)}: no such figure{suggestion(kind, PLOTS)}")
    return PLOTS[kind].draw(Source.of(results, form, field))
