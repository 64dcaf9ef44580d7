"""Whatever happens to the nodes: runs end, every second is booked, churn is the strategies' common fate, and nobody
uses a state that its holder had lost.

`auditor` follows who holds what by itself, from the nodes that come and go and the messages that are sent.
"""

import itertools
import math
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.scenario.scenario import Scenario
from sim.simulation.run import Run, build_site, simulate
from sim.simulation.state_placement import StatePlacement
from sim.simulation.transfers import StateTransfers
from sim.simulation.world import World
from sim.strategies import STRATEGIES
from sim.strategies.repartition import Repartition
from sim.strategies.replica_saves import OwnCheckpoint
from sim.workload.holdings import Holdings
from support.auditor import Auditor, audited
from support.builders import CHECKPOINT_BYTES, a_link, a_scenario, no_training, with_losses
from support.examples import examples
from support.failure_processes import Loss, Losses, LossesConfig
from support.memberships import Log

NUM_STAGES = 5
PLAIN_AVERAGES = {"outer_learning_rate": 1.0, "outer_momentum": 0.0}
STRATEGIES_TO_TRY: tuple[dict[str, Any], ...] = (
    {"kind": "none"},
    {"kind": "restart"},
    {"kind": "peer"},
    {"kind": "checkpoint", "interval_iterations": 2, "blocking_share": 0.4},
    {"kind": "checkpoint", "label": "local", "interval_iterations": 1, "local_gib_per_s": 2e-6},
    {"kind": "checkpoint", "label": "young", "interval": "young", "mtbf_hours": 0.02, "blocking_share": 1.0},
    {"kind": "checkpoint", "label": "adaptive", "interval": "adaptive", "blocking_share": 0.1},
    {"kind": "checkpoint", "label": "just_in_time", "interval_iterations": 3, "just_in_time": True},
    {"kind": "neighbour_checkpoint"},
    {"kind": "neighbour_checkpoint", "label": "two_copies", "num_copies": 2, "interval_iterations": 2},
    {"kind": "two_tier_checkpoint", "interval_iterations": 3, "blocking_share": 0.4},
    {
        "kind": "two_tier_checkpoint",
        "label": "three_tiers",
        "memory_interval_iterations": 2,
        "num_copies": 2,
        "interval_iterations": 2,
        "local_gib_per_s": 2e-6,
    },
    *({"kind": "redundant", "label": p, "preset": p} for p in ("paper_text", "bamboo", "bamboo_lazy")),
    {"kind": "redundant", "label": "both", "preset": "bamboo_forward_and_backward"},
    {"kind": "checkfree"},
    {"kind": "checkfree", "label": "released", "preset": "reference_code"},
    {"kind": "checkfree_plus"},
    {"kind": "checkfree_plus", "label": "blocking", "embedding_copy": "blocking", "optimizer": "average"},
    *({"kind": "reinit", "label": rule, "rule": rule} for rule in ("random", "copy_previous", "uniform_average")),
    {"kind": "constant_batch"},
    {"kind": "constant_batch", "label": "again", "cut_iteration": "run_again"},
    {"kind": "constant_batch", "label": "by_pipeline", "dealing": "by_pipeline"},
    {"kind": "elastic"},
    {"kind": "elastic", "label": "anew", "pipelines": "formed_anew", "min_replicas": 2, "learning_rate": "sqrt"},
    {"kind": "elastic", "label": "spares", "world_size": "fixed_with_spares"},
    {"kind": "diloco", "inner_steps": 3},
    *(
        {"kind": "diloco", "label": f"diloco_{inner}", "inner_steps": 5, "lost_stage": inner}
        for inner in ("global", "checkfree", "checkfree_plus", "reinit", "neighbour_copy")
    ),
    *(
        {
            "kind": "diloco",
            "label": f"diloco_{inner}",
            "inner_steps": 5,
            "lost_stage": inner,
            "interval_iterations": 1 + (inner in ("stale_stage", "two_tier_checkpoint")),
            "weights": "tokens",
        }
        for inner in ("checkpoint", "neighbour_checkpoint", "two_tier_checkpoint", "stale_stage", "checkfree_hybrid")
    ),
    {"kind": "diloco", "label": "in_pairs", "inner_steps": 2, "partners": "pairs", **PLAIN_AVERAGES},
    {
        "kind": "diloco",
        "label": "copied_stream",
        "inner_steps": 4,
        "fragments": 2,
        "overlap_iterations": 1,
        "lost_stage": "neighbour_copy",
    },
    {"kind": "diloco", "label": "stream", "inner_steps": 4, "fragments": 2, "overlap_iterations": 1, "mixing": 0.5},
    {
        "kind": "diloco",
        "label": "quorum",
        "inner_steps": 2,
        "min_replicas": 2,
        "join_timeout_seconds": 20.0,
        "weights": "tokens",
        "joiner_optimizer": "fresh",
    },
    {"kind": "neighbour_takeover"},
    {"kind": "neighbour_takeover", "label": "lost_alone", "approximate": "lost_stage", "rank_share": 1.0},
    {"kind": "skip"},
    {"kind": "skip", "label": "two", "most_skipped": 2},
    {"kind": "skip", "label": "stale_return", "returns": "stale", "interval_iterations": 2, "most_skipped": 2},
    {"kind": "repartition", "interval_iterations": 2},
    {"kind": "repartition", "label": "later", "interval_iterations": 1, "grow": "at_next_loss", "blocking_share": 0.4},
    {"kind": "checkfree_hybrid", "interval_iterations": 2},
    {"kind": "checkfree_hybrid", "label": "stale", "interval_iterations": 2, "rebuild_from": "checkpoint"},
    {"kind": "stale_stage", "interval_iterations": 2},
    {
        "kind": "stale_stage",
        "label": "plain_routes",
        "interval_iterations": 3,
        "routes": "plain",
        "blocking_share": 1.0,
    },
)
FALLBACKS: tuple[dict[str, Any] | str, ...] = (
    "stop",
    "restart",
    {"kind": "checkpoint", "interval_iterations": 2},
    {"kind": "checkpoint", "interval_iterations": 1, "local_gib_per_s": 2e-6, "just_in_time": True},
)
STORE_LINK = a_link(0.25, (NUM_STAGES + 1) * CHECKPOINT_BYTES / 20)
NETWORKS: tuple[dict[str, Any], ...] = (  # hops of no time and states of eight seconds; both of about a second
    {"same_region": a_link(0.0, CHECKPOINT_BYTES / 8), "storage": STORE_LINK, "negligible_seconds": 1e9},
    {"same_region": a_link(0.5, 524288.0), "storage": STORE_LINK},
)


