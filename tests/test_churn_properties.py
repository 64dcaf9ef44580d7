"""Whatever happens to the nodes: runs end, every second is booked, churn is the strategies' common fate, and nobody
uses a state that its holder had lost.

`auditor` follows who holds what by itself, from the nodes that come and go and the messages that are sent.
"""

import math
from typing import Any
from unittest.mock import patch

import pytest
from auditor import audited
from conftest import CHECKPOINT_BYTES, Loss, Losses, LossesConfig, a_link, a_scenario, no_training
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.failures import PROCESSES
from sim.scenario import Scenario
from sim.simulation import Run, simulate
from sim.strategies import STRATEGIES

NUM_STAGES = 5
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
    *({"kind": "redundant", "label": p, "preset": p} for p in ("paper_text", "bamboo", "bamboo_lazy")),
    {"kind": "redundant", "label": "both", "preset": "bamboo_forward_and_backward"},
    {"kind": "checkfree"},
    {"kind": "checkfree", "label": "released", "preset": "reference_code"},
    {"kind": "checkfree_plus"},
    {"kind": "checkfree_plus", "label": "blocking", "embedding_copy": "blocking", "optimizer": "average"},
    *({"kind": "reinit", "label": rule, "rule": rule} for rule in ("random", "copy_previous", "uniform_average")),
    {"kind": "checkfree_hybrid", "interval_iterations": 2},
    {"kind": "checkfree_hybrid", "label": "stale", "interval_iterations": 2, "rebuild_from": "checkpoint"},
)
TRIED = tuple(strategy for strategy in STRATEGIES_TO_TRY if strategy["kind"] in STRATEGIES)
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


# ---- scripts -------------------------------------------------------------------------------------------

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
    }
)
churning = st.builds(
    lambda script, cluster, network, fallback, fidelity: a_scenario(
        TRIED,
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
    with patch.dict(PROCESSES, losses=Losses):
        return simulate(scenario, scenario.strategies[index], 0, 0, no_training(scenario))


def run_and_check(scenario: Scenario, index: int) -> tuple[Run, list[tuple[Any, ...]]]:
    """A run that is audited, and what happened to its nodes."""
    with audited(scenario.strategies[index], scenario.fallback) as auditors:
        result = run(scenario, index)
    (auditor,) = auditors
    assert result.stopped or result.num_iterations == 7
    assert result.stopped is None or len(result.stopped) > 10
    assert min(result.ledger.values()) >= 0.0
    assert math.fsum(result.ledger.values()) == pytest.approx(result.wall_clock_seconds, rel=1e-9)
    assert not {event.stage for event in result.events if event.kind in ("failure", "node_lost")} & set(
        scenario.failures.immune_stages if not scenario.failures.beside else ()
    )
    return result, auditor.churn


def check_all(scenario: Scenario) -> None:
    runs = [run_and_check(scenario, index) for index in range(len(TRIED))]
    reference, churn = runs[0]
    for result, met in runs[1:]:
        until_seconds = min(reference.wall_clock_seconds, result.wall_clock_seconds)
        first, second = ([each for each in history if each[0] < until_seconds] for history in (churn, met))
        assert first == second


def test_every_registered_strategy_is_tried():
    assert {strategy["kind"] for strategy in TRIED} == set(STRATEGIES)


@settings(max_examples=25)
@given(churning)
def test_whatever_happens_to_the_nodes_runs_end_seconds_add_up_and_nobody_uses_what_is_lost(scenario):
    check_all(scenario)
