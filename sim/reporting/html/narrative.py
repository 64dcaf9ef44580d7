"""What results say, in sentences: who is first, who is cheapest, what churn costs, and how sure that is.

A difference counts where its paired 95 % interval excludes zero; everything else is too close to call, and
one seed is an anecdote.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sim.core.text import HOURS, USD, Unit, capitalized, format_count, format_list, format_percent, format_percent_range
from sim.failures import process_class
from sim.reporting.html.data import ReportData
from sim.reporting.notes import describe_downtime, describe_prices, notes
from sim.results.comparison import Ranking, Standing, told_if_calm, verdict
from sim.results.outcome_tables import target_of
from sim.results.statistics import Estimate, PointRuns, Values, estimate_at, paired_difference_at, points_of
from sim.scenario.scenario import Scenario
from sim.strategies import legend_label

TO_TARGET, TO_END, USD_TO_TARGET, USD_TO_END = (
    "target_reached_seconds",
    "wall_clock_seconds",
    "target_reached_usd",
    "cost_usd",
)


@dataclass(frozen=True)
class Contest:
    """The verdict on a metric over the strategies that live with failures, and each one's values over seeds."""

    verdict: Ranking
    values: dict[str, Values]

    @classmethod
    def of(cls, points: Sequence[PointRuns], metric: str) -> Contest:
        """Of the strategies at one point."""
        values = {point.strategy: point.values(metric) for point in points if not is_ideal(point)}
        return cls(verdict(values, {}), values)

    @property
    def best(self) -> Standing | None:
        """The first; None where nobody gets there in all runs."""
        return self.verdict.best

    @property
    def ranking(self) -> list[Standing]:
        """Those that get there in all runs, the first first."""
        return [standing for standing in self.verdict.standings if standing.reaches]

    @property
    def rivals(self) -> tuple[Standing, ...]:
        """Those that may be as good as the first, for all that these seeds say."""
        return self.verdict.contenders

    @property
    def is_anecdote(self) -> bool:
        """Whether there are several strategies, but one seed to compare them by."""
        return len(self.ranking) > 1 and math.isnan(self.ranking[0].takes.low)

    def spread(self, standing: Standing, unit: Unit) -> str:
        """A mean with the least and the greatest value over seeds; a value alone where it is one."""
        found, values = standing.takes, self.values[standing.strategy].values
        if unit.of(values.min()) == unit.of(values.max()):
            return unit.of(found.mean)
        kinds = {"failure": found.num_failure_seeds, "training": found.num_training_seeds}
        seeds = format_list([f"{number} {kind} seeds" for kind, number in kinds.items() if number > 1])
        return f"{unit.of(found.mean)} on average ({unit.between(values.min(), values.max())} over {seeds})"


def is_ideal(point: PointRuns) -> bool:
    """Whether a strategy is there to compare with: it meets no failures."""
    return bool((point.runs["kind"] == "none").all())


def sentences_on(runs: pd.DataFrame) -> list[str]:
    """On the runs of one point: who is first, who is cheapest, what churn costs against no failures."""
    points = points_of(runs, ())
    target, contest = contest_of(runs)
    goal = f"reaches loss {target}" if target else "ends"
    if not contest.values:
        return [ideal_alone(points, TO_TARGET if target else TO_END, goal)]
    sentences = [of_contest(contest, goal), *of_missing(contest)]
    if target is None:
        sentences += of_losses(runs, points)
    money = Contest.of(points, USD_TO_TARGET if target else USD_TO_END)
    sentences += of_money(money, contest, "to that loss" if target else "to the end")
    if contest.best:
        sentences += of_price(points, contest.best.strategy)
    met = runs.loc[runs["kind"] != "none", "num_failures"]
    return sentences + told_if_calm(float(met.mean()))


def contest_of(runs: pd.DataFrame) -> tuple[str | None, Contest]:
    """The loss to be reached, if there is one that some run reaches, and who gets there, or else to the end, first."""
    target = target_in_words(runs)
    reached = target is not None and bool(runs[TO_TARGET].notna().any())
    return (target if reached else None), Contest.of(points_of(runs, ()), TO_TARGET if reached else TO_END)


def target_in_words(runs: pd.DataFrame) -> str | None:
    """The loss to be reached, where all runs have the same one."""
    target = target_of(runs)
    return None if target is None else f"{target:g}"


def ideal_alone(points: Sequence[PointRuns], metric: str, goal: str) -> str:
    """Where no strategy lives with failures."""
    takes = estimate_at(points[0].values(metric))
    if math.isnan(takes.mean):
        return "No run came to its end."
    return f"Without failures, training {goal} after {HOURS.of(takes.mean)}; nothing else was tried."


