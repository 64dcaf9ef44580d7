"""What losses and arrivals of nodes cost a run: who goes on without whom, who joins when, and what that takes.

An iteration takes 21 s; 27 s where one of two nodes of a stage does the work of both: eight microbatches of 3 s each
after the first has come, in 1 s, and before the last has gone, in 2 s.
"""

import pytest

from sim.scenario.scenario import Scenario
from sim.simulation.run import build_world
from support.builders import TICK, a_link, a_scenario, a_world, in_turn, of_kind, scripted, times, with_losses
from support.builders import run as run_with
from support.churn import CHECKFREE, CLUSTER, SLOW, lengths, run, starts, told
from support.failure_processes import Loss
from support.memberships import empty_stages

ITERATION, STANDING_IN = 21.0, 27.0


@pytest.mark.parametrize("fidelity", ["iteration", "microbatch"])
def test_replicas_continue_until_the_replacement_joins(fidelity):
    """It joins at the first end of an iteration after its start-up."""
    result = run(Loss(50.0, ((2, 0),)), fidelity=fidelity)
    # lost in the third iteration; the next node comes at 110 s and is ready at 115 s
    assert starts(result) == [0.0, 21.0, 63.0, 90.0, 117.0, 138.0, 159.0, 180.0]
    assert lengths(result) == [ITERATION, ITERATION, STANDING_IN, STANDING_IN, *4 * [ITERATION]]
    assert told(result) == [(50.0, "node_lost", 2), (63.0, "regrouped", 2), (117.0, "node_joined", 2)]
    ledger = result.ledger
    assert (ledger["lost_work"], ledger["detection"], ledger["provisioning"]) == (8.0, 10.0, 3.0)
    assert (result.num_failures, result.num_nodes_lost) == (0, 1)
    assert result.node_hours * 3600 == pytest.approx(10 * 201.0 - 60.0)
    assert len({record.lineage for record in result.iterations}) == 1


@pytest.mark.parametrize(("startup_seconds", "joins_seconds"), [(7.0, 117.0), (7.0 + TICK, 117.0 + STANDING_IN)])
def test_a_node_ready_at_an_iterations_end_joins_the_next(startup_seconds, joins_seconds):
    result = run(Loss(50.0, ((2, 0),)), cluster={"startup_seconds": startup_seconds})
    assert times(of_kind(result, "node_joined")) == [joins_seconds]


@pytest.mark.parametrize(("strategy", "num_states"), [(CHECKFREE, 1), ({"kind": "neighbour_checkpoint"}, 3)])
def test_a_joining_node_is_sent_all_state_of_its_stage(strategy, num_states):
    result = run(Loss(50.0, ((2, 0),)), strategy=strategy, network=SLOW, steps=20)
    (joined,) = times(of_kind(result, "node_joined"))
    before = max(record.ended_seconds for record in result.iterations if record.ended_seconds <= joined)
    after = min(record.started_seconds for record in result.iterations if record.started_seconds >= joined)
    assert joined - before == after - joined + 0.5 + 8.0 * num_states == result.ledger["state_transfer"]
    assert before >= 115.0


def test_waiting_nodes_join_together_and_losses_regroup_anew():
    result = run(Loss(50.0, ((2, 0), (1, 1), (4, 1))), network=SLOW)
    assert [kind for _, kind, _ in told(result)][:5] == 3 * ["node_lost"] + ["regrouped", "node_joined"]
    assert result.ledger["state_transfer"] == 8.5
    assert result.ledger["detection"] == 10.0
    result = run(Loss(50.0, ((2, 0),)), Loss(5.0, ((1, 0),)), Loss(11.0, ((3, 0),)))
    assert told(result)[:4] == [
        (50.0, "node_lost", 2),
        (55.0, "node_lost", 1),
        (66.0, "node_lost", 3),
        (79.0, "regrouped", 3),
    ]
    assert (result.ledger["detection"], result.ledger["provisioning"]) == (5.0 + 10.0 + 10.0, 1.0 + 3.0)


