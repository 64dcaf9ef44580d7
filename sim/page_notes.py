"""What a report says beside its numbers: warnings, how sure they are, what they are of, and what to doubt."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from sim.failures import process_class
from sim.figures import legend_label
from sim.page_source import Source
from sim.run_report import circumstances, notes, prices_in_words
from sim.scenario import Scenario
from sim.wording import capital, counted, listed

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


def cautions(source: Source, scenario: Scenario | None) -> list[str]:
    """What a reader must know before anything else."""
    runs, lines = source.results.runs, []
    if len(source.failed):
        lines.append(
            f"{counted(len(source.failed), 'run')} failed and {is_or_are(len(source.failed))} not in the numbers."
        )
    stopped = runs[runs["outcome"] == "stopped"]
    if len(stopped):
        who = listed([legend_label(name) for name in dict.fromkeys(stopped["strategy"])])
        lines.append(
            f"{counted(len(stopped), 'run')} stopped before the end ({who}); means of finished runs leave them out: "
            f"{stopped['stopped_because'].iloc[0]}."
        )
    if source.num_missing:
        number = source.num_missing
        are = is_or_are(number)
        lines.append(f"{counted(number, 'run')} of the sweep {are} not there yet: the same command goes on with it.")
    if source.num_left_out:
        lines.append(
            f"{counted(source.num_left_out, 'older run')} of another version of the scenario in this folder "
            f"{is_or_are(source.num_left_out)} left out."
        )
    if (runs["learner"] == "curve").any():
        lines.append("Losses are a parametric curve, nothing was trained (learner: curve): for dry runs only.")
    by_fallback = runs[runs["num_fallbacks"] > 0]
    fallback = f" '{scenario.fallback.name}'" if scenario else ""
    for name, rows in by_fallback.groupby("strategy", sort=False):
        times = counted(int(rows["num_fallbacks"].sum()), "time")
        lines.append(
            f"{capital(legend_label(str(name)))} could not recover {times} in {counted(len(rows), 'run')}, when the "
            f"fallback{fallback} took over: it decides part of the numbers."
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
    return f"Failure process{where}: {process.in_words()}{circumstances(scenario.failures)}."


def notes_on(source: Source, scenario: Scenario | None) -> list[str]:
    """What the numbers are of."""
    if scenario is None:
        return ["This version of churnlab cannot read the scenario of these runs: see the YAML above, if it is there."]
    corpus = str(source.abouts[0]["corpus"]) if source.abouts else "no text"
    lines: Sequence[str] = (*notes(scenario, corpus), prices_in_words(scenario.cluster))
    return [*lines, *(["All this is of the first point; others differ in the swept fields."] if source.fields else [])]
