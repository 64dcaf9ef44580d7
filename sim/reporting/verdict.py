"""Which strategy is ahead, in one sentence: the same for `run`, `report`, `map` and `advise`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sim.core.records import BUCKETS
from sim.core.text import (
    Unit,
    capitalized,
    format_count,
    format_list,
    format_number,
    format_percent,
    format_percent_range,
    time_unit,
)
from sim.results.microbatches import SmallerMicrobatches
from sim.results.outcome_tables import target_of
from sim.results.ranking import FEWEST_FAILURES, SMALL_LEAD, Outcomes, Ranking, Standing, rank
from sim.results.statistics import PointRuns, Values, points_of
from sim.results.summary import steady_seconds
from sim.strategies import answers_lost_nodes, legend_label

TO_TARGET, TO_END = "target_reached_seconds", "wall_clock_seconds"
USD_TO_TARGET, USD_TO_END = "target_reached_usd", "cost_usd"
SAME_OVERHEAD = 0.005  # overheads that differ by less are called equal

WHOLE_BATCH = 0.995
"""Share of the batch from which on it counts as whole."""


@dataclass(frozen=True)
class MetricRanking(Ranking):
    """The ranking by a metric of the strategies that failures affect, and each one's values over seeds."""

    values: dict[str, Values]
    smaller: SmallerMicrobatches | None = None
    at_equal_size: Ranking | None = None

    @classmethod
    def of(cls, points: Sequence[PointRuns], metric: str) -> MetricRanking:
        """Rank the strategies at one point; also at equal microbatch size, where smaller ones are faster for all.

        A strategy that learns from fewer tokens in as many iterations is not compared by its time to the end.
        """
        points = [point for point in points if not is_failure_free(point)]
        if metric in (TO_END, USD_TO_END):
            points = [point for point in points if not has_smaller_batches(point.runs).any()]
        given = {point.strategy: _outcomes(point, metric) for point in points}
        values, smaller = {name: found.values for name, found in given.items()}, _smaller(points)
        if smaller is None:
            return cls(rank(given).standings, values)
        equal = {point.strategy: _outcomes(point, metric, smaller) for point in points}
        return cls(rank(given).standings, values, smaller, rank(equal))

    @property
    def is_first_by_size(self) -> bool:
        """Whether the order would be another if all had the smaller microbatches that one strategy has."""
        equal = self.at_equal_size
        return bool(equal and equal.reaching and equal.reaching[0].strategy != self.reaching[0].strategy)

    def spread(self, standing: Standing, unit: Unit) -> str:
        """Format a mean with the lowest and highest value over seeds; one value if they are equal."""
        found, values = standing.takes, self.values[standing.strategy].values
        if unit.of(values.min()) == unit.of(values.max()):
            return unit.of(found.mean)
        kinds = {"failure seeds": found.num_failure_seeds, "training seeds": found.num_training_seeds}
        if found.is_of_pairs:
            kinds = {"replicates": found.num_reached}
        seeds = format_list([f"{number} {kind}" for kind, number in kinds.items() if number > 1])
        return f"{unit.of(found.mean)} on average ({unit.between(values.min(), values.max())} over {seeds})"


def _smaller(points: Sequence[PointRuns]) -> SmallerMicrobatches | None:
    """The smallest microbatches that a strategy has, if a plain iteration with them is faster; None if unknown."""
    first = [point.runs.iloc[0] for point in points if "microbatch_size" in point.runs]
    if not first:
        return None
    fastest = min(first, key=lambda run: float(run["equal_iteration_seconds"]))
    seconds, given_seconds = (float(fastest[f"{kind}_iteration_seconds"]) for kind in ("equal", "ideal"))
    found = SmallerMicrobatches(round(1.0 / fastest["microbatch_size"]), seconds, given_seconds)
    return found if found.are_faster else None


def _saved_seconds(runs: pd.DataFrame, smaller: SmallerMicrobatches | None) -> pd.Series[float]:
    """What smaller microbatches would save in an iteration of each run; 0 if it has them."""
    saved = 0.0 if smaller is None else smaller.given_seconds - smaller.seconds
    size = runs["microbatch_size"] if smaller else pd.Series(1.0, runs.index)
    return (size == 1.0).astype(float) * saved


def _outcomes(point: PointRuns, metric: str, smaller: SmallerMicrobatches | None = None) -> Outcomes:
    """A strategy's values of a metric, with what was lost until then; with smaller microbatches, if given.

    That is the stages or, where the strategy answers the loss of a node, the nodes.

    These save the same seconds in every iteration, so that failures are later in training than they would be.
    """
    runs = point.runs
    lost = runs["num_failures"].astype(float)
    if metric in (TO_TARGET, USD_TO_TARGET) and "target_reached_num_failures" in runs:
        lost = runs["target_reached_num_failures"].astype(float).fillna(lost)
    if answers_lost_nodes(str(runs["kind"].iloc[0])):
        lost = runs["num_nodes_lost"].astype(float)
    steady, plain = math.nan, 0.0
    if "productive_compute_seconds" in runs:
        ledgers = [{bucket: row[f"{bucket}_seconds"] for bucket in BUCKETS} for _, row in runs.iterrows()]
        each = [steady_seconds(*pair) for pair in zip(ledgers, runs["num_iterations"], strict=True)]
        saved_seconds = float(_saved_seconds(runs, smaller).mean())
        steady = math.fsum(each) / len(each) - saved_seconds
        if has_smaller_batches(runs).any():
            steady /= float(runs["batch_share"].mean())  # of as many tokens
        if "equal_iteration_seconds" in runs:
            plain = float(runs["equal_iteration_seconds"].mean()) - saved_seconds
    seeds, values = point.values(metric)
    if smaller:
        iterations, seconds = ("target_reached_iteration", TO_TARGET), ("num_iterations", TO_END)
        num, until = iterations if metric in (TO_TARGET, USD_TO_TARGET) else seconds
        share = _saved_seconds(runs, smaller) * runs[num].astype(float) / runs[until].astype(float)
        values = values * (1.0 - np.asarray(share, dtype=np.float64))
    churn_seeds = point.seeds * (0, 1) if runs[TO_END].nunique() == 1 else point.seeds  # scripted: one churn for all
    return Outcomes(Values(seeds, values), Values(churn_seeds, np.asarray(lost, dtype=np.float64)), steady, plain)