def test_a_stage_lost_with_its_last_holder_goes_on_with_spares():
    """A node that has not received the state yet does not save it."""
    # at 110 s a node comes for place (2, 0); it starts up until 115 s and would join at 117 s
    result = run(Loss(50.0, ((2, 0),)), Loss(66.0, ((2, 1),)), fallback="restart")
    assert told(result)[2:4] == [(116.0, "failure", 2), (131.0, "recovered", 2)]
    assert result.num_failures == 1
    spare = run(Loss(50.0, ((2, None),)), cluster={"num_spares": 1})
    assert told(spare) == [(50.0, "failure", 2), (65.0, "recovered", 2), (119.0, "node_joined", 2)]
    result = run(Loss(50.0, ((2, None),)), cluster={"num_spares": 1})
    assert starts(result)[2:4] == [65.0, 92.0]  # detected, started on the spare; nobody waits for the other
    assert lengths(result)[2:5] == [STANDING_IN, STANDING_IN, ITERATION]


@pytest.mark.parametrize("place", [(2, 0), (2, 1)], ids=["receiver", "sender"])
def test_a_loss_at_either_end_of_a_join_transfer_ends_it(place):
    options = {"network": SLOW, "cluster": {"nodes_per_stage": 3}, "steps": 20}
    (joined,) = times(of_kind(run(Loss(50.0, ((2, 0),)), **options), "node_joined"))
    result = run(Loss(50.0, ((2, 0),)), Loss(joined - 4.0 - 50.0, (place,)), **options)
    assert told(result)[2:4] == [(joined - 4.0, "node_lost", 2), (joined + 9.0, "regrouped", 2)]
    assert result.ledger["detection"] == 20.0
    if place == (2, 1):  # the third node sends it instead, at once
        assert told(result)[4] == (joined + 9.0 + 8.5, "node_joined", 2)
        assert result.ledger["state_transfer"] == 4.5 + 8.5 + 8.5
    else:
        assert result.ledger["state_transfer"] == 4.5 + 8.5


def test_losing_a_spare_or_a_starting_node_affects_no_other():
    result = run(Loss(50.0, ((2, 0),)), Loss(62.0, ((2, 0),)))  # at 112 s, while it starts up
    assert told(result)[2] == (112.0, "node_lost", 2)
    assert (result.ledger["detection"], result.ledger["lost_work"]) == (10.0, 8.0)
    assert lengths(result)[2:7] == 5 * [STANDING_IN]  # the next one is ready at 177 s
    assert times(of_kind(result, "node_joined")) == [198.0]
    result = run(Loss(50.0, ((-1, None),)), cluster={"num_spares": 2})
    assert told(result) == []
    assert (result.wall_clock_seconds, result.num_nodes_lost) == (8 * ITERATION, 2)


def test_only_an_announced_loss_needs_no_detection():
    """Its replacement was ordered at the notice."""
    result = run(Loss(50.0, ((2, 0),)), notice_seconds=20.0)
    assert told(result) == [
        (30.0, "notice", 2),
        (50.0, "node_lost", 2),
        (53.0, "regrouped", 2),
        (107.0, "node_joined", 2),  # there at 90 s, ready at 95 s
    ]
    assert result.ledger["detection"] == 0.0
    gone = run(Loss(50.0, ((2, None),)), notice_seconds=20.0)
    assert (gone.ledger["detection"], gone.ledger["provisioning"]) == (0.0, 40.0 + 5.0)
    scenario = a_scenario((CHECKFREE,), cluster=CLUSTER, steps=8)
    other = with_losses(scenario, Loss(50.0, ((4, 0),)), notice_seconds=20.0).failures
    result = run_with(with_losses(scenario, Loss(50.0, ((2, 0),)), beside=(other,)))
    assert result.ledger["detection"] == 10.0


def notices_of(scenario: Scenario, *seconds: float) -> list[float]:
    """When a strategy is called with a notice, in work of some seconds."""
    calls: list[float] = []
    world = build_world(scenario, 0, on_notice=lambda: calls.append(world.now_seconds))
    in_turn(world, *(world.attempt(each, "productive_compute") for each in seconds))
    return calls


