"""Nodes that hold shares of their stage's state: lost with any of them, restored whole, and what they send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.network import STORAGE, Network
from sim.scenario.loading import ScenarioError, parse_scenario
from sim.scenario.memory_check import greatest_need
from sim.scenario.scenario import Scenario
from support.builders import CHECKPOINT_BYTES, a_link, a_scenario, no_training, run, with_losses
from support.failure_processes import Loss

CLUSTER = {
    "stage_state": "sharded",
    "nodes_per_stage": 2,
    "detection_seconds": 10.0,
    "provisioning_seconds": 100.0,
    "startup_seconds": 5.0,
}
UPLOAD_SECONDS = 8.0


def a_fleet(*losses: Loss, interval: int = 2, share: float = 1.0, steps: int = 6, **cluster) -> Scenario:
    """Iterations of 21 s, with a save of 8 s after every other one; two nodes per stage."""
    checkpoint = {"kind": "checkpoint", "interval_iterations": interval, "blocking_share": share}
    network = {"same_region": a_link(), "storage": a_link(0.0, 5 * CHECKPOINT_BYTES / UPLOAD_SECONDS)}
    scenario = a_scenario((checkpoint,), steps=steps, cluster={**CLUSTER, **cluster}, network=network)
    return with_losses(scenario, *losses)


def timed(scenario: Scenario):
    return run(scenario, training=no_training(scenario))


ONE_NODE = ((2, 0),)


def test_without_losses_it_saves_every_other_iteration():
    result = timed(a_fleet())
    assert result.wall_clock_seconds == 6 * 21.0 + 3 * UPLOAD_SECONDS
    assert result.sent_bytes == 3 * 5 * CHECKPOINT_BYTES
    assert result.ledger["checkpoint_save"] == 3 * UPLOAD_SECONDS
    whole = a_fleet(stage_state="replicated", nodes_per_stage=4)
    shared = a_fleet(nodes_per_stage=4)
    needs = [greatest_need(s, s.strategies[0], s.workload).num_bytes for s in (whole, shared)]
    assert needs[0] - needs[1] == 680 * 16 * (1 - 1 / 4)


def test_losing_one_node_of_two_rolls_all_back_unless_replicated():
    """Lost 10 s into the third iteration: 10 s of work, detection beside provisioning, start, download, and again."""
    result = timed(a_fleet(Loss(60.0, ONE_NODE)))
    assert (result.num_failures, result.num_nodes_lost) == (1, 1)
    assert [event.kind for event in result.events] == [
        *("checkpoint_started", "checkpoint_durable", "failure", "recovered"),
        *("checkpoint_started", "checkpoint_durable") * 2,
    ]
    assert result.ledger["lost_work"] == 60.0 - 50.0
    assert (result.ledger["detection"], result.ledger["provisioning"]) == (10.0, 90.0 + 5.0)
    assert result.ledger["state_transfer"] == UPLOAD_SECONDS
    assert result.wall_clock_seconds == 6 * 21.0 + 3 * UPLOAD_SECONDS + 10.0 + 105.0 + UPLOAD_SECONDS
    result = timed(a_fleet(Loss(60.0, ONE_NODE), stage_state="replicated"))
    assert result.num_failures == 0
    assert {"node_lost", "regrouped"} <= {event.kind for event in result.events}
    assert "recovered" not in {event.kind for event in result.events}
    result = timed(a_fleet(Loss(60.0, ONE_NODE), num_spares=1))
    assert result.ledger["provisioning"] == 5.0
    assert result.wall_clock_seconds == 6 * 21.0 + 3 * UPLOAD_SECONDS + 10.0 + 10.0 + 5.0 + UPLOAD_SECONDS


@pytest.mark.parametrize("second", [(2, 0), (2, 1), (4, 1)])
@pytest.mark.parametrize("after_seconds", [4.0, 50.0, 103.0, 108.0])
def test_another_loss_in_the_recovery_begins_it_anew(second, after_seconds):
    """While it is detected, waited for, started and sent: whoever is lost, a new node comes 100 s later."""
    result = timed(a_fleet(Loss(60.0, ONE_NODE), Loss(after_seconds, (second,))))
    lost_a_node_twice = second == (2, 0) and after_seconds < 100.0  # which nobody has replaced yet
    expected = 105.0 if lost_a_node_twice else after_seconds + 105.0
    assert result.num_failures == (1 if lost_a_node_twice else 2)
    assert result.wall_clock_seconds == 6 * 21.0 + 3 * UPLOAD_SECONDS + 10.0 + expected + UPLOAD_SECONDS


def test_a_loss_during_a_save_loses_the_save():
    result = timed(a_fleet(Loss(45.0, ONE_NODE)))
    assert result.ledger["checkpoint_save"] == 3.0 + 3 * UPLOAD_SECONDS
    assert [event.kind for event in result.events][:3] == ["checkpoint_started", "failure", "checkpoint_lost"]
    assert result.num_iterations == 6
    assert result.ledger["lost_work"] == 42.0
    quiet, lossy = timed(a_fleet(share=0.5)), timed(a_fleet(Loss(47.0, ONE_NODE), share=0.5))
    assert quiet.ledger["checkpoint_save"] == 3 * UPLOAD_SECONDS / 2
    assert [e.time_seconds for e in quiet.events if e.kind == "checkpoint_durable"][:1] == [42.0 + UPLOAD_SECONDS]
    assert "checkpoint_lost" in {event.kind for event in lossy.events}


rates = st.floats(0.1, 1e4)


@given(st.integers(2, 50), rates, rates, rates, st.booleans())
def test_nodes_that_send_together_are_as_fast_as_one_by_one(num_nodes, storage, each, access, has_access):
    options = {"same_region": {"latency_ms": 1.0, "bandwidth_mbit_per_s": 1.0}}
    link = {"latency_ms": 5.0, "bandwidth_mbit_per_s": storage, "node_mbit_per_s": each}
    own = {"up_mbit_per_s": access, "down_mbit_per_s": access, "latency_ms": 2.0} if has_access else None
    scenario = a_scenario(network={**options, "storage": link, "access": own})
    network = Network(scenario.network, ("local",) * num_nodes)
    one, all_together = network.path(0, STORAGE), network.path(0, STORAGE, num_nodes)
    slowest = min(each, access) if has_access else each
    assert all_together.latency_seconds == one.latency_seconds
    assert all_together.alone_bytes_per_second == pytest.approx(125_000 * min(storage, num_nodes * slowest))
    assert network.is_apart(all_together)


FLEET = """
name: demo
training: {learner: none}
strategies: [checkpoint]
fallback: stop
network:
  same_region: {latency_ms: 0.1, bandwidth_mbit_per_s: 100000}
  storage: {latency_ms: 1, bandwidth_mbit_per_s: 100000}
