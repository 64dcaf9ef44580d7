"""Speed of timing one iteration: SimPy, the loop over arrays in plain Python, and the same loop compiled by numba.

    python -m benchmarks.iteration_times

Processor seconds, all in one run, so that their ratios are meaningful. The results are equal to the bit. Compilation,
once per machine, is timed apart. Cases that would take SimPy minutes run over arrays only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar
from unittest.mock import patch

from sim.core.units import SECONDS_PER_HOUR
from sim.scenario.loading import parse_scenario
from sim.scenario.scenario import Scenario
from sim.simulation.run import build_site, simulate, time_only
from sim.workload.arrays.compilation import Compilation, machine_code_folder
from sim.workload.arrays.run import run_fast
from sim.workload.config import plain_plan
from sim.workload.deployment import Assignment, Deployment, assign_slots
from sim.workload.iteration import run_alone
from sim.workload.iteration_time import TIMED
from sim.workload.iteration_work import IterationWork

Result = TypeVar("Result")

SCENARIO = """
name: iteration
workload:
  model: {{dim: 1024, num_heads: 8, num_layers: {layers}, hidden_dim: 4096, vocabulary_size: 32000}}
  num_stages: {stages}
  num_microbatches: {microbatches}
  sequences_per_microbatch: 1
cluster: {{device: rtx4090, nodes_per_stage: {replicas}, provisioning_seconds: 20000}}
network: {network}
failures: {{kind: exponential, rate_per_hour: 0.0042, scope: node}}
training: {{learner: none, steps: 1000, model: {{num_stages: {stages}}}}}
strategies: [{{kind: checkfree}}]
"""

# name, stages (the embedding's not counted), replicas, microbatches, network, missing nodes, whether SimPy runs it too
CASES = (
    ("6 x 1 x 192", 6, 1, 192, "single_cluster", (), True),
    ("7 x 8 x 16", 7, 8, 16, "single_cluster", (), True),
    ("7 x 64 x 16", 7, 64, 16, "single_cluster", (), True),
    ("7 x 64 x 16, 5 nodes missing", 7, 64, 16, "single_cluster", (3, 77, 150, 151, 400), True),
    ("8 x 4 x 16, home links", 8, 4, 16, "home_us", (), True),
    ("8 x 4 x 16, home links, 2 nodes missing", 8, 4, 16, "home_us", (9, 30), True),
    ("35 x 1 x 800 (a 530B model's shape)", 35, 1, 800, "single_cluster", (), False),
    ("128 x 1 x 512 (1,000 equal replicas)", 128, 1, 512, "single_cluster", (), False),
    ("8 x 1000 x 16, 3 nodes missing", 8, 1000, 16, "single_cluster", (1, 2005, 7777), False),
)


def site_of(stages: int, replicas: int, microbatches: int, network: str) -> Deployment:
    """A deployment of equal stages."""
    text = SCENARIO.format(layers=stages, stages=stages, replicas=replicas, microbatches=microbatches, network=network)
    return build_site(parse_scenario(text))


def timed(call: Callable[[], Result], repeats: int = 3) -> tuple[float, Result]:
    """Processor seconds of the fastest call, and its result."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        result = call()
        seconds.append(time.process_time() - began)
    return min(seconds), result


def over_arrays(site: Deployment, assignment: Assignment, compiled: bool) -> tuple[float, float]:
    """Processor seconds of timing an iteration, tables included, and the simulated seconds."""
    with patch.object(Compilation, "pays", return_value=compiled):
        seconds, run = timed(
            lambda: run_fast(IterationWork(site, plain_plan(site.costs.workload), "arrival", assignment))
        )
    return seconds, run.seconds


def main() -> None:
    folder = machine_code_folder()
    had_code = folder is not None and any(folder.rglob("*.nbi"))
    small = site_of(3, 1, 2, "single_cluster")
    began = time.process_time()
    over_arrays(small, small.complete_assignment, True)
    print(
        f"{'loading' if had_code else 'compiling'} the loop: {time.process_time() - began:.1f} s, once per process"
        f"{'' if had_code else ' and machine'}\n"
    )
    print(f"{'stages x replicas x microbatches':42}{'SimPy':>10}{'plain':>10}{'':8}{'compiled':>10}")
    for name, stages, replicas, microbatches, network, missing, with_simpy in CASES:
        site = site_of(stages, replicas, microbatches, network)
        assignment = assign_slots(missing, site.cluster)
        work = IterationWork(site, plain_plan(site.costs.workload), "arrival", assignment)
        plain, plain_end = over_arrays(site, assignment, False)
        compiled, compiled_end = over_arrays(site, assignment, True)
        simpy, ratios = "", ("", "")
        if with_simpy:
            seconds, run = timed(partial(run_alone, work), repeats=1)
            assert float(run.done.env.now) == plain_end, "SimPy and the loop end at the same tick"
            simpy, ratios = f"{1e3 * seconds:.0f} ms", (f"x {seconds / plain:.1f}", f"x {seconds / compiled:.0f}")
        assert plain_end == compiled_end, "the loop has the same bits when compiled"
        print(f"{name:42}{simpy:>10}{1e3 * plain:>7.1f} ms{ratios[0]:>8}{1e3 * compiled:>7.1f} ms{ratios[1]:>8}")
    volunteers()
    day_of_churn()


def volunteers() -> None:
    """1,000 iterations of a volunteer cluster that loses a tenth of its nodes a day."""
    scenario = parse_scenario(SCENARIO.format(layers=8, stages=8, replicas=4, microbatches=16, network="home_us"))
    for compiled in (False, True):
        with patch.object(Compilation, "pays", return_value=compiled):
            began = time.process_time()
            run = simulate(scenario, scenario.strategies[0], int(compiled), 0, time_only(scenario))
        took = time.process_time() - began
        print(
            f"\n1,000 iterations of volunteers, {run.num_nodes_lost} nodes lost, "
            f"{'compiled' if compiled else 'plain'}: {took:.2f} s"
        )


def day_of_churn() -> None:
    """A day of the same cluster as it loses a tenth of its nodes in an hour, which return after an hour."""
    text = SCENARIO.format(layers=8, stages=8, replicas=4, microbatches=16, network="home_us")
    text = text.replace("[{kind: checkfree}]", "[{kind: checkfree}, {kind: checkpoint, interval: young}, {kind: peer}]")
    changes = "failures.rate_per_hour=0.105", "cluster.provisioning_seconds=3600"
    scenario = parse_scenario(text, "day of churn", changes)
    alone = an_hour_of(scenario)
    scenario = parse_scenario(text, "day of churn", (*changes, f"training.steps={24 * alone}"))
    for strategy in scenario.strategies:
        before, began = TIMED.total(), time.process_time()
        run = simulate(scenario, strategy, 0, 0, time_only(scenario))
        print(
            f"{24 * alone:,} iterations under 10 %/h churn, {strategy.name}: {run.num_nodes_lost} nodes lost in "
            f"{run.wall_clock_seconds / SECONDS_PER_HOUR:.0f} h, {TIMED.total() - before} iterations timed: "
            f"{time.process_time() - began:.2f} s"
        )


def an_hour_of(scenario: Scenario) -> int:
    """Number of iterations in an hour without failures."""
    site = build_site(scenario)
    work = IterationWork(site, plain_plan(site.costs.workload), "arrival")
    return max(1, int(SECONDS_PER_HOUR // run_fast(work).seconds))


if __name__ == "__main__":
    main()
