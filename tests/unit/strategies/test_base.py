"""The contract of every registered strategy, and what each can recover."""

import math
from typing import Any

import pytest

from models.training_state import Position
from sim.simulation.run import Run
from sim.strategies import STRATEGIES, UnrecoverableError
from sim.strategies.base import beginning_of
from support.builders import a_scenario, of_kind, run, scripted, start_of
from support.on_paper import WorldOnPaper, keep, rebuild, result_of, strategy_of

VARIANTS: list[dict[str, Any]] = [
    *({"kind": kind} for kind in STRATEGIES),
    {"kind": "checkpoint", "interval_iterations": 2, "local_gib_per_s": 1e-5},
    {"kind": "checkpoint", "interval": "young", "blocking_share": 1.0},
    {"kind": "checkpoint", "interval": "adaptive", "just_in_time": True},
    {"kind": "neighbour_checkpoint", "num_copies": 2, "interval_iterations": 3},
    {"kind": "two_tier_checkpoint", "memory_interval_iterations": 2, "interval_iterations": 5},
    {"kind": "two_tier_checkpoint", "interval": "young", "blocking_share": 0.5, "num_copies": 2},
    {"kind": "stale_stage", "interval_iterations": 3, "routes": "plain"},
    {"kind": "neighbour_takeover", "approximate": "lost_stage"},
    {"kind": "skip", "returns": "stale", "interval_iterations": 3},
    {"kind": "skip", "most_skipped": 3, "trained_share": 0.5},
    {"kind": "redundant", "preset": "bamboo"},
    {"kind": "redundant", "preset": "bamboo_lazy"},
    {"kind": "redundant", "preset": "bamboo_forward_and_backward"},
    {"kind": "checkfree", "preset": "reference_code"},
    {"kind": "checkfree_plus", "embedding_copy": "blocking"},
    {"kind": "checkfree_hybrid", "interval_iterations": 2, "blocking_share": 0.5},
    {"kind": "checkfree_hybrid", "interval_iterations": 3, "rebuild_from": "checkpoint"},
    {"kind": "reinit", "rule": "random"},
    {"kind": "reinit", "rule": "copy_previous", "preset": "reference_code"},
]


def in_words(options: dict[str, Any]) -> str:
    return "-".join(str(value) for value in options.values())


EVERY_STRATEGY = pytest.mark.parametrize("options", VARIANTS, ids=in_words)


# ---- the contract -------------------------------------------------------------------------------
@EVERY_STRATEGY
def test_work_after_iterations_and_notices_use_the_worlds_verbs(options):
    strategy, world = strategy_of(**options), WorldOnPaper()
    for iteration in (1, 99, 100, 101, 200):
        assert result_of(strategy.after_iteration(world, start_of(strategy).after(iteration))) is None
    strategy, world = strategy_of(**options), WorldOnPaper()
    strategy.on_notice(world, start_of(strategy).after(9))
    assert world.now_seconds == 0.0


@EVERY_STRATEGY
@pytest.mark.parametrize("stage", range(7))
def test_a_recovery_uses_the_worlds_verbs_and_never_goes_ahead(options, stage):
    """Also not to what it has kept ahead of where another strategy has gone back to, as happens to fallbacks."""
    is_fallback = STRATEGIES[options["kind"]].serves_as_fallback
    for kept_iteration in (0, 100, 200) if is_fallback else (0, 100):
        strategy, world = strategy_of(**options), WorldOnPaper()
        if kept_iteration:
            keep(strategy, world, start_of(strategy).after(kept_iteration))
        position = start_of(strategy).after(150)
        world.lose(stage)
        recovered = rebuild(strategy, world, position)
        if not isinstance(recovered, UnrecoverableError):
            assert recovered.iteration <= position.iteration
            assert recovered.lineage.spec == position.lineage.spec
            assert recovered.lineage.edits[: len(position.lineage.edits)] == position.lineage.edits


@EVERY_STRATEGY
@pytest.mark.parametrize("second", range(7))
@pytest.mark.parametrize("call", range(1, 6))
def test_a_second_failure_at_any_point_is_recovered_or_refused(options, second, call):
    strategy = strategy_of(**options)
    position = start_of(strategy).after(150)
    world = WorldOnPaper(failures={call: second}, lost=[3])
    recovered = rebuild(strategy, world, position)
    struck = call in range(1, world.num_calls + 1)
    both_at_once = rebuild(strategy_of(**options), WorldOnPaper(lost=[3, second] if struck else [3]), position)
    assert type(recovered) is type(both_at_once)
    if isinstance(recovered, Position):
        assert recovered == both_at_once
        assert not struck or world.num_calls > call  # a struck step is done again


LAGGING = {"latency_ms": 1000.0, "bandwidth_mbit_per_s": 0.01}
SLOW_NETWORK = {"same_region": LAGGING, "storage": LAGGING, "negligible_seconds": 1e4}
"""Seconds for a stage's state; activations are left aside."""


