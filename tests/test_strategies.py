"""The contract of every registered strategy, and how each rebuilds what."""

import math
from collections.abc import Callable, Generator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import a_scenario, a_strategy, of_kind, run, scripted, start_of

from models.lineage import Edit, GradientNormWeights, Position, plain_routes
from sim.costs import Costs
from sim.records import Failure
from sim.simulation import Run
from sim.strategies import STRATEGIES, Strategy, UnrecoverableError
from sim.strategies.base import Transfer

EVERY_STRATEGY = pytest.mark.parametrize("kind", STRATEGIES)
NUM_STAGES = pytest.mark.parametrize("num_stages", [4, 6, 12])
Steps = Generator[Any, Any, Failure | None]


def strategy_of(kind: str, num_stages: int = 6, **options: object) -> Strategy:
    return a_strategy(STRATEGIES[kind].Config(**options), num_stages)


class WorldOnPaper:
    """All that a strategy may use, without an event loop: whoever yields here does so on their own account.

    `failures` strike in the calls of the given numbers (from 1); every call takes a second.
    """

    num_stages = 6

    def __init__(self, failures: dict[int, int] | None = None, lost: Sequence[int] = ()) -> None:
        scenario = a_scenario(num_stages=6)
        self.costs = Costs(scenario.workload, scenario.cluster.device)
        self.failures = failures or {}
        self.lost_stages = frozenset(lost)
        self.now_seconds = 0.0
        self.num_calls = 0
        self.transfers: list[Transfer] = []

    def attempt(self, seconds: float, bucket: str) -> Steps:
        yield from ()
        assert seconds >= 0.0
        self.num_calls += 1
        self.now_seconds += 1.0
        if self.num_calls not in self.failures:
            return None
        stage = self.failures[self.num_calls]
        self.lost_stages |= {stage}
        return Failure(self.now_seconds, stage)

    def transfer(self, transfers: Sequence[Transfer], bucket: str) -> Steps:
        self.transfers = list(transfers)
        return self.attempt(1.0, bucket)

    def bring_back_nodes(self) -> Steps:
        return self.attempt(15.0, "detection")

    def background(
        self, transfers: Sequence[Transfer], when_done: Callable[[], None], when_lost: Callable[[], None]
    ) -> SimpleNamespace:
        self.transfers = list(transfers)
        return SimpleNamespace(under_way=True, when_done=when_done)

    def wait_for(self, activity: SimpleNamespace, bucket: str) -> Steps:
        activity.under_way = False
        activity.when_done()
        return self.attempt(1.0, bucket)

    def record(self, kind: str, stage: int | None, iteration: int, detail: str = "") -> None:
        pass


def result_of(process: Generator[Any, Any, Any]) -> Any:
    """What a process returns. It may not yield: only the world's verbs let time pass."""
    try:
        next(process)
    except StopIteration as end:
        return end.value
    raise AssertionError("a strategy yielded by itself")


def rebuild(strategy: Strategy, world: WorldOnPaper, position: Position) -> Position | UnrecoverableError:
    """The Position after a recovery, or why there is none."""
    failure = Failure(0.0, min(world.lost_stages))
    try:
        return result_of(strategy.recover(world, failure, position))
    except UnrecoverableError as reason:
        return reason


# ---- the contract -------------------------------------------------------------------------------


@EVERY_STRATEGY
def test_routine_work_passes_time_by_the_worlds_verbs_only(kind):
    strategy, world = strategy_of(kind), WorldOnPaper()
    for iteration in (1, 99, 100, 101, 200):
        assert result_of(strategy.after_iteration(world, start_of(strategy).after(iteration))) is None


@EVERY_STRATEGY
@pytest.mark.parametrize("stage", range(7))
def test_a_recovery_passes_time_by_the_worlds_verbs_and_never_goes_ahead(kind, stage):
    strategy = strategy_of(kind)
    position = start_of(strategy).after(150)
    recovered = rebuild(strategy, WorldOnPaper(lost=[stage]), position)
    if not isinstance(recovered, UnrecoverableError):
        assert recovered.iteration <= position.iteration
        assert recovered.lineage.spec == position.lineage.spec
        assert recovered.lineage.edits[: len(position.lineage.edits)] == position.lineage.edits


