"""The command `churnlab`."""

from __future__ import annotations

import json
import sqlite3
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from sim.cli.cache import cache_app
from sim.cli.map import advise, map_
from sim.cli.options import (
    CacheFolder,
    NoCache,
    Overrides,
    ResultsFolder,
    ScenarioPath,
    cache_folder,
    complain,
    console,
    say,
    with_places,
)
from sim.cli.plot import PlotCommand, plot
from sim.cli.report import report
from sim.cli.sweep import status, sweep
from sim.scenario.loading import load_scenario
from sim.scenario.scenario import Scenario
from sim.simulation.training_process import Progress as RunProgress
from sim.simulation.training_process import Watcher

if TYPE_CHECKING:
    from sim.experiments.runner import PlannedRun

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"churnlab {version('churnlab')}")
        raise typer.Exit


for command in (with_places(sweep), status, with_places(advise), report):
    app.command()(command)

app.command(cls=PlotCommand)(plot)

app.command("map")(with_places(map_))

app.add_typer(cache_app, name="cache")


@app.callback()
def options_of_all(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Simulate churn-prone decentralized LLM training: loss against wall-clock time."""


@app.command()
@with_places
def run(
    scenario_path: ScenarioPath,
    overrides: Overrides = None,
    results: ResultsFolder = Path("results"),
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    force: Annotated[bool, typer.Option("--force", help="Run again what is finished already.")] = False,
) -> None:
    """Run a scenario: every strategy under the same churn. Ends with a table and a figure.

    Interrupted, the same command goes on where it was.
    """
    from sim.experiments.runner import ScenarioRunner
    from sim.reporting.ledger import ledger_table
    from sim.reporting.notes import describe_prices, notes, warnings, worth_knowing
    from sim.reporting.registry import FigureRequest, figure_kinds
    from sim.reporting.style import save
    from sim.reporting.tables import comparison_table, write_comparison
    from sim.results.storage import load

    scenario = load_scenario(scenario_path, tuple(overrides or ()))
    if scenario.sweep is not None:
        say(f"Its sweep is left aside, this is the scenario by itself: churnlab sweep {scenario_path} does all points.")
    with cache_folder(cache, no_cache) as folder:
        runner = ScenarioRunner(scenario, scenario_path.parent, results, folder)
        captions = notes(scenario, runner.corpus_description)
        for caption in (*captions, describe_prices(scenario.cluster)):
            console.print(caption, style="dim", highlight=False)
        try:
            with ProgressDisplay() as display:
                runs = list(runner.run(display, force))
        except KeyboardInterrupt:
            complain("Interrupted. Finished runs and all but the last steps of training are kept: run it again.")
            raise typer.Exit(130) from None
    out = results / scenario.name
    console.print()
    console.print(comparison_table(runs, scenario))
    for record in runs:
        if record.summary["stopped_because"]:
            console.print(f"{record.folder.name} stopped: {record.summary['stopped_because']}", style="yellow")
        if record.summary["num_fallbacks"]:
            console.print(
                f"{record.folder.name}: could not recover {times(record.summary['num_fallbacks'])}, when the fallback "
                f"'{scenario.fallback.name}' took over: it decides much of this run's time",
                style="yellow",
                highlight=False,
                soft_wrap=True,
            )
        taken, plain = record.summary["iteration_seconds"], record.summary["ideal_iteration_seconds"]
        if taken < plain:
            why = "smaller microbatches or other routes suit these links better"
            line = f"{record.folder.name}: an iteration takes {taken:.1f} s, a plain one {plain:.1f} s: {why}"
            console.print(line, style="yellow", highlight=False, soft_wrap=True)
    for line in worth_knowing(scenario, runs):
        console.print(line, style="yellow", highlight=False, soft_wrap=True)
    for stale in (*out.glob("convergence.p*"), *out.glob("ledger.p*")):
        stale.unlink()
    paths = [write_comparison(out, runs)]
    request, kinds = FigureRequest.of(load(out)), figure_kinds()
    if (request.runs["outcome"] == "finished").any():
        console.print(ledger_table(request.results))
        paths += save(kinds["ledger"].draw(request), out / "ledger")
    if request.runs["final_validation_loss"].notna().any():
        paths += save(kinds["loss"].draw(request), out / "convergence")
    for warning in warnings(scenario):
        console.print(warning, style="yellow")
    console.print("Written: " + ", ".join(str(path) for path in paths), highlight=False, soft_wrap=True)


@app.command()
def timeline(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run, below results/.")],
    from_seconds: Annotated[float, typer.Option("--from", help="Start of the window, in simulated seconds.")] = 0.0,
    to_seconds: Annotated[
        float | None, typer.Option("--to", help="End of the window; default: two iterations after its start.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write; default: timeline.json in RUN.")] = None,
) -> None:
    """Write what happened when in a run: a Chrome trace (opens in Perfetto) and, if it is short, a Gantt chart."""
    from sim.reporting.gantt import MOST_OPERATIONS, gantt_figure
    from sim.reporting.style import save
    from sim.results.timeline import timeline as timeline_of
    from sim.results.timeline import write_chrome_trace

    path = out or run_folder / "timeline.json"
    if path.is_dir() or (out and (path.suffix != ".json" or not path.parent.is_dir())):
        raise ValueError(f"--out {path}: give the name of a JSON file (ending in .json) in a folder that exists")
    found = timeline_of(run_folder, from_seconds, to_seconds)
    write_chrome_trace(found, path)
    paths = [path]
    for stale in (path.with_suffix(".png"), path.with_suffix(".pdf")):
        stale.unlink(missing_ok=True)
    num_operations, num_messages = len(found.trace.operations), len(found.trace.messages)
    if num_operations <= MOST_OPERATIONS:
        title = f"{found.scenario.name}: {found.strategy}"
        paths += save(gantt_figure(found, title), path.with_suffix(""))
    else:
        console.print(f"No chart: more than {MOST_OPERATIONS} operations; choose a shorter window.", highlight=False)
    console.print(
        f"{num_operations} operations, {num_messages} messages, {len(found.events)} events. Open the JSON file in "
        "ui.perfetto.dev or chrome://tracing.",
        highlight=False,
    )
    console.print("Written: " + ", ".join(str(path) for path in paths), highlight=False, soft_wrap=True)


@app.command()
@with_places
def validate(scenario_path: ScenarioPath, overrides: Overrides = None) -> None:
    """Say all that is wrong with a scenario, with lines; exit code 2 if anything is."""
    from sim.experiments.runner import Texts
    from sim.scenario.sweep_points import load_points

    points = load_points(scenario_path, tuple(overrides or ()))
    scenario = points[0].scenario
    texts = Texts(scenario_path.parent, None)
    for point in points:
        if point.scenario.training.data.source != "huggingface":
            texts.of(point.scenario)
    num_replicates = len(scenario.seeds.failures) * len(scenario.seeds.training)
    if len(points) > 1 or points[0].parameters:
        what = f"{len(scenario.strategies)} strategies, {num_replicates} replicates each, at {len(points)} points"
    else:
        num_iterations = scenario.training.steps * scenario.iterations_per_step
        what = (
            f"{len(scenario.strategies)} strategies, {num_replicates * len(scenario.strategies)} runs of "
            f"{num_iterations} iterations"
        )
    say(f"{scenario_path}: valid; {what}")


@app.command()
def costs(scenario_path: ScenarioPath, overrides: Overrides = None) -> None:
    """Print what each strategy costs while nothing fails, and what it recovers, found by trying; nothing is trained."""
    from sim.cli.costs import overhead_table, recovery_table

    scenario = load_scenario(scenario_path, tuple(overrides or ()))
    console.print(overhead_table(scenario))
    console.print(recovery_table(scenario))


@app.command("list")
def list_known(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="strategies, failures, devices, models or networks")],
) -> None:
    """List what a scenario can name."""
    from sim.cli.listing import table_of

    console.print(table_of(what))


@app.command()
def schema() -> None:
    """Print the JSON Schema of a scenario, for editors that complete and check YAML."""
    print(json.dumps(Scenario.model_json_schema(), indent=2))


class ProgressDisplay:
    """Live progress: a line for each run with its iteration, simulated time, loss, failures and time left."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=10),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task: TaskID | None = None
        self._validation_loss: float | None = None

    def __enter__(self) -> ProgressDisplay:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def started(self, planned: PlannedRun) -> Watcher:
        """A run begins: give it a line."""
        name = f"{planned.name} f{planned.failure_seed} t{planned.training_seed}"
        self._task = self._progress.add_task(name, total=1, state="")
        self._validation_loss = None
        return self._watch

    def finished(self, planned: PlannedRun, reused: bool) -> None:
        """A run is complete."""
        if reused:
            line = f"{planned.folder}: finished before, not run again"
            self._progress.console.print(line, highlight=False, soft_wrap=True)

    def _watch(self, run: RunProgress) -> None:
        assert self._task is not None
        if run.validation_loss is not None:
            self._validation_loss = run.validation_loss
        loss = f"loss {self._validation_loss:.3f}" if self._validation_loss is not None else ""
        failures = "" if run.num_failures is None else f"{run.num_failures} failures"
        state = f"{run.now_seconds / 3600:6.1f} h  {loss}  {failures}".rstrip()
        self._progress.update(self._task, completed=run.iteration, total=run.num_iterations, state=state)


def times(number: int) -> str:
    """How often, in words."""
    return "once" if number == 1 else f"{number} times"


def main() -> None:
    """Run the command; what the user can mend is one clear message and exit code 2, never a traceback."""
    try:
        app()
    except (ValueError, OSError) as error:
        complain(str(error), "red")
        sys.exit(2)
    except sqlite3.Error as error:
        complain(f"the trajectory cache cannot be used ({error}): delete it, or name another with --cache", "red")
        sys.exit(2)
