"""Draws the pictures of the documentation: python docs/pictures.py

Those of single iterations come straight from the pipeline, the others from runs in a temporary folder. What these train
is kept where every command keeps it, so that only the first time takes long: an hour on two cores.
"""

from __future__ import annotations

import tempfile
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sim.core.records import Operation
from sim.experiments.strategy_map.study import MapOptions, strategy_map
from sim.experiments.sweep import run_scenario, sweep_scenario
from sim.experiments.training import default_cache
from sim.reporting.animated_image import animated
from sim.reporting.animation import frames
from sim.reporting.gantt import draw_operations, gantt_figure, legend, name_rows
from sim.reporting.registry import figure_of
from sim.reporting.strategy_map import strategy_map_figure
from sim.reporting.style import STYLE
from sim.reporting.tracks import tracks_of
from sim.results.timeline import timeline
from sim.scenario.loading import load_scenario, parse_scenario
from sim.scenario.memory_check import plan_under
from sim.simulation.run import build_site
from sim.workload.iteration import run_alone
from sim.workload.iteration_time import fastest_time
from sim.workload.iteration_work import IterationWork

HERE = Path(__file__).resolve().parent
SCENARIOS = HERE.parent / "scenarios"
FOUR_STAGES = """
name: picture
workload:
  model: {dim: 64, num_heads: 4, num_layers: 8, hidden_dim: 256, vocabulary_size: 256}
  num_stages: 4
  num_microbatches: 8
  sequences_per_microbatch: 8
  measured: {forward_seconds: 1, backward_seconds: 2}
training: {learner: none, model: {num_stages: 4}}
network:
  same_region: {latency_ms: 0, bandwidth_mbit_per_s: 1.0e9}
  storage: {latency_ms: 0, bandwidth_mbit_per_s: 1.0e9}
strategies: [none]
"""


@dataclass(frozen=True)
class Iteration:
    """Seconds and operations of one iteration."""

    seconds: float
    operations: list[Operation]


def iteration(*overrides: str) -> Iteration:
    """One iteration of four stages; a forward takes 1 s, a backward 2 s."""
    scenario = parse_scenario(FOUR_STAGES, overrides=overrides)
    site, plan = build_site(scenario), plan_under(scenario.strategies[0], scenario.workload)
    fastest = fastest_time(site, plan)
    return Iteration(fastest.seconds, run_alone(IterationWork(site, plan, fastest.order)).operations)


def panel(axis: Axes, title: str, finished: Iteration, whole_seconds: float) -> None:
    """One iteration with its time and bubble."""
    axis.set_xlim(0, whole_seconds)
    draw_operations(axis, [done for done in finished.operations if done.stage > 0])
    name_rows(axis, 5)
    axis.set_ylim(4.6, 0.4)
    busy = sum(done.end_seconds - done.start_seconds for done in finished.operations if done.stage > 0) / 4
    share = 1 - busy / finished.seconds
    axis.set_title(f"{title}: {finished.seconds:.4g} s, nodes idle {100 * share:.0f} % of it", loc="left")


def panels(path: Path, titled: dict[str, Iteration]) -> None:
    """Iterations below each other, on one scale of time."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.3 + 1.35 * len(titled)), layout="constrained")
        axes = figure.subplots(len(titled), 1, sharex=True)
        whole_seconds = max(finished.seconds for finished in titled.values())
        for axis, (title, finished) in zip(axes, titled.items(), strict=True):
            panel(axis, title, finished, whole_seconds)
        kinds = {done.kind for finished in titled.values() for done in finished.operations}
        for axis in axes[:-1]:
            axis.set_xlabel("")
        figure.legend(handles=legend(kinds), loc="outside upper center", ncols=3, frameon=False)
        figure.savefig(path, dpi=150)
    print(path)


def schedules() -> None:
    """The schedules, and what strategies do to 1F1B."""
    panels(
        HERE / "images" / "schedules.png",
        {
            "gpipe": iteration("workload.schedule=gpipe"),
            "1f1b": iteration(),
            "zero_bubble": iteration("workload.schedule=zero_bubble"),
            "interleaved_1f1b, 2 chunks": iteration(
                "workload.schedule=interleaved_1f1b", "workload.chunks_per_stage=2"
            ),
            "fifo, 3 in flight": iteration("workload.schedule=fifo", "workload.max_in_flight=3"),
        },
    )
    redundant = "strategies=[{kind: redundant, microbatch_size_factor: 1, microbatch_count_factor: 1, "
    redundant += "shadow: %s, synchronisation: none}]"
    panels(
        HERE / "images" / "strategies_in_1f1b.png",
        {
            "plain": iteration(),
            "CheckFree+, swapped routes": iteration("strategies=[checkfree_plus]"),
            "CheckFree+, swapped routes, 8 in flight": iteration(
                "strategies=[checkfree_plus]", "workload.max_in_flight=8"
            ),
            "redundant, with_forward": iteration(redundant % "with_forward"),
            "redundant, eager": iteration(redundant % "eager"),
            "redundant, lazy": iteration(redundant % "lazy"),
        },
    )


def paper() -> None:
    """An iteration of the paper's throughput test, and one that a failure ends."""
    checkfree = "strategies=[{kind: checkfree, end_stages: copy}]"
    overrides = ("training.steps=30", "seeds.failures=[0]", "failures.rate_per_hour=0.3", checkfree)
    scenario = load_scenario(SCENARIOS / "paper_throughput.yaml", overrides)
    with tempfile.TemporaryDirectory() as folder:
        (run,) = run_scenario(scenario, Path(folder), SCENARIOS).run_files()
        failure = run.events[run.events["kind"] == "failure"].iloc[0]["time_seconds"]
        seconds = run.summary["iteration_seconds"]
        windows = {"paper_iteration": (0.0, seconds), "paper_failure": (failure - 60.0, failure + 130.0)}
        for name, window in windows.items():
            figure = gantt_figure(timeline(run.folder, *window), f"{scenario.name}, CheckFree")
            with mpl.rc_context(STYLE):
                figure.savefig(HERE / "images" / f"{name}.png", dpi=150)
            print(HERE / "images" / f"{name}.png")


