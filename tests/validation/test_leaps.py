"""Time in which nothing happens passes in leaps: every result is that of event after event, to the bit."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.core.ledger import IterationSplit, Ledger, exact_sum
from sim.core.records import IterationRecord
from sim.results.storage import records_table
from sim.results.summary import summarise
from sim.scenario.checks import strategies_support_sharding
from sim.scenario.scenario import Scenario
from sim.simulation.fast_forward import next_action
from sim.simulation.interruptible import InterruptibleWork
from sim.simulation.iterations import IterationExecutor
from sim.simulation.log import IterationLog
from sim.simulation.run import Run, simulate
from sim.simulation.transfers import StateTransfers
from sim.strategies import STRATEGIES, Strategy
from support.builders import BYTES_PER_SECOND, a_link, a_scenario, a_training, no_training, run
from support.examples import examples
from support.strategy_options import STRATEGY_OPTIONS

ITERATION_SECONDS = 21.0
MEAN = {"mean_uptime_hours": 0.4}
FAILURES: list[dict[str, Any]] = [
    {"kind": "never"},
    {"kind": "exponential", **MEAN},
    {"kind": "exponential", "scope": "node", **MEAN, "notice_seconds": 30.0},
    {"kind": "weibull", "scope": "node", **MEAN, "downtime": {"mean_hours": 0.05}},
    {"kind": "diurnal", "scope": "stage", **MEAN},
    {"kind": "bernoulli", "per_iteration_probability": 0.02},
    {"kind": "bulk", "mean_uptime_hours": 1.0, "notice_seconds": 45.0},
    {"kind": "compose", "processes": ({"kind": "exponential", **MEAN}, {"kind": "bernoulli"})},
]
SHARDED = {"stage_state": "sharded", "startup_seconds": 5.0, "detection_seconds": 3.5, "provisioning_seconds": 70.0}
CLUSTERS: list[dict[str, Any]] = [
    {"detection_seconds": 10.0, "startup_seconds": 5.0},
    {"nodes_per_stage": 2, "provisioning_seconds": 70.0, "num_spares": 1, "startup_seconds": 5.0},
    {"nodes_per_stage": 2, "provisioning_seconds": 300.0, "provisioning_sigma": 0.5, "regroup_seconds": 3.0},
]


def at_an_end(number: int) -> float:
    """Ends of iterations, and of what follows a loss at one: detection, start."""
    return number // 3 * ITERATION_SECONDS + (0.0, 10.0, 15.0)[number % 3]


INTERVALS: list[dict[str, Any]] = [
    {"interval_iterations": 1},
    {"interval_iterations": 5},
    {"interval_seconds": 100.0},
    {"interval_seconds": 84.0},
    {"interval": "young"},
    {"interval": "daly", "mtbf_hours": 1.0},
    {"interval": "adaptive"},
]


@st.composite
def scripts(draw) -> dict[str, Any]:
    """Losses at whole halves of seconds, many of them at the very end of an iteration or a recovery."""
    times = st.one_of(st.integers(0, 4000).map(lambda number: number / 2), st.integers(1, 60).map(at_an_end))
    losses = [{"at_seconds": at, "stages": (draw(st.integers(0, 4)),)} for at in draw(st.lists(times, max_size=8))]
    return {"kind": "script", "losses": tuple(losses), "notice_seconds": draw(st.sampled_from([0.0, 10.5]))}


@st.composite
def scenarios(draw) -> Scenario:
    """Iterations of 21 s, which uploads take part of a second or several iterations beside."""
    hop_seconds = draw(st.sampled_from([0.0, 0.5]))
    storage = a_link(0.0, draw(st.sampled_from([500.0, 10_000.0])))
    sharing = draw(st.sampled_from(["node_pair", "none"]))
    return a_scenario(
        (draw(st.sampled_from(STRATEGY_OPTIONS)),),
        steps=draw(st.sampled_from([5, 60])),
        sequence_length=1,
        sequences_per_microbatch=2,
        network={"same_region": a_link(hop_seconds), "storage": storage, "sharing": sharing},
        cluster=draw(st.sampled_from(CLUSTERS)),
        failures=draw(st.one_of(st.sampled_from(FAILURES), scripts())),
        fallback=draw(st.sampled_from(["stop", "restart", {"kind": "checkpoint", "interval_iterations": 4}])),
        iterations_per_step=draw(st.sampled_from([1, 3])),
    )


def is_possible(scenario: Scenario) -> bool:
    config = scenario.strategies[0]
    return STRATEGIES[config.kind].check(config, scenario.workload) is None and not list(
        strategies_support_sharding(scenario)
    )


@st.composite
def fleets(draw) -> Scenario:
    """Nodes that hold shares of their stage's state, under checkpointing of all sorts."""
    share, interval = draw(st.sampled_from([1.0, 1.0, 0.5])), draw(st.sampled_from(INTERVALS))
    just_in_time = draw(st.booleans())
    checkpoint = {"kind": "checkpoint", "blocking_share": share, "just_in_time": just_in_time, **interval}
    cluster = {**SHARDED, "nodes_per_stage": draw(st.integers(1, 4)), "num_spares": draw(st.sampled_from([0, 2, 50]))}
    notice = {"notice_seconds": draw(st.sampled_from([0.0, 0.0, 40.0]))}
    process = st.sampled_from([{"kind": "poisson", "mean_uptime_hours": mean, **notice} for mean in (1.0, 10.0, 50.0)])
    return a_scenario(
        (draw(st.sampled_from([checkpoint, checkpoint, {"kind": "restart"}, {"kind": "none"}])),),
        steps=draw(st.sampled_from([5, 100])),
        network={"same_region": a_link(0.5), "storage": a_link(0.1, draw(st.sampled_from([1000.0, 40_000.0])))},
        cluster=cluster,
        failures=draw(st.one_of(process, st.sampled_from(FAILURES), scripts())),
        fallback=draw(st.sampled_from(["stop", "restart", {"kind": "checkpoint", "interval_iterations": 4}])),
    )


