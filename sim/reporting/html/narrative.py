"""The text of a report: ranking by time and money, the cost of churn, confidence, warnings and limits."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pandas as pd

from sim.core.text import (
    HOURS,
    USD,
    capitalized,
    format_count,
    format_list,
    format_percent,
    format_percent_range,
    uncapitalized,
)
from sim.reporting.binding import binding_sentences
from sim.reporting.bottlenecks import time_sentences
from sim.reporting.html.data import ReportData
from sim.reporting.notes import describe_prices, notes
from sim.reporting.verdict import (
    TO_END,
    TO_TARGET,
    USD_TO_END,
    USD_TO_TARGET,
    MetricRanking,
    describe_ranking,
    is_failure_free,
    label,
    lead,
    ranking_at,
)
from sim.results.crossed_design import Estimate
from sim.results.outcome_tables import target_of
from sim.results.statistics import PointRuns, estimate, paired_difference, points_of
from sim.scenario.saves import unused_saves
from sim.scenario.scenario import Scenario
from sim.strategies import legend_label


def sentences_on(runs: pd.DataFrame) -> list[str]:
    """Describe the runs of one point: the fastest and the cheapest strategy, and the cost of churn."""
    points = points_of(runs, ())
    target, ranked = ranking_at(runs)
    goal = f"reaches loss {target}" if target else "ends"
    if not ranked.values:
        takes = estimate(points[0].values(TO_TARGET if target else TO_END))
        if math.isnan(takes.mean):
            return ["No run finished."]
        return [f"Without failures, training {goal} after {HOURS.of(takes.mean)}; no other strategy was run."]
    sentences = [describe_ranking(ranked, target)]
    for each in ranked.standings:
        if not each.reaches:
            gets_there = f"{each.takes.num_reached} of {each.takes.num_runs} runs"
            sentences.append(f"{capitalized(label(each))} is left out: it reaches the target in {gets_there}.")
    if target is None:
        sentences += _of_losses(runs, points)
    money = MetricRanking.of(points, USD_TO_TARGET if target else USD_TO_END)
    sentences += _of_money(money, ranked, "to that loss" if target else "to the end")
    if ranked.reaching:
        cheapest = ranked.best or ranked.by_overhead[0]
        sentences += _of_price(points, cheapest.strategy)
    return sentences


def _of_losses(runs: pd.DataFrame, points: Sequence[PointRuns]) -> list[str]:
    target = target_of(runs)
    sentences = [] if target is None else [f"No run reaches the target loss {target:g}."]
    ranking = MetricRanking.of(points, "final_validation_loss").reaching
    losses = {label(each): f"{each.takes.mean:.3f}" for each in ranking}
    if len(set(losses.values())) > 1:
        low, *_, high = losses.values()
        least, most = (format_list([name for name, loss in losses.items() if loss == end]) for end in (low, high))
        ends = f"the lowest loss at the end, {low}, is that of {least}, the highest, {high}, that of {most}"
        sentences.append(f"The first to finish does not have the lowest loss: {ends}.")
    return sentences


def _of_money(ranked: MetricRanking, in_time: MetricRanking, where: str) -> list[str]:
    if not ranked.reaching or not ranked.is_tested:
        return []
    first, *others = ranked.reaching
    value = ranked.spread(first, USD)
    if not others:
        return [f"{capitalized(label(first))} pays {value} {where}."]
    if ranked.has_one_sample or not ranked.contenders:
        also = "also " if in_time.best and in_time.best.strategy == first.strategy else ""
        following = f"next {label(others[0])}, {lead(others[0], 'more')}"
        return [f"{capitalized(label(first))} is {also}cheapest {where}: {value}; {following}."]
    names, in_order = ([each.strategy for each in (*one.reaching[:1], *one.contenders)] for one in (ranked, in_time))
    if names == in_order:
        return [f"Cost follows time: {label(first)} pays {value} {where}, and the same strategies may be as cheap."]
    rivals = format_list([f"{label(each)} ({lead(each, 'more')})" for each in ranked.contenders])
    pays = f"{label(first)} pays {value}, but {rivals} may be as cheap"
    return [f"Too close to call which strategy is cheapest {where}: {pays}."]


def _of_price(points: Sequence[PointRuns], strategy: str) -> list[str]:
    own = next(point for point in points if point.strategy == strategy)
    ideal = next((point for point in points if is_failure_free(point)), None)
    name = legend_label(strategy)
    if ideal is None:
        overhead = estimate(own.values("overhead")).mean
        if math.isnan(overhead):
            return []
        more = format_percent(overhead)
        return [f"Against the same iterations without failures or extra work, {name} takes {more} more time."]
    parts = []
    for metric, where in ((TO_TARGET, "to that loss"), (TO_END, "to the end")):
        found = paired_difference(own.values(metric), ideal.values(metric)).relative
        if not math.isnan(found.mean):
            between = f" ({format_percent_range(found.low, found.high)})" if _has_width(found) else ""
            more = "more" if found.mean >= 0 else "less"
            parts.append(f"{format_percent(abs(found.mean))} {more} time{between} {where}")
    loss = paired_difference(own.values("final_validation_loss"), ideal.values("final_validation_loss")).difference
    if loss.mean == 0.0 and not _has_width(loss):
        parts.append("ends at the same loss")
    elif not math.isnan(loss.mean):
        between = f" ({loss.low:+.3f} to {loss.high:+.3f})".replace("-", "−") if _has_width(loss) else ""
        parts.append(f"ends at a loss {abs(loss.mean):.3f} {'higher' if loss.mean > 0 else 'lower'}{between}")
    return [f"Against no failures, {name} takes {format_list(parts)}."] if parts else []


def _has_width(found: Estimate) -> bool:
    return not math.isnan(found.low) and found.low != found.high


def cautions(data: ReportData, scenario: Scenario | None) -> list[str]:
    """Return warnings for the top of the page: failed, stopped, missing and left-out runs, fallbacks, versions."""
    runs, lines = data.results.runs, []
    if number := len(data.failed):
        lines.append(f"{format_count(number, 'run')} failed and {_is_or_are(number)} not in the numbers.")
    stopped = runs[runs["outcome"] == "stopped"]
    if len(stopped):
        names = format_list([legend_label(name) for name in stopped["strategy"].unique()])
        reason = f"means of finished runs leave them out: {stopped['stopped_because'].iloc[0]}"
        lines.append(f"{format_count(len(stopped), 'run')} stopped before the end ({names}); {reason}.")
    lines += time_sentences(runs)
    lines += limits_of(data, scenario) if scenario else []
    if number := data.num_missing:
        missing = f"{format_count(number, 'run')} of the sweep {_is_or_are(number)} unfinished"
        lines.append(f"{missing}: the same command resumes it.")
    if number := data.num_left_out:
        older = f"{format_count(number, 'older run')} of another version of the scenario in this folder"
        lines.append(f"{older} {_is_or_are(number)} left out.")
    if (runs["learner"] == "curve").any():
        lines.append("Losses are a parametric curve, nothing was trained (learner: curve): for dry runs only.")
    fallback = f" '{scenario.fallback.name}'" if scenario else ""
    for name, rows in runs[runs["num_fallbacks"] > 0].groupby("strategy", sort=False):
        times = f"{format_count(int(rows['num_fallbacks'].sum()), 'time')} in {format_count(len(rows), 'run')}"
        then = f"when the fallback{fallback} took over: it accounts for part of the numbers"
        lines.append(f"{capitalized(legend_label(str(name)))} could not recover {times}, {then}.")
    if (runs.filter(like="version_source").nunique() > 1).any():
        lines.append("These runs are of several versions of churnlab: do not compare them closely.")
    return lines


def limits_of(data: ReportData, scenario: Scenario) -> list[str]:
    """Sentences on what binds an iteration and on strategies that never save; of the first point if points differ."""
    lines = [*binding_sentences(scenario, only_limits=True), *unused_saves(scenario)]
    differs = any(re.split(r"[.\[]", field)[0] not in ("failures", "seeds") for field in data.fields)
    return [f"At the first point: {uncapitalized(line)}" for line in lines] if differs else lines


def _is_or_are(number: int) -> str:
    return "is" if number == 1 else "are"


def notes_on(data: ReportData, scenario: Scenario | None) -> list[str]:
    """Return sentences on the basis of the numbers."""
    if scenario is None:
        return ["This version of churnlab cannot read the scenario of these runs; see the YAML above, if present."]
    corpus = str(data.abouts[0]["corpus"]) if data.abouts else "no text"
    lines: Sequence[str] = (*notes(scenario, corpus), describe_prices(scenario.cluster))
    return [
        *lines,
        *(["These values are those of the first point; the others differ in the swept fields."] if data.fields else []),
    ]