def run_of(options: dict[str, Any], script: dict[int, tuple[float, ...]], **others: Any) -> Run:
    """Six stages on a slow network, where every step of a recovery takes a while."""
    scenario = a_scenario((options,), num_stages=6, network=SLOW_NETWORK, **{"fallback": "restart", **others})
    return run(scripted(scenario, script))


def is_complete(result: Run) -> bool:
    booked = math.fsum(result.ledger.values()) == pytest.approx(result.wall_clock_seconds, rel=1e-9)
    return booked and result.stopped is None and result.num_iterations == 20


@EVERY_STRATEGY
@pytest.mark.parametrize("second", [0, 1, 2, 3, 5, 6])
def test_a_run_survives_a_second_failure_at_any_time(options, second):
    for after_seconds in (0.0, 5.0, 10.0, 14.0, 15.0, 15.5, 23.0, 100.0):
        script = {3: (250.0,), second: (250.0 + after_seconds,)} if second != 3 else {3: (250.0, after_seconds)}
        result = run_of(options, script)
        assert len(of_kind(result, "failure", "node_lost")) == 2
        assert is_complete(result)


@EVERY_STRATEGY
def test_runs_end_once_nothing_fails_and_repeat_by_their_seed(options):
    result = run_of(options, {stage: (7.0 + stage,) * 100 for stage in range(7)})
    num_strikes = len(of_kind(result, "failure", "node_lost"))
    assert num_strikes == 700 if options["kind"] != "none" else num_strikes > 300
    assert is_complete(result)
    failures = {"kind": "exponential", "rate_per_hour": 0.5, "immune_stages": (0,)}
    scenario = a_scenario((options,), num_stages=6, steps=100, failures=failures, fallback="restart")
    first, again, other = run(scenario, seed=2), run(scenario, seed=2), run(scenario, seed=4)
    assert first.num_failures > 0
    assert first == again
    assert first.events != other.events


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_strategy_has_a_name_and_says_what_it_does(kind):
    strategy = strategy_of(kind, label="mine")
    assert strategy.name == "mine"
    assert strategy_of(kind).name == strategy.kind == kind
    assert strategy.summary


def test_those_that_serve_as_fallbacks_recover_everything():
    served = {kind for kind, strategy in STRATEGIES.items() if strategy.serves_as_fallback}
    assert served >= {"checkpoint", "restart"}
    for options in ({"kind": kind} for kind in served):
        assert recovered_by(options) == set(LOSSES)


def test_a_checkpoint_ahead_of_a_rollback_is_not_used():
    """Copies of iteration 10, a checkpoint of 14; back to 10 in the 17th; in the 12th stage 3 is lost with its copy."""
    options = {"kind": "neighbour_checkpoint", "interval_iterations": 10}
    fallback = {"kind": "checkpoint", "interval_iterations": 7, "blocking_share": 0.0}
    struck = 16.5 * 27
    script = {1: (struck,), 3: (struck + 100,), 4: (struck + 100,)}
    result = run_of(options, script, fallback=fallback)
    first, second = of_kind(result, "rolled_back")[0], of_kind(result, "recovered")[1]
    assert (first.detail, first.iteration) == ("to iteration 10", 16)
    assert len(of_kind(result, "fallback")) == 1
    assert second.iteration == 7  # the one before, which the store keeps too
    assert is_complete(result)


def test_exact_recoveries_and_the_beginning_stay_on_the_way():
    start = start_of(strategy_of("checkfree"))
    edited = rebuild(strategy_of("checkfree"), WorldOnPaper(lost=[3]), start.after(9))
    assert edited != start.after(9)
    assert beginning_of(edited) == beginning_of(start.after(9)) == start
    assert edited.descends_from(start)
    assert not start.after(8).descends_from(edited)
    for kind, stages in (("redundant", (0, 2, 4)), ("checkfree_plus", (0,))):
        strategy = strategy_of(kind)
        position = start_of(strategy).after(9)
        assert rebuild(strategy, WorldOnPaper(lost=stages), position) == position


# ---- what can be recovered ------------------------------------------------------------------------