FIGURES = {
    "quickstart": {"loss": "quickstart", "ledger": "quickstart_ledger"},
    "failure_rates": {"time_to_loss": "time_to_loss", "spikes": "spikes"},
    "checkpoint_interval": {"checkpoint_interval": "checkpoint_interval"},
    "reinit": {"reinit": "reinit"},
    "swapping": {"swapping": "swapping"},
    "spot_trace": {"loss": "spot_trace", "nodes": "nodes"},
    "fewer_nodes": {"loss": "fewer_nodes"},
    "diloco": {"loss": "local_steps"},
}
"""Of which scenarios which kinds of figures are in the documentation, under which names."""
ONE_TRAINING_SEED = ["sweep.training_replicates=1"]
OVERRIDES = {
    "spot_trace": ["seeds.training=[0, 1]"],
    "failure_rates": ONE_TRAINING_SEED,
    "checkpoint_interval": ONE_TRAINING_SEED,
    "reinit": ONE_TRAINING_SEED,
    "fewer_nodes": [  # without those who wait, up to ten times as long as the others
        "strategies=[none, constant_batch, elastic, {kind: elastic, learning_rate: sqrt, label: elastic_sqrt}, "
        "{kind: repartition, interval_iterations: 50}, checkfree_plus, "
        "{kind: two_tier_checkpoint, interval_iterations: 100}]"
    ],
}


def moving() -> None:
    """What `churnlab animate` makes of the quickstart."""
    wanted = ("checkpoint", "redundant", "checkfree_plus")
    with tempfile.TemporaryDirectory() as folder:
        scenario = load_scenario(SCENARIOS / "quickstart.yaml")
        runs = run_scenario(scenario, Path(folder), SCENARIOS).run_files()
        tracks, _ = tracks_of([run.folder for run in runs], wanted)
    path = HERE / "images" / "quickstart.gif"
    path.write_bytes(animated(frames(tracks, 1600, 96), [800, *[83] * 95, 2000]))
    print(path)


def figures() -> None:
    """What `churnlab plot` draws of the scenarios that come with the program."""
    with tempfile.TemporaryDirectory() as folder, chdir(SCENARIOS):  # names of traces are relative
        for name, kinds in FIGURES.items():
            scenario = load_scenario(SCENARIOS / f"{name}.yaml", OVERRIDES.get(name, ()))
            found = sweep_scenario(scenario, folder, cache=default_cache()).results()
            for kind, picture in kinds.items():
                path = HERE / "images" / f"{picture}.png"
                figure_of(kind, found).savefig(path, dpi=150)
                print(path)


def map_of_strategies() -> None:
    """What `churnlab map` makes of the quickstart with `--cells 10 --check 0`."""
    x, y = "failures.rate_per_hour=0.02..0.4", "network.bandwidth_factor=0.125..8"
    found = strategy_map(
        SCENARIOS / "quickstart.yaml", x, y, options=MapOptions(num_values=10, num_checks=0), cache=default_cache()
    )
    path = HERE / "images" / "map.png"
    strategy_map_figure(found).savefig(path, dpi=150)
    print(path)


if __name__ == "__main__":
    schedules()
    paper()
    moving()
    figures()
    map_of_strategies()
