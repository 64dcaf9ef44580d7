"""Speed of time-only simulation of volunteers: 8 stages × 4 replicas on home links, 10 % of the nodes lost every hour.

    python -m benchmarks.volunteers

Processor seconds for a simulated day, with nothing cached at the beginning of each row. What is timed anew is every
membership that occurs and, where nodes join beside the training, every state of the messages beside an iteration.
"""

from __future__ import annotations

import time

from sim.core.memo import Memo
from sim.core.units import SECONDS_PER_HOUR
from sim.scenario.loading import parse_scenario
from sim.simulation.run import simulate, time_only
from sim.workload import iteration_time

SCENARIO = """
name: volunteers
workload: {model: large, num_stages: 8, num_microbatches: 16, sequences_per_microbatch: 2}
training: {learner: none, steps: 200}
cluster: {device: rtx4090, nodes_per_stage: 4, provisioning_seconds: 1800, detection_seconds: 10, startup_seconds: 60}
network: home_us
failures: {kind: exponential, rate_per_hour: 0.1, scope: node}
strategies: [peer, constant_batch, elastic, {kind: elastic, label: formed_anew, pipelines: formed_anew}]
fallback: {kind: checkpoint, interval_iterations: 100}
"""


def main() -> None:
    print("joining      strategy         simulated days   iterations   timed anew   seconds a day")
    for joining in ("standstill", "beside"):
        scenario = parse_scenario(SCENARIO.replace("startup_seconds: 60", f"startup_seconds: 60, joining: {joining}"))
        for config in scenario.strategies:
            iteration_time._CACHES = Memo(iteration_time.MAX_CACHES)
            before, began = sum(iteration_time.TIMED.values()), time.process_time()
            run = simulate(scenario, config, 0, 0, time_only(scenario))
            seconds, days = time.process_time() - began, run.wall_clock_seconds / SECONDS_PER_HOUR / 24
            timed = sum(iteration_time.TIMED.values()) - before
            row = f"{days:14.1f}   {len(run.iterations):10,}   {timed:10,}   {seconds / days:11.2f} s"
            print(f"{joining:10}   {config.name:14}   {row}")


if __name__ == "__main__":
    main()