def event_after_event(scenario: Scenario, seed: int = 0) -> Run:
    with (
        patch.object(IterationExecutor, "time_in_leaps", lambda *_: None),
        patch.object(InterruptibleWork, "skip", lambda *_: False),
        patch.object(StateTransfers, "has_idle_links", False),
    ):
        return run(scenario, seed=seed, training=no_training(scenario))


def in_leaps(scenario: Scenario, seed: int = 0) -> Run:
    return run(scenario, seed=seed, training=no_training(scenario))


@st.composite
def fleets_that_save(draw) -> Scenario:
    """Fleets that stand still to save, from hardly ever a failure to failures all the time."""
    checkpoint = {"kind": "checkpoint", "blocking_share": 1.0, **draw(st.sampled_from(INTERVALS[:-1]))}
    cluster = {
        **SHARDED,
        "nodes_per_stage": draw(st.integers(1, 4)),
        "num_spares": draw(st.sampled_from([0, 1, 20])),
        "provisioning_seconds": draw(st.sampled_from([0.0, 70.0, 1000.0])),
        "detection_seconds": draw(st.sampled_from([0.0, 10.0])),
        "regions": draw(st.sampled_from([("a",), ("a", "b")])),
    }
    hours, immune = draw(st.sampled_from([0.3, 1.0, 10.0, 50.0])), draw(st.sampled_from([(), (0, 2)]))
    network = {"same_region": a_link(0.5), "storage": a_link(0.1, draw(st.sampled_from([500.0, 40_000.0])))}
    scenario = a_scenario(
        (checkpoint,),
        steps=draw(st.sampled_from([5, 100])),
        network={**network, "links": (("a", "b", 1.0, 1.0),)},
        cluster=cluster,
        failures={"kind": "poisson", "mean_uptime_hours": hours, "immune_stages": immune},
    )
    return scenario.model_copy(update={"give_up_after": draw(st.sampled_from([20.0, 1.5]))})


