"""Speed of time-only simulation of large fleets: a replicate of 4,096 nodes, and the cost per failure by fleet size.

    python -m benchmarks.large_fleet [CHECKOUT]

Processor seconds with cached iteration times: a sweep computes them once. CHECKOUT: a folder with the source of AIReSim
(github.com/karthikp-ubc/airesim), whose own job, 4,096 servers for 256 days, then runs in turn with the replicate here.
"""

from __future__ import annotations

import gc
import sys
import time
from importlib import import_module
from pathlib import Path

from sim.scenario.loading import load_scenario
from sim.simulation.run import Run, simulate, time_only

SCENARIO = Path(__file__).parents[1] / "scenarios" / "large_fleet.yaml"
TARGET_SECONDS = 1.2
NUM_SEEDS = 3


def replicates(*overrides: str) -> tuple[float, Run]:
    """Seconds of the fastest replicate, and the last run. The first fills the cache and is not timed."""
    scenario = load_scenario(SCENARIO, overrides)
    seconds = []
    for seed in range(-1, NUM_SEEDS):
        began = time.process_time()
        run = simulate(scenario, scenario.strategies[0], max(0, seed), 0, time_only(scenario))
        seconds.append(time.process_time() - began)
    return min(seconds[1:]), run


def beside_airesim(checkout: Path) -> None:
    """Replicates here and of AIReSim's default job, in turn. The jobs are alike in size, not in what they simulate."""
    sys.path.insert(0, str(checkout))
    params, simulator = import_module("airesim.params"), import_module("airesim.simulator")
    scenario = load_scenario(SCENARIO, ())
    print("\nseed   here: failures   seconds   AIReSim: failures   seconds   ratio")
    for seed in range(NUM_SEEDS):
        began = time.process_time()
        run = simulate(scenario, scenario.strategies[0], seed, 0, time_only(scenario))
        here = time.process_time() - began
        began = time.process_time()
        found = simulator.Simulator(params.Params(seed=seed)).run()
        there = time.process_time() - began
        print(
            f"{seed:4}   {run.num_failures:14,}   {here:5.2f} s   {found.total_failures:17,}   {there:5.2f} s   "
            f"{there / here:5.1f}"
        )


def main() -> None:
    gc.freeze()  # as the workers of a sweep do: what is imported is not collected again and again
    seconds, run = replicates()
    print(
        f"4,096 nodes, {run.num_failures:,} failures, {len(run.iterations):,} iterations: {seconds:.2f} s a replicate, "
        f"{seconds / TARGET_SECONDS:.2f} × the target of {TARGET_SECONDS} s"
    )
    print("\nnodes        mean uptime   failures   iterations   seconds   per failure")
    for nodes_per_stage in (125, 512, 2048, 12_500):
        for rate in (0.1, 1.0):  # of the whole fleet, per hour: the same churn at every fleet size
            hours = 8 * nodes_per_stage / rate
            changes = (f"cluster.nodes_per_stage={nodes_per_stage}", f"failures.mean_uptime_hours={hours}")
            seconds, run = replicates(*changes)
            print(
                f"{8 * nodes_per_stage:7,}   {hours:10,.0f} h   {run.num_failures:8,}   {len(run.iterations):10,}   "
                f"{seconds:6.2f} s   {1e6 * seconds / max(1, run.num_failures):6.0f} µs"
            )
    if len(sys.argv) > 1:
        beside_airesim(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
