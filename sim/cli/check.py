"""The commands `churnlab validate` and `churnlab schema`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import typer

from sim.cli.machines import answer
from sim.cli.options import Overrides, ScenarioPath, say, say_next, with_locations
from sim.core.text import format_count
from sim.experiments.training import Texts
from sim.scenario.exposed_ends import ends_that_fail
from sim.scenario.quantities import with_units_allowed
from sim.scenario.saves import unused_saves
from sim.scenario.scenario import Scenario
from sim.scenario.sweep_points import load_points
from sim.scenario.trace_notes import trace_notes

app = typer.Typer()


@app.command()
@with_locations
def validate(scenario_path: ScenarioPath, overrides: Overrides = None) -> None:
    """List every problem of a scenario with its line number. The exit code is 2 if there are any.

    Plug-in modules named in the scenario are imported, so their code runs.
    """
    from sim.reporting.binding import narrow_window  # both need simpy
    from sim.simulation.effort_estimate import foreseen_effort

    points = load_points(scenario_path, tuple(overrides or ()))
    scenario = points[0].scenario
    texts = Texts(scenario_path.parent, None)
    for point in points:
        if point.scenario.training.data.source != "huggingface":
            texts.of(point.scenario)
    num_strategies, num_replicates = len(scenario.strategies), len(scenario.seeds.replicates)
    strategies = format_count(num_strategies, "strategy", "strategies")
    if len(points) > 1 or points[0].parameters:
        replicates, at = format_count(num_replicates, "replicate"), format_count(len(points), "point")
        what = f"{strategies}, {replicates} each, at {at}"
    else:
        num_iterations = scenario.training.steps * scenario.iterations_per_step
        runs = format_count(num_replicates * num_strategies, "run")
        what = f"{strategies}, {runs} of {format_count(num_iterations, 'iteration')}"
    say(f"{scenario_path}: valid; {what}")
    told = [*target_notes(scenario), *trace_notes(scenario, scenario_path.parent)]
    remarks = [
        *unused_saves(scenario),
        *ends_that_fail(scenario),
        *narrow_window(scenario),
        *foreseen_effort(scenario),
    ]
    for line in told:
        say(line)
    for line in remarks:
        say(line, style="yellow")
    say_next("churnlab", "run" if scenario.sweep is None else "sweep", scenario_path)
    num_runs = num_strategies * num_replicates * len(points)
    answer(
        {
            "valid": True,
            "scenario": scenario.name,
            "strategies": [config.name for config in scenario.strategies],
            "points": len(points),
            "runs": num_runs,
            "notes": [*told, *remarks],
        }
    )


def target_notes(scenario: Scenario) -> Iterator[str]:
    """A sentence on the loss that `auto` stands for."""
    training = scenario.training
    if training.target_validation_loss == "auto" and training.learner != "none":
        yield (
            f"Target loss (auto): that of training without failures after {training.auto_target_step:,} of "
            f"{training.steps:,} steps, which is done first."
        )


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenarios, for editors that complete and check YAML."""
    print(schema_text())


def schema_text() -> str:
    """The JSON Schema as text."""
    return json.dumps(with_units_allowed(Scenario.model_json_schema()), indent=2)