@pytest.mark.parametrize(
    "kind", [scenarios().filter(is_possible), fleets(), fleets_that_save()], ids=["any", "fleets", "saves"]
)
@settings(max_examples=examples(15, 60))
@given(st.data(), st.integers(0, 1000))
def test_leaps_change_no_bit(kind, data, seed):
    scenario = data.draw(kind)
    # The limit of 1 is the very end of the last iteration, and 1.5 often that of another one.
    limit = data.draw(st.sampled_from([scenario.give_up_after, 1.0, 1.5]))
    scenario = scenario.model_copy(update={"give_up_after": limit})
    slow, quick = event_after_event(scenario, seed), in_leaps(scenario, seed)
    assert quick == slow
    assert summarise(scenario, quick) == summarise(scenario, slow)
    assert list(quick.iterations) == list(slow.iterations)


def test_watchers_and_runs_without_failures_see_leaps_as_before():
    checkpoint = {"kind": "checkpoint", "blocking_share": 1.0}
    scenario = a_scenario((checkpoint,), steps=1000, cluster={**SHARDED, "nodes_per_stage": 4})
    seen = []
    simulate(scenario, scenario.strategies[0], 0, 0, no_training(scenario), seen.append)
    assert [progress.iteration for progress in seen][-1] == 1000
    assert len(seen) <= 2
    scenario = a_scenario(steps=7)
    assert isinstance(run(scenario, training=a_training(scenario)).iterations, list)
    assert in_leaps(scenario).wall_clock_seconds == 7 * ITERATION_SECONDS


@pytest.mark.parametrize("options", STRATEGY_OPTIONS, ids=str)
def test_at_a_tie_the_failure_wins(options):
    times = (2 * ITERATION_SECONDS, 2 * ITERATION_SECONDS + 10.0, 10 * ITERATION_SECONDS + 25.0, 20 * ITERATION_SECONDS)
    losses = tuple({"at_seconds": seconds, "stages": (2,)} for seconds in times)
    scenario = a_scenario(
        (options,),
        steps=60,
        sequences_per_microbatch=2,
        failures={"kind": "script", "losses": losses},
        fallback="restart",
    )
    assert in_leaps(scenario) == event_after_event(scenario)


@pytest.mark.parametrize("options", STRATEGY_OPTIONS, ids=str)
def test_seconds_do_not_depend_on_the_learner(options):
    failures = {"kind": "exponential", "scope": "node", "mean_uptime_hours": 0.5}
    scenario = a_scenario((options,), cluster=CLUSTERS[1], failures=failures, fallback="restart", steps=30)
    learnt, timed = run(scenario), in_leaps(scenario)
    unlearnt = [replace(one, lineage="", train_loss=None, validation_loss=None) for one in learnt.iterations]
    assert [replace(one, lineage="") for one in timed.iterations] == unlearnt
    assert replace(timed, iterations=[]) == replace(learnt, iterations=[])


def num_events(scenario: Scenario) -> int:
    calls = 0
    step = InterruptibleWork.wait_until

    def counted(self, *arguments):
        nonlocal calls
        calls += 1
        return (yield from step(self, *arguments))

    with patch.object(InterruptibleWork, "wait_until", counted):
        in_leaps(scenario)
    return calls


@pytest.mark.parametrize("failures", [{"kind": "never"}, {"kind": "exponential", "mean_uptime_hours": 100.0}])
@pytest.mark.parametrize(
    "options",
    [
        {"kind": "none"},
        {"kind": "checkpoint", "interval_iterations": 1000, "blocking_share": 1.0},
        {"kind": "redundant"},
        {"kind": "checkfree_plus"},
    ],
    ids=str,
)
def test_what_happens_takes_events_and_iterations_take_none(options, failures):
    long = a_scenario((options,), steps=20_000, failures=failures, sequences_per_microbatch=2)
    result = in_leaps(long)
    assert result.num_iterations == 20_000
    assert num_events(long) <= 20 * (1 + len(result.events))
    assert isinstance(result.iterations, IterationLog)
    assert len(result.iterations.stretches) <= 1 + 3 * len(result.events)


