"""What each place does over a run: hand-made records, and sums against the ledger of a simulated run."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cluster.topology import num_nodes
from sim.results.activity import STATES, Records, activity, undone
from sim.results.in_memory import SimulatedRun
from sim.scenario.loading import parse_scenario
from sim.simulation.run import simulate, time_only

EVENT = ("time_seconds", "kind", "stage", "iteration", "detail")


def records(iterations, events, nodes=((0.0, 3),), num_replicas=1, end=100.0):
    """Three stages; iterations are (number, start, end)."""
    columns = ["iteration", "started_seconds", "ended_seconds"]
    return Records(
        pd.DataFrame(iterations, columns=columns),
        pd.DataFrame([(*event, "")[:5] for event in events], columns=EVENT),
        pd.DataFrame(nodes, columns=["time_seconds", "num_nodes"]),
        3,
        num_replicas,
        3 * num_replicas,
        end,
    )


def at(found, place, seconds):
    """The state of a place at an instant: that of the last row that covers it."""
    rows = found[(found["place"] == place) & (found["start_seconds"] <= seconds) & (found["end_seconds"] > seconds)]
    return rows["state"].iloc[-1] if len(rows) else None


def test_a_rollback_makes_work_lost_and_all_recover():
    one = records(
        [(1, 0, 10), (2, 10, 20), (3, 20, 30), (2, 50, 60), (3, 60, 70)],
        [(35, "failure", 1, 3), (50, "rolled_back", 1, 3), (50, "recovered", 1, 1)],
        [(0, 3), (35, 2), (45, 3)],
    )
    assert undone(one).tolist() == [False, True, True, False, False]
    found = activity(one)
    told = {seconds: [at(found, place, seconds) for place in range(3)] for seconds in (5, 15, 32, 40, 47, 55, 80)}
    assert told[5] == told[55] == ["computing"] * 3
    assert told[15] == told[32] == ["lost work"] * 3
    assert told[40] == ["recovering", "gone", "recovering"]
    assert told[47] == ["recovering"] * 3
    assert told[80] == ["waiting"] * 3


def test_the_others_wait_while_one_stage_recovers():
    events, replaced_at_once = [(15, "failure", 1, 1), (30, "recovered", 1, 1)], [(0, 3), (15, 3)]
    found = activity(records([(1, 0, 10), (2, 30, 40)], events, replaced_at_once, end=40))
    assert [at(found, place, 20) for place in range(3)] == ["waiting", "recovering", "waiting"]
    assert [at(found, place, 12) for place in range(3)] == ["lost work"] * 3


def test_the_node_that_joins_is_the_one_that_was_lost():
    iterations = [(number, 10.0 * number - 10, 10.0 * number) for number in range(1, 11)]
    lost = [(15, "node_lost", 1, 1), (25, "node_lost", 1, 2)]
    joined = [(55, "node_joined", 1, 5, "replica 1"), (75, "node_joined", 1, 7, "replica 0")]
    found = activity(records(iterations, lost + joined, num_replicas=2))
    assert [at(found, 3, seconds) for seconds in (12, 20, 54, 60)] == ["computing", "gone", "gone", "computing"]
    assert [at(found, 2, seconds) for seconds in (20, 30, 74, 80)] == ["computing", "gone", "gone", "computing"]
    assert {at(found, place, 50) for place in (0, 1, 4, 5)} == {"computing"}


@pytest.mark.parametrize(("detail", "gone"), [("replica 0", [0]), ("replica 1", [1]), ("replicas 0, 2", [0, 2])])
def test_a_lost_node_is_the_one_that_its_event_names(detail, gone):
    iterations = [(number, 10.0 * number - 10, 10.0 * number) for number in range(1, 11)]
    events = [(15, "node_lost", 1, 1, detail), (55, "node_joined", 1, 5, "replica 1")]
    found = activity(records(iterations, events, num_replicas=3))
    assert [place - 3 for place in range(9) if at(found, place, 20) == "gone"] == gone


def test_events_of_a_run_name_the_node_that_is_lost_and_then_joins():
    scenario = parse_scenario(SCENARIO, overrides=["cluster.nodes_per_stage=3", "failures.rate_per_hour=0.3"])
    events = simulate(scenario, scenario.strategies[0], 0, 0, time_only(scenario)).events
    lost, joined = (
        [(event.stage, event.detail) for event in events if event.kind == kind] for kind in ("node_lost", "node_joined")
    )
    assert len(lost) > 3
    assert set(joined) >= set(lost[:3])
    assert {detail for _, detail in lost} <= {"replica 0", "replica 1", "replica 2"}


def test_a_stage_left_out_is_gone_until_it_returns():
    iterations = [(1, 0, 10), *((number, 10.0 * number, 10.0 * number + 10) for number in range(2, 9))]
    events = [
        (15, "failure", 1, 1), (20, "stage_left_out", 1, 1), (20, "recovered", 1, 1), (60, "stage_returned", 1, 5),
    ]  # fmt: skip
    found = activity(records(iterations, events, [(0, 3), (15, 2), (70, 3)], end=90))
    assert [at(found, 1, seconds) for seconds in (14, 30, 59, 61)] == ["lost work", "gone", "gone", "computing"]


def test_a_recovered_stage_has_the_nodes_that_are_there():
    """A later loss of one of its nodes, which then joins, does not make it gone since the failure before."""
    iterations = [(1, 0, 10), *((number, 10.0 * number, 10.0 * number + 10) for number in range(2, 10))]
    events = [
        (15, "failure", 1, 1), (20, "recovered", 1, 1), (40, "node_lost", 1, 4), (60, "node_joined", 1, 6, "replica 1"),
    ]  # fmt: skip
    found = activity(records(iterations, events, [(0, 6), (15, 4), (18, 6), (40, 5), (55, 6)], num_replicas=2))
    assert [at(found, 3, seconds) for seconds in (16, 30, 50, 70)] == ["gone", "computing", "gone", "computing"]
    one_short = activity(records(iterations, [*events[:2], events[3]], [(0, 6), (15, 4), (18, 5)], num_replicas=2))
    assert [at(one_short, 3, seconds) for seconds in (30, 70)] == ["gone", "computing"]
    assert at(one_short, 2, 30) == "computing"


KINDS = st.sampled_from(["failure", "node_lost", "recovered", "regrouped", "node_joined", "rolled_back"])


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 99), KINDS, st.integers(0, 2)), max_size=12), st.integers(1, 3))
def test_any_events_give_one_state_at_every_instant(events, num_replicas):
    iterations = [(number, 10.0 * number - 10, 10.0 * number - 2) for number in range(1, 11)]
    rows = [(seconds, kind, stage, 1, "replica 0") for seconds, kind, stage in sorted(events)]
    one = records(iterations, rows, num_replicas=num_replicas)
    found = activity(one)
    assert set(found["state"]) <= set(STATES)
    assert set(found["place"]) == set(range(one.num_places))
    assert (found["start_seconds"] >= 0).all()
    assert (found["end_seconds"] <= 100).all()
    for place in range(one.num_places):
        assert all(at(found, place, 10 * number + 0.5) for number in range(0, 10, 3))


SCENARIO = """
name: activity
workload: {num_stages: 4, num_microbatches: 4}
training: {learner: none, model: {num_stages: 4}, steps: 300}
failures: {kind: exponential, rate_per_hour: 0.9}
strategies: [{kind: checkpoint, interval_iterations: 20}]
"""


def test_the_hours_are_those_of_the_ledger():
    scenario = parse_scenario(SCENARIO)
    run = simulate(scenario, scenario.strategies[0], 0, 0, time_only(scenario))
    one, places = SimulatedRun(scenario, run), num_nodes(scenario.cluster, 4)
    kept = Records(one.iterations, one.events, one.nodes, 5, 1, places, run.wall_clock_seconds)
    found = activity(kept)
    assert one.summary["num_rollbacks"] > 3
    computing = found[found["state"] == "computing"].eval("end_seconds - start_seconds").sum() / places
    ledger = one.ledger
    useful = ledger["productive_compute"] + ledger["bubble_and_communication"] + ledger["redundant_compute"]
    assert computing == pytest.approx(useful)
    lost = found[found["state"] == "lost work"].eval("end_seconds - start_seconds").sum() / places
    assert lost == pytest.approx(ledger["lost_work"])