@EVERY_STRATEGY
@pytest.mark.parametrize("second", range(7))
@pytest.mark.parametrize("call", range(1, 6))
def test_a_second_failure_at_any_point_of_a_recovery_is_recovered_too_or_refused(kind, second, call):
    strategy = strategy_of(kind)
    position = start_of(strategy).after(150)
    world = WorldOnPaper(failures={call: second}, lost=[3])
    recovered = rebuild(strategy, world, position)
    struck = call in range(1, world.num_calls + 1)
    both_at_once = rebuild(strategy_of(kind), WorldOnPaper(lost=[3, second] if struck else [3]), position)
    assert type(recovered) is type(both_at_once)
    if isinstance(recovered, Position):
        assert recovered == both_at_once
        assert not struck or world.num_calls > call  # a struck step is done again


LAGGING = {"latency_ms": 1000.0, "bandwidth_mbit_per_s": 0.01}
SLOW_NETWORK = {"same_region": LAGGING, "storage": LAGGING}


def run_of(kind: str, script: dict[int, tuple[float, ...]], **options: object) -> Run:
    """Six stages on a slow network, where every step of a recovery takes a while."""
    scenario = a_scenario(({"kind": kind, **options},), num_stages=6, network=SLOW_NETWORK, fallback="restart")
    return run(scripted(scenario, script))


def is_complete(result: Run) -> bool:
    booked = math.fsum(result.ledger.values()) == pytest.approx(result.wall_clock_seconds, rel=1e-9)
    return booked and result.stopped is None and result.num_iterations == 20


@EVERY_STRATEGY
@pytest.mark.parametrize("second", [0, 1, 2, 3, 5, 6])
def test_a_run_survives_a_second_failure_at_any_time(kind, second):
    for after_seconds in (0.0, 0.5, 9.9, 10.0, 10.1, 14.0, 15.0, 15.5, 16.0, 20.0, 30.0, 100.0):
        script = {3: (250.0,), second: (250.0 + after_seconds,)} if second != 3 else {3: (250.0, after_seconds)}
        result = run_of(kind, script)
        assert result.num_failures == 2
        assert is_complete(result)


@EVERY_STRATEGY
def test_a_run_ends_once_nothing_fails_any_more(kind):
    result = run_of(kind, {stage: (7.0 + stage,) * 100 for stage in range(7)})
    assert result.num_failures == 700 if kind != "none" else result.num_failures > 300
    assert is_complete(result)


@EVERY_STRATEGY
def test_equal_seeds_give_equal_runs(kind):
    failures = {"kind": "exponential", "rate_per_hour": 0.5, "immune_stages": (0,)}
    scenario = a_scenario(({"kind": kind},), num_stages=6, steps=100, failures=failures, fallback="restart")
    first, again, other = run(scenario, seed=2), run(scenario, seed=2), run(scenario, seed=4)
    assert first.num_failures > 0
    assert first == again
    assert first.events != other.events


@EVERY_STRATEGY
def test_a_strategy_has_a_name_and_says_what_it_does(kind):
    strategy = strategy_of(kind, label="mine")
    assert strategy.name == "mine"
    assert strategy_of(kind).name == strategy.kind == kind
    assert strategy.summary


# ---- what can be recovered ------------------------------------------------------------------------

LOSSES = {
    "two apart": (2, 4),
    "two adjacent": (3, 4),
    "first": (1,),
    "last": (6,),
    "first and last": (1, 6),
    "ends": (0,),
    "ends and first": (0, 1),
    "ends and last": (0, 6),
    "ends and another": (0, 3),
}
RECOVERABLE = {
    ("none", ""): set(LOSSES),
    ("restart", ""): set(LOSSES),
    ("checkpoint", ""): set(LOSSES),
    ("redundant", ""): set(LOSSES) - {"two adjacent", "ends and first", "ends and last"},
    ("checkfree", "paper"): {"two apart"},
    ("checkfree", "reference_code"): {"two apart", "two adjacent", "first", "last", "first and last"},
    ("checkfree_plus", "paper"): {"two apart", "first", "last", "first and last", "ends", "ends and another"},
    ("checkfree_plus", "reference_code"): set(LOSSES) - {"ends and first", "ends and last"},
}


