"""The table at the end of a run, and the words that say what its numbers are of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from sim.clock import SECONDS_PER_HOUR
from sim.cluster import ClusterConfig
from sim.costs import Costs
from sim.failures import ProcessConfig, process_class, processes
from sim.failures.script import ScriptConfig
from sim.figures import legend_label
from sim.money import usd_per_node_hour
from sim.results import RunFiles
from sim.scenario import Scenario
from sim.tables import strategy_table
from sim.wording import told_if_calm

LONG_WAIT = 0.1
"""Of the time, for uploads that should not stand in the way."""

SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"), (1.0, ""))


def comparison(runs: Sequence[RunFiles]) -> pd.DataFrame:
    """One row per run: its folder and its summary without the ledger."""
    rows = [{"run": run.folder.name, **run.summary} for run in runs]
    return pd.DataFrame(rows).drop(columns="ledger_seconds")


def comparison_table(runs: Sequence[RunFiles], scenario: Scenario) -> Table:
    """One row per strategy; with several replicates, mean ± standard deviation over those that finished.

    Hours are simulated; replicates that differ in the training seed alone take the same time and count once in
    them. Overhead and goodput are against the same iterations without failures or extra work.
    """
    frame = comparison(runs)
    target = scenario.training.target_validation_loss
    num_replicates = len(scenario.seeds.failures) * len(scenario.seeds.training)
    title = f"{scenario.name}: strategies under the same churn"
    if num_replicates > 1:
        title += f", mean ± standard deviation of {num_replicates} replicates"
    columns: list[tuple[str, Callable[[pd.DataFrame], str]]] = [
        ("stages lost\n(fallb.)", failures_met),
        ("hours\nto end", lambda rows: hours(once_per_churn(rows)["wall_clock_seconds"])),
        ("over-\nhead", lambda rows: spread(once_per_churn(rows)["overhead"] * 100, "{:+.0f} %")),
        ("seconds\nan iter.", lambda rows: to_three_digits(once_per_churn(rows)["iteration_seconds"])),
        ("cost\n$", lambda rows: dollars(once_per_churn(rows)["cost_usd"])),
        ("iters\n(re-run)", lambda rows: pair(rows["num_iterations_run"], rows["num_iterations_rerun"])),
        ("final\nval. loss", lambda rows: spread(rows["final_validation_loss"], "{:.3f}")),
    ]
    if scenario.cluster.nodes_per_stage > 1:
        columns.insert(0, ("nodes\nlost", nodes_lost))
    if scenario.training.learner == "none":
        columns.pop()
    elif target is not None:
        columns.insert(len(columns) - 6, (f"hours to\nloss {target:g}", hours_to_target))
    table = strategy_table(title, (heading for heading, _ in columns))
    for name in dict.fromkeys(frame["strategy"]):
        rows = frame[frame["strategy"] == name]
        finished = rows[rows["outcome"] == "finished"]
        label = legend_label(name)
        if len(finished) < len(rows):
            label += f" ({len(finished)} of {len(rows)} finished)"
        table.add_row(label, *(cell(finished) for _, cell in columns))
    return table


def once_per_churn(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each failure seed: seconds do not depend on the training seed."""
    return rows.drop_duplicates("failure_seed")


def failures_met(rows: pd.DataFrame) -> str:
    """Stages lost, and in brackets what the fallback had to take; none where failures are ignored."""
    rows = once_per_churn(rows)
    return "-" if (rows["kind"] == "none").all() else pair(rows["num_failures"], rows["num_fallbacks"])


def nodes_lost(rows: pd.DataFrame) -> str:
    """Nodes, spares among them; most of them had others beside them in their stage."""
    rows = once_per_churn(rows)
    return "-" if (rows["kind"] == "none").all() else spread(rows["num_nodes_lost"], "{:.0f}")


def hours_to_target(rows: pd.DataFrame) -> str:
    """Simulated hours until the target loss, over the replicates that reach it; `-` where none does."""
    reached = rows["target_reached_seconds"].dropna()
    missed = "" if len(reached) in (0, len(rows)) else f" ({len(reached)} of {len(rows)})"
    return hours(reached) + missed


def hours(seconds: pd.Series[Any]) -> str:
    """Seconds as hours, to three digits or to the hour."""
    return to_three_digits(seconds.astype(float) / SECONDS_PER_HOUR)


def to_three_digits(values: pd.Series[Any]) -> str:
    """To three digits, but no fewer than a whole number has."""
    mean = values.astype(float).mean()
    return spread(values, "{:.0f}" if mean >= 1000 else "{:.1f}" if mean >= 10 else "{:.2f}" if mean >= 1 else "{:.3g}")


def dollars(values: pd.Series[Any]) -> str:
    """Money to the cent, from 100 on to the dollar."""
    return spread(values, "{:,.0f}" if values.astype(float).mean() >= 100 else "{:.2f}")


def pair(values: pd.Series[Any], within: pd.Series[Any]) -> str:
    """A count, and in brackets how many of a kind are among it."""
    return f"{spread(values, '{:.0f}')} ({spread(within, '{:.0f}')})"


def spread(values: pd.Series[Any], style: str) -> str:
    """Mean, and the standard deviation over replicates where they differ."""
    values = values.astype(float)
    if values.isna().all():
        return "-"
    mean = style.format(values.mean() if abs(values.mean()) > 1e-9 else 0.0)
    deviation = values.std()
    return mean if math.isnan(deviation) or deviation == 0.0 else f"{mean} ± {style.format(deviation).lstrip('+')}"


