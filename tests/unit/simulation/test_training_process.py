"""The training process: what a run records, and what checkpoints, rollbacks and fallbacks cost."""

import itertools
import math

import pytest

from sim.simulation.run import Run, simulate
from sim.simulation.training_process import Progress
from sim.strategies import STRATEGIES
from support.builders import CHECKPOINT_BYTES, a_link, a_scenario, a_training, of_kind, run, scripted, times
from support.examples import examples

EVERY_KIND = tuple({"kind": kind} for kind in STRATEGIES)
CHURN = {"kind": "exponential", "rate_per_hour": 0.5}
ITERATION = 21.0
RECOVERY = 15.0  # 10 s to detect, 5 s to start


def rollbacks(result: Run) -> list[str]:
    return [event.detail for event in of_kind(result, "rolled_back")]


def iterations(result: Run) -> list[int]:
    return [record.iteration for record in result.iterations]


# ---- equal arguments, equal runs; equal seeds, equal failures ---------------------------------------
def test_runs_do_not_depend_on_the_order_of_strategies():
    scenario = a_scenario(EVERY_KIND, steps=300, failures=CHURN, fallback="restart")
    alone = [run(scenario, index, seed=1) for index in range(len(EVERY_KIND))]
    assert all(result.num_failures for result in alone)
    training = a_training(scenario)  # shared, as in a scenario's runs
    for index in reversed(range(len(EVERY_KIND))):
        assert simulate(scenario, scenario.strategies[index], 1, 0, training) == alone[index]


@pytest.mark.parametrize("seed", range(examples(2, 5)))
@pytest.mark.parametrize("cluster", [{"detection_seconds": 10.0}, {"provisioning_seconds": 900.0, "num_spares": 1}])
def test_all_strategies_have_the_same_failures(seed, cluster):
    scenario = a_scenario(EVERY_KIND, num_stages=6, steps=150, failures=CHURN, cluster=cluster, fallback="restart")
    runs = [run(scenario, index, seed) for index in range(len(EVERY_KIND))]
    for one, other in itertools.combinations(runs, 2):
        until_seconds = min(one.wall_clock_seconds, other.wall_clock_seconds)
        met = [
            [
                (event.time_seconds, event.stage)
                for event in of_kind(result, "failure", "node_lost")  # where pipelines are recut, a node may idle
                if event.time_seconds < until_seconds
            ]
            for result in (one, other)
        ]
        assert met[0] == met[1]
    assert any(result.num_failures for result in runs)


@pytest.mark.parametrize("instant", ["uniform", "start"])
def test_every_strategy_has_a_failure_in_the_same_iterations(instant):
    """Where failures are drawn by iteration, whatever is executed again."""
    failures = {"kind": "bernoulli", "per_iteration_probability": 0.01, "instant": instant}
    strategies = (*EVERY_KIND, {"kind": "redundant", "label": "carries_on", "preset": "bamboo"})
    scenario = a_scenario(strategies, num_stages=6, steps=100, failures=failures, fallback="restart")
    scenario = scenario.model_copy(update={"give_up_after": 1000.0})
    found = []
    for index in range(len(strategies)):
        result = run(scenario, index, seed=1)
        assert result.stopped is None
        found.append(sorted((event.iteration, event.stage) for event in of_kind(result, "failure")))
    assert len(found[0]) > 3
    assert all(each == found[0] for each in found)


# ---- what is recorded -------------------------------------------------------------------------------
def test_a_failure_free_run_records_every_iteration_once():
    result = run(a_scenario(steps=12, evaluation_interval=5))
    assert iterations(result) == list(range(1, 13))
    assert [record.ended_seconds for record in result.iterations] == [ITERATION * n for n in range(1, 13)]
    assert [record.started_seconds for record in result.iterations] == [ITERATION * n for n in range(12)]
    assert {record.execution for record in result.iterations} == {1}
    assert all(record.train_loss is not None for record in result.iterations)
    assert [record.iteration for record in result.iterations if record.validation_loss] == [5, 10, 12]
    assert (result.wall_clock_seconds, result.num_iterations, result.stopped) == (252.0, 12, None)
    seen: list[Progress] = []
    scenario = a_scenario(steps=7)
    simulate(scenario, scenario.strategies[0], 0, 0, a_training(scenario), seen.append)
    assert [progress.iteration for progress in seen] == list(range(1, 8))
    assert {progress.num_iterations for progress in seen} == {7}