def of_contest(contest: Contest, goal: str) -> str:
    """Who is first, with the spread over seeds, and by how much before whom."""
    if not contest.ranking:
        return f"No strategy {goal} in all of its runs."
    first, *others = contest.ranking
    name = label(first)
    if not others:
        return f"{capitalized(name)} {goal} after {contest.spread(first, HOURS)}."
    following = f"{label(others[0])} comes {lead(others[0], 'later')}"
    if contest.is_anecdote:
        return f"One seed: an anecdote. In it {name} {goal} first, after {HOURS.of(first.takes.mean)}; {following}."
    if not contest.rivals:
        return f"{capitalized(name)} {goal} first, after {contest.spread(first, HOURS)}; {following}."
    rivals = format_list([f"{label(each)} ({lead(each, 'later')})" for each in contest.rivals])
    return (
        f"Too close to call who {goal} first: {name} does after {contest.spread(first, HOURS)}, but {rivals} may be as "
        "fast."
    )


def label(standing: Standing) -> str:
    """A strategy's name for people."""
    return legend_label(standing.strategy)


def lead(other: Standing, more: str) -> str:
    """By how much another comes after the first, with the interval of the paired difference."""
    if math.isnan(other.behind):
        return "by an unknown share"
    if other.behind == 0.0:
        return "at the same time" if more == "later" else "at the same price"
    by = f"{format_percent(other.behind)} {more}"
    known = not math.isnan(other.behind_low)
    return f"{by}, 95 % interval {format_percent_range(other.behind_low, other.behind_high)}" if known else by


def of_missing(contest: Contest) -> list[str]:
    """Strategies left out, since they do not get there in every run."""
    return [
        f"{capitalized(label(each))} is left out: it gets there in {each.takes.num_reached} of "
        f"{each.takes.num_runs} runs."
        for each in contest.verdict.standings
        if not each.reaches
    ]


def of_losses(runs: pd.DataFrame, points: Sequence[PointRuns]) -> list[str]:
    """Where there is no target, or none reaches it: who ends at the lowest loss."""
    target = target_in_words(runs)
    sentences = [f"No run reaches the target loss {target}."] if target else []
    ranking = Contest.of(points, "final_validation_loss").ranking
    losses = {label(each): f"{each.takes.mean:.3f}" for each in ranking}
    if len(set(losses.values())) > 1:
        low, *_, high = losses.values()
        least, most = (format_list([name for name, loss in losses.items() if loss == end]) for end in (low, high))
        sentences.append(
            f"To end first is not to have learnt most: the lowest loss at the end, {low}, is that of {least}, the "
            f"highest, {high}, that of {most}."
        )
    return sentences


def of_money(contest: Contest, in_time: Contest, where: str) -> list[str]:
    """Who is cheapest, and by how much; nothing where there are no prices."""
    if not contest.ranking:
        return []
    first, *others = contest.ranking
    value = contest.spread(first, USD)
    if not others:
        return [f"{capitalized(label(first))} pays {value} {where}."]
    if contest.is_anecdote or not contest.rivals:
        also = "also " if in_time.best and in_time.best.strategy == first.strategy else ""
        following = f"next {label(others[0])}, {lead(others[0], 'more')}"
        return [f"{capitalized(label(first))} is {also}cheapest {where}: {value}; {following}."]
    names, in_order = ([each.strategy for each in (*one.ranking[:1], *one.rivals)] for one in (contest, in_time))
    if names == in_order:
        return [f"Money goes with time: {label(first)} pays {value} {where}, and the same ones may be as cheap."]
    rivals = format_list([f"{label(each)} ({lead(each, 'more')})" for each in contest.rivals])
    return [f"Too close to call who is cheapest {where}: {label(first)} pays {value}, but {rivals} may be as cheap."]


def of_price(points: Sequence[PointRuns], strategy: str) -> list[str]:
    """What failures cost a strategy in time and in loss: against none, or against the iterations by themselves."""
    own = next(point for point in points if point.strategy == strategy)
    ideal = next((point for point in points if is_ideal(point)), None)
    name = legend_label(strategy)
    if ideal is None:
        overhead = estimate_at(own.values("overhead")).mean
        if math.isnan(overhead):
            return []
        more = format_percent(overhead)
        return [f"Against the same iterations without failures or extra work, {name} takes {more} more time."]
    parts = []
    for metric, where in ((TO_TARGET, "to that loss"), (TO_END, "to the end")):
        found = paired_difference_at(own.values(metric), ideal.values(metric)).relative
        if not math.isnan(found.mean):
            parts.append(f"{change(found, 'more time', 'less time')} {where}")
    loss = paired_difference_at(own.values("final_validation_loss"), ideal.values("final_validation_loss")).difference
    if not math.isnan(loss.mean):
        parts.append(f"ends at {loss_change(loss)}")
    return [f"Against no failures, {name} takes {format_list(parts)}."] if parts else []


def change(found: Estimate, more: str, less: str) -> str:
    """A relative difference in words, with its interval."""
    words = f"{format_percent(abs(found.mean))} {more if found.mean >= 0 else less}"
    known = not math.isnan(found.low) and found.low != found.high
    return f"{words} ({format_percent_range(found.low, found.high)})" if known else words