def test_an_external_strategy_is_called_after_each_iteration():
    class Outsider(STRATEGIES["checkfree_plus"]):
        def after_iteration(self, world, position):
            yield from ()
            return None

    class Quiet(Strategy):
        def recover(self, world, failure, position):
            yield from ()
            return position

    config = STRATEGIES["checkfree_plus"].Config()
    assert next_action(Outsider(config, 4), None, None, 1.0) == 1
    assert next_action(STRATEGIES["checkfree_plus"](config, 4), None, None, 1.0) == math.inf
    assert next_action(Quiet(config, 4), None, None, 1.0) == math.inf


# ---- what is kept of them -----------------------------------------------------------------------------
def a_long_run() -> tuple[Scenario, Run]:
    checkpoint = {"kind": "checkpoint", "interval_iterations": 7, "blocking_share": 1.0}
    network = {"same_region": a_link(), "storage": {"latency_ms": 0.0, "bandwidth_mbit_per_s": 1e4 * BYTES_PER_SECOND}}
    failures = {"kind": "exponential", "mean_uptime_hours": 2.0}
    scenario = a_scenario((checkpoint,), steps=300, network=network, failures=failures, iterations_per_step=2)
    return scenario, in_leaps(scenario)


def test_the_log_reads_like_a_list_and_gives_the_same_file(tmp_path: Path):
    scenario, result = a_long_run()
    assert isinstance(result.iterations, IterationLog)
    assert result.num_failures > 3
    records = list(result.iterations)
    assert (result.iterations[3], result.iterations[-1]) == (records[3], records[-1])
    assert result.iterations[2:5] == records[2:5]
    assert result.iterations == records
    assert result.iterations != records[1:]
    assert [one.execution for one in records] == executions([one.iteration for one in records])
    assert summarise(scenario, result)["num_iterations_rerun"] == sum(one.execution > 1 for one in records) > 0
    assert list(IterationLog()) == []
    pq.write_table(records_table(result.iterations, IterationRecord), tmp_path / "log.parquet")
    pq.write_table(records_table(records, IterationRecord), tmp_path / "list.parquet")
    assert (tmp_path / "log.parquet").read_bytes() == (tmp_path / "list.parquet").read_bytes()
    table = pq.read_table(tmp_path / "log.parquet")
    assert table.schema.field("train_loss").type == pa.float64()
    assert table.num_rows == len(records) > 600


def executions(iterations: list[int]) -> list[int]:
    return [iterations[: index + 1].count(iteration) for index, iteration in enumerate(iterations)]


seconds = st.floats(0.0, 1e9)


@given(st.lists(st.tuples(seconds, st.integers(0, 200)), max_size=5))
def test_equal_seconds_add_up_as_if_one_by_one(pairs):
    assert exact_sum(pairs) == math.fsum(each for each, num in pairs for _ in range(num))


@given(st.lists(st.tuples(st.sampled_from([0.1, 3.3, 1e-9]), st.integers(1, 20), st.integers(0, 30)), max_size=8))
def test_the_ledger_is_that_of_iterations_one_by_one(story):
    many, one_by_one = Ledger(), Ledger()
    num_kept = 0
    for each_seconds, num, num_undone in story:
        split = IterationSplit(each_seconds, 0.1, 0.7 * each_seconds)
        many.complete_iteration(split, num)
        for _ in range(num):
            one_by_one.complete_iteration(split)
        num_kept = max(0, num_kept + num - num_undone)
        many.roll_back(num_kept)
        one_by_one.roll_back(num_kept)
    assert many.buckets() == one_by_one.buckets()