def has_smaller_batches(runs: pd.DataFrame) -> pd.Series[bool]:
    """Whether each run learnt from less than the whole batch; no run of an older version did."""
    return runs["batch_share"] < WHOLE_BATCH if "batch_share" in runs else pd.Series(False, runs.index)


def is_failure_free(point: PointRuns) -> bool:
    """Whether failures have no effect on a strategy."""
    return bool((point.runs["kind"] == "none").all())


def ranking_at(runs: pd.DataFrame) -> tuple[str | None, MetricRanking]:
    """Return the target loss if some run reaches it, and the ranking by time to it, or else to the end."""
    target = target_of(runs)
    if target is None or runs[TO_TARGET].isna().all():
        return None, MetricRanking.of(points_of(runs, ()), TO_END)
    return f"{target:g}", MetricRanking.of(points_of(runs, ()), TO_TARGET)


def verdict_on(runs: pd.DataFrame) -> str:
    """Say which strategy is ahead in the runs of one point, if several strategies are there to choose from."""
    target, ranked = ranking_at(runs)
    return describe_ranking(ranked, target) if len(ranked.values) > 1 else ""


def describe_ranking(ranked: MetricRanking, target: str | None) -> str:
    """Say which strategy is first in time, or that none can be called so. target: the loss to reach; None: the end."""
    goal = f"reaches loss {target}" if target else "ends"
    if not ranked.reaching:
        return f"No strategy {goal} in all of its runs."
    first, *others = ranked.reaching
    if not others:
        return f"{capitalized(label(first))} {goal} after {ranked.spread(first, time_unit(first.takes.mean))}."
    if ranked.smaller:
        return f"{use_smaller(ranked.smaller)} {_describe_order(ranked, target, goal)}"
    return _describe_order(ranked, target, goal)


def _describe_order(ranked: MetricRanking, target: str | None, goal: str) -> str:
    if not ranked.is_tested:
        return nothing_to_choose(ranked.at_equal_size or ranked, target)
    first, *others = ranked.reaching
    name, unit = label(first), time_unit(first.takes.mean)
    if ranked.at_equal_size and ranked.is_first_by_size:
        equal = label(ranked.at_equal_size.reaching[0])
        return f"{capitalized(name)} {goal} first only by its smaller microbatches: at equal size, {equal} would be."
    following = f"{label(others[0])} comes {lead(others[0], 'later')}"
    if ranked.has_one_sample and others[0].behind > 0.0:
        sample = "One seed only" if first.takes.num_runs == 1 else "All seeds give the same run, one sample"
        return f"{sample}. In it {name} {goal} first, after {unit.of(first.takes.mean)}; {following}."
    if not ranked.contenders:
        return f"{capitalized(name)} {goal} first, after {ranked.spread(first, unit)}; {following}."
    rivals = format_list([f"{label(each)} ({lead(each, 'later')})" for each in ranked.contenders])
    does = f"{name} does after {ranked.spread(first, unit)}, but {rivals} may be as fast"
    return f"Too close to call which strategy {goal} first: {does}."


def use_smaller(smaller: SmallerMicrobatches) -> str:
    """Say that smaller microbatches make iterations faster, for every strategy."""
    verb = "Halve your microbatches" if smaller.factor == 2 else f"Use microbatches {smaller.factor} times smaller"
    return (
        f"{verb} (workload.sequences_per_microbatch / {smaller.factor}, num_microbatches × {smaller.factor}): a plain "
        f"iteration then takes {format_number(smaller.seconds)} s in place of {format_number(smaller.given_seconds)} s."
    )


def nothing_to_choose(ranked: Ranking, target: str | None) -> str:
    """Say that too few stages were lost to compare recovery, and which strategy has the least overhead."""
    until = f"before loss {target}" if target else "before the end"
    takes = ranked.reaching[0].takes
    within = format_count(takes.num_failure_seeds, "simulated run", "simulated runs together")
    advice = f"take the strategy with the least overhead, {least_overhead(ranked)}, and keep a rare checkpoint"
    number = round(ranked.num_lost)
    if not number:
        return f"Nothing to choose: no stage was lost {until} in {within}; {advice}."
    stages = f"{format_count(number, 'stage was', 'stages were')} lost {until} in {within}"
    return f"Too few failures to choose: {stages}, {FEWEST_FAILURES:g} are needed; {advice}."


def least_overhead(ranked: Ranking) -> str:
    """Name the strategies with the shortest iterations without failures, and by how much the others' are longer."""
    first, *others = ranked.by_overhead
    extra = {one: one.overhead - first.overhead for one in others}
    same = [one for one in others if extra[one] < SAME_OVERHEAD and one.behind <= SMALL_LEAD]
    names = format_list([label(one) for one in (first, *same)], "or")
    more = [f"{label(one)} {format_percent(share)} more" for one, share in extra.items() if share >= SAME_OVERHEAD]
    return f"{names} ({', '.join(more)})" if more else names


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