@pytest.mark.parametrize("losses", LOSSES)
@pytest.mark.parametrize(("kind", "preset"), RECOVERABLE)
def test_what_each_strategy_recovers_without_its_fallback(kind, preset, losses):
    result = run_of(kind, dict.fromkeys(LOSSES[losses], (250.0,)), **({"preset": preset} if preset else {}))
    assert (not of_kind(result, "fallback")) == (losses in RECOVERABLE[kind, preset])
    assert is_complete(result)


def test_every_strategy_is_in_the_table_of_what_it_recovers():
    assert {kind for kind, _ in RECOVERABLE} == set(STRATEGIES)


@pytest.mark.parametrize("stages", [(1, 2), (5, 6), (6, 0), (0, 1)])
def test_redundant_loses_neighbours_anywhere_on_its_ring(stages):
    reason = rebuild(strategy := strategy_of("redundant"), WorldOnPaper(lost=stages), start_of(strategy).after(9))
    assert isinstance(reason, UnrecoverableError)


def test_exact_recoveries_change_nothing():
    for kind, stages in (("redundant", (0, 2, 4)), ("checkfree_plus", (0,))):
        strategy = strategy_of(kind)
        position = start_of(strategy).after(9)
        assert rebuild(strategy, WorldOnPaper(lost=stages), position) == position


# ---- how ------------------------------------------------------------------------------------------

PAPER = GradientNormWeights(exponent=2.0, after_clip=False, epsilon=0.0)
RELEASED = GradientNormWeights(exponent=1.0, after_clip=True, epsilon=1e-4)


def average(stage: int, weights: GradientNormWeights) -> Edit:
    return Edit(stage, "average", (stage - 1, stage + 1), weights, "fresh", 1.1, None)


def copy(stage: int, source: int) -> Edit:
    return Edit(stage, "copy", (source,), None, "fresh", 1.1, None)


@NUM_STAGES
def test_checkfree_of_the_paper_averages_inner_stages_and_refuses_the_ends(num_stages):
    strategy = strategy_of("checkfree", num_stages)
    for stage in range(2, num_stages):
        assert strategy.edits(frozenset({stage})) == [average(stage, PAPER)]
    for stage in (0, 1, num_stages):
        with pytest.raises(UnrecoverableError, match=f"stage {stage} "):
            strategy.edits(frozenset({stage}))


@NUM_STAGES
def test_checkfree_of_the_released_code_copies_the_ends(num_stages):
    strategy = strategy_of("checkfree", num_stages, preset="reference_code")
    for stage in range(2, num_stages):
        assert strategy.edits(frozenset({stage})) == [average(stage, RELEASED)]
    assert strategy.edits(frozenset({1, num_stages})) == [copy(1, 2), copy(num_stages, num_stages - 1)]
    with pytest.raises(UnrecoverableError, match="stage 0 "):
        strategy.edits(frozenset({0}))


@NUM_STAGES
@pytest.mark.parametrize(("preset", "weights"), [("paper", PAPER), ("reference_code", RELEASED)])
def test_checkfree_plus_copies_within_the_swapped_pairs_and_averages_the_others(num_stages, preset, weights):
    strategy = strategy_of("checkfree_plus", num_stages, preset=preset)
    twins = {1: 2, 2: 1, num_stages: num_stages - 1, num_stages - 1: num_stages}
    for stage in range(1, num_stages + 1):
        expected = copy(stage, twins[stage]) if stage in twins else average(stage, weights)
        assert strategy.edits(frozenset({stage})) == [expected]
    assert strategy.edits(frozenset({0})) == []


def test_neighbours_are_rebuilt_one_after_the_other_only_where_asked():
    released = strategy_of("checkfree", preset="reference_code")
    assert released.edits(frozenset({3, 4})) == [average(3, RELEASED), average(4, RELEASED)]
    with pytest.raises(UnrecoverableError, match="stage 3 is lost together with stage 4"):
        strategy_of("checkfree").edits(frozenset({3, 4}))