seconds = st.one_of(st.integers(0, 240).map(lambda quarters: quarters / 4), st.floats(0.0, 60.0))
places = st.tuples(st.integers(-1, NUM_STAGES), st.one_of(st.none(), st.integers(0, 2)))
losses = st.builds(
    Loss,
    st.one_of(seconds, st.sampled_from([0.0, 24.0, 48.0])),
    st.lists(places, min_size=1, max_size=3, unique=True).map(tuple),
    st.sampled_from([None, None, 0.0, 7.0, 40.0]),
)
notices = st.sampled_from([0.0, 0.0, 3.0, 30.0])
scripts = st.builds(
    LossesConfig,
    losses=st.lists(losses, min_size=1, max_size=5).map(tuple),
    notice_seconds=notices,
    immune_stages=st.sampled_from([(), (0,), (1, 3)]),
    beside=st.lists(
        st.builds(LossesConfig, losses=st.lists(losses, max_size=3).map(tuple), notice_seconds=notices), max_size=1
    ).map(tuple),
)
clusters = st.fixed_dictionaries(
    {
        "nodes_per_stage": st.integers(1, 3),
        "num_spares": st.integers(0, 2),
        "detection_seconds": st.sampled_from([0.0, 10.0]),
        "provisioning_seconds": st.sampled_from([0.0, 12.0, 50.0]),
        "provisioning_sigma": st.sampled_from([0.0, 0.5]),
        "startup_seconds": st.sampled_from([0.0, 5.0]),
        "regroup_seconds": st.sampled_from([0.0, 4.0]),
        "joining": st.sampled_from(["standstill", "standstill", "beside"]),
    }
)
churning = st.builds(
    lambda script, cluster, network, fallback, fidelity: a_scenario(
        STRATEGIES_TO_TRY,
        num_stages=NUM_STAGES,
        steps=7,
        cluster=cluster,
        network=network,
        fallback=fallback,
        fidelity=fidelity,
    ).model_copy(update={"failures": script}),
    scripts,
    clusters,
    st.sampled_from(NETWORKS),
    st.sampled_from(FALLBACKS),
    st.sampled_from(["iteration", "iteration", "microbatch"]),
)


def run(scenario: Scenario, index: int) -> Run:
    return simulate(scenario, scenario.strategies[index], 0, 0, no_training(scenario))


def churn_alone(scenario: Scenario, until_seconds: float) -> list[tuple[Any, ...]]:
    """What happens to the nodes where nobody trains."""
    log = Log(Losses(scenario.failures), build_site(scenario).cluster).until(until_seconds + 1.0)
    return before(until_seconds, log)