LOSSES = {
    "two apart": (2, 4),
    "two adjacent": (3, 4),
    "three adjacent": (3, 4, 5),
    "first": (1,),
    "last": (6,),
    "first and last": (1, 6),
    "ends": (0,),
    "ends and first": (0, 1),
    "ends and last": (0, 6),
    "ends and another": (0, 3),
    "all": tuple(range(7)),
}
MANY = {"three adjacent", "all"}
ALONE = set(LOSSES) - MANY - {"two adjacent", "ends and first", "ends and last"}
LAYERS_ONLY = {"two apart", "two adjacent", "three adjacent", "first", "last", "first and last"}
RECOVERED: list[tuple[dict[str, Any], set[str]]] = [
    ({"kind": "none"}, set(LOSSES)),
    ({"kind": "restart"}, set(LOSSES)),
    ({"kind": "checkpoint"}, set(LOSSES)),
    ({"kind": "checkpoint", "interval_iterations": 2, "local_gib_per_s": 1e-5}, set(LOSSES)),
    ({"kind": "checkpoint", "interval": "young"}, set(LOSSES)),
    ({"kind": "checkpoint", "interval": "adaptive", "just_in_time": True}, set(LOSSES)),
    ({"kind": "neighbour_checkpoint"}, ALONE),
    ({"kind": "neighbour_checkpoint", "num_copies": 2}, set(LOSSES) - MANY),
    ({"kind": "neighbour_checkpoint", "num_copies": 3}, set(LOSSES) - {"all"}),
    ({"kind": "neighbour_checkpoint", "interval_iterations": 100}, set(LOSSES)),  # there is nothing yet: drawn again
    ({"kind": "peer"}, set()),
    ({"kind": "redundant"}, ALONE),
    ({"kind": "redundant", "preset": "bamboo"}, ALONE),
    ({"kind": "redundant", "preset": "bamboo_lazy"}, ALONE),
    ({"kind": "redundant", "preset": "bamboo_forward_and_backward"}, ALONE),
    ({"kind": "checkfree"}, {"two apart"}),
    ({"kind": "checkfree", "preset": "reference_code"}, LAYERS_ONLY),
    (
        {"kind": "checkfree", "preset": "reference_code_first_commit"},
        {"two apart", "two adjacent", "three adjacent"},
    ),
    ({"kind": "checkfree_plus"}, ALONE),
    ({"kind": "checkfree_plus", "preset": "reference_code"}, set(LOSSES) - {"ends and first", "ends and last", "all"}),
    ({"kind": "checkfree_hybrid"}, set(LOSSES)),
    ({"kind": "checkfree_hybrid", "interval_iterations": 2, "rebuild_from": "checkpoint"}, set(LOSSES)),
    ({"kind": "reinit", "rule": "random"}, set(LOSSES)),
    ({"kind": "reinit", "rule": "uniform_average"}, {"two apart"}),
    ({"kind": "reinit", "rule": "uniform_average", "preset": "reference_code"}, LAYERS_ONLY),
    ({"kind": "reinit", "rule": "copy_previous"}, {"two apart", "last"}),
    ({"kind": "reinit", "rule": "copy_previous", "preset": "reference_code"}, LAYERS_ONLY),
]


def recovered_by(options: dict[str, Any]) -> set[str]:
    """The losses, in the middle of an iteration, that a strategy recovers without its fallback."""
    recovered = set()
    for name, stages in LOSSES.items():
        result = run_of(options, dict.fromkeys(stages, (250.0,)))
        assert is_complete(result)
        if not of_kind(result, "fallback"):
            recovered.add(name)
    return recovered


IN_TABLE = {options["kind"] for options, _ in RECOVERED}
NOT_IN_TABLE: list[tuple[dict[str, Any], None]] = [
    ({"kind": kind}, None) for kind in STRATEGIES if kind not in IN_TABLE
]
"""Their runs must be complete, whatever they recover."""


@pytest.mark.parametrize(("options", "losses"), [*RECOVERED, *NOT_IN_TABLE])
def test_what_each_strategy_recovers_without_its_fallback(options, losses):
    recovered = recovered_by(options)
    assert losses is None or recovered == losses


# ---- options ----------------------------------------------------------------------------------------
def test_an_option_given_with_a_preset_wins():
    config = STRATEGIES["checkfree"].Config(preset="reference_code", learning_rate_factor=1.2)
    assert (config.norm_exponent, config.learning_rate_factor) == (1.0, 1.2)
    redundant = STRATEGIES["redundant"].Config(preset="paper_table2", shadow_forwards=0.5)
    assert (redundant.microbatch_size_factor, redundant.shadow_forwards) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("kind", "options", "num_stages", "complaint"),
    [
        ("checkfree", {}, 2, "at least 3 stages"),
        ("checkfree_plus", {}, 3, "at least 4 stages"),
        ("checkpoint", {"interval_iterations": 5, "interval_seconds": 60.0}, 4, "give one of"),
        ("checkpoint", {"interval_iterations": 5, "interval": "young"}, 4, "give one of"),
        ("checkpoint", {"mtbf_hours": 5.0}, 4, "mtbf_hours goes with interval"),
        ("neighbour_checkpoint", {"num_copies": 5}, 4, "at most 4"),
        ("redundant", {"microbatch_size_factor": 0.3}, 4, "whole ones"),
        ("neighbour_checkpoint", {"num_copies": 6}, 6, None),
        ("redundant", {}, 6, None),
    ],
)
def test_impossible_options_are_explained_in_a_sentence(kind, options, num_stages, complaint):
    strategy, workload = STRATEGIES[kind], a_scenario(num_stages=num_stages).workload
    found = strategy.check(strategy.Config(**options), workload)
    assert found is None if complaint is None else complaint in found
    assert strategy.check(strategy.Config(), a_scenario(num_stages=6).workload) is None
