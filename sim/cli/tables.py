"""The command `churnlab costs`, and its tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from sim.cli.machines import answer
from sim.cli.options import Overrides, ScenarioPath, console, say, say_next, with_locations
from sim.cli.pace import working
from sim.core.units import BYTES_PER_GIB
from sim.reporting.table import Row, Table, columns_of
from sim.scenario.loading import load_scenario
from sim.scenario.scenario import Scenario

if TYPE_CHECKING:
    from sim.experiments.overheads import Overhead

app = typer.Typer()

COST_HEADINGS = (
    "devices\n× model",
    "hosts\n× model",
    "storage\n× model",
    "sent per iter.\n× model",
    "computed\nper iter.",
    "seconds per\niter., all in",
)


@app.command()
@with_locations
def costs(scenario_path: ScenarioPath, overrides: Overrides = None) -> None:
    """Print each strategy's costs without failures and the stages that it can recover. Nothing is trained."""
    from sim.experiments.microbatches import smaller_microbatches
    from sim.experiments.overheads import overheads, recoveries
    from sim.reporting.binding import binding_sentences
    from sim.reporting.verdict import use_smaller

    scenario = load_scenario(scenario_path, tuple(overrides or ()))
    for line in binding_sentences(scenario):
        say(line)
    if smaller := smaller_microbatches(scenario):
        say(use_smaller(smaller))
    with working("costs of strategies", 2 * len(scenario.strategies)) as part_done:
        found, recovered = overheads(scenario, part_done), recoveries(scenario, part_done)
    for line in save_sentences(scenario, found):
        say(line, style="yellow")
    console.print(overhead_table(scenario, found))
    console.print(recovery_table(scenario, recovered))
    say_next("churnlab", "advise", scenario_path)
    answer({"scenario": scenario.name, "costs": [asdict(one) for one in found], "recovers": recovered})


def save_sentences(scenario: Scenario, found: Sequence[Overhead]) -> list[str]:
    """Name saves that never happen, never complete, or make iterations much longer."""
    from sim.reporting.bottlenecks import incomplete_saves, slow_saves
    from sim.scenario.saves import strategies_that_save_on_nodes, unused_saves

    lines = unused_saves(scenario, min((one.undisturbed_seconds for one in found), default=math.nan))
    on_nodes = strategies_that_save_on_nodes(scenario)
    for one in found:
        lines += slow_saves(one.strategy, one.iteration_seconds, one.undisturbed_seconds, one.strategy in on_nodes)
        lines += incomplete_saves(one.strategy, one.num_started, one.num_durable, one.strategy in on_nodes)
    return lines


def overhead_table(scenario: Scenario, found: Sequence[Overhead]) -> Table:
    """One row per strategy: memory, communication and computation without failures."""
    from sim.simulation.run import build_site

    costs = build_site(scenario).costs
    model_bytes = math.fsum(costs.checkpoint_bytes(stage) for stage in range(scenario.workload.num_stages + 1))
    title = f"{scenario.name}: costs without failures; model and optimizer state: {model_bytes / BYTES_PER_GIB:.2f} GiB"
    rows = []
    for one in found:
        num_bytes = (one.device_bytes, one.host_bytes, one.stored_bytes, one.sent_bytes)
        multiples = [in_models(number / model_bytes) for number in num_bytes]
        share = f"{one.computed_share:+.0%}" if abs(one.computed_share) > 1e-9 else "0"
        rows.append(Row((one.strategy, *multiples, share, f"{one.iteration_seconds:.1f}")))
    return Table(title, columns_of(COST_HEADINGS), tuple(rows))


def recovery_table(scenario: Scenario, recovered: Mapping[str, Mapping[str, bool]] | None = None) -> Table:
    """One row per strategy that stops on failures: whether it recovers stages that are lost at once."""
    from sim.experiments.overheads import lost_stages, recoveries

    trials = lost_stages(scenario.workload.num_stages)
    headings = [f"{name}\n({', '.join(map(str, stages))})" for name, stages in trials.items()]
    rows = [
        Row((name, *("yes" if own[trial] else "no" for trial in trials)))
        for name, own in (recoveries(scenario) if recovered is None else recovered).items()
    ]
    return Table(f"{scenario.name}: recovery of stages lost at once", columns_of(headings), tuple(rows))


def in_models(multiple: float) -> str:
    """Format a multiple of the model's bytes to two digits."""
    return "0" if multiple == 0.0 else f"{multiple:.2g}"
