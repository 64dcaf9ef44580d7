"""The text of a report: ranking by time and money, the cost of churn, confidence, warnings and limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sim.core.text import HOURS, USD, Unit, capitalized, format_count, format_list, format_percent, format_percent_range
from sim.reporting.html.data import ReportData
from sim.reporting.notes import describe_prices, notes
from sim.results.crossed_design import Estimate
from sim.results.outcome_tables import target_of
from sim.results.statistics import (
    PointRuns,
    Ranking,
    Standing,
    Values,
    estimate,
    few_failures_note,
    paired_difference,
    points_of,
    rank,
)
from sim.scenario.scenario import Scenario
from sim.strategies import legend_label

TO_TARGET, TO_END = "target_reached_seconds", "wall_clock_seconds"
USD_TO_TARGET, USD_TO_END = "target_reached_usd", "cost_usd"


@dataclass(frozen=True)
class MetricRanking(Ranking):
    """The ranking by a metric of the strategies that failures affect, and each one's values over seeds."""

    values: dict[str, Values]

    @classmethod
    def of(cls, points: Sequence[PointRuns], metric: str) -> MetricRanking:
        """Rank the strategies at one point."""
        values = {point.strategy: point.values(metric) for point in points if not _is_failure_free(point)}
        return cls(rank(values, {}).standings, values)

    @property
    def has_one_seed(self) -> bool:
        """Whether there are several strategies, but only one seed to compare them by."""
        return len(self.reaching) > 1 and math.isnan(self.reaching[0].takes.low)

    def spread(self, standing: Standing, unit: Unit) -> str:
        """Format a mean with the lowest and highest value over seeds; one value if they are equal."""
        found, values = standing.takes, self.values[standing.strategy].values
        if unit.of(values.min()) == unit.of(values.max()):
            return unit.of(found.mean)
        kinds = {"failure": found.num_failure_seeds, "training": found.num_training_seeds}
        seeds = format_list([f"{number} {kind} seeds" for kind, number in kinds.items() if number > 1])
        return f"{unit.of(found.mean)} on average ({unit.between(values.min(), values.max())} over {seeds})"


def _is_failure_free(point: PointRuns) -> bool:
    return bool((point.runs["kind"] == "none").all())


def sentences_on(runs: pd.DataFrame) -> list[str]:
    """Describe the runs of one point: the fastest and the cheapest strategy, and the cost of churn."""
    points = points_of(runs, ())
    target, ranked = ranking_at(runs)
    goal = f"reaches loss {target}" if target else "ends"
    if not ranked.values:
        takes = estimate(points[0].values(TO_TARGET if target else TO_END))
        if math.isnan(takes.mean):
            return ["No run finished."]
        return [f"Without failures, training {goal} after {HOURS.of(takes.mean)}; nothing else was tried."]
    sentences = [_describe_ranking(ranked, goal)]
    for each in ranked.standings:
        if not each.reaches:
            gets_there = f"{each.takes.num_reached} of {each.takes.num_runs} runs"
            sentences.append(f"{capitalized(label(each))} is left out: it gets there in {gets_there}.")
    if target is None:
        sentences += _of_losses(runs, points)
    money = MetricRanking.of(points, USD_TO_TARGET if target else USD_TO_END)
    sentences += _of_money(money, ranked, "to that loss" if target else "to the end")
    if ranked.best:
        sentences += _of_price(points, ranked.best.strategy)
    met = runs.loc[runs["kind"] != "none", "num_failures"]
    return sentences + few_failures_note(float(met.mean()))


def ranking_at(runs: pd.DataFrame) -> tuple[str | None, MetricRanking]:
    """Return the target loss if some run reaches it, and the ranking by time to it, or else to the end."""
    target = target_of(runs)
    if target is None or runs[TO_TARGET].isna().all():
        return None, MetricRanking.of(points_of(runs, ()), TO_END)
    return f"{target:g}", MetricRanking.of(points_of(runs, ()), TO_TARGET)