def test_failures_without_effect_are_counted_and_cost_nothing():
    result = run(scripted(a_scenario(steps=12), {1: (30.0,), 2: (30.0,), 0: (100.0,)}))
    assert result.num_failures == 3
    assert result.wall_clock_seconds == 12 * ITERATION
    assert result.ledger["lost_work"] == 0.0
    config = {"kind": "checkpoint", "interval_iterations": 5, "blocking_share": 1.0}
    scenario = a_scenario((config,), upload_seconds=50.0)
    with_failures, training = scripted(scenario, {1: (30.0,)}), a_training(scenario)
    result = simulate(with_failures, with_failures.strategies[0], 0, 0, training, stops_on_failures=False)
    assert result.num_failures == 1
    assert result.wall_clock_seconds == run(scenario).wall_clock_seconds == 20 * ITERATION + 4 * 50.0


def test_what_is_sent_beside_the_iterations_is_counted():
    config = {"kind": "checkpoint", "interval_iterations": 5, "blocking_share": 0.4}
    result = run(scripted(a_scenario((config,), upload_seconds=50.0), {2: (8.5 * ITERATION,)}))
    # 5, 10, 15, 20 and the download of 5, five stages each
    assert result.sent_bytes == pytest.approx(5 * (4 + 1) * CHECKPOINT_BYTES)
    assert run(a_scenario()).sent_bytes == 0.0


