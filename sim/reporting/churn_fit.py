"""A fit of churn in words, as a table, as a `failures:` section, and as a picture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sim.core.text import capitalized, format_count, format_list, format_number, format_percent
from sim.failures.churn_fit import CLEAR, FEWEST_LOSSES, ChurnFit
from sim.failures.fitting import Durations, Estimate, Law, LawFit
from sim.reporting.style import PAPER, Form, add_legend, new_figure
from sim.reporting.table import Column, Row, Table

LAW_STYLE: dict[Law, tuple[str, str]] = {
    "exponential": ("#0072B2", "--"),
    "weibull": ("#D55E00", "-"),
    "lognormal": ("#009E73", "-."),
}
LONG_NAMES: dict[Law, str] = {"exponential": "exponential", "weibull": "Weibull", "lognormal": "lognormal"}


def between(estimate: Estimate) -> str:
    """A value and its interval."""
    return f"{format_number(estimate.value)} ({format_number(estimate.low)} to {format_number(estimate.high)})"


def fit_lines(fit: ChurnFit) -> list[str]:
    """Describe a fit: data, rate, distribution of uptimes, bulk losses, and what remains unknown."""
    chance = [-math.expm1(-rate) for rate in (fit.rate.value, fit.rate.low, fit.rate.high)]
    lines = [
        f"{fit.name} ({fit.format.replace('_', ' ')}): {format_count(fit.num_lost, 'loss', 'losses')} in "
        f"{format_number(fit.presence_hours)} h of presence.",
        *(f"  {capitalized(note)}." for note in fit.notes),
        f"Rate: {between(fit.rate)} losses per node and hour; a chance of {format_percent(chance[0])} within an hour "
        f"({format_percent(chance[1])} to {format_percent(chance[2])}). All intervals are of 95 %.",
    ]
    return [*lines, *law_lines(fit), *bulk_lines(fit), *downtime_lines(fit), *hour_lines(fit)]


def law_lines(fit: ChurnFit) -> list[str]:
    """Name the law that fits, how well it does, and what a naive mean would say."""
    if fit.uptimes is None:
        return [
            "The file counts nodes and does not name them: the distribution of uptimes cannot be fitted, only the rate."
        ]
    lines = []
    if fit.num_nodes > 1:
        lines.append(
            f"Uptimes are times between failures of {fit.num_nodes:,} nodes together; the distribution for one node is "
            "unknown."
        )
    lines += naive_lines(fit.uptimes) + sampled_lines(fit.uptimes)
    if fit.num_lost < FEWEST_LOSSES:
        few = f"Only {format_count(fit.num_lost, 'loss', 'losses')}: too few to distinguish distributions"
        return [*lines, f"{few} (at least {FEWEST_LOSSES}); exponential is assumed."]
    if not fit.laws:
        return [*lines, "All uptimes are equal: no distribution is fitted."]
    best, by_law = fit.laws[0], {each.law: each for each in fit.laws}
    exponential = by_law["exponential"]
    lead = exponential.aic - best.aic
    if best.law == "exponential" or lead <= CLEAR:
        lines.append(f"Exponential: no other distribution is clearly better (AIC at most {CLEAR:g} lower).")
    else:
        name = capitalized(LONG_NAMES[best.law])
        lines.append(f"{name} is best: its AIC is {format_number(lead)} below the exponential one's.")
    shown = best if lead > CLEAR else exponential
    lines.append(quality(shown))
    if shown.law == "weibull" and shown.spread:
        if shown.spread.high < 1:
            lines.append(
                "Shape below 1: young nodes fail most often, and a node that has survived is likely to survive longer."
            )
        elif shown.spread.low > 1:
            lines.append("Shape above 1: old nodes fail most often.")
    longest = float(fit.uptimes.seconds.max()) / 3600
    if shown.mean_hours.value > longest:
        mean = f"The mean, {format_number(shown.mean_hours.value)} h"
        lines.append(
            f"{mean}, is longer than any uptime observed ({format_number(longest)} h): it depends on the fitted "
            "distribution alone."
        )
    return lines


def naive_lines(durations: Durations) -> list[str]:
    """What a mean over censored lifetimes would say."""
    num_censored = len(durations.seconds) - durations.num_ended
    if not num_censored or not durations.num_ended:
        return []
    hours = durations.seconds / 3600
    naive, ended, right = hours.mean(), hours[durations.is_ended].mean(), hours.sum() / durations.num_ended
    if naive > 0.95 * right:
        return []
    return [
        f"{num_censored:,} of {len(hours):,} uptimes are censored: hours of presence over losses are "
        f"{format_number(right)} h. The mean of all uptimes, {format_number(naive)} h, and of those that ended, "
        f"{format_number(ended)} h, are too short."
    ]


def sampled_lines(durations: Durations) -> list[str]:
    """Whether durations have few values, as in a file that was sampled at intervals."""
    num_values = len(np.unique(durations.seconds[durations.is_ended].round(3)))
    if durations.num_ended < FEWEST_LOSSES or num_values > durations.num_ended / 3:
        return []
    return [
        f"The uptimes have only {num_values} values: they were sampled at intervals, which a test of fit also finds."
    ]


def quality(fit: LawFit) -> str:
    """How well a law fits, in words."""
    gap = f"the survival curves differ by at most {format_percent(fit.largest_gap)}"
    if math.isnan(fit.p_value):
        return f"{capitalized(gap)}; too few losses to test the fit."
    test = f"p = {fit.p_value:.2g}"
    if fit.fits:
        return f"It fits: {gap}, no more than sampling noise ({test})."
    best = f"even the best one differs from the data by more than sampling noise ({test})"
    return f"No distribution fits well: {best}; {gap}."


def bulk_lines(fit: ChurnFit) -> list[str]:
    """How many nodes are lost at once."""
    bulk = fit.bulk
    if bulk is None:
        return []
    largest = max(bulk.sizes)
    share = format_percent(bulk.share_together)
    if largest == 1:
        return ["Nodes are lost one at a time."]
    sizes = (
        f"{share} of losses come in events of two or more, {format_number(bulk.mean_size)} an event, at most {largest}"
    )
    if not bulk.is_bulk:
        return [
            f"Lost at once: {sizes}; independent losses at this rate would give {format_percent(bulk.expected_share)}."
        ]
    where = " of one region" if bulk.within_regions else ""
    present = f"{format_number(bulk.mean_present)} nodes, those present at a loss"
    return [
        f"Lost at once: {sizes}{where}. The section has kind `bulk`, in which a node's age does not matter. Its sizes "
        f"are of {present}; in a smaller cluster fewer are lost at once."
    ]


def downtime_lines(fit: ChurnFit) -> list[str]:
    """Whether and when lost nodes return."""
    if fit.downtimes is None:
        return ["No lost node returns: replacements are ordered (cluster.provisioning_seconds)."] if fit.rows else []
    num, total = fit.downtimes.num_ended, len(fit.downtimes.seconds) + fit.num_gone
    returned = f"{num:,} of {total:,} lost nodes return"
    section = fit.downtime_section()
    if section is None:
        return [f"{returned}: fewer than half, so that replacements are ordered."]
    return [f"{returned}, after {format_number(section['mean_hours'])} h on average ({section['distribution']})."]


def hour_lines(fit: ChurnFit) -> list[str]:
    """Whether losses follow the hour of the day."""
    by_hour = fit.by_hour
    if by_hour is None:
        return ["Hour of the day: the trace is shorter than two days."] if fit.rows else []
    if not by_hour.varies:
        return [f"Hour of the day: no more variation than sampling noise (p = {by_hour.p_value:.2g})."]
    weights = by_hour.weights
    most, least = int(np.argmax(weights)), int(np.argmin(weights))
    day = "of the day of the trace, which begins at its first instant"
    times = f"{format_number(weights[most] / weights[least])} × as often in hour {most} as in hour {least} {day}"
    listed = ", ".join(f"{weight:g}" for weight in weights)
    return [
        f"Hour of the day: nodes are lost {times} (p = {by_hour.p_value:.2g}).",
        f"  For kind `diurnal`: profile: [{listed}]",
    ]


def law_table(fit: ChurnFit) -> Table | None:
    """The laws of uptimes, best first; None where none was fitted."""
    if not fit.laws:
        return None
    headings = ("mean\nuptime (h)", "shape k\nor sigma", "AIC above\nthe best", "largest\ngap", "test of\nfit: p")
    rows = [
        Row(
            (
                LONG_NAMES[each.law],
                between(each.mean_hours),
                between(each.spread) if each.spread else "-",
                format_number(each.aic - fit.laws[0].aic),
                format_percent(each.largest_gap),
                "-" if math.isnan(each.p_value) else f"{each.p_value:.2g}",
            )
        )
        for each in fit.laws
    ]
    columns = (Column("law", "left"), *(Column(heading) for heading in headings))
    return Table("Distributions of uptimes by maximum likelihood, with 95 % intervals", columns, tuple(rows))


def fit_figure(fit: ChurnFit, form: Form = PAPER) -> Figure:
    """Draw the survival of uptimes against the fitted distributions, downtimes if nodes return, and sizes of losses."""
    panels = [
        panel
        for panel, wanted in ((uptime_panel, fit.laws), (downtime_panel, fit.downtime_laws), (size_panel, fit.bulk))
        if wanted
    ]
    notes = [
        fit_lines(fit)[0],
        "Observed: Kaplan and Meier's estimate with its 95 % interval; distributions by maximum likelihood.",
    ]
    with new_figure(2.9, notes, form) as figure:
        axes = figure.subplots(1, max(1, len(panels)), squeeze=False)[0]
        for panel, axis in zip(panels, axes, strict=False):
            panel(axis, fit)
        if not panels:
            axes[0].set_axis_off()
        handles, labels = axes[0].get_legend_handles_labels()
        if handles:
            add_legend(figure, [handle for handle, _ in zip(handles, labels, strict=True)], form)
        return figure


def uptime_panel(axis: Axes, fit: ChurnFit) -> None:
    """Draw survival of uptimes."""
    assert fit.uptimes is not None
    what = "time between failures" if fit.num_nodes > 1 else "uptime of a node"
    survival_panel(axis, fit.uptimes, fit.laws, f"{what} (hours)", "share of longer durations")


def downtime_panel(axis: Axes, fit: ChurnFit) -> None:
    """Draw survival of downtimes."""
    assert fit.downtimes is not None
    survival_panel(axis, fit.downtimes, fit.downtime_laws, "downtime of a lost node (hours)", "share still down")


def survival_panel(axis: Axes, durations: Durations, laws: tuple[LawFit, ...], x_label: str, y_label: str) -> None:
    """Draw the observed survival with its interval, and laws, against hours on a log scale."""
    hours, observed, low, high = durations.survival
    axis.fill_between(hours, low, high, step="post", color="0.85", linewidth=0)
    axis.step(hours, observed, where="post", color="black", label="observed")
    grid = np.geomspace(max(hours[hours > 0].min() / 2, hours.max() / 1e4), hours.max() * 1.5, 300)
    for each in sorted(laws, key=lambda law: law.law):
        color, line = LAW_STYLE[each.law]
        axis.plot(grid, each.distribution.sf(grid), color=color, linestyle=line, label=LONG_NAMES[each.law])
    axis.set(xscale="log", xlim=(grid[0], grid[-1]), ylim=(0, 1.02), xlabel=x_label, ylabel=y_label)


def size_panel(axis: Axes, fit: ChurnFit) -> None:
    """Draw how many losses come in events of each size."""
    assert fit.bulk is not None
    sizes = np.array(list(fit.bulk.sizes))
    losses = sizes * np.array(list(fit.bulk.sizes.values()))
    axis.bar(sizes, losses, color="0.45", width=0.8)
    axis.set(xlabel="nodes lost at once", ylabel="losses", xlim=(0.3, max(4.7, sizes.max() + 0.7)))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))


def fit_record(fit: ChurnFit) -> dict[str, Any]:
    """The fit as plain data, for JSON."""

    def estimate(found: Estimate) -> dict[str, float]:
        return {"value": found.value, "low": found.low, "high": found.high}

    def law(found: LawFit) -> dict[str, Any]:
        return {
            "law": found.law,
            "mean_hours": estimate(found.mean_hours),
            "spread": estimate(found.spread) if found.spread else None,
            "aic": found.aic,
            "largest_gap": found.largest_gap,
            "p_value": None if math.isnan(found.p_value) else found.p_value,
        }

    return {
        "file": fit.name,
        "format": fit.format,
        "notes": list(fit.notes),
        "num_lost": fit.num_lost,
        "presence_hours": fit.presence_hours,
        "losses_per_node_hour": estimate(fit.rate),
        "laws": [law(each) for each in fit.laws],
        "chosen": fit.chosen.law if fit.chosen else None,
        "bulk": None
        if fit.bulk is None
        else {
            "sizes": dict(fit.bulk.sizes),
            "mean_size": fit.bulk.mean_size,
            "share_together": fit.bulk.share_together,
        },
        "downtime": fit.downtime_section(),
        "hour_of_day": None
        if fit.by_hour is None
        else {"weights": fit.by_hour.weights, "p_value": fit.by_hour.p_value},
        "failures": fit.section(),
    }


def comparison_table(compared: pd.DataFrame) -> Table:
    """Hours of time-only runs under the trace and under fits."""
    rows, before = list[Row](), ""
    for one in compared.to_dict("records"):
        half = "" if math.isnan(one["half_width"]) else f" ± {format_number(one['half_width'], 2)}"
        hours = "-" if math.isnan(one["hours"]) else format_number(one["hours"]) + half
        begins = bool(rows) and one["strategy"] != before
        lost, finished = format_number(one["stages_lost"]), f"{one['finished']:.0%}"
        rows.append(Row((one["strategy"], one["process"], hours, lost, finished), begins))
        before = one["strategy"]
    headings = ("hours\nto end", "stages\nlost", "runs that\nfinished")
    columns = (Column("strategy", "left"), Column("failures", "left"), *map(Column, headings))
    return Table("Time-only runs under the trace and under what was fitted", columns, tuple(rows))


def comparison_lines(compared: pd.DataFrame) -> list[str]:
    """Say how far the times under fits are from those under the trace itself, or from each other."""
    lines = []
    for strategy, own in compared.groupby("strategy", sort=False):
        hours = own.set_index("process")["hours"].dropna()
        if len(hours) < 2:
            continue
        first, reference = hours.index[0], hours.iloc[0]
        told = [f"{process} {100 * (value / reference - 1):+.1f} %" for process, value in hours.iloc[1:].items()]
        under = "the trace itself" if first == "trace" else str(first)
        lines.append(f"{strategy}: {format_number(reference)} h under {under}; under {format_list(told)}.")
    return [*lines, *misleading(compared)]


def misleading(compared: pd.DataFrame) -> list[str]:
    """Which fits mislead about which strategies: their hours differ from the trace's by more than the intervals."""
    table = compared.pivot(index="strategy", columns="process", values=["hours", "half_width"])
    if "trace" not in compared["process"].to_numpy():
        return []
    hours, half = table["hours"], table["half_width"]
    lines = []
    for process in hours.columns.drop("trace"):
        share = hours[process] / hours["trace"] - 1
        clear = (hours[process] - hours["trace"]).abs() > half[process] + half["trace"]
        for word, of_it in (("understates", share < 0), ("overstates", share > 0)):
            names = [str(name) for name in share.index[clear & of_it]]
            if names:
                largest = format_percent(float(share[names].abs().max()))
                lines.append(f"{capitalized(process)} {word} the hours of {format_list(names)}, by up to {largest}.")
    return lines
