"""Jobs in which one stage fails, and means of replicates, for comparison with closed forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sim.core.records import Bucket
from sim.scenario.scenario import Scenario
from sim.simulation.run import Run
from support.builders import INSTANT, a_scenario, no_training
from support.builders import run as run_with


def a_job(
    strategy: dict[str, Any],
    steps: int,
    iteration_seconds: float,
    mean_uptime_seconds: float = 1e9,
    *,
    save_seconds: float = 0.0,
    copy_seconds: float = 0.0,
    startup_seconds: float = 0.0,
    away_seconds: float = 0.0,
    num_stages: int = 2,
    failures: dict[str, Any] | None = None,
) -> Scenario:
    """Iterations of the given length; stage 1 fails at a constant rate, or what `failures` says.

    After a failure nothing can strike for `away_seconds`; then come the start and, where there is a checkpoint,
    `save_seconds` for fetching it: latency, so that no two uploads slow each other down. Between nodes whatever is no
    activation takes `copy_seconds`.
    """
    operation_seconds = iteration_seconds / num_stages / 2
    stage_1 = {
        "kind": "exponential",
        "rate_per_hour": -math.expm1(-3600 / mean_uptime_seconds),
        "immune_stages": (0, *range(2, num_stages + 1)),
    }
    network = {
        "same_region": {**INSTANT, "latency_ms": copy_seconds * 1e3},
        "negligible_seconds": 2 * copy_seconds,
        "storage": {**INSTANT, "latency_ms": save_seconds * 1e3},
        "sharing": "none",
    }
    scenario = a_scenario(
        (strategy,),
        num_stages=num_stages,
        steps=steps,
        num_microbatches=1,
        network=network,
        cluster={"provisioning_seconds": away_seconds, "startup_seconds": startup_seconds},
        failures=failures or stage_1,
        measured={"forward_seconds": operation_seconds, "backward_seconds": operation_seconds},
    )
    return scenario.model_copy(update={"give_up_after": 1e4})


def run(scenario: Scenario, seed: int = 0) -> Run:
    """A run of a scenario's first strategy under one failure seed, time only."""
    return run_with(scenario, seed=seed, training=no_training(scenario))


def goodput(result: Run) -> float:
    """Share of time in iterations that were kept."""
    useful: tuple[Bucket, ...] = ("productive_compute", "bubble_and_communication")
    return math.fsum(result.ledger[bucket] for bucket in useful) / result.wall_clock_seconds


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def segment_seconds(rate: float, work: float, save: float, restart: float, away: float) -> float:
    """Expected time of one segment: e^{λR} (1/λ + D) (e^{λ(W + C)} - 1)."""
    return math.exp(rate * restart) * (1 / rate + away) * math.expm1(rate * (work + save))