def test_iterations_cut_or_rolled_back_run_again_and_count():
    result = run(scripted(a_scenario(({"kind": "redundant"},)), {2: (50.0,)}))
    seconds = result.iteration_seconds
    completed = int(50.0 // seconds)
    assert iterations(result) == list(range(1, 21))
    assert result.ledger["lost_work"] == pytest.approx(50.0 - completed * seconds)
    assert result.iterations[completed].started_seconds == 50.0 + RECOVERY
    assert [event.kind for event in result.events] == ["failure", "recovered"]
    assert times(result.events) == [50.0, 50.0 + RECOVERY]
    config = {"kind": "checkpoint", "interval_iterations": 5}
    result = run(scripted(a_scenario((config,)), {2: (8.5 * ITERATION,)}))
    assert iterations(result) == [1, 2, 3, 4, 5, 6, 7, 8, *range(6, 21)]
    assert [record.execution for record in result.iterations if record.iteration in (5, 6, 8, 9)] == [1, 1, 1, 2, 2, 1]
    assert rollbacks(result) == ["to iteration 5"]
    assert result.ledger["lost_work"] == 3.5 * ITERATION
    first, second = (record for record in result.iterations if record.iteration == 7)
    assert (first.train_loss, first.lineage) == (second.train_loss, second.lineage)


def test_rebuilding_starts_another_lineage_within_a_step_too():
    result = run(scripted(a_scenario(({"kind": "checkfree"},)), {2: (8.5 * ITERATION,)}))
    assert iterations(result) == list(range(1, 21))
    before, after = {r.lineage for r in result.iterations[:8]}, {r.lineage for r in result.iterations[8:]}
    assert len(before) == len(after) == 1
    assert before != after
    scenario = a_scenario(({"kind": "checkfree"},), steps=6, iterations_per_step=7)
    result = run(scripted(scenario, {2: (23.5 * ITERATION,)}))
    undisturbed = run(scripted(scenario, {}))
    assert iterations(result) == iterations(undisturbed) == list(range(1, 43))
    changed = [
        r.iteration for r, u in zip(result.iterations, undisturbed.iterations, strict=True) if r.lineage != u.lineage
    ]
    assert changed == list(range(24, 43))


# ---- steps of the proxy that stand for several iterations ---------------------------------------------
@pytest.mark.parametrize("interval", [1, 5, 10, 16])
def test_seven_iterations_a_step_with_checkpoints_in_between(interval):
    config = {"kind": "checkpoint", "interval_iterations": interval}
    scenario = a_scenario((config,), steps=6, iterations_per_step=7, evaluation_interval=2)
    result = run(scripted(scenario, {2: (23.5 * ITERATION, 10 * ITERATION)}))
    assert result.num_iterations == result.iterations[-1].iteration == 42
    assert all(record.step == record.iteration // 7 for record in result.iterations)
    assert all((record.train_loss is not None) == (record.iteration % 7 == 0) for record in result.iterations)
    validated = {record.iteration for record in result.iterations if record.validation_loss is not None}
    assert validated == {14, 28, 42}
    durable = 23 // interval * interval
    assert rollbacks(result)[:1] == ([f"to iteration {durable}"] if durable < 23 else [])
    losses: dict[int, set] = {}
    for record in result.iterations:
        losses.setdefault(record.iteration, set()).add(record.train_loss)
    assert all(len(values) == 1 for values in losses.values())  # executed again, learnt the same


def test_validations_are_counted_in_steps():
    result = run(a_scenario(steps=9, iterations_per_step=2, evaluation_interval=4))
    assert [r.iteration for r in result.iterations if r.validation_loss is not None] == [8, 16, 18]


# ---- checkpoints: intervals of 5 iterations = 105 s, uploads of 50 s ------------------------------------
def checkpointed(script: dict[int, tuple[float, ...]], **options: object) -> Run:
    config = {"kind": "checkpoint", "interval_iterations": 5, **options}
    return run(scripted(a_scenario((config,), upload_seconds=50.0), script))


@pytest.mark.parametrize(
    ("failure_seconds", "goes_back_to"),
    [
        (100.0, 0),  # before the first checkpoint
        (154.75, 0),  # during the first upload, which ends at 155 s
        (155.0, 0),  # as it ends
        (155.25, 5),
        (230.0, 5),  # during the second upload, 210 s to 260 s
        (260.0, 5),
        (260.25, 10),
    ],
)
def test_only_completed_uploads_are_durable(failure_seconds, goes_back_to):
    result = checkpointed({2: (failure_seconds,)})
    assert rollbacks(result) == [f"to iteration {goes_back_to}"]
    fetch_seconds = 50.0 if goes_back_to else 0.0  # the first state is drawn again
    assert result.ledger["state_transfer"] == fetch_seconds
    assert result.wall_clock_seconds == failure_seconds + RECOVERY + fetch_seconds + (20 - goes_back_to) * ITERATION


def test_a_lost_upload_or_download_is_recorded_and_repeated():
    result = checkpointed({2: (230.0,)})
    kinds = [(event.kind, event.iteration) for event in of_kind(result, "checkpoint_durable", "checkpoint_lost")]
    assert kinds == [
        ("checkpoint_durable", 5),
        ("checkpoint_lost", 10),
        ("checkpoint_durable", 10),
        ("checkpoint_durable", 15),
    ]
    result = checkpointed({2: (300.0,), 3: (300.0 + RECOVERY + 20.0,)})
    assert rollbacks(result) == ["to iteration 10"]
    assert result.ledger["state_transfer"] == 20.0 + 50.0
    assert times(of_kind(result, "recovered")) == [300.0 + RECOVERY + 20.0 + RECOVERY + 50.0]


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_training_stops_for_the_blocking_share_of_an_upload(share):
    result = checkpointed({}, blocking_share=share)
    assert result.ledger["checkpoint_save"] == 4 * share * 50.0
    assert result.wall_clock_seconds == 20 * ITERATION + 4 * share * 50.0
    durable = times(of_kind(result, "checkpoint_durable"))[:3]
    assert durable == [5 * n * ITERATION + (n - 1) * share * 50.0 + 50.0 for n in (1, 2, 3)]


def test_a_blocking_upload_is_lost_by_a_failure_until_its_end():
    result = checkpointed({2: (210.0 + 20.0 + 5.0,)}, blocking_share=0.4)  # the second begins at 230 s
    assert [event.iteration for event in of_kind(result, "checkpoint_lost")] == [10]
    assert rollbacks(result) == ["to iteration 5"]
    assert result.ledger["checkpoint_save"] == 20.0 + 5.0 + 3 * 20.0
    config = {"kind": "checkpoint", "interval_iterations": 5, "blocking_share": 1.0}
    result = run(scripted(a_scenario((config,), upload_seconds=50.0), {2: (5.0,)}, unit="iterations"))
    assert times(of_kind(result, "failure")) == times(of_kind(result, "checkpoint_durable"))[:1]
    assert not rollbacks(result)


@pytest.mark.parametrize(("interval_seconds", "started"), [(100.0, [5, 10, 15, 20]), (110.0, [6, 12, 18]), (1.0, None)])
def test_an_interval_in_seconds_runs_from_the_last_start(interval_seconds, started):
    config = {"kind": "checkpoint", "interval_seconds": interval_seconds}
    result = run(a_scenario((config,)))
    iterations_started = [event.iteration for event in of_kind(result, "checkpoint_started")]
    assert iterations_started == (started or list(range(1, 21)))


def test_intervals_start_anew_or_wait_for_the_upload():
    config = {"kind": "checkpoint", "interval_seconds": 100.0}
    result = run(scripted(a_scenario((config,)), {2: (95.0,)}))  # goes on at 110 s
    assert times(of_kind(result, "checkpoint_started"))[0] == 110.0 + 5 * ITERATION
    default = run(a_scenario(({"kind": "checkpoint"},), steps=250))
    assert [event.iteration for event in of_kind(default, "checkpoint_started")] == [100, 200]
    result = checkpointed({}, interval_iterations=1)
    assert times(of_kind(result, "checkpoint_started")) == [ITERATION + 50.0 * n for n in range(20)]
    assert result.wall_clock_seconds == ITERATION + 19 * 50.0
    assert result.ledger["checkpoint_save"] == 19 * (50.0 - ITERATION)


# ---- fallbacks --------------------------------------------------------------------------------------
def test_the_fallback_recovers_the_rest_or_the_run_stops():
    scenario = a_scenario(({"kind": "checkfree"},), fallback={"kind": "checkpoint", "interval_iterations": 5})
    result = run(scripted(scenario, {1: (8.5 * ITERATION,)}))
    told = [(event.kind, event.stage, event.iteration, event.detail) for event in result.events]
    assert told == [
        ("checkpoint_started", None, 5, ""),
        ("checkpoint_durable", None, 5, ""),
        ("failure", 1, 8, ""),
        ("fallback", 1, 8, "checkfree: stage 1 is at an end and has only one neighbour"),
        ("rolled_back", 1, 8, "to iteration 5"),
        ("recovered", 1, 5, "checkpoint"),
        ("checkpoint_started", None, 10, ""),
        ("checkpoint_durable", None, 10, ""),
        ("checkpoint_started", None, 15, ""),
        ("checkpoint_durable", None, 15, ""),
        ("checkpoint_started", None, 20, ""),
    ]
    scenario = a_scenario(({"kind": "checkfree"},), fallback="stop")
    result = run(scripted(scenario, {1: (8.5 * ITERATION,)}))
    assert result.stopped == "stage 1 is at an end and has only one neighbour"
    assert result.num_iterations == 8
    assert result.wall_clock_seconds == 8.5 * ITERATION
    assert [event.kind for event in result.events] == ["failure", "unrecoverable"]


def test_the_fallback_returns_to_edits_saved_or_the_beginning():
    scenario = a_scenario(({"kind": "checkfree"},), fallback={"kind": "checkpoint", "interval_iterations": 5})
    result = run(scripted(scenario, {2: (2.5 * ITERATION,), 1: (9.5 * ITERATION,)}))
    lineages = [record.lineage for record in result.iterations]
    assert rollbacks(result) == ["to iteration 5"]
    assert len(set(lineages)) == 2
    assert set(lineages[3:]) == {lineages[-1]} != {lineages[0]}
    scenario = a_scenario(({"kind": "checkfree"},), fallback="restart")
    result = run(scripted(scenario, {2: (2.5 * ITERATION,), 1: (9.5 * ITERATION,)}))
    assert rollbacks(result) == ["to iteration 0"]
    assert result.iterations[-1].lineage == result.iterations[0].lineage != result.iterations[5].lineage
    assert result.num_iterations == 20


@pytest.mark.parametrize(
    ("kind", "second_loss", "fallbacks", "recoveries"),
    [
        ("checkfree", 60.0, [60.0], [60.0 + RECOVERY]),  # at once
        ("redundant", 60.0, [60.0], [60.0 + RECOVERY]),
        ("checkfree", 65.0, [65.0], [65.0 + RECOVERY]),  # during the recovery
        ("checkfree", 61.0 + RECOVERY, [], [60.0 + RECOVERY, 61.0 + 2 * RECOVERY]),  # after it
    ],
)
def test_two_neighbours_lost_together_need_the_fallback(kind, second_loss, fallbacks, recoveries):
    scenario = a_scenario(({"kind": kind},), num_stages=6, fallback="restart")
    result = run(scripted(scenario, {3: (60.0,), 4: (second_loss,)}))
    assert times(of_kind(result, "fallback")) == fallbacks
    assert times(of_kind(result, "recovered")) == recoveries


@pytest.mark.parametrize(("kind", "num_saves"), [("none", 0), ("restart", 0), ("checkfree", 4)])
def test_a_possible_fallback_costs_its_checkpoints(kind, num_saves):
    fallback = {"kind": "checkpoint", "interval_iterations": 5, "blocking_share": 1.0}
    result = run(a_scenario(({"kind": kind},), fallback=fallback, upload_seconds=50.0))
    assert result.wall_clock_seconds == 20 * ITERATION + num_saves * 50.0
    assert result.ledger["checkpoint_save"] == num_saves * 50.0


# ---- giving up ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "uptime_seconds"), [("restart", 300.0), ("checkpoint", 300.0), ("redundant", 10.0)])
def test_a_run_that_cannot_end_stops_with_a_reason(kind, uptime_seconds):
    scenario = a_scenario(({"kind": kind},), upload_seconds=200.0).model_copy(update={"give_up_after": 3.0})
    result = run(scripted(scenario, {2: (uptime_seconds,) * 1000}))
    limit_seconds = 3.0 * 20 * ITERATION
    assert "3 × the plain iterations' time or number (give_up_after)" in result.stopped
    assert limit_seconds < result.wall_clock_seconds <= limit_seconds + 300.0
    assert math.fsum(result.ledger.values()) == pytest.approx(result.wall_clock_seconds)
    assert result.num_iterations < 20


# ---- exact recoveries ---------------------------------------------------------------------------------
def test_exact_recoveries_train_as_if_nothing_had_failed():
    scenario = a_scenario(({"kind": "redundant"},), num_stages=6)
    result = run(scripted(scenario, {2: (60.0,), 4: (60.0,), 0: (200.0,)}))
    undisturbed = run(scripted(scenario, {}))
    learnt = [[(r.iteration, r.lineage, r.train_loss) for r in each.iterations] for each in (result, undisturbed)]
    assert learnt[0] == learnt[1]
    assert not of_kind(result, "fallback")
    scenario = a_scenario(({"kind": "checkfree_plus"},), num_stages=6)
    result = run(scripted(scenario, {0: (60.0,)}))
    assert [event.kind for event in result.events] == ["failure", "recovered"]
    assert len({record.lineage for record in result.iterations}) == 1
    assert iterations(result) == list(range(1, 21))


@pytest.mark.parametrize("holder", [1, 6])
def test_checkfree_plus_loses_the_ends_with_their_copies_holder(holder):
    scenario = a_scenario(({"kind": "checkfree_plus"},), num_stages=6, fallback="restart")
    result = run(scripted(scenario, {0: (60.0,), holder: (60.0,)}))
    (told,) = of_kind(result, "fallback")
    assert f"stage 0 is lost together with stage {holder}" in told.detail


def test_embedding_copies_cost_time_only_where_they_do_not_fit():
    copies = ("beside", "blocking", "free")
    configs = tuple({"kind": "checkfree_plus", "label": how, "embedding_copy": how} for how in copies)
    # Half of stage 0's gradient has 1360 bytes; activations take no time here.
    network = {"same_region": a_link(bytes_per_second=136.0), "storage": a_link(), "negligible_seconds": 1e9}
    scenario = a_scenario(configs, network=network)
    beside, blocking, free = (run(scenario, index) for index in range(3))
    assert beside.wall_clock_seconds == free.wall_clock_seconds
    assert blocking.wall_clock_seconds == free.wall_clock_seconds + 20 * 10.0
    paid = blocking.ledger["bubble_and_communication"] - free.ledger["bubble_and_communication"]
    assert paid == pytest.approx(20 * 10.0)


@pytest.mark.parametrize("how", ["beside", "blocking", "free"])
def test_an_interrupted_embedding_copy_still_restores_the_ends(how):
    network = {"same_region": a_link(bytes_per_second=136.0), "storage": a_link(), "negligible_seconds": 1e9}
    scenario = a_scenario(({"kind": "checkfree_plus", "embedding_copy": how},), num_stages=6, network=network)
    undisturbed = run(scenario)
    second = undisturbed.iterations[1].started_seconds
    result = run(scripted(scenario, {0: (second + 2.0,)}))
    assert [event.kind for event in result.events] == ["failure", "recovered"]
    assert iterations(result) == list(range(1, 21))