@pytest.mark.parametrize(
    ("who", "num_calls"),
    [(((2, 0),), 0), (((2, 0), (3, 1)), 0), (((2, None),), 1), (((2, None), (3, None), (4, 0)), 1), (((-1, None),), 0)],
)
def test_strategies_get_notices_that_concern_last_holders(who, num_calls):
    scenario = a_scenario(cluster={**CLUSTER, "num_spares": 1})
    assert notices_of(with_losses(scenario, Loss(50.0, who), notice_seconds=20.0), 40.0) == num_calls * [30.0]


@pytest.mark.parametrize(("loss_seconds", "started"), [(105.0, []), (140.0, [(100.0, 1)])])
def test_a_notice_during_a_recovery_finds_nothing_to_save(loss_seconds, started):
    strategy = {"kind": "checkpoint", "interval_iterations": 100, "just_in_time": True}
    first, second = Loss(50.0, ((2, 0),)), Loss(loss_seconds - 50.0, ((3, 0),))  # the recovery lasts until 75 s
    result = run(first, second, strategy=strategy, notice_seconds=40.0, cluster={"nodes_per_stage": 1})
    assert times(of_kind(result, "recovered"))[0] == 75.0
    assert [(event.time_seconds, event.iteration) for event in of_kind(result, "checkpoint_started")] == started


@pytest.mark.parametrize("fidelity", ["iteration", "microbatch"])
def test_a_notice_checkpoint_may_overlap_another(fidelity):
    strategy = {"kind": "checkpoint", "interval_iterations": 2, "just_in_time": True}
    options = {"cluster": {"nodes_per_stage": 1}, "upload_seconds": 50.0, "fidelity": fidelity}
    result = run(Loss(200.0, ((2, 0),)), strategy=strategy, notice_seconds=130.0, **options)
    started = [(event.time_seconds, event.iteration) for event in of_kind(result, "checkpoint_started")]
    assert started[:2] == [(42.0, 2), (70.0, 3)]
    assert [event.iteration for event in of_kind(result, "checkpoint_durable")][:2] == [2, 3]


def test_returning_nodes_join_and_those_that_never_come_stop_it():
    result = run(Loss(50.0, ((2, 0),), 60.0))
    assert starts(result) == starts(run(Loss(50.0, ((2, 0),))))
    assert result.node_hours * 3600 == pytest.approx(10 * 201.0 - 60.0)
    result = run(Loss(50.0, ((2, None),), 1e8))
    assert result.stopped.startswith("after 2 of 8 iterations it had taken more than 20 × the plain")
    assert result.ledger["waiting_for_nodes"] == pytest.approx(20 * 8 * ITERATION - 60.0, abs=2.0)
    short = scripted(a_scenario((CHECKFREE,)), {}, num_initial_nodes=4)  # for five stages
    result = run_with(short)
    assert "no node and none can come any more: after 0 h 4 nodes are active" in result.stopped
    assert result.ledger["waiting_for_nodes"] == result.wall_clock_seconds == 0.0


@pytest.mark.parametrize(("away_seconds", "bucket"), [(None, "provisioning"), (60.0, "waiting_for_nodes")])
def test_waits_for_ordered_nodes_are_provisioning(away_seconds, bucket):
    result = run(Loss(50.0, ((2, None),), away_seconds))
    waited = dict.fromkeys(("provisioning", "waiting_for_nodes"), 0.0)
    waited["provisioning"] += 5.0  # starting up
    waited[bucket] += 50.0  # after 10 s of detection
    assert {bucket: result.ledger[bucket] for bucket in waited} == waited
    assert times(of_kind(result, "recovered")) == [115.0]


def test_training_begins_when_every_stage_has_a_started_node():
    nobody_is_lost = {"scope": "cluster", "immune_stages": (0, 1, 2, 3, 4)}
    scenario = a_scenario((CHECKFREE,), cluster=CLUSTER, steps=4)
    result = run_with(
        scripted(scenario, {"cluster": (10.0, 30.0)}, num_initial_nodes=4, arrivals=(1, 3), **nobody_is_lost)
    )
    assert (result.ledger["waiting_for_nodes"], result.ledger["provisioning"]) == (10.0, 5.0)
    assert starts(result)[:2] == [15.0, 48.0]
    assert lengths(result)[0] == 33.0  # every node does the work of two
    assert times(of_kind(result, "node_joined")) == 3 * [48.0]
    assert (result.num_failures, result.num_nodes_lost) == (0, 0)
    scenario = a_scenario(({"kind": "restart"},), cluster={**CLUSTER, "nodes_per_stage": 1}, steps=4)
    options = {"num_initial_nodes": 4, "arrivals": (0, 2)}
    (empty,) = empty_stages(a_world(scenario, {}, **options).membership)
    result = run_with(scripted(scenario, {(empty + 1) % 5: (10.0, 20.0)}, **options))
    assert told(result) == [(10.0, "failure", (empty + 1) % 5)]
    assert starts(result)[0] == 30.0 + 5.0  # two nodes come at 30 s


