"""Advice in five sentences: the strategy to use, the others, confidence, other failure rates, and assumptions."""

from __future__ import annotations

import math
from itertools import groupby

from sim.core.text import USD, format_list
from sim.reporting.notes import describe_prices
from sim.results.statistics import FEWEST_LOST
from sim.results.strategy_map import Advice, CellResult
from sim.strategies import legend_label


def advice_lines(advice: Advice) -> list[str]:
    """Five sentences on the scenario with its own values."""
    return [_use(advice), _then(advice), _confidence(advice), _turns(advice), _assumptions(advice)]


def _use(advice: Advice) -> str:
    target, result = advice.map.scenario.training.target_validation_loss, advice.result
    if advice.best is None:
        names = ", ".join(map(legend_label, result.first_passages))
        return f"None of these reaches loss {target:g} under every seed: {names}."
    first = "for the least money" if advice.map.objective == "money" else "first"
    reached = f"reaches loss {target:g} {first}, after {format_means(result, advice.best)}"
    if not advice.contenders:
        return f"Use {legend_label(advice.best)}: it {reached}."
    names = format_list([legend_label(name) for name in advice.contenders])
    return f"Use {legend_label(advice.best)}: on average it {reached}. Too close to call: {names}."


def format_means(result: CellResult, name: str) -> str:
    """Hours and money of a strategy with their intervals."""
    found = result.first_passages[name].means()
    hours = f"{found['hours']:.3g} h (95 % interval {found['hours_low']:.3g} to {found['hours_high']:.3g})"
    return hours if math.isnan(found["usd"]) else f"{hours} and {USD.of(found['usd'])}"


def _then(advice: Advice) -> str:
    more = "more money" if advice.map.objective == "money" else "later"
    described = []
    for one in advice.result.ranking.standings[1 if advice.best else 0 :]:
        name, num_missed = legend_label(one.strategy), one.takes.num_runs - one.takes.num_reached
        low, high = 100 * one.behind_low, 100 * one.behind_high
        interval = "" if math.isnan(low) or low == high else f" ({low:.0f} to {high:.0f})"
        behind = f"{name}, {100 * one.behind:.0f} % {more}{interval}"
        missed = f"{name} misses it in {num_missed} of {one.takes.num_runs} pairs of seeds"
        described.append(behind if one.reaches else missed)
    return f"Then {'; '.join(described)}."


def _confidence(advice: Advice) -> str:
    result, map_ = advice.result, advice.map
    error = max((one.error for one in result.ranking.standings), default=0.0)
    basis = f"95 % intervals, {map_.num_time_seeds} failure seeds crossed with {map_.num_replicates} real trainings"
    if error >= 0.005:
        basis += f"; interpolated between real runs and between validations, up to {100 * error:.0f} % off"
    if advice.best is None:
        return f"Confidence: {basis}."
    if result.num_lost < FEWEST_LOST:
        return (
            f"Confidence: low for churn, only {result.num_lost:.2g} stages are lost on average before the target: this "
            f"compares plain speed ({basis}). Use more training.steps or iterations_per_step."
        )
    if advice.contenders:
        is_learnt = any(name in advice.learning_costs for name in (advice.best, *advice.contenders))
        option = "--replicates" if is_learnt else "--time-replicates"
        return f"Confidence: low ({basis}); more {option} may separate them."
    return f"Confidence: high, all others are significantly behind ({basis})."


def _turns(advice: Advice) -> str:
    axis, cells = advice.map.axes[0], advice.map.cells
    if len(axis.values) < 2:
        why = "not evaluated, these failures have no single rate; churnlab map varies other fields"
        return f"Other failure rates: {why}."
    ranges = []
    for name, group in groupby(range(len(axis.values)), key=lambda i: _best_name(cells[i, 0])):
        same = list(group)
        values = [f"{axis.values[i]:g}" for i in same]
        close = [f"{axis.values[i]:g}" for i in same if cells[i, 0].ranking.contenders]
        where = "" if len(close) < len(same) else " throughout" if len(same) > 1 else " there"
        doubt = f", too close to call{where or ' at ' + ', '.join(close)}" if close else ""
        ranges.append(f"{' to '.join(dict.fromkeys((values[0], values[-1])))}: {name}{doubt}")
    if len(ranges) == 1:
        return f"The same holds at other failure rates: for {axis.field} {ranges[0]}."
    return f"The order changes with {axis.field}: {'; '.join(ranges)}."


def _best_name(result: CellResult) -> str:
    best = result.ranking.best
    return legend_label(best.strategy) if best else "none reaches the target"


def best_and_contenders(result: CellResult) -> str:
    """The best strategy's name, and in brackets others that may be first as well."""
    others = [legend_label(one.strategy) for one in result.ranking.contenders]
    return _best_name(result) + (f" (or {', '.join(others)})" if others else "")


def _assumptions(advice: Advice) -> str:
    scenario = advice.map.scenario
    factors = {
        name: "over twice" if math.isnan(cost) else f"{cost:.2f} ×" for name, cost in advice.learning_costs.items()
    }
    costs = [f"{legend_label(name)} {factor}" for name, factor in factors.items()]
    proxy, workload = scenario.training.model, scenario.workload
    learnt = f" (iterations under these failures relative to none: {', '.join(costs)})" if costs else ""
    money = f" {describe_prices(scenario.cluster)}" if advice.map.objective == "money" else ""
    return (
        f"Assumptions: a lost stage costs '{workload.model.name}' in {workload.num_stages} stages as many iterations "
        f"as it cost the proxy, {proxy.num_stages} × {proxy.layers_per_stage} layers of dim {proxy.dim}{learnt}; "
        f"links, devices and failures are those of the scenario.{money}"
    )