def test_the_pairs_of_checkfree_plus_do_not_depend_on_each_other():
    strategy = strategy_of("checkfree_plus", 4)
    assert strategy.edits(frozenset({2, 3})) == [copy(2, 1), copy(3, 4)]  # adjacent, yet each has its twin
    with pytest.raises(UnrecoverableError):
        strategy.edits(frozenset({1, 2}))


def test_options_reach_the_edit():
    options = {"norm_exponent": 0.0, "learning_rate_factor": 1.5, "learning_rate_half_life_steps": 10.0}
    (edit,) = strategy_of("checkfree", optimizer="average", **options).edits(frozenset({3}))
    assert edit == Edit(3, "average", (2, 4), GradientNormWeights(exponent=0.0), "average", 1.5, 10.0)


def test_an_option_beside_a_preset_wins():
    config = STRATEGIES["checkfree"].Config(preset="reference_code", learning_rate_factor=1.2)
    assert (config.norm_exponent, config.learning_rate_factor) == (1.0, 1.2)
    redundant = STRATEGIES["redundant"].Config(preset="paper_table2", shadow_forwards=0.5)
    assert (redundant.microbatch_size_factor, redundant.shadow_forwards) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("num_stages", "swapped"),
    [(4, (2, 1, 4, 3)), (6, (2, 1, 3, 4, 6, 5)), (12, (2, 1, 3, 4, 5, 6, 7, 8, 9, 10, 12, 11))],
)
def test_checkfree_plus_sends_every_other_microbatch_along_the_papers_route(num_stages, swapped):
    strategy = strategy_of("checkfree_plus", num_stages)
    assert strategy.training_variant() == (tuple(range(1, num_stages + 1)), swapped)


@pytest.mark.parametrize("kind", sorted(set(STRATEGIES) - {"checkfree_plus"}))
def test_other_strategies_train_on_plain_routes(kind):
    assert strategy_of(kind).training_variant() == plain_routes(6) == ((1, 2, 3, 4, 5, 6),)


def test_who_sends_what_to_rebuild_a_stage():
    world = WorldOnPaper(lost=[3])
    weights, checkpoint = world.costs.weight_bytes(3), world.costs.checkpoint_bytes(3)

    def transfers(kind: str, *lost: int, **options: object) -> list[Transfer]:
        strategy, world = strategy_of(kind, **options), WorldOnPaper(lost=lost)
        rebuild(strategy, world, start_of(strategy).after(9))
        return world.transfers

    assert transfers("checkfree", 3) == [Transfer(2, 3, weights), Transfer(4, 3, weights)]
    assert transfers("checkfree", 3, optimizer="average") == [Transfer(2, 3, checkpoint), Transfer(4, 3, checkpoint)]
    assert transfers("redundant", 3) == [Transfer(2, 3, checkpoint), Transfer(4, 3, checkpoint)]
    half = world.costs.checkpoint_bytes(0) / 2
    assert transfers("checkfree_plus", 1) == [Transfer(2, 1, weights), Transfer(0, 1, half)]
    assert transfers("checkfree_plus", 2) == [Transfer(1, 2, weights)]
    assert transfers("checkfree_plus", 0) == [Transfer(1, 0, half), Transfer(6, 0, half)]


@pytest.mark.parametrize(
    ("kind", "options", "num_stages", "complaint"),
    [
        ("checkfree", {}, 2, "at least 3 stages"),
        ("checkfree_plus", {}, 3, "at least 4 stages"),
        ("checkpoint", {"interval_iterations": 5, "interval_seconds": 60.0}, 4, "not both"),
        ("redundant", {"microbatch_size_factor": 0.3}, 4, "whole ones"),
    ],
)
def test_impossible_options_are_told_in_a_sentence(kind, options, num_stages, complaint):
    workload = a_scenario(num_stages=num_stages).workload
    assert complaint in STRATEGIES[kind].check(STRATEGIES[kind].Config(**options), workload)
    assert STRATEGIES[kind].check(STRATEGIES[kind].Config(), a_scenario(num_stages=6).workload) is None
