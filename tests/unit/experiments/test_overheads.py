"""Table 1 of the CheckFree paper, by experiment: what strategies cost while nothing fails, and what they recover."""

import io

import pytest
from rich.console import Console

from sim.cli.tables import overhead_table, recovery_table
from sim.experiments.overheads import overheads, recovers
from sim.reporting.table import Table
from sim.scenario.scenario import Scenario
from support.builders import CHECKPOINT_BYTES, a_link, a_scenario

NUM_STAGES = 6
MODEL_BYTES = (NUM_STAGES + 1) * CHECKPOINT_BYTES


def scenario_of(*strategies: dict, steps: int = 40, **options) -> Scenario:
    """Quick links, so that checkpoints arrive; failures that everybody knows of and that have no effect here."""
    links = {"same_region": a_link(0.0, 1e6), "storage": a_link(0.0, 1e6)}
    failures = {"kind": "exponential", "rate_per_hour": 0.5}
    return a_scenario(strategies, num_stages=NUM_STAGES, steps=steps, network=links, failures=failures, **options)


def overhead_of(steps: int = 40, **strategy):
    scenario = scenario_of(strategy, steps=steps)
    (found,) = overheads(scenario)
    return found


def test_checkpointing_stores_a_model_and_local_copies_two_more():
    found = overhead_of(kind="checkpoint", interval_iterations=10)
    assert (found.device_bytes, found.host_bytes, found.stored_bytes) == (0.0, 0.0, MODEL_BYTES)
    assert found.sent_bytes == pytest.approx(MODEL_BYTES / 10)
    assert found.computed_share == 0.0
    found = overhead_of(kind="checkpoint", interval_iterations=10, local_gib_per_s=1.0)
    assert (found.host_bytes, found.stored_bytes) == (2 * MODEL_BYTES, MODEL_BYTES)


def test_replicas_that_train_apart_save_a_model_each():
    saving = {"kind": "diloco", "inner_steps": 20, "lost_stage": "checkpoint", "interval_iterations": 10}
    (found,) = overheads(scenario_of(saving, cluster={"nodes_per_stage": 3}))
    of_global = 8 / 12  # weights and velocity in fp32, of 12 bytes of weights and Adam's moments
    assert (found.device_bytes, found.stored_bytes) == (0.0, 3 * MODEL_BYTES)
    assert found.host_bytes == pytest.approx(3 * (2 + of_global) * MODEL_BYTES)
    assert found.num_durable == found.num_started - 3 > 0


@pytest.mark.parametrize("num_copies", [1, 2])
def test_in_memory_checkpoints_cost_a_model_for_each_copy(num_copies):
    found = overhead_of(kind="neighbour_checkpoint", num_copies=num_copies)
    assert found.device_bytes == found.stored_bytes == found.computed_share == 0.0
    assert found.host_bytes == 2 * (1 + num_copies) * MODEL_BYTES
    assert found.sent_bytes == pytest.approx(num_copies * MODEL_BYTES)


def test_redundant_costs_a_model_of_memory_and_more_compute():
    found = overhead_of(kind="redundant", preset="bamboo")
    assert (found.device_bytes, found.host_bytes, found.stored_bytes) == (MODEL_BYTES, 0.0, 0.0)
    assert found.computed_share == pytest.approx(1 / 3)  # every layer stage's forward once more; the head is free
    assert found.sent_bytes == 0.0
    assert overhead_of(kind="redundant", preset="bamboo_forward_and_backward").computed_share == pytest.approx(1.0)
    assert overhead_of(kind="redundant", preset="bamboo_lazy").computed_share == 0.0
    found = overhead_of(kind="redundant", preset="bamboo", synchronisation="weights")
    assert found.sent_bytes == pytest.approx(MODEL_BYTES / 3)  # weights are a third of the state


def test_checkfree_costs_nothing_and_its_plus_the_embedding():
    assert overhead_of(kind="checkfree").sent_bytes == overhead_of(kind="checkfree").device_bytes == 0.0
    found = overhead_of(kind="checkfree_plus", embedding_copy="blocking")
    assert found.device_bytes == CHECKPOINT_BYTES  # of E and of E⁻¹, half of stage 0 each
    assert found.computed_share == found.stored_bytes == 0.0
    sent_beside = overhead_of(kind="checkfree_plus").sent_bytes
    weight_bytes = CHECKPOINT_BYTES / 3
    assert found.sent_bytes >= weight_bytes  # swapped routes hop as often, to other stages
    assert sent_beside == pytest.approx(found.sent_bytes)
    scenario = scenario_of({"kind": "peer"}, fallback={"kind": "checkpoint", "interval_iterations": 2})
    assert overheads(scenario)[0].sent_bytes == 0.0


TABLE = {
    "checkpoint": "yes yes yes yes yes",
    "neighbour_checkpoint": "yes no yes yes yes",
    "redundant": "yes no yes yes yes",
    "checkfree": "yes no no no no",
    "checkfree_plus": "yes no yes yes yes",
    "checkfree_hybrid": "yes yes yes yes yes",
    "stale_stage": "yes yes yes yes yes",
    "two_tier_checkpoint": "yes yes yes yes yes",
    "repartition": "yes yes yes yes yes",
    "peer": "no no no no no",
    "restart": "yes yes yes yes yes",
}
"""Two stages apart, two adjacent ones, the first, the last, stage 0."""


@pytest.mark.parametrize("kind", TABLE)
def test_what_is_recovered_is_what_the_paper_says(kind):
    scenario = scenario_of({"kind": kind})
    found = recovers(scenario, scenario.strategies[0]).values()
    assert " ".join("yes" if recovered else "no" for recovered in found) == TABLE[kind]


def test_the_tables_have_a_row_for_each_strategy():
    scenario = scenario_of({"kind": "none"}, {"kind": "checkpoint"}, {"kind": "checkfree"})
    rows = [printed(table) for table in (overhead_table(scenario, overheads(scenario)), recovery_table(scenario))]
    assert [row[0] for row in rows[0][-3:]] == ["none", "checkpoint", "checkfree"]
    assert [row[0] for row in rows[1][-2:]] == ["checkpoint", "checkfree"]
    assert rows[1][-1][1:] == TABLE["checkfree"].split()


def printed(table: Table) -> list[list[str]]:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    return [row for line in console.export_text().splitlines() if (row := line.split())]


@pytest.mark.parametrize("kind", ["checkpoint", "checkfree_plus"])
def test_recovery_overheads_exclude_the_wait_for_nodes(kind):
    cluster = {"detection_seconds": 600.0, "provisioning_seconds": 36_000.0, "startup_seconds": 60.0}
    scenario = scenario_of({"kind": kind}, cluster=cluster)
    found = recovers(scenario, scenario.strategies[0]).values()
    assert " ".join("yes" if recovered else "no" for recovered in found) == TABLE[kind]
