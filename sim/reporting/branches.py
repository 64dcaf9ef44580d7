"""What one failure costs: tables, sentences and the figure of branches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sim.core.text import capitalized, format_count, format_list, format_number
from sim.reporting.notes import notes
from sim.reporting.registry import FigureKind, FigureRequest, Tables
from sim.reporting.series import SeriesStyle, line_handles, styles_by_kind
from sim.reporting.style import PAPER, Form, add_legend, new_figure, subplots
from sim.reporting.table import STRATEGY, Column, Row, Table
from sim.results.branches import Branches
from sim.results.prediction import WholeRuns
from sim.strategies import legend_label

DECIMALS = {"hours_to_target": 1, "final_validation_loss": 3}

OPACITY = 0.15
DODGE = 0.12  # distance between the strategies' marks at a stage
EXCESS_LABEL = "excess validation loss (nats/token)"


def branch_tables(found: Branches) -> list[Table]:
    """Return the mean excess loss by step of the failure, and by stage, for strategies that rebuild stages."""
    after = shown_after(found.after_steps)
    by_step = _rows(found, "step", after, lambda step: f"{step:,}")
    by_stage = _rows(found, "stage", after, lambda stage: lost_stages(stage, found.lost_at_once))
    columns = tuple(Column(after_label(number)) for number in after)
    note = (
        f"Validation loss above that of the same training without the failure, in nats per token: mean over "
        f"{describe_failures(found)} ± half of its 95 % interval over {describe_seeds(found)}."
    )
    return [
        Table("What one failure costs, by the step at which it occurs", (STRATEGY, Column("step"), *columns), by_step),
        Table(
            f"What one failure costs, by the {'stage that is' if found.lost_at_once == 1 else 'stages that are'} lost",
            (STRATEGY, Column("stage" if found.lost_at_once == 1 else "stages"), *columns),
            by_stage,
            note,
        ),
    ]


def _rows(found: Branches, key: str, after: Sequence[int], name: Any) -> tuple[Row, ...]:
    means = found.excess(("strategy", key, "after_steps"))
    overall = found.excess(("strategy", "after_steps"))
    rows: list[Row] = []
    for strategy in found.rebuilding:
        begins = bool(rows)
        own, total = means[means["strategy"] == strategy], overall[overall["strategy"] == strategy]
        for value in sorted(set(own[key])):
            cells = mean_cells(own[own[key] == value], after)
            rows.append(Row((legend_label(strategy), name(value), *cells), begins))
            begins = False
        rows.append(Row((legend_label(strategy), "all", *mean_cells(total, after))))
    return tuple(rows)


def mean_cells(means: pd.DataFrame, after: Sequence[int]) -> list[str]:
    """Format the mean excess at some steps after the failure."""
    return [mean_cell(means[means["after_steps"] == number].iloc[0]) for number in after]


def mean_cell(row: Any, digits: int = 3) -> str:
    """Format the mean ± half of the interval of a row of means."""
    if math.isnan(row["mean"]):
        return "-"
    half_width = (row["high"] - row["low"]) / 2
    return f"{row['mean']:.{digits}f}" + ("" if math.isnan(half_width) else f" ± {half_width:.{digits}f}")


def shown_after(after_steps: Sequence[int]) -> list[int]:
    """Return the comparisons of a table: the first, one between, and the last."""
    last = len(after_steps) - 1
    return [after_steps[place] for place in dict.fromkeys((0, (last + 1) // 2, last))]


def after_label(steps: int) -> str:
    """Name a comparison by the steps after the failure."""
    return f"{steps} steps\nlater" if steps else "at once"


def lost_stages(first: int, number: int) -> str:
    """Name consecutive stages: S3, S3 and S4, S3 to S5."""
    return f"S{first}" if number == 1 else f"S{first} {'and' if number == 2 else 'to'} S{first + number - 1}"


def describe_failures(found: Branches) -> str:
    """Say which stages are lost, and at which steps."""
    steps = format_list([f"{step:,}" for step in found.steps])
    stages = format_count(len(found.stages), "stage")
    if found.lost_at_once > 1:
        stages = f"{format_count(len(found.stages), 'group')} of {found.lost_at_once} consecutive stages"
    return f"{stages} and {'step' if len(found.steps) == 1 else 'steps'} {steps}"


def describe_seeds(found: Branches) -> str:
    """Count the training seeds."""
    return format_count(found.table["training_seed"].nunique(), "training seed")


def sentences(found: Branches) -> list[str]:
    """Say what one failure costs each strategy, where they differ, and what their routes cost without failures."""
    rebuilding, last = found.rebuilding, found.after_steps[-1]
    lines = []
    if rebuilding:
        means = found.excess(("strategy", "after_steps"))
        means = means[means["after_steps"] == last].set_index("strategy")
        costs = [f"{legend_label(name)} {mean_cell(means.loc[name])}" for name in rebuilding]
        when = f"{last} steps later" if last else "at once"
        lines.append(
            f"One failure costs, {when} and in nats per token of validation loss: {format_list(costs)} (mean over "
            f"{describe_failures(found)}; ± half of a 95 % interval over {describe_seeds(found)})."
        )
        lines += [line for name in rebuilding if (line := _worst_stage(found, name, last))]
        lines += [_compared(found, name, rebuilding[0], last) for name in rebuilding[1:]]
        lines += [line for name in rebuilding[1:] if (line := _routes(found, name, rebuilding[0]))]
    lines += _others(found)
    return lines


def _worst_stage(found: Branches, strategy: str, after: int) -> str:
    """Say by which stage a strategy loses most, and what the others cost."""
    table = found.table[(found.table["strategy"] == strategy) & (found.table["after_steps"] == after)]
    by_stage = table.groupby("stage")["excess"].mean()
    if len(by_stage) < 2 or by_stage.isna().any():
        return ""
    worst = max(by_stage.index, key=lambda stage: float(by_stage[stage]))
    others = by_stage.drop(worst)
    return (
        f"{legend_label(strategy)} loses most by {lost_stages(worst, found.lost_at_once)}, {by_stage[worst]:.3f}; "
        f"by the other stages {others.min():.3f} to {others.max():.3f}, {others.mean():.3f} on average."
    )


def _compared(found: Branches, strategy: str, reference: str, after: int) -> str:
    """Say whether a strategy loses less than another by the same failures."""
    rows = found.difference(strategy, reference)
    row = rows[rows["after_steps"] == after].iloc[0]
    name, other = legend_label(strategy), legend_label(reference)
    if math.isnan(row["low"]):
        return f"{name} - {other}: {mean_cell(row)} per failure; one training seed gives no interval."
    if row["low"] <= 0.0 <= row["high"]:
        return f"{name} and {other} cannot be distinguished by these failures: {name} - {other} is {mean_cell(row)}."
    verb = "less" if row["mean"] < 0 else "more"
    size = {**row, "mean": abs(row["mean"])}
    return f"{name} loses {mean_cell(size)} {verb} than {other} by the same failure."


def _routes(found: Branches, strategy: str, reference: str) -> str:
    """Say what the routes of a strategy cost without failures; empty if both have the same."""
    rows = found.without_failures(strategy, reference)
    if rows.empty or not rows["mean"].any():
        return ""
    row = rows.iloc[-1]
    return (
        f"Without any failure, the loss of {legend_label(strategy)} differs from that of {legend_label(reference)} by "
        f"{mean_cell(row)} at step {row['step']:,.0f}, because its microbatches take other routes."
    )


def _others(found: Branches) -> list[str]:
    """Say what failures cost strategies that change no weights, and how long each strategy's training is delayed."""
    delays = found.table.groupby("strategy", sort=False)["seconds"].mean()
    parts = [f"{legend_label(str(name))} {format_number(seconds)} s" for name, seconds in delays.items()]
    unchanged = [legend_label(name) for name in found.strategies if name not in found.rebuilding]
    lines = []
    if unchanged:
        verb = "changes" if len(unchanged) == 1 else "change"
        lines.append(f"{capitalized(format_list(unchanged))} {verb} no weights: the excess loss is 0.")
    lines.append(f"Delay by one failure, with iterations done again, in seconds of the target: {format_list(parts)}.")
    stopped = found.table.dropna(subset=["stopped"]).drop_duplicates("strategy")
    for name, reason in zip(stopped["strategy"], stopped["stopped"], strict=True):
        lines.append(f"{legend_label(name)} does not survive every failure: {reason}.")
    return lines