def notes(scenario: Scenario, corpus: str) -> list[str]:
    """What the numbers are of, a sentence each: for below figures and tables."""
    workload, training, cluster = scenario.workload, scenario.training, scenario.cluster
    model = training.model
    process = process_class(scenario.failures.kind)(scenario.failures)
    num_hosting = (workload.num_stages + 1) * cluster.nodes_per_stage
    beside = f" and {cluster.num_spares} spares" if cluster.num_spares else ""
    if process.brings_its_nodes:
        beside = ", places for nodes that the trace brings"
    lines = [
        f"Seconds: simulated, target model '{workload.model.name}' ({parameters_in_words(scenario)} parameters) in "
        f"{workload.num_stages} stages on {num_hosting} × {cluster.device.name}{beside}, network "
        f"'{scenario.network.name}'; {process.in_words()}{circumstances(scenario.failures)}.",
    ]
    if training.learner == "none":
        lines.append("Losses: none, nothing was trained (learner: none); time only.")
    elif training.learner == "curve":
        lines.append("Losses: a PARAMETRIC CURVE, nothing was trained (learner: curve); for dry runs only.")
    else:
        lines.append(
            f"Losses: proxy model really trained, {model.family}, {model.num_stages} stages × {model.layers_per_stage} "
            f"layers, dim {model.dim}, on {corpus}."
        )
    return [*lines, *warnings(scenario)]


def parameters_in_words(scenario: Scenario) -> str:
    """How many parameters the target model has, to three digits."""
    num_parameters = Costs(scenario.workload, scenario.cluster.device).num_parameters
    scale, letter = next((pair for pair in SCALES if num_parameters >= pair[0]), SCALES[-1])
    scaled = num_parameters / scale
    return f"{scaled:.0f}{letter}" if scaled >= 100 else f"{scaled:.3g}{letter}"


def circumstances(failures: ProcessConfig) -> str:
    """How long lost nodes are away, and what warning there is, where the process says so."""
    downtime = getattr(failures, "downtime", None)
    away = f", away for {downtime.mean_hours:.3g} h on average" if downtime else ""
    if failures.immune_stages:
        stages = "stage" if len(failures.immune_stages) == 1 else "stages"
        away += f", {stages} {', '.join(map(str, failures.immune_stages))} spared"
    return away + (f", {failures.notice_seconds:g} s of notice" if failures.notice_seconds else "")


def warnings(scenario: Scenario) -> list[str]:
    """What is not neutral about the scenario, told once more below the table."""
    if scenario.iterations_per_step == 1:
        return []
    return [
        f"One proxy step stands for {scenario.iterations_per_step} target iterations (iterations_per_step): "
        "healing after a recovery is not scaled with it."
    ]


def worth_knowing(scenario: Scenario, runs: Sequence[RunFiles]) -> list[str]:
    """Sentences on what may mislead: hardly any failures, losses of a script that came too late, slow uploads."""
    finished = [run for run in runs if run.summary["outcome"] == "finished"]
    met = [run.summary["num_failures"] for run in finished if run.summary["kind"] != "none"]
    calm = told_if_calm(sum(met) / len(met)) if met and scenario.failures.kind != "never" else []
    return [*calm, *losses_too_late(scenario, runs), *slow_uploads(finished)]


def slow_uploads(runs: Sequence[RunFiles]) -> list[str]:
    """A sentence for each strategy that saves beside the training, and yet keeps it waiting for long."""
    told = {}
    for run in runs:
        share = run.summary["ledger_seconds"]["checkpoint_save"] / run.summary["wall_clock_seconds"]
        if share > LONG_WAIT and run.run["strategy"].get("blocking_share") == 0.0:
            told[run.summary["strategy"]] = (
                f"{legend_label(run.summary['strategy'])}: training waited for uploads {100 * share:.0f} % of the "
                "time, since one takes longer than the interval: lengthen it, or see whether network.storage is so slow"
            )
    return list(told.values())


def losses_too_late(scenario: Scenario, runs: Sequence[RunFiles]) -> list[str]:
    """A sentence where losses of a script came after every run's end, so that nobody met them."""
    ended_seconds = max((run.summary["wall_clock_seconds"] for run in runs), default=0.0)
    scripts = [process for process in processes(scenario.failures) if isinstance(process, ScriptConfig)]
    late = sum(loss.seconds > ended_seconds for script in scripts for loss in script.losses)
    if not late:
        return []
    hours = f"{ended_seconds / SECONDS_PER_HOUR:.3g} h"
    return [f"{late} of the script's losses came after all runs had ended ({hours}): give them more steps"]


def prices_in_words(cluster: ClusterConfig) -> str:
    """What is paid for, and at which price."""
    price, device, kind = usd_per_node_hour(cluster), cluster.device, cluster.price.replace("_", "-")
    if price is None:
        return f"Money: no {kind} price of {device.name} is known."
    as_of = f" (as of {device.prices_as_of})" if device.prices_as_of else ""
    return (
        f"Money: ${price:g} for each hour of a node that is there, idle spares too, the {kind} price of "
        f"{device.name}{as_of}; storage and traffic are not priced."
    )


def write_comparison(folder: Path, runs: Sequence[RunFiles]) -> Path:
    """Write the comparison as CSV."""
    path = folder / "comparison.csv"
    comparison(runs).to_csv(path, index=False)
    return path
