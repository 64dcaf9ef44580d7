"""Runs of eight iterations in which given nodes are lost, and what is read from them."""

import math
from typing import Any

import pytest

from sim.simulation.run import Run
from support.builders import CHECKPOINT_BYTES, a_link, a_scenario, with_losses
from support.builders import run as run_with
from support.failure_processes import Loss

CLUSTER = {
    "nodes_per_stage": 2,
    "detection_seconds": 10.0,
    "regroup_seconds": 3.0,
    "provisioning_seconds": 60.0,
    "startup_seconds": 5.0,
}


SLOW = {"same_region": a_link(0.5, CHECKPOINT_BYTES / 8), "storage": a_link(), "negligible_seconds": 1e9}
"""A state takes 8.5 s from node to node, and hops no time."""


CHECKFREE = {"kind": "checkfree"}


def run(*losses: Loss, strategy: dict[str, Any] = CHECKFREE, notice_seconds: float = 0.0, **options: Any) -> Run:
    """Eight iterations, or `steps`, with losses by script."""
    cluster = {**CLUSTER, **options.pop("cluster", {})}
    scenario = a_scenario((strategy,), **{"steps": 8, "cluster": cluster, **options})
    result = run_with(with_losses(scenario, *losses, notice_seconds=notice_seconds))
    assert math.fsum(result.ledger.values()) == pytest.approx(result.wall_clock_seconds, rel=1e-12)
    return result


def told(result: Run) -> list[tuple[float, str, int | None]]:
    return [(event.time_seconds, event.kind, event.stage) for event in result.events]


def lengths(result: Run) -> list[float]:
    return [record.ended_seconds - record.started_seconds for record in result.iterations]


def starts(result: Run) -> list[float]:
    return [record.started_seconds for record in result.iterations]
