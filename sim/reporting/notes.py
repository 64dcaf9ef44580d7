"""Notes and warnings below tables and figures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

import pandas as pd

from sim.cluster.topology import ClusterConfig, num_nodes, usd_per_node_hour
from sim.core.text import format_count
from sim.core.units import SECONDS_PER_HOUR
from sim.failures import ProcessConfig, process_class, processes
from sim.failures.script import ScriptConfig
from sim.reporting.preset_words import figures_in_words
from sim.results.crossed_design import SEEDS, are_pairs
from sim.results.outcome_tables import target_of
from sim.results.storage import RunFiles
from sim.scenario.exposed_ends import ends_that_fail
from sim.scenario.scenario import Scenario
from sim.strategies import legend_label, trains_apart
from sim.workload.costs import Costs

LONG_WAIT = 0.1  # share of the time; background uploads that delay training for longer get a warning
SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"), (1.0, ""))


def notes(scenario: Scenario, corpus: str, failures: str = "", varied: Collection[str] = ()) -> list[str]:
    """Sentences on the model, cluster and failures of the seconds, and the model and text (corpus) of the losses.

    failures: in words, unless they are those of this scenario alone. varied: fields with several values.
    """
    workload, training, cluster = scenario.workload, scenario.training, scenario.cluster
    model, num_parameters = training.model, Costs(workload, cluster.device).num_parameters
    scale, letter = next((pair for pair in SCALES if num_parameters >= pair[0]), SCALES[-1])
    size = f"{num_parameters / scale:{'.0f' if num_parameters >= 100 * scale else '.3g'}}{letter}"
    num_hosting = num_nodes(cluster, workload.num_stages) - cluster.num_spares
    beside = f" and {cluster.num_spares} spares" if cluster.num_spares else ""
    if process_class(scenario.failures.kind)(scenario.failures).supplies_nodes:
        beside = ", places for nodes that the trace brings"
    figures = partial(figures_in_words, varied=varied)
    nodes = f"{num_hosting} × {figures('devices', cluster.device, quote='')}{beside}"
    lines = [
        f"Seconds: simulated, target model {figures('models', workload.model)} ({size} parameters) in "
        f"{workload.num_stages} stages on {nodes}, network "
        f"{figures('networks', scenario.network)}; {failures or describe_failures(scenario.failures)}."
    ]
    if training.learner == "none":
        lines.append("Losses: none, nothing was trained (learner: none); time only.")
    elif training.learner == "curve":
        lines.append("Losses: a PARAMETRIC CURVE, nothing was trained (learner: curve); for dry runs only.")
    else:
        layers = f"{model.num_stages} stages × {model.layers_per_stage} layers, dim {model.dim}"
        lines.append(f"Losses: proxy model really trained, {model.family}, {layers}, on {corpus}.")
    return [*lines, *warnings(scenario)]


def describe_failures(failures: ProcessConfig) -> str:
    """Describe the failure process, how long lost nodes are away, immune stages, and the preemption notice."""
    described, downtime = process_class(failures.kind)(failures).describe(), getattr(failures, "downtime", None)
    if downtime:
        described += f", away for {downtime.mean_hours:.3g} h on average"
    if failures.immune_stages:
        stages = "stage" if len(failures.immune_stages) == 1 else "stages"
        described += f", {stages} {', '.join(map(str, failures.immune_stages))} spared"
    return described + (f", {failures.notice_seconds:g} s of notice" if failures.notice_seconds else "")


def warnings(scenario: Scenario) -> list[str]:
    """Name settings of the scenario that bias its numbers."""
    number = scenario.iterations_per_step
    words = f"One proxy step stands for {number} target iterations (iterations_per_step): healing after a recovery is "
    lines = [f"{words}not scaled with it."] if number != 1 else []
    return [*lines, *ends_that_fail(scenario)]


def worth_knowing(scenario: Scenario, runs: Sequence[RunFiles]) -> list[str]:
    """Return warnings on results: scripted losses after the end, slow uploads."""
    finished = [run for run in runs if run.summary["outcome"] == "finished"]
    lines = []
    ended_seconds = max((run.summary["wall_clock_seconds"] for run in runs), default=0.0)
    scripts = [process for process in processes(scenario.failures) if isinstance(process, ScriptConfig)]
    if late := sum(loss.seconds > ended_seconds for script in scripts for loss in script.losses):
        hours = f"{ended_seconds / SECONDS_PER_HOUR:.3g} h"
        lines.append(f"{late} of the script's losses came after all runs had ended ({hours}): give them more steps")
    waits = {}
    for run in finished:
        share = run.summary["ledger_seconds"]["checkpoint_save"] / run.summary["wall_clock_seconds"]
        if share > LONG_WAIT and run.run["strategy"].get("blocking_share") == 0.0:
            waits[run.summary["strategy"]] = (
                f"{legend_label(run.summary['strategy'])}: training waited for uploads {100 * share:.0f} % of the "
                "time, because one takes longer than the interval: increase the interval, or check network.storage"
            )
    return [*lines, *waits.values()]


def remarks(scenario: Scenario, runs: Sequence[RunFiles]) -> list[str]:
    """Name runs that stopped, needed the fallback, or have faster iterations than without a strategy."""
    lines = []
    for name in dict.fromkeys(run.summary["strategy"] for run in runs):
        own = [run for run in runs if run.summary["strategy"] == name]
        if stopped := [run for run in own if run.summary["stopped_because"]]:
            first, among = stopped[0], f"{len(stopped)} of {format_count(len(own), 'run')} did not finish"
            lines.append(f"{legend_label(name)}: {among}, {first.folder.name}: {first.summary['stopped_because']}")
    for record in runs:
        name, summary = record.folder.name, record.summary
        if number := summary["num_fallbacks"]:
            times = "once" if number == 1 else format_count(number, "time")
            taken_over = (
                f"when the fallback '{scenario.fallback.name}' took over: it accounts for much of this run's time"
            )
            lines.append(f"{name}: could not recover {times}, {taken_over}")
        taken, plain = summary["iteration_seconds"], summary["ideal_iteration_seconds"]
        if taken < plain and summary["microbatch_size"] == 1.0:
            why = "its routes or uploads change the order of work, which happens to be faster here"
            if trains_apart(record.run["strategy"]["kind"]):
                why = "its replicas train apart, and exchange nothing in most iterations"
            if summary["kind"] == "skip":
                why = "microbatches leave out stages (trained_share)"
            lines.append(f"{name}: an iteration takes {taken:.1f} s, a plain one {plain:.1f} s: {why}")
    return lines


def describe_seeds(runs: pd.DataFrame) -> str:
    """Count the failure and training seeds of runs, or the independent pairs of these."""
    num_pairs = len(runs[SEEDS].drop_duplicates())
    if are_pairs(num_pairs, *(runs[name].nunique() for name in SEEDS)):
        return f"{num_pairs} independent pairs of seeds"
    counts = [(runs[f"{kind}_seed"].nunique(), kind) for kind in ("failure", "training")]
    return " and ".join(f"{number} {kind} seed{'s' if number > 1 else ''}" for number, kind in counts)


def describe_target(runs: pd.DataFrame) -> str:
    """Name the target loss if all runs that have one have the same."""
    target = target_of(runs)
    return "the target loss" if target is None else f"loss {target:g}"


def describe_prices(cluster: ClusterConfig) -> str:
    """Return a sentence on the price, and on what it covers."""
    price, device, kind = usd_per_node_hour(cluster), cluster.device, cluster.price.replace("_", "-")
    if price is None:
        return f"Money: no {kind} price of {device.name} is known."
    as_of = f" (as of {device.prices_as_of})" if device.prices_as_of else ""
    return (
        f"Money: ${price:g} for each hour of an active node, idle spares included, the {kind} price of "
        f"{device.name}{as_of}; storage and traffic are not priced."
    )