def loss_change(found: Estimate) -> str:
    """A difference of losses in words, with its interval."""
    if found.mean == found.low == found.high == 0.0 or (found.mean == 0.0 and math.isnan(found.low)):
        return "the same loss"
    words = f"a loss {abs(found.mean):.3f} {'higher' if found.mean > 0 else 'lower'}"
    known = not math.isnan(found.low) and found.low != found.high
    return f"{words} ({found.low:+.3f} to {found.high:+.3f})".replace("-", "−") if known else words


# What a report says beside its numbers: warnings, how sure they are, what they are of, and what to doubt.

LIMITS = (
    "Seconds are those of the target model, losses those of the proxy: no number mixes the two. A proxy trains "
    "for far fewer steps than the target, and the longer training goes on, the more failures cost strategies that "
    "rebuild stages; the order of strategies that restore them exactly does not depend on it.",
    "The time to a target loss is known to the interval of validation, up to one interval too late.",
    "Money is node-hours times one price: storage, traffic and minimum billing times are not in it.",
    "Means are over runs that have a value; runs that stopped, or never reached the target, may be the worst.",
    "With one training seed, intervals say nothing about other initial weights and orders of data; with one failure "
    "seed, nothing about other churn.",
    "Of twenty comparisons at 95 %, one will show a difference that is none.",
    "docs/limits.md of churnlab lists what is not modelled, and which way each errs.",
)


def cautions(data: ReportData, scenario: Scenario | None) -> list[str]:
    """What a reader must know before anything else."""
    runs, lines = data.results.runs, []
    if len(data.failed):
        lines.append(
            f"{format_count(len(data.failed), 'run')} failed and {is_or_are(len(data.failed))} not in the numbers."
        )
    stopped = runs[runs["outcome"] == "stopped"]
    if len(stopped):
        who = format_list([legend_label(name) for name in dict.fromkeys(stopped["strategy"])])
        lines.append(
            f"{format_count(len(stopped), 'run')} stopped before the end ({who}); means of finished runs leave them "
            f"out: {stopped['stopped_because'].iloc[0]}."
        )
    if data.num_missing:
        number = data.num_missing
        are = is_or_are(number)
        lines.append(
            f"{format_count(number, 'run')} of the sweep {are} not there yet: the same command goes on with it."
        )
    if data.num_left_out:
        lines.append(
            f"{format_count(data.num_left_out, 'older run')} of another version of the scenario in this folder "
            f"{is_or_are(data.num_left_out)} left out."
        )
    if (runs["learner"] == "curve").any():
        lines.append("Losses are a parametric curve, nothing was trained (learner: curve): for dry runs only.")
    by_fallback = runs[runs["num_fallbacks"] > 0]
    fallback = f" '{scenario.fallback.name}'" if scenario else ""
    for name, rows in by_fallback.groupby("strategy", sort=False):
        times = format_count(int(rows["num_fallbacks"].sum()), "time")
        lines.append(
            f"{capitalized(legend_label(str(name)))} could not recover {times} in "
            f"{format_count(len(rows), 'run')}, when the fallback{fallback} took over: it decides part of the numbers."
        )
    hashes = runs.filter(like="version_source").nunique()
    if (hashes > 1).any():
        lines.append("These runs are of several versions of churnlab: do not compare them closely.")
    return lines


def is_or_are(number: int) -> str:
    """The verb for a number of things."""
    return "is" if number == 1 else "are"


def how_sure(runs: pd.DataFrame) -> str:
    """What intervals mean here."""
    num_seeds = runs["failure_seed"].nunique()
    if num_seeds * runs["training_seed"].nunique() == 1:
        return (
            "One seed shows what happened once. To learn what happens on average, sweep over seeds: "
            "sweep: {replicates: 10}, or churnlab sweep --until-ci 5%."
        )
    return (
        "All strategies meet the same failures, so differences are taken seed by seed. One is told as such where its "
        "95 % interval excludes zero; otherwise it is too close to call. Whoever is first was picked after looking: "
        "with many strategies and few seeds, trust it a little less."
    )


def churn_in_words(scenario: Scenario | None, is_sweep: bool) -> str:
    """Who leaves when."""
    if scenario is None:
        return ""
    process = process_class(scenario.failures.kind)(scenario.failures)
    where = " (at the first point)" if is_sweep else ""
    return f"Failure process{where}: {process.describe()}{describe_downtime(scenario.failures)}."


def notes_on(data: ReportData, scenario: Scenario | None) -> list[str]:
    """What the numbers are of."""
    if scenario is None:
        return ["This version of churnlab cannot read the scenario of these runs: see the YAML above, if it is there."]
    corpus = str(data.abouts[0]["corpus"]) if data.abouts else "no text"
    lines: Sequence[str] = (*notes(scenario, corpus), describe_prices(scenario.cluster))
    return [*lines, *(["All this is of the first point; others differ in the swept fields."] if data.fields else [])]
