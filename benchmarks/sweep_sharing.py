"""Training shared in a sweep of five strategies, three failure rates and three failure seeds, against separate runs.

Both use the same worker processes, one per core. A separate run trains all its steps from the first and stores none;
N runs of each strategy are done (`--alone N`, 9 for all), spread over rates and seeds, and extrapolated. The bound: the
distinct steps and validations at their time in a plain torch loop (CheckFree+'s with swapped routes: half a batch
each), in as many processes at once, before and after the sweep, divided evenly. The sweep's time is that of the whole
work, including reading the text, the survey, states on disk and results.

Targets: fewer than 0.5 of the steps, and at most 1.15 times the bound.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.training_overhead import PlainLoop
from models.corpus import Corpus
from models.shared_training import SharedTraining
from models.spec import TrainingSpec, swapped_routes
from models.trainer import MAX_SEQUENCES_PER_EVALUATION
from models.training_plan import Demands, num_steps, together
from models.trajectory import Trajectory
from models.trajectory_store import TrajectoryStore
from sim.experiments.executors import ProcessPool
from sim.experiments.job import SweepJob
from sim.experiments.tasks import SimulationTask
from sim.scenario.sweep_points import load_points

SCENARIO = Path(__file__).parent.parent / "scenarios" / "failure_rates.yaml"


def separate_run(task: SimulationTask, corpus: Corpus) -> float:
    """Seconds of a run that shares no training."""
    began = time.perf_counter()
    task.run(Trajectory(task.spec, corpus, None, task.scenario.iterations_per_step))
    return time.perf_counter() - began


class PlainSeconds(NamedTuple):
    """Seconds in a plain torch loop."""

    step: float
    validation: float


def plain(spec: TrainingSpec, corpus: Corpus, steps: int) -> PlainSeconds:
    """Seconds of a step and of a validation in a plain torch loop."""
    torch.set_num_threads(spec.num_threads)
    loop = PlainLoop(spec, corpus)
    held_out = torch.from_numpy(corpus.validation_windows(spec.num_validation_sequences, spec.sequence_length))
    validations = []
    for _ in range(steps):
        loop.step()
        if loop.num_steps % 20 == 0:
            began = time.perf_counter()
            with torch.no_grad():
                for part in torch.split(held_out, MAX_SEQUENCES_PER_EVALUATION):
                    loop.model.loss(part[:, :-1], part[:, 1:], spec.routes[0]).item()
            validations.append(time.perf_counter() - began)
    return PlainSeconds(loop.seconds / steps, statistics.mean(validations))


def in_parallel(pool: ProcessPool, tasks: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]]) -> list[Any]:
    return [future.result() for future in [pool.submit(task, *arguments) for task, arguments in tasks]]


class Measured(NamedTuple):
    """Seconds of a sweep, and those of plain loops with plain and with swapped routes, before and after it."""

    sweep_seconds: float
    plain: list[PlainSeconds]
    swapped: list[PlainSeconds]


def measure(job: SweepJob, pool: ProcessPool, store: TrajectoryStore) -> Measured:
    """Do a sweep between two rounds of plain loops, as many at once as there are workers."""
    began = time.perf_counter()
    job.begin(pool, SharedTraining(store))
    sweep_seconds = time.perf_counter() - began
    spec = job.runs[0].task.spec
    _, text = job.trainers.of(spec)
    swapped = spec.model_copy(update={"routes": swapped_routes(spec.model.num_stages)})
    loops = [(plain, (recipe, text, 100)) for recipe in (spec, swapped) for _ in range(pool.num_workers)]
    rounds = [in_parallel(pool, loops)]
    began = time.perf_counter()
    job.do(job.runs)
    sweep_seconds += time.perf_counter() - began
    rounds.append(in_parallel(pool, loops))
    assert not job.failures
    num = pool.num_workers
    return Measured(
        sweep_seconds,
        plain=[one for found in rounds for one in found[:num]],
        swapped=[one for found in rounds for one in found[num:]],
    )


def report(job: SweepJob, measured: Measured, num_workers: int) -> None:
    """Print the steps shared, and the sweep's seconds against the bound."""
    demands: list[Demands] = [job.demands[run] for run in job.runs]
    distinct, separate = job.num_trained_steps, sum(map(num_steps, demands))
    lines = together(demands)
    num_swapped = num_steps({line: demand for line, demand in lines.items() if len(line.spec.routes) > 1})
    num_validations = sum(len(demand.validations) for demand in lines.values())
    step, swapped = (statistics.mean(one.step for one in half) for half in (measured.plain, measured.swapped))
    validation = statistics.mean(one.validation for one in (*measured.plain, *measured.swapped))
    bound = ((distinct - num_swapped) * step + num_swapped * swapped + num_validations * validation) / num_workers
    print(
        f"plain torch loop: {step * 1e3:.1f} ms per step, {swapped * 1e3:.1f} ms with swapped routes "
        f"({num_swapped:,} of the sweep's), {validation * 1e3:.0f} ms a validation"
    )
    print(f"steps: {separate:,} separately, {distinct:,} in the sweep: {distinct / separate:.3f} (target below 0.5)")
    print(
        "sweep / (distinct steps and validations in plain loops, divided evenly): "
        f"{measured.sweep_seconds / bound:.3f} (target 1.15)"
    )


def separate_seconds(job: SweepJob, pool: ProcessPool, per_strategy: int) -> tuple[float, int]:
    """Seconds of all runs without sharing, extrapolated from some runs of each strategy; and their number."""
    by_strategy: dict[str, list[SimulationTask]] = {}
    for run in job.runs:
        by_strategy.setdefault(run.strategy.name, []).append(run.task)
    some = [task for tasks in by_strategy.values() for task in tasks[:: len(tasks) // per_strategy][:per_strategy]]
    _, text = job.trainers.of(some[0].spec)
    began = time.perf_counter()
    in_parallel(pool, [(separate_run, (task, text)) for task in some])
    return (time.perf_counter() - began) * len(job.runs) / len(some), len(some)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="workers")
    parser.add_argument("--steps", type=int, default=800, help="steps of a run; fewer stand for more iterations each")
    parser.add_argument("--alone", type=int, default=3, help="separate runs of each strategy, of 9")
    options = parser.parse_args()
    overrides = (
        f"training.steps={options.steps}",
        f"iterations_per_step={max(1, 800 // options.steps)}",
        "sweep.training_replicates=1",  # three failure seeds that share a training seed
    )
    with tempfile.TemporaryDirectory() as name:
        folder, pool = Path(name), ProcessPool(options.jobs)
        began = time.perf_counter()
        job = SweepJob(load_points(SCENARIO, overrides), SCENARIO.parent, folder / "results", folder / "cache")
        planning_seconds = time.perf_counter() - began
        measured = measure(job, pool, TrajectoryStore(folder / "cache"))
        seconds, num_separate = separate_seconds(job, pool, options.alone)
        pool.close()
    measured = measured._replace(sweep_seconds=measured.sweep_seconds + planning_seconds)
    print(f"{len(job.runs)} runs of {options.steps} steps, {options.jobs} workers")
    report(job, measured, options.jobs)
    print(
        f"seconds: {seconds:.0f} separately (from {num_separate} of {len(job.runs)} runs), "
        f"{measured.sweep_seconds:.0f} in the sweep: {measured.sweep_seconds / seconds:.3f}"
    )


if __name__ == "__main__":
    main()
