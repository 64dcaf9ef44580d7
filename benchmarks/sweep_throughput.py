"""Throughput and memory of a sweep against plain torch loops, with one worker and with several.

The quickstart's proxy with several training seeds, without failures; the plain loops are as many processes as there are
workers, each with its own model. Both sides run without validations. The sweep's time includes scheduling, states on
disk and results, but not the start of its processes. Plain loops and sweeps alternate, so that noise of a shared
machine affects both alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.training_overhead import SCENARIO, PlainLoop
from models.corpus import Corpus
from models.shared_training import SharedTraining
from models.spec import TrainingSpec
from models.trajectory_store import TrajectoryStore
from sim.experiments.executors import ProcessPool
from sim.experiments.job import SweepJob
from sim.scenario.sweep_points import load_points


def plain(spec: TrainingSpec, corpus: Corpus, steps: int) -> float:
    """Seconds of this many steps in a plain torch loop."""
    torch.set_num_threads(spec.num_threads)
    loop = PlainLoop(spec, corpus)
    for _ in range(steps):
        loop.step()
    return float(loop.seconds)


def megabytes(process: int | str) -> float:
    """Memory of a process; shared pages count in proportion (PSS)."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def ids_of(pool: ProcessPool) -> list[int]:
    """Process ids of a pool's workers."""
    found: set[int] = set()
    while len(found) < pool.num_workers:
        found |= {future.result() for future in [pool.submit(own_id) for _ in range(4 * pool.num_workers)]}
    return sorted(found)


def own_id() -> int:
    time.sleep(0.05)
    return os.getpid()


def measured(num_workers: int, steps: int, rounds: int) -> tuple[float, float, float, float]:
    """Tokens a second in plain loops and in a sweep; megabytes of a worker and of the scheduling process."""
    overrides = (
        f"training.steps={steps}",
        f"training.evaluation={{interval_steps: {steps}, num_sequences: 1}}",
        "failures={kind: never}",
        "strategies=[none]",
    )
    in_plain, in_sweep, at_most = [], [], 0.0
    pool = ProcessPool(num_workers)
    for number in range(rounds):
        seeds = tuple(range(2 * number * num_workers, 2 * (number + 1) * num_workers))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            points = load_points(SCENARIO, (*overrides, f"seeds.training={list(seeds)}"))
            job = SweepJob(points, SCENARIO.parent, folder / "results", folder / "cache")
            job.begin(pool, SharedTraining(TrajectoryStore(folder / "cache")))
            job.survey(job.runs)
            spec = job.runs[0].task.spec
            _, text = job.trainers.of(spec)
            tokens = steps * spec.sequences_per_batch * spec.sequence_length
            futures = [pool.submit(plain, spec, text, steps) for _ in range(num_workers)]
            in_plain.append(sum(tokens / future.result() for future in futures))
            began = time.perf_counter()
            job.do(job.runs)
            in_sweep.append(len(seeds) * tokens / (time.perf_counter() - began))
            at_most = max(at_most, *(megabytes(process) for process in ids_of(pool)))
    own = megabytes("self")
    pool.close()
    return statistics.median(in_plain), statistics.median(in_sweep), at_most, own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="steps of a training")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each, taking turns")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers")
    options = parser.parse_args()
    first = None
    for num_workers in options.workers:
        in_plain, in_sweep, worker, own = measured(num_workers, options.steps, options.rounds)
        first = first or in_sweep
        print(
            f"{num_workers} worker(s): {in_plain:,.0f} tokens/s in plain loops, {in_sweep:,.0f} in a sweep: "
            f"{in_sweep / in_plain:.3f}; {in_sweep / first:.2f} × one worker; {worker:.0f} MB a worker, "
            f"{own:.0f} MB here"
        )


if __name__ == "__main__":
    main()
