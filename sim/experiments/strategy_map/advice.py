"""Advice for one cluster, in five lines: what to use, what comes next, how sure, where it turns, what it assumes."""

from __future__ import annotations

import math
from itertools import groupby

from sim.core.text import USD, format_list
from sim.experiments.strategy_map.interpolation import mean
from sim.experiments.strategy_map.job import CellResult, MapJob
from sim.experiments.strategy_map.table import means
from sim.results.comparison import FEWEST_LOST, Standing
from sim.scenario.scenario import Scenario
from sim.strategies import legend_label

KNOBS = ("rate_per_hour", "mean_uptime_hours", "per_iteration_probability", "time_scale")
"""Fields of a failure process that say how often it strikes."""

FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)


def churn_knob(scenario: Scenario) -> str | None:
    """The field that says how often stages are lost; None where there is no single one."""
    known = [knob for knob in KNOBS if getattr(scenario.failures, knob, None)]
    return f"failures.{known[0]}" if known else None


def advice(job: MapJob, prices: str) -> list[str]:
    """Five lines on the scenario as it stands. prices: what money is paid for, in words."""
    cell = job.grid.own_cell
    assert cell is not None, "the grid is made around the scenario"
    look = job.looks[cell]
    return [use(job, look), then(job, look), confidence(job, look), turns(job), assumes(job, prices)]


def use(job: MapJob, look: CellResult) -> str:
    """Which strategy, and what it takes."""
    best, contenders = look.verdict.best, look.verdict.contenders
    target = job.grid.scenario.training.target_validation_loss
    if best is None:
        return (
            f"None of these comes to loss {target:g} under every seed: {', '.join(map(legend_label, look.passages))}."
        )
    first = "for the least money" if job.objective == "money" else "first"
    told = f"comes to loss {target:g} {first}: after {taken(look, best.strategy)}"
    name = legend_label(best.strategy)
    if not contenders:
        return f"Use {name}: it {told}."
    names = format_list([legend_label(one.strategy) for one in contenders])
    return f"Use {name}, which on average {told}; too close to call: {names}."


def taken(look: CellResult, name: str) -> str:
    """Hours and money with their intervals."""
    found = means(look, name)
    hours = f"{found['hours']:.3g} h (95 % interval {found['hours_low']:.3g} to {found['hours_high']:.3g})"
    return hours if math.isnan(found["usd"]) else f"{hours} and {USD.of(found['usd'])}"


def then(job: MapJob, look: CellResult) -> str:
    """The others, by how far they are behind."""
    more = "more money" if job.objective == "money" else "later"
    others = look.verdict.standings[1:] if look.verdict.best else look.verdict.standings
    told = [
        f"{legend_label(one.strategy)} {100 * one.behind:.0f} % {more}{interval(one)}"
        if one.reaches
        else f"{legend_label(one.strategy)} does not come to it in {one.takes.num_runs - one.takes.num_reached} of "
        f"{one.takes.num_runs} pairs of lucks"
        for one in others
    ]
    return f"Then {'; '.join(told)}."


def interval(standing: Standing) -> str:
    """Of how far behind, in brackets; nothing where it has none, or no width."""
    low, high = 100 * standing.behind_low, 100 * standing.behind_high
    return "" if math.isnan(low) or low == high else f" ({low:.0f} to {high:.0f})"


def confidence(job: MapJob, look: CellResult) -> str:
    """How sure the order is, and of what."""
    error = max((one.error for one in look.verdict.standings), default=0.0)
    read = f"; read between real runs and their validations, up to {100 * error:.0f} % off" if error >= 0.005 else ""
    told = f"95 % intervals, {len(job.world_seeds)} churns crossed with {job.num_replicates} real trainings{read}"
    if look.verdict.best is None:
        return f"Confidence: {told}."
    if (lost := num_lost(look)) < FEWEST_LOST:
        return (
            f"Confidence: of little worth for churn, on the way to the target only {lost:.2g} stages are lost on "
            f"average: this compares plain speed ({told}). More training.steps or iterations_per_step would be closer."
        )
    if look.verdict.contenders:
        names = [look.verdict.best.strategy, *(one.strategy for one in look.verdict.contenders)]
        cell = job.grid.own_cell
        is_learnt = cell is not None and any(not job.penalties[job.grid.family(cell, name)].is_flat for name in names)
        option = "--replicates" if is_learnt else "--time-replicates"
        return f"Confidence: low ({told}); more {option} may tell them apart."
    return f"Confidence: high, the next is surely behind ({told})."


def num_lost(look: CellResult) -> float:
    """Stages lost on the way to the target by the best; 0 where none comes there."""
    if look.verdict.best is None:
        return 0.0
    passed = look.passages[look.verdict.best.strategy]
    return passed.failures_per_iteration * math.fsum(passed.iterations) / len(passed.iterations)


def turns(job: MapJob) -> str:
    """Who is first at other rates of failures."""
    axis = job.grid.axes[0]
    if len(axis.values) < 2:
        return "It turns: not looked at, these failures have no single rate; churnlab map shows other fields."
    looks = [(value, job.looks[i, 0]) for i, value in enumerate(axis.values)]
    told = []
    for name, group in groupby(looks, key=lambda pair: best_of(pair[1])):
        found = list(group)
        values = [value for value, _ in found]
        close = [f"{value:g}" for value, look in found if look.verdict.contenders]
        where = "" if len(close) < len(found) else " throughout" if len(found) > 1 else " there"
        doubt = f", too close to call{where or ' at ' + ', '.join(close)}" if close else ""
        told.append(f"{values[0]:g}{f' to {values[-1]:g}' if len(values) > 1 else ''}: {name}{doubt}")
    if len(told) == 1:
        return f"It does not turn: for {axis.field} {told[0]}."
    return f"It turns with {axis.field}: {'; '.join(told)}."


def best_of(look: CellResult) -> str:
    """The best's name."""
    return legend_label(look.verdict.best.strategy) if look.verdict.best else "none comes to the target"


def who(look: CellResult) -> str:
    """The best, and in brackets whoever else may be."""
    best = look.verdict.best
    if best is None:
        return "none comes to the target"
    others = [legend_label(one.strategy) for one in look.verdict.contenders]
    return legend_label(best.strategy) + (f" (or {', '.join(others)})" if others else "")


def assumes(job: MapJob, prices: str) -> str:
    """What the answer rests on."""
    scenario = job.grid.scenario
    penalties = []
    for family, penalty in job.penalties.items():
        if not penalty.is_flat and len(penalty.knots) > 1 and (job.grid.own_cell, family.strategy) in job.knots:
            here = mean(job.knots[job.grid.own_cell, family.strategy].iterations)  # type: ignore[index]
            share = here / mean(penalty.knots[0].iterations)
            told = "over twice" if math.isnan(share) else f"{share:.2f} ×"
            penalties.append(f"{legend_label(family.strategy)} {told}")
    proxy, workload = scenario.training.model, scenario.workload
    learnt = f" (iterations under these failures, against none: {', '.join(penalties)})" if penalties else ""
    return (
        f"It assumes that '{workload.model.name}' in {workload.num_stages} stages loses as much by a lost stage as the "
        f"proxy did, {proxy.num_stages} × {proxy.layers_per_stage} layers of dim {proxy.dim}{learnt}; that the links, "
        "devices and failures are as the scenario says." + (f" {prices}" if job.objective == "money" else "")
    )