def whole_runs_table(runs: WholeRuns, name: str) -> Table:
    """Return the predicted hours to the target, or final losses without one, by strategy and failure rate."""
    column = "hours_to_target" if runs.target is not None else "final_validation_loss"
    means, short = runs.means(column), runs.field.rpartition(".")[2].replace("_", " ")
    columns = [Column(f"{short}\n{value:g}" if runs.field else "") for value in runs.values]
    rows = []
    for strategy, own in means.groupby("strategy", sort=False):
        runs_of = runs.table[runs.table["strategy"] == strategy].groupby("value", sort=False)[column]
        reached = {value: f"{found.count()} of {len(found)}" for value, found in runs_of}
        cells = {row["value"]: mean_cell(row, DECIMALS[column]) for row in own.to_dict("records")}
        shown = (reached[value] if cells[value] == "-" else cells[value] for value in runs.values)
        rows.append(Row((legend_label(str(strategy)), *shown)))
    what = f"hours to loss {runs.target:g}" if runs.target is not None else "final validation loss"
    num_seeds = runs.table["training_seed"].nunique()
    each = len(runs.table) // (len(means) * num_seeds)
    note = (
        f"PREDICTED, not trained: losses of training without failures plus the excess of each rebuilt stage, times by "
        f"simulation. Means over {format_count(num_seeds, 'training seed')}, each with {each} failure seeds, ± half of "
        "the 95 % interval; 9 of 12: the number of runs that reach the target within training.steps."
    )
    return Table(f"{name}: whole runs predicted from single failures, {what}", (STRATEGY, *columns), tuple(rows), note)


