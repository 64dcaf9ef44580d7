"""The summary of a run, one flat record: `summary.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from sim.cluster.topology import usd_per_node_hour
from sim.core.records import Bucket
from sim.scenario.scenario import Scenario
from sim.simulation.log import IterationLog, kinds_of, num_failures_until, num_rerun
from sim.simulation.run import Run

RECOVERY_BUCKETS: tuple[Bucket, ...] = ("detection", "provisioning", "waiting_for_nodes", "state_transfer")

STEADY_BUCKETS: tuple[Bucket, ...] = (
    "productive_compute",
    "bubble_and_communication",
    "redundant_compute",
    "checkpoint_save",
)
"""Buckets of a run without failures."""


def summarise(scenario: Scenario, run: Run) -> dict[str, Any]:
    """Return the outcomes of a run. Seconds are simulated; losses are the proxy's, in nats per token.

    goodput: time that the kept iterations take without failures and strategy costs, as a share of the wall-clock time;
    overhead is its inverse minus 1. num_failures: stages lost with the last node that held their state. node_hours: of
    all nodes present, also idle ones; if failures are ignored, none is missing.
    """
    ideal_seconds = run.num_iterations * run.ideal_iteration_seconds
    kinds = kinds_of(run.events)
    price = usd_per_node_hour(scenario.cluster)
    return {
        "scenario": scenario.name,
        "strategy": run.strategy,
        "kind": run.kind,
        "failure_seed": run.failure_seed,
        "training_seed": run.training_seed,
        "learner": scenario.training.learner,
        "iterations_per_step": scenario.iterations_per_step,
        "outcome": "stopped" if run.stopped else "finished",
        "stopped_because": run.stopped,
        "num_failures": run.num_failures,
        "num_nodes_lost": run.num_nodes_lost,
        "num_fallbacks": kinds["fallback"],
        "num_rollbacks": kinds["rolled_back"],
        "num_iterations": run.num_iterations,
        "num_iterations_run": len(run.iterations),
        "num_iterations_rerun": num_rerun(run.iterations),
        "iteration_seconds": run.iteration_seconds,
        "ideal_iteration_seconds": run.ideal_iteration_seconds,
        "equal_iteration_seconds": run.equal_iteration_seconds,
        "microbatch_size": run.microbatch_size,
        "batch_share": run.batch_share,
        "num_synchronisations": len(run.synchronisations),
        "mean_replicas_synchronised": mean_of([one.num_replicas for one in run.synchronisations]),
        "mean_replicas_complete": mean_of([one.num_complete for one in run.synchronisations]),
        "wall_clock_seconds": run.wall_clock_seconds,
        "mean_recovery_seconds": mean_recovery_seconds(run),
        "goodput": ideal_seconds / run.wall_clock_seconds if run.wall_clock_seconds else None,
        "overhead": run.wall_clock_seconds / ideal_seconds - 1 if ideal_seconds else None,
        "node_hours": run.node_hours,
        "sent_bytes": run.sent_bytes,
        "cost_usd": None if price is None else price * run.node_hours,
        **losses(scenario, run, price),
        "ledger_seconds": run.ledger,
    }


def mean_of(numbers: Sequence[float]) -> float | None:
    """The mean of some numbers; None of none."""
    return fmean(numbers) if numbers else None


def losses(scenario: Scenario, run: Run, price: float | None) -> dict[str, Any]:
    """Return the target loss, the time and cost to reach it, and final losses. price: dollars per node-hour."""
    target = scenario.training.target_loss
    learnt = [] if isinstance(run.iterations, IterationLog) else run.iterations
    validated = [record for record in learnt if record.validation_loss is not None]
    kept = [record for record in validated if record.iteration <= run.num_iterations]
    reached = next((r for r in validated if target is not None and (r.validation_loss or math.inf) <= target), None)
    paid_usd = None if price is None or reached is None else price * run.node_hours_until(reached.ended_seconds)
    return {
        "target_validation_loss": target,
        "target_reached_seconds": reached.ended_seconds if reached else None,
        "target_reached_iteration": reached.iteration if reached else None,
        "target_reached_usd": paid_usd,
        "target_reached_num_failures": num_failures_until(run.events, reached.ended_seconds) if reached else None,
        "final_train_loss": next((r.train_loss for r in reversed(learnt) if r.train_loss is not None), None),
        "final_validation_loss": kept[-1].validation_loss if kept else None,
    }


def steady_seconds(ledger_seconds: Mapping[Bucket, float], num_iterations: int) -> float:
    """Mean duration of a kept iteration with its saves, without failures and recoveries; NaN without iterations."""
    return math.fsum(ledger_seconds[bucket] for bucket in STEADY_BUCKETS) / (num_iterations or math.nan)


def mean_recovery_seconds(run: Run) -> float | None:
    """Return the mean time from a failure until training resumes, without lost work and nodes that rejoin later."""
    kinds = kinds_of(run.events)
    num_recoveries = kinds["recovered"] + kinds["regrouped"]
    spent = math.fsum(run.ledger[bucket] for bucket in RECOVERY_BUCKETS) - run.joining_seconds
    return spent / num_recoveries if num_recoveries else None


def flat(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary as a row of a table, with the ledger as `<bucket>_seconds`."""
    row = {key: value for key, value in summary.items() if key != "ledger_seconds"}
    return row | {f"{bucket}_seconds": seconds for bucket, seconds in summary["ledger_seconds"].items()}