def _describe_ranking(ranked: MetricRanking, goal: str) -> str:
    if not ranked.reaching:
        return f"No strategy {goal} in all of its runs."
    first, *others = ranked.reaching
    name = label(first)
    if not others:
        return f"{capitalized(name)} {goal} after {ranked.spread(first, HOURS)}."
    following = f"{label(others[0])} comes {lead(others[0], 'later')}"
    if ranked.has_one_seed:
        return f"One seed: an anecdote. In it {name} {goal} first, after {HOURS.of(first.takes.mean)}; {following}."
    if not ranked.contenders:
        return f"{capitalized(name)} {goal} first, after {ranked.spread(first, HOURS)}; {following}."
    rivals = format_list([f"{label(each)} ({lead(each, 'later')})" for each in ranked.contenders])
    does = f"{name} does after {ranked.spread(first, HOURS)}, but {rivals} may be as fast"
    return f"Too close to call which strategy {goal} first: {does}."


def label(standing: Standing) -> str:
    """Return a strategy's display name."""
    return legend_label(standing.strategy)


def lead(other: Standing, more: str) -> str:
    """Format how far another strategy is behind the first, with the interval of the paired difference."""
    if math.isnan(other.behind):
        return "by an unknown share"
    if other.behind == 0.0:
        return "at the same time" if more == "later" else "at the same price"
    by = f"{format_percent(other.behind)} {more}"
    known = not math.isnan(other.behind_low)
    return f"{by}, 95 % interval {format_percent_range(other.behind_low, other.behind_high)}" if known else by


def _of_losses(runs: pd.DataFrame, points: Sequence[PointRuns]) -> list[str]:
    target = target_of(runs)
    sentences = [] if target is None else [f"No run reaches the target loss {target:g}."]
    ranking = MetricRanking.of(points, "final_validation_loss").reaching
    losses = {label(each): f"{each.takes.mean:.3f}" for each in ranking}
    if len(set(losses.values())) > 1:
        low, *_, high = losses.values()
        least, most = (format_list([name for name, loss in losses.items() if loss == end]) for end in (low, high))
        ends = f"the lowest loss at the end, {low}, is that of {least}, the highest, {high}, that of {most}"
        sentences.append(f"Ending first does not mean learning most: {ends}.")
    return sentences


def _of_money(ranked: MetricRanking, in_time: MetricRanking, where: str) -> list[str]:
    if not ranked.reaching:
        return []
    first, *others = ranked.reaching
    value = ranked.spread(first, USD)
    if not others:
        return [f"{capitalized(label(first))} pays {value} {where}."]
    if ranked.has_one_seed or not ranked.contenders:
        also = "also " if in_time.best and in_time.best.strategy == first.strategy else ""
        following = f"next {label(others[0])}, {lead(others[0], 'more')}"
        return [f"{capitalized(label(first))} is {also}cheapest {where}: {value}; {following}."]
    names, in_order = ([each.strategy for each in (*one.reaching[:1], *one.contenders)] for one in (ranked, in_time))
    if names == in_order:
        return [f"Money goes with time: {label(first)} pays {value} {where}, and the same ones may be as cheap."]
    rivals = format_list([f"{label(each)} ({lead(each, 'more')})" for each in ranked.contenders])
    pays = f"{label(first)} pays {value}, but {rivals} may be as cheap"
    return [f"Too close to call which strategy is cheapest {where}: {pays}."]


def _of_price(points: Sequence[PointRuns], strategy: str) -> list[str]:
    own = next(point for point in points if point.strategy == strategy)
    ideal = next((point for point in points if _is_failure_free(point)), None)
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
        then = f"when the fallback{fallback} took over: it decides part of the numbers"
        lines.append(f"{capitalized(legend_label(str(name)))} could not recover {times}, {then}.")
    if (runs.filter(like="version_source").nunique() > 1).any():
        lines.append("These runs are of several versions of churnlab: do not compare them closely.")
    return lines


def _is_or_are(number: int) -> str:
    return "is" if number == 1 else "are"


def notes_on(data: ReportData, scenario: Scenario | None) -> list[str]:
    """Say what the numbers refer to."""
    if scenario is None:
        return ["This version of churnlab cannot read the scenario of these runs: see the YAML above, if it is there."]
    corpus = str(data.abouts[0]["corpus"]) if data.abouts else "no text"
    lines: Sequence[str] = (*notes(scenario, corpus), describe_prices(scenario.cluster))
    return [*lines, *(["All this is of the first point; others differ in the swept fields."] if data.fields else [])]
