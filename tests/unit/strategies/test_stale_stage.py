"""The stale stage: the hybrid that restores from its checkpoint alone, and the same without swapped routes."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.training_state import Edit, Term
from sim.strategies.base import STORE, Transfer, plain_routes
from sim.strategies.stale_stage import StaleStage, StaleStageConfig
from sim.workload.costs import Costs
from support.builders import a_link, a_scenario, run, scripted, start_of
from support.examples import examples
from support.on_paper import WorldOnPaper, keep, rebuild, strategy_of

OPTIONS = {"interval_iterations": 3, "blocking_share": 0.4}
PLAIN = {**OPTIONS, "routes": "plain"}
SLOW = {"same_region": a_link(0.5, 4096.0), "storage": a_link(0.25, 2048.0)}
times = st.floats(1.0, 400.0)


@settings(max_examples=examples(15, 100))
@given(
    script=st.dictionaries(st.integers(0, 6), st.tuples(times) | st.tuples(times, times), max_size=4),
    embedding_copy=st.sampled_from(["beside", "blocking", "free"]),
)
def test_it_is_the_hybrid_that_restores_from_its_checkpoint(script, embedding_copy):
    """Every event, second, loss and edit."""
    options = {**OPTIONS, "embedding_copy": embedding_copy}
    found = []
    for strategy in ({"kind": "stale_stage"}, {"kind": "checkfree_hybrid", "rebuild_from": "checkpoint"}):
        strategy = {**strategy, **options, "label": "same"}
        result = run(scripted(a_scenario((strategy,), num_stages=6, network=SLOW), script))
        found.append(replace(result, kind=""))
    assert found[0] == found[1]


@pytest.mark.parametrize("lost", [(0,), (3,), (1, 2), (0, 1, 6), (0, 1, 2, 3, 4, 5, 6)])
def test_on_plain_routes_every_lost_stage_goes_back(lost):
    strategy, world = strategy_of("stale_stage", **PLAIN), WorldOnPaper()
    assert strategy.training_variant() == plain_routes(6)
    assert strategy.adapt_plan(world.plain_plan()) == world.plain_plan()
    stored = start_of(strategy).after(9)
    keep(strategy, world, stored)
    world.lost_stages = frozenset(lost)
    position = stored.after(11)
    edits = [Edit(s, "sum", terms=(Term(s, 1.0, stored.moment),), optimizer="older") for s in lost]
    assert rebuild(strategy, world, position) == position.edited(*edits)
    assert world.transfers == [Transfer(STORE, s, world.costs.checkpoint_bytes(s), "checkpoint") for s in lost]


def test_on_plain_routes_nothing_is_copied():
    costs = Costs(a_scenario().workload, a_scenario().cluster.device)
    extra = [StaleStage.extra_memory_bytes(StaleStageConfig(**PLAIN), costs, stage) for stage in range(5)]
    assert extra == [0.0] * 5
    quiet = [run(a_scenario(({"kind": kind, **more},))) for kind, more in (("none", {}), ("stale_stage", PLAIN))]
    assert quiet[0].iteration_seconds == quiet[1].iteration_seconds
    assert [record.train_loss for record in quiet[0].iterations] == [r.train_loss for r in quiet[1].iterations]


@pytest.mark.parametrize(
    ("options", "workload", "message"),
    [
        ({}, {"num_stages": 3}, "swapping the first two and the last two stages needs at least 4 stages"),
        (PLAIN, {"num_stages": 3}, None),
        ({**PLAIN, "embedding_copy": "free"}, {}, "embedding_copy goes with routes 'swapped'"),
        (PLAIN, {"loss_at": "last_stage"}, "a last stage that holds the head would go back without the embedding"),
    ],
)
def test_swapping_needs_two_pairs_and_going_back_a_whole_stage(options, workload, message):
    found = StaleStage.check(StaleStageConfig(**options), a_scenario(**workload).workload)
    assert found is None if message is None else message in str(found)