def before(seconds: float, seen: Log | Auditor) -> list[tuple[Any, ...]]:
    """Losses and arrivals up to a time."""
    return [each for happened in (seen.lost, seen.arrivals) for each in happened if each[0] < seconds]


def check(scenario: Scenario, index: int) -> None:
    with audited(scenario.strategies[index], scenario.fallback) as auditors:
        result = run(scenario, index)
    (auditor,) = auditors
    assert result.num_iterations == 7 if result.stopped is None else len(result.stopped) > 10
    assert min(result.ledger.values()) >= 0.0
    assert math.fsum(result.ledger.values()) == pytest.approx(result.wall_clock_seconds, rel=1e-9)
    seconds = result.wall_clock_seconds
    assert before(seconds, auditor) == churn_alone(scenario, seconds)
    parts = (scenario.failures, *scenario.failures.beside)
    immune = set.intersection(*(set(part.immune_stages) for part in parts))
    assert not immune & {event.stage for event in result.events if event.kind in ("failure", "node_lost")}
    assert run(scenario, index) == result


def test_every_registered_strategy_is_tried():
    assert {strategy["kind"] for strategy in STRATEGIES_TO_TRY} == set(STRATEGIES)


indices = st.integers(0, len(STRATEGIES_TO_TRY) - 1)


@settings(max_examples=examples(80, 300))
@given(churning, indices)
def test_any_losses_keep_the_ledger_and_use_only_live_state(scenario, index):
    check(scenario, index)


LINKS = (("a", "b", 50.0, 1e-3), ("b", "c", 20.0, 2e-3), ("a", "c", 70.0, 1e-3))
SLOW = ({"stage": 2, "slowdown": 2.0}, {"stage": 3, "replica": 0, "slowdown": 0.5})
uneven = st.fixed_dictionaries(
    {
        "embedding_on": st.sampled_from(["own_node", "first_stage"]),
        "placement": st.sampled_from(["round_robin", "stage_per_region"]),
        "stragglers": st.sampled_from([(), SLOW]),
        "jitter": st.sampled_from([0.0, 0.2]),
    }
)


@settings(max_examples=examples(4, 100))
@given(scripts, clusters, uneven, st.sampled_from([*NETWORKS, {**NETWORKS[1], "links": LINKS}]))
def test_pipelines_are_cut_anew_on_uneven_sites(script, cluster, site, network):
    """Nodes that differ in region and speed, the embedding on S1's, jitter; and both fidelities agree."""
    strategies = ({"kind": "repartition", "interval_iterations": 2, "min_pipelines": 2},)
    scenario = a_scenario(
        strategies,
        num_stages=NUM_STAGES,
        steps=7,
        cluster={**cluster, **site},
        network=network,
        loss_at="last_stage",
    ).model_copy(update={"failures": script})
    check(scenario, 0)
    one, other = (run(scenario.model_copy(update={"fidelity": each}), 0) for each in ("iteration", "microbatch"))
    assert (one.events, one.wall_clock_seconds) == (other.events, other.wall_clock_seconds)


@pytest.mark.parametrize("detection_seconds", [0.0, 10.0])
def test_failures_at_the_end_of_an_iteration_come_before_it(detection_seconds):
    """Also one that another failure of this instant leads to; an iteration takes 24 s."""
    cluster = {"nodes_per_stage": 1, "detection_seconds": detection_seconds}
    scenario = a_scenario(({"kind": "none"},), num_stages=NUM_STAGES, steps=7, cluster=cluster, network=NETWORKS[0])
    scenario = with_losses(scenario, *(Loss(seconds, ((1, None),)) for seconds in (0.0, 24.0, 0.0)))
    check(scenario, 0)
    assert [event.iteration for event in run(scenario, 0).events if event.kind == "failure"] == [0, 0, 0]


@pytest.mark.parametrize("strategy", ["none", "restart", "peer", "checkfree"])
def test_failures_of_one_instant_are_met_in_their_order(strategy):
    """Two stages are lost at an iteration's end, and this leads to the loss of a third; an iteration takes 24 s."""
    cluster = {"nodes_per_stage": 1, "num_spares": 2, "provisioning_seconds": 0.0, "provisioning_sigma": 0.0}
    scenario = a_scenario(({"kind": strategy},), num_stages=NUM_STAGES, steps=7, cluster=cluster, network=NETWORKS[0])
    a_spare = Loss(0.0, ((-1, 1),))
    for first, second, third in itertools.permutations(range(4), 3):
        at_once = Loss(24.0, ((first, None), (second, None)))
        check(with_losses(scenario, a_spare, at_once, Loss(0.0, ((third, None),))), 0)


