"""Training shared in a sweep of five strategies, three failure rates and three failure seeds, against separate runs.

Both use the same worker processes, one per core. A separate run trains all its steps from the first and stores none;
N runs of each strategy are done (`--alone N`, 9 for all), spread over rates and seeds, and extrapolated. The bound: the
distinct steps and validations at their time in a plain torch loop (CheckFree+'s with swapped routes: half a batch
each), in as many processes at once, before and after the sweep, divided evenly. The sweep's time is that of the whole
work, including reading the text, the survey, states on disk and results.

Targets: fewer than 0.5 of the steps, and at most 1.15 times the bound.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from training_overhead import PlainLoop

from models.corpus import Corpus
from models.shared_training import SharedTraining
from models.spec import TrainingSpec, swapped_routes
from models.trainer import MAX_SEQUENCES_PER_EVALUATION
from models.training_plan import Demands, num_steps, together
from models.trajectory import Trajectory
from models.trajectory_store import TrajectoryStore
from sim.experiments.executors import ProcessPool
from sim.experiments.plan import Play, played
from sim.experiments.sweep import SweepJob
from sim.scenario.sweep_points import load_points

SCENARIO = Path(__file__).parent.parent / "scenarios" / "failure_rates.yaml"


def alone(play: Play, corpus: Corpus) -> float:
    """Seconds of a run that shares no training."""
    began = time.perf_counter()
    played(play, Trajectory(play.spec, corpus, None, play.scenario.iterations_per_step))
    return time.perf_counter() - began


def plain(spec: TrainingSpec, corpus: Corpus, steps: int) -> tuple[float, float]:
    """Seconds of a step and of a validation in a plain torch loop."""
    torch.set_num_threads(spec.num_threads)
    loop = PlainLoop(spec, corpus)
    held_out = torch.from_numpy(corpus.validation_windows(spec.num_validation_sequences, spec.sequence_length))
    validations = []
    for _ in range(steps):
        loop.step(None)
        if loop.num_steps % 20 == 0:
            began = time.perf_counter()
            with torch.no_grad():
                for part in held_out.split(MAX_SEQUENCES_PER_EVALUATION):
                    loop.model.loss(part[:, :-1], part[:, 1:], spec.routes[0]).item()
            validations.append(time.perf_counter() - began)
    return loop.seconds / steps, statistics.mean(validations)


def num_validations(demands: Sequence[Demands]) -> int:
    """Number of distinct validations of some runs."""
    return sum(len(demand.validations) for demand in together(demands).values())


def in_parallel(pool: ProcessPool, tasks: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]]) -> list[Any]:
    return [future.result() for future in [pool.submit(task, *arguments) for task, arguments in tasks]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="workers")
    parser.add_argument("--steps", type=int, default=800, help="steps of a run; fewer stand for more iterations each")
    parser.add_argument("--alone", type=int, default=3, help="runs of each strategy to do alone, of 9")
    options = parser.parse_args()
    overrides = (f"training.steps={options.steps}", f"iterations_per_step={max(1, 800 // options.steps)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        job = SweepJob(load_points(SCENARIO, overrides), SCENARIO.parent, folder / "results", folder / "cache")
        pool = ProcessPool(options.jobs)
        job.begin(pool, SharedTraining(TrajectoryStore(folder / "cache")))
        sweep_seconds = time.perf_counter() - began
        spec = job.runs[0].task.spec
        text = job.sweep.texts[spec.corpus]
        swapped = spec.model_copy(update={"routes": swapped_routes(spec.model.num_stages)})
        loops = [(plain, (recipe, text, 100)) for recipe in (spec, swapped) for _ in range(options.jobs)]
        in_plain = [in_parallel(pool, loops)]
        began = time.perf_counter()
        job.do(job.runs)
        sweep_seconds += time.perf_counter() - began
        in_plain.append(in_parallel(pool, loops))
        assert not job.failures

        halves = [(found[: options.jobs], found[options.jobs :]) for found in in_plain]
        step_seconds = statistics.mean(step for half, _ in halves for step, _ in half)
        swapped_seconds = statistics.mean(step for _, half in halves for step, _ in half)
        validation_seconds = statistics.mean(seconds for found in in_plain for _, seconds in found)
        demands = [job.sweep.demands[run] for run in job.runs]
        training = job.sweep.training
        assert training is not None
        distinct, asked = training.num_trained_steps, sum(map(num_steps, demands))
        num_swapped = num_steps({line: ask for line, ask in together(demands).items() if len(line.spec.routes) > 1})
        in_steps = (distinct - num_swapped) * step_seconds + num_swapped * swapped_seconds
        bound = (in_steps + num_validations(demands) * validation_seconds) / options.jobs

        by_strategy: dict[str, list[Play]] = {}
        for run in job.runs:
            by_strategy.setdefault(run.planned.name, []).append(run.play)
        some = [
            play for plays in by_strategy.values() for play in plays[:: len(plays) // options.alone][: options.alone]
        ]
        began = time.perf_counter()
        in_parallel(pool, [(alone, (play, text)) for play in some])
        alone_seconds = (time.perf_counter() - began) * len(job.runs) / len(some)
        pool.close()
    print(f"{len(job.runs)} runs of {options.steps} steps, {options.jobs} workers")
    print(
        f"plain torch loop: {step_seconds * 1e3:.1f} ms a step, {swapped_seconds * 1e3:.1f} ms with swapped routes "
        f"({num_swapped:,} of the sweep's), {validation_seconds * 1e3:.0f} ms a validation"
    )
    print(f"steps: {asked:,} alone, {distinct:,} in the sweep: {distinct / asked:.3f} (target below 0.5)")
    how = "" if len(some) == len(job.runs) else f" (from {len(some)} of {len(job.runs)} runs)"
    print(
        f"seconds: {alone_seconds:.0f} alone{how}, {sweep_seconds:.0f} in the sweep: "
        f"{sweep_seconds / alone_seconds:.3f}"
    )
    print(
        "sweep / (distinct steps and validations in plain loops, shared evenly): "
        f"{sweep_seconds / bound:.3f} (target 1.15)"
    )


if __name__ == "__main__":
    main()