def whole_runs_sentences(runs: WholeRuns, rebuilding: Sequence[str]) -> list[str]:
    """Say at which failure rates a rebuilding strategy is predicted to be ahead of the first, in hours or in loss."""
    return [_predicted_order(runs, strategy, rebuilding[0]) for strategy in rebuilding[1:]]


def _predicted_order(runs: WholeRuns, strategy: str, reference: str) -> str:
    rows = runs.difference(strategy, reference, "hours_to_target")
    what, unit, digits = f"reaches loss {runs.target or 0.0:g} first", "hours", 1
    if rows["mean"].isna().any():
        rows = runs.difference(strategy, reference, "final_validation_loss")
        what, unit, digits = "ends with the lower loss", "final loss in nats", 3
    one, other = legend_label(strategy), legend_label(reference)
    told = {one: rows["high"] < 0.0, other: rows["low"] > 0.0}
    where = {name: [f"{value:g}" for value in rows.loc[ahead, "value"]] for name, ahead in told.items()}
    parts = [f"{name} {what} at {format_list(values)}" for name, values in where.items() if values]
    unclear = [f"{value:g}" for value in rows.loc[~(told[one] | told[other]), "value"]]
    if unclear:
        parts.append(f"no order can be determined at {format_list(unclear)}")
    differences = [f"{value:g}: {mean_cell(row, digits)}" for value, row in rows.set_index("value").iterrows()]
    return (
        f"Predicted by {runs.field or 'the failures'}: {'; '.join(parts)} ({one} - {other}, {unit}: "
        f"{', '.join(differences)})."
    )


def branch_styles(found: Branches) -> dict[str, SeriesStyle]:
    """Return the style of each strategy that rebuilds stages, by name."""
    kinds = {config.name: config.kind for config in found.scenario.strategies}
    return styles_by_kind({name: kinds[name] for name in found.rebuilding})


def branches_figure(found: Branches, form: Form = PAPER) -> Figure:
    """Draw the excess loss against steps after a failure, and by stage at the last of them; a row for each step."""
    styles, last = branch_styles(found), found.after_steps[-1]
    over_time, by_stage = found.excess(("strategy", "step", "after_steps")), found.excess()
    text = [
        *notes(found.scenario, found.corpus_description)[1:2],
        f"Loss above that of the same training without the failure. Left: mean over {describe_failures(found)}. Right: "
        f"{last} steps after the failure, by what is lost. Bands and bars: 95 % intervals over "
        f"{describe_seeds(found)}.",
    ]
    with new_figure(0.8 + 1.7 * len(found.steps) * (2 if form.is_narrow else 1), text, form) as figure:
        grid = subplots(figure, len(found.steps), 2, form, sharex="col")
        for axes, step in zip(grid, found.steps, strict=True):
            for name, style in styles.items():
                here = [part[(part["strategy"] == name) & (part["step"] == step)] for part in (over_time, by_stage)]
                draw_healing(axes[0], here[0], style)
                draw_stages(
                    axes[1], here[1][here[1]["after_steps"] == last], style, list(styles).index(name), len(styles)
                )
            axes[0].set_title(f"failure at step {step:,}", loc="left")
            axes[0].set_ylim(bottom=min(0.0, axes[0].get_ylim()[0]))
            axes[1].axhline(0.0, color="0.35", linewidth=0.8, zorder=0)
        grid[-1][0].set_xlabel("steps after the failure")
        grid[-1][1].set_xlabel("stage that is lost" if found.lost_at_once == 1 else "stages that are lost")
        names = [lost_stages(stage, found.lost_at_once).replace(" ", "\n", 1) for stage in found.stages]
        grid[-1][1].set_xticks(range(len(found.stages)), names)
        figure.supylabel(EXCESS_LABEL, fontsize="medium")
        add_legend(figure, line_handles({legend_label(name): style for name, style in styles.items()}, True), form)
    return figure


def draw_healing(axis: Axes, rows: pd.DataFrame, style: SeriesStyle) -> None:
    """Draw the mean excess of a strategy against steps after the failure, with its interval."""
    axis.fill_between(rows["after_steps"], rows["low"], rows["high"], color=style.colour, alpha=OPACITY, linewidth=0)
    axis.plot(rows["after_steps"], rows["mean"], color=style.colour, linestyle=style.line, marker=style.marker)


def draw_stages(axis: Axes, rows: pd.DataFrame, style: SeriesStyle, number: int, num_strategies: int) -> None:
    """Draw the mean excess of a strategy by stage, with intervals; marks of strategies beside each other."""
    stages = sorted(set(rows["stage"]))
    places = [stages.index(stage) + DODGE * (number - (num_strategies - 1) / 2) for stage in rows["stage"]]
    axis.vlines(places, rows["low"], rows["high"], color=style.colour)
    axis.plot(places, rows["mean"], color=style.colour, linestyle="", marker=style.marker)


def _tables(request: FigureRequest) -> Tables:
    return {"": request.branches.excess()}


def _figure(request: FigureRequest, tables: Tables) -> Figure:  # noqa: ARG001
    return branches_figure(request.branches, request.form)


FIGURES: Iterable[FigureKind] = (
    FigureKind("branches", "excess loss after one failure, by stage", _tables, _figure, by_point=False),
)