def test_a_notice_at_the_instant_of_a_failure_saves_nothing():
    """Stage 1 is lost at 24.25 s, when the notice for stage 0 arrives: there is no complete state to save."""
    cluster = {"nodes_per_stage": 1, "provisioning_seconds": 0.0, "provisioning_sigma": 0.0}
    just_in_time = {"kind": "checkpoint", "interval_iterations": 3, "just_in_time": True}
    scenario = a_scenario((just_in_time,), num_stages=NUM_STAGES, steps=7, cluster=cluster, network=NETWORKS[0])
    scenario = with_losses(
        scenario, Loss(0.0, ((0, None),)), Loss(24.25, ((1, None),)), Loss(1.0, ((0, None),)), notice_seconds=3.0
    )
    check(scenario, 0)
    assert "just in time" not in {event.detail for event in run(scenario, 0).events}


@pytest.mark.slow
@settings(max_examples=4000)
@given(churning, indices)
def test_the_same_holds_for_many_more_scripts(scenario, index):
    check(scenario, index)


def its_own_place(holders: StatePlacement, stage: int, replica: int) -> int:
    return holders.cluster.slot(stage, replica)


def joins_at_once(world: World) -> Any:
    yield from ()
    world.placement.gain([place for place, node in enumerate(world.membership.node_at) if node])


def test_a_transfer_beside_training_goes_on_after_failures_of_one_instant():
    """Found by the scripts above: the second failure ends an iteration that has not begun, and holds no messages."""
    link = {"latency_ms": 0.0, "bandwidth_mbit_per_s": 0.00816}
    store = {"latency_ms": 250.0, "bandwidth_mbit_per_s": 0.019584}
    instant = {"detection_seconds": 0.0, "startup_seconds": 0.0, "regroup_seconds": 0.0, "provisioning_seconds": 12.0}
    scenario = a_scenario(
        STRATEGIES_TO_TRY,
        num_stages=NUM_STAGES,
        steps=7,
        cluster={"nodes_per_stage": 2, "num_spares": 1, "provisioning_sigma": 0.0, **instant},
        network={"same_region": link, "storage": store, "negligible_seconds": 1e9},
        fallback="restart",
    )
    losses = *[Loss(0.0, ((0, None),))] * 3, Loss(12.0, ((0, None),)), Loss(32.0, ((1, 0), (2, 0)))
    failures = LossesConfig(kind="support.failure_processes:Losses", losses=losses)
    index = [config.name for config in scenario.strategies].index("diloco_global")
    check(scenario.model_copy(update={"failures": failures}), index)


NEVER_SAVED = {"kind": "diloco", "inner_steps": 7, "lost_stage": "checkpoint", "interval_iterations": 7}
TWO_EACH = {"nodes_per_stage": 2, "provisioning_seconds": 20.0}
ONE_EACH = {"nodes_per_stage": 1, "provisioning_seconds": 20.0}


@pytest.mark.parametrize(
    ("owner", "name", "wrong", "strategy", "cluster"),
    [
        (StatePlacement, "_drop_copies", lambda *_: None, {"kind": "neighbour_checkpoint"}, ONE_EACH),
        (StatePlacement, "_drop_copies", lambda *_: None, STRATEGIES_TO_TRY[4], ONE_EACH),
        (StatePlacement, "lose", lambda *_: False, {"kind": "peer"}, TWO_EACH),
        (StatePlacement, "source", its_own_place, {"kind": "checkpoint", "interval_iterations": 1}, TWO_EACH),
        (World, "admit_nodes", joins_at_once, {"kind": "peer"}, TWO_EACH),
        (StateTransfers, "end_backgrounds", lambda *_: None, {"kind": "neighbour_checkpoint"}, ONE_EACH),
        (Holdings, "moves", lambda *_: (), {"kind": "repartition"}, TWO_EACH),
        (OwnCheckpoint, "saved_before", lambda _, __, state, ___: state, NEVER_SAVED, TWO_EACH),
        (Repartition, "_uploads", lambda *_: (), {"kind": "repartition", "interval_iterations": 1}, ONE_EACH),
    ],
)
def test_the_auditor_sees_what_it_should(owner, name, wrong, strategy, cluster):
    scenario = a_scenario((strategy,), num_stages=NUM_STAGES, steps=7, cluster=cluster, network=NETWORKS[0])
    scenario = with_losses(scenario, Loss(75.0, ((2, 0),)), Loss(60.0, ((3, 0),)), Loss(30.0, ((4, 0),)))
    check(scenario, 0)
    with patch.object(owner, name, wrong), pytest.raises(AssertionError):
        check(scenario, 0)