REGIONS = {"same_region": a_link(), "storage": a_link(), "links": (("a", "b", 0.0, 1.0),)}


@pytest.mark.parametrize(
    ("failures", "num_an_hour"),
    [
        ({"kind": "never"}, 0.0),
        ({"kind": "exponential", "mean_uptime_hours": 2.0}, 10 / 2),  # of a node, where a stage has several
        ({"kind": "exponential", "mean_uptime_hours": 2.0, "scope": "stage"}, 5 / 2),
        ({"kind": "exponential", "mean_uptime_hours": 2.0, "scope": "stage", "immune_stages": (0, 3)}, 3 / 2),
        ({"kind": "weibull", "mean_uptime_hours": 2.0, "scope": "node"}, 10 / 2),
        ({"kind": "weibull", "mean_uptime_hours": 2.0, "scope": "node", "immune_stages": (0,)}, 8 / 2),
        ({"kind": "exponential", "mean_uptime_hours": 2.0, "scope": "region"}, 2 / 2),
        ({"kind": "bulk", "mean_uptime_hours": 2.0, "max_size": 1, "scope": "region"}, 10 / 2),  # spares lost apart
        ({"kind": "bernoulli", "per_iteration_probability": 0.01}, 5 * 0.01 * 3600 / ITERATION),
    ],
)
def test_the_mean_time_between_failures_counts_all_that_can_fail(failures, num_an_hour):
    scenario = a_scenario(failures=failures, cluster={**CLUSTER, "num_spares": 3}, network=REGIONS)
    found = 3600.0 / build_world(scenario, 0).mtbf_seconds
    by_trial = failures.get("scope") == "region"
    # bernoulli: the rest of the iteration too
    assert found == pytest.approx(num_an_hour, rel=0.06 if by_trial else 0.01)


def test_strategies_get_the_notice_of_a_stages_last_node():
    scripts = [
        {"kind": "script", "notice_seconds": 30.0, "losses": ({"at_seconds": at, "stages": (2,), "replica": replica},)}
        for replica, at in enumerate((100.0, 105.0))
    ]
    scenario = a_scenario(failures={"kind": "compose", "processes": tuple(scripts)}, cluster=CLUSTER)
    assert notices_of(scenario, 90.0) == [75.0]
    losses = (Loss(50.0, ((2, 0),)), Loss(75.0, ((2, 1),)))
    scenario = with_losses(a_scenario(cluster=CLUSTER), *losses, notice_seconds=8.0)
    assert notices_of(scenario, 200.0, 200.0) == [117.0]  # (2, 0) has a node since 102 s without the state


def test_a_spare_is_where_its_place_is():
    """Two regions: a spare of b sits in a place of a; b's outage does not touch it, a's does."""
    cluster = {"nodes_per_stage": 1, "num_spares": 1, "regions": ("a", "b"), "provisioning_seconds": 1e6}
    losses = ({"at_seconds": 10.0, "stages": (0,)}, {"at_seconds": 20.0, "stages": (1, 3), "region": "b"})
    scenario = a_scenario(failures={"kind": "script", "losses": losses}, cluster=cluster, network=REGIONS)
    world = build_world(scenario, 0)
    in_turn(world, world.attempt(15.0, "productive_compute"))
    (seated,) = [node for node in world.membership.nodes.values() if node.slot == 0]
    assert (seated.number, seated.region) == (5, "b")
    regions = {
        member.number: member.region for member in map(world.injector._active.member, world.membership.nodes.values())
    }
    assert regions[5] == world.cluster.regions_of_nodes[0] == "a"
