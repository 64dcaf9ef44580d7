"""The command `churnlab`."""

from __future__ import annotations

import json
import sqlite3
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from sim.cli.cache import cache_app
from sim.cli.map import advise, map_
from sim.cli.options import Overrides, ScenarioPath, complain, console, say, with_locations
from sim.cli.results import PlotCommand, plot, report, timeline
from sim.cli.run import run, status, sweep
from sim.cli.tables import list_table, overhead_table, recovery_table
from sim.experiments.training import Texts
from sim.scenario.loading import load_scenario
from sim.scenario.scenario import Scenario
from sim.scenario.sweep_points import load_points

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"churnlab {version('churnlab')}")
        raise typer.Exit


for command in (with_locations(run), with_locations(sweep), status, with_locations(advise), report, timeline):
    app.command()(command)

app.command(cls=PlotCommand)(plot)

app.command("map")(with_locations(map_))

app.add_typer(cache_app, name="cache")


@app.callback()
def options_of_all(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Simulate churn-prone decentralized LLM training: loss against wall-clock time."""


@app.command()
@with_locations
def validate(scenario_path: ScenarioPath, overrides: Overrides = None) -> None:
    """List all problems of a scenario, with lines; exit code 2 if there are any."""
    points = load_points(scenario_path, tuple(overrides or ()))
    scenario = points[0].scenario
    texts = Texts(scenario_path.parent, None)
    for point in points:
        if point.scenario.training.data.source != "huggingface":
            texts.of(point.scenario)
    num_strategies, seeds = len(scenario.strategies), scenario.seeds
    num_replicates = len(seeds.failures) * len(seeds.training)
    if len(points) > 1 or points[0].parameters:
        what = f"{num_strategies} strategies, {num_replicates} replicates each, at {len(points)} points"
    else:
        num_iterations = scenario.training.steps * scenario.iterations_per_step
        what = f"{num_strategies} strategies, {num_replicates * num_strategies} runs of {num_iterations} iterations"
    say(f"{scenario_path}: valid; {what}")


@app.command()
def costs(scenario_path: ScenarioPath, overrides: Overrides = None) -> None:
    """Print each strategy's costs with no failure and the stages that it recovers, by simulation without training."""
    scenario = load_scenario(scenario_path, tuple(overrides or ()))
    console.print(overhead_table(scenario))
    console.print(recovery_table(scenario))


@app.command("list")
def list_known(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="strategies, failures, devices, models or networks")] = "",
) -> None:
    """List the names that a scenario can use."""
    console.print(list_table(what))


@app.command()
def schema() -> None:
    """Print the JSON Schema of a scenario, for editors that complete and check YAML."""
    print(json.dumps(Scenario.model_json_schema(), indent=2))


def main() -> None:
    """Run the command; errors of the user end it with a message and exit code 2, without a traceback."""
    try:
        app()
    except (ValueError, OSError) as error:
        complain(str(error), "red")
        sys.exit(2)
    except sqlite3.Error as error:
        complain(f"the trajectory cache cannot be used ({error}): delete it, or name another with --cache", "red")
        sys.exit(2)