cluster: {stage_state: sharded, nodes_per_stage: 14000, device: a100}
"""


def problems(*overrides: str) -> list[str]:
    try:
        parse_scenario(FLEET, "test.yaml", overrides)
    except ScenarioError as error:
        return [f"{problem.path}: {problem.message}" for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("strategies=[checkfree_plus]",), "strategies.0: 'checkfree_plus' needs nodes that hold whole stages"),
        (("fallback=checkpoint", "strategies=[none, redundant]"), "strategies.1: 'redundant' needs nodes that hold"),
        (("strategies=[{kind: checkpoint, local_gib_per_s: 1}]",), "strategies.0.local_gib_per_s: local copies go"),
        (("cluster.stage_state=replicated",), "cluster.nodes_per_stage: found 14,000; allowed with stage_state 'repl"),
        (("network=spot_cluster",), "cluster.nodes_per_stage: found 14,000; allowed where pipelines differ or share"),
        (
            ("cluster.stragglers=[{stage: 1, replica: 3, slowdown: 2}]",),
            "cluster.nodes_per_stage: found 14,000; allowed",
        ),
        (("cluster.jitter=0.1",), "cluster.jitter: goes with nodes_per_stage of at most 1,000"),
        (("fidelity=microbatch",), "fidelity: 'microbatch' goes with cluster.nodes_per_stage of at most 1,000"),
        (("cluster.nodes_per_stage=200000",), "cluster.nodes_per_stage: found 200000; allowed: a whole number"),
    ],
)
def test_what_does_not_go_with_many_nodes_or_shares_is_said(overrides, expected):
    assert problems() == []  # a hundred thousand nodes alone
    (problem,) = problems(*overrides)
    assert problem.startswith(expected), problem
