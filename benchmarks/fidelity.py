"""Speed of iteration fidelity against microbatch fidelity; both give the same run to the bit.

    python -m benchmarks.fidelity

Time only, without training. Processor seconds of both fidelities in turn, so that their ratio is meaningful.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from sim.scenario.loading import load_scenario
from sim.scenario.scenario import Scenario
from sim.simulation.run import Run, simulate, time_only

SCENARIO = Path(__file__).parents[1] / "scenarios" / "paper_throughput.yaml"
NUM_ITERATIONS = 22_000
NUM_MICROBATCH_ITERATIONS = 200
REPEATS = 5


def timed(scenario: Scenario, kind: str) -> tuple[float, Run]:
    """Processor seconds of a run, and the run."""
    config = next(config for config in scenario.strategies if config.kind == kind)
    began = time.process_time()
    run = simulate(scenario, config, 0, 0, time_only(scenario))
    return time.process_time() - began, run


def main() -> int:
    for kind in ("none", "checkfree"):
        times: dict[str, list[float]] = {"iteration": [], "microbatch": []}
        runs = {}
        for _ in range(REPEATS):
            for fidelity, seconds in times.items():
                steps = NUM_MICROBATCH_ITERATIONS if fidelity == "microbatch" else NUM_ITERATIONS
                overrides = (f"fidelity={fidelity}", f"training.steps={steps}")
                took, _run = timed(load_scenario(SCENARIO, overrides), kind)
                seconds.append(took / steps)
        for fidelity in times:
            overrides = (f"fidelity={fidelity}", f"training.steps={NUM_MICROBATCH_ITERATIONS}")
            _, runs[fidelity] = timed(load_scenario(SCENARIO, overrides), kind)
        assert runs["iteration"] == runs["microbatch"], "both fidelities give the same run"
        one, every = (statistics.median(times[fidelity]) for fidelity in ("iteration", "microbatch"))
        print(
            f"{kind}: {NUM_ITERATIONS} iterations in {NUM_ITERATIONS * one:.2f} s (one event each); with microbatch "
            f"events {every / one:.0f} x that, {1e3 * every:.1f} ms an iteration of 21 nodes and 6 microbatches"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
