"""What a timeline is made of: operations, messages and spans, cut where a failure has cut them."""

from itertools import pairwise

import pytest

from sim.core.records import Failure, Message, Operation, Span
from sim.simulation.recorder import EventRecorder
from sim.strategies.base import STORE, Transfer
from support.builders import (
    CHECKPOINT_BYTES,
    a_link,
    a_scenario,
    a_world,
    in_turn,
    no_training,
    run,
    scripted,
    with_losses,
)
from support.failure_processes import Loss

SLOW = {"same_region": a_link(0.5, 262144.0), "storage": a_link(0.0, 5 * CHECKPOINT_BYTES / 50)}
"""An activation takes half a second and then a second; all stages' uploads 50 s."""


def traced(strategy: dict, script: dict, trace: EventRecorder | None = None, **options) -> EventRecorder:
    trace = trace or EventRecorder()
    scenario = a_scenario((strategy,), network=options.pop("network", SLOW), **options)
    run(scripted(scenario, script), training=no_training(scenario), trace=trace)
    return trace


def test_operations_and_messages_cut_by_a_failure_end_with_it():
    trace = EventRecorder()
    world = a_world(a_scenario(network=SLOW), {3: (5.0,)}, trace=trace)
    assert in_turn(world, world.run_iteration(world.plain_plan())) == [Failure(5.0, 3)]
    # The first activation takes 1.5 s to each stage, and 1 s there: to S2 it goes from 2.5 to 4, S2 works until 5.
    here = [operation for operation in trace.operations if operation.microbatch == 0]
    assert here == [Operation("forward", 1, 0, 0, 1.5, 2.5), Operation("forward", 2, 0, 0, 4.0, 5.0)]
    cut = [operation for operation in trace.operations if operation.end_seconds == 5.0]
    assert sorted((o.stage, o.microbatch, o.start_seconds) for o in cut) == [(1, 3, 4.5), (2, 0, 4.0)]
    trace, num_bytes = EventRecorder(), 262144.0
    world = a_world(a_scenario(network=SLOW), {3: (3.25,)}, trace=trace)
    in_turn(world, world.run_iteration(world.plain_plan()))
    assert trace.messages[0] == Message("activation 0", 0, 1, num_bytes, 0.0, 1.5, True)
    assert Message("activation 0", 1, 2, num_bytes, 2.5, 3.25, False) in trace.messages
    assert all(m.arrived == (m.end_seconds < 3.25) for m in trace.messages)
    assert max(m.end_seconds for m in trace.messages) == 3.25


@pytest.mark.parametrize("at_seconds", [0.0, 1.5, 5.3, 11.0, 20.0, 25.0])
def test_nothing_of_an_iteration_is_recorded_after_its_failure(at_seconds):
    trace = EventRecorder()
    plan_seconds = a_world(a_scenario(network=SLOW)).iteration_times.alone(a_world().plain_plan()).seconds
    assert at_seconds < plan_seconds
    world = a_world(a_scenario(network=SLOW, cluster={"nodes_per_stage": 2}), {3: (at_seconds,)}, trace=trace)
    in_turn(world, world.run_iteration(world.plain_plan()), world.attempt(100.0, "detection"))
    assert all(each.end_seconds <= at_seconds for each in (*trace.operations, *trace.messages))
    assert all(each.start_seconds <= each.end_seconds for each in (*trace.operations, *trace.messages))


def test_transfers_and_uploads_cut_by_a_failure_are_recorded():
    trace = traced({"kind": "checkfree"}, {2: (3.0,), 4: (3.0 + 15.0 + 0.5,)})
    state = [message for message in trace.messages if message.what == "state"]
    assert [(m.source, m.target, m.arrived) for m in state[:2]] == [(1, 2, False), (3, 2, False)]
    assert {m.end_seconds for m in state[:2]} == {3.0 + 15.0 + 0.5}
    strategy = {"kind": "checkpoint", "interval_iterations": 1}
    first = traced(strategy, {}).messages
    began = min(message.start_seconds for message in first if message.what == "checkpoint")
    trace = traced(strategy, {1: (began + 20.0,)})
    uploads = [message for message in trace.messages if message.what == "checkpoint"][:5]
    assert uploads == [
        Message("checkpoint", stage, -1, CHECKPOINT_BYTES, began, began + 20.0, False) for stage in range(5)
    ]


def test_arrivals_are_recorded_with_their_bytes():
    trace = EventRecorder()
    world = a_world(a_scenario(network=SLOW, cluster={"nodes_per_stage": 2}), trace=trace)
    transfers = (Transfer(2, STORE, 816.0, "checkpoint"), Transfer(1, 2, 262144.0))
    in_turn(world, world.transfer(transfers, "state_transfer"))
    assert trace.messages == [
        Message("checkpoint", 4, -1, 816.0, 0.0, 1.0, True),
        Message("state", 2, 4, 262144.0, 0.0, 1.5, True),
        Message("state", 3, 5, 262144.0, 0.0, 1.5, True),
    ]
    assert trace.spans == [Span("state_transfer", 0.0, 1.5)]


def test_spans_are_the_ledgers_seconds_also_of_joining_nodes():
    strategy = {"kind": "checkpoint", "interval_iterations": 2, "blocking_share": 0.5}
    trace = EventRecorder()
    scenario = a_scenario((strategy,), network=SLOW, steps=6)
    result = run(scripted(scenario, {2: (150.0,), 3: (300.0,)}), training=no_training(scenario), trace=trace)
    assert len({span.bucket for span in trace.spans}) >= 4
    for bucket in ("checkpoint_save", "detection", "provisioning", "state_transfer"):
        seconds = sum(span.end_seconds - span.start_seconds for span in trace.spans if span.bucket == bucket)
        assert seconds == result.ledger[bucket]
    ends = [(span.start_seconds, span.end_seconds) for span in trace.spans]
    assert all(start < end for start, end in ends)
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    trace, cluster = EventRecorder(), {"nodes_per_stage": 2, "provisioning_seconds": 30.0, "regroup_seconds": 4.0}
    scenario = a_scenario(({"kind": "checkfree"},), network=SLOW, steps=6, cluster=cluster)
    result = run(with_losses(scenario, Loss(40.0, ((2, 1),))), training=no_training(scenario), trace=trace)
    (joined,) = [event for event in result.events if event.kind == "node_joined"]
    (state,) = [message for message in trace.messages if message.what == "state"]
    assert (state.source, state.target, state.num_bytes, state.arrived) == (4, 5, CHECKPOINT_BYTES, True)
    assert state.end_seconds == joined.time_seconds == state.start_seconds + 0.5 + 8160.0 / 262144.0
    assert Span("state_transfer", state.start_seconds, state.end_seconds) in trace.spans
    assert Span("provisioning", 40.0, 44.0) in trace.spans


def test_iterations_that_overlap_the_window_are_recorded_whole():
    instant = {"same_region": a_link(), "storage": a_link()}
    trace = traced({"kind": "none"}, {}, EventRecorder(50.0, 70.0), network=instant)
    assert min(o.start_seconds for o in trace.operations) == 42.0
    assert max(o.end_seconds for o in trace.operations) == 84.0
    exact = traced({"kind": "none"}, {}, EventRecorder(42.0, 63.0), network=instant)
    assert {o.microbatch for o in exact.operations} == {0, 1, 2, 3}
    assert (min(o.start_seconds for o in exact.operations), max(o.end_seconds for o in exact.operations)) == (42, 63)
    assert traced({"kind": "none"}, {}, EventRecorder(1e6, 2e6)).operations == []
    # Spans outside the window are left out.
    trace = EventRecorder(100.0, 120.0)
    world = a_world(trace=trace)
    for bucket, seconds in (("detection", 90.0), ("provisioning", 20.0), ("state_transfer", 15.0), ("lost_work", 5.0)):
        in_turn(world, world.attempt(seconds, bucket))
    assert trace.spans == [Span("provisioning", 90.0, 110.0), Span("state_transfer", 110.0, 125.0)]
