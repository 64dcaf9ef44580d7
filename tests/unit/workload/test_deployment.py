"""Iterations on fewer nodes than places: who stands in for whom, and that all the work is done, once."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from models.spec import plain_routes
from sim.cluster.flows import Flows
from sim.cluster.topology import Cluster
from sim.core.units import to_ticks
from sim.workload.config import IterationPlan, plain_plan
from sim.workload.deployment import Assignment, Deployment, assign_slots, exchange_pipelines
from sim.workload.iteration_time import IterationTimes
from sim.workload.schedule import BACKWARD, FORWARD, SCHEDULES
from support.builders import TICK, a_link, a_site
from support.examples import examples
from support.iterations import options_of, schedules, shapes
from support.memberships import a_cluster
from support.simpy_iteration import FinishedIteration, fastest_run, run_alone, run_among

MANY = settings(max_examples=examples(20, 60))
GRADIENT = {"same_region": a_link(0.5, 272.0), "negligible_seconds": 1e9}
"""Weights of a stage take 10 s and a latency of half a second, activations nothing."""


@st.composite
def absences(draw, cluster: Cluster) -> tuple[set[int], dict[int, int]]:
    """Places without node and stages that others cover; every stage has a node, or is covered by one that has."""
    covers = {}
    if draw(st.booleans()):
        stage = draw(st.sampled_from(cluster.stages))
        covers[stage] = (stage + draw(st.sampled_from([-1, 1, 2]))) % len(cluster.stages)
    missing = set()
    for stage in cluster.stages:
        places = st.sampled_from(cluster.slots_of(stage))
        missing |= draw(st.sets(places, max_size=len(cluster.replicas) - (stage not in covers)))
    return missing, covers


@st.composite
def incomplete(draw, **options) -> tuple[Deployment, IterationPlan, Assignment]:
    """Iterations of all shapes on clusters that lack any nodes that they can do without."""
    site, plan = draw(shapes((1, 2, 2, 3, 4), **options))
    missing, covers = draw(absences(site.cluster))
    return site, plan, assign_slots(missing, site.cluster, covers)


def without(site: Deployment, *missing: tuple[int, int], covers: dict[int, int] | None = None) -> Assignment:
    """Hosts without the nodes of some (stage, replica)."""
    return assign_slots([site.cluster.slot(*place) for place in missing], site.cluster, covers)


def on(site: Deployment, hosts: Assignment | None, plan: IterationPlan | None = None) -> FinishedIteration:
    """One iteration on some nodes."""
    return fastest_run(site, plan or plain_plan(site.costs.workload), hosts)


def done_by(found: FinishedIteration, stage: int, replica: int, *kinds: str) -> list:
    return [o for o in found.run.operations if (o.stage, o.replica) == (stage, replica) and o.kind in kinds]


def seconds_of(operations: list) -> float:
    return math.fsum(o.end_seconds - o.start_seconds for o in operations)


def sent(found: FinishedIteration, what: str) -> list[tuple[int, int]]:
    return [(m.source, m.target) for m in found.run.messages if m.what.startswith(what)]


def host_of(site: Deployment, hosts: Assignment, stage: int, replica: int, microbatch: int) -> int:
    """The first stand-in, or one of the others of its stage: those left take turns from it on."""
    num_replicas = len(site.cluster.replicas)
    first = hosts[site.cluster.slot(stage, replica)]
    left = [place for place in site.cluster.slots_of(first // num_replicas) if hosts[place] == place]
    in_its_pipeline = first % num_replicas == replica
    return first if in_its_pipeline else left[(left.index(first) + microbatch) % len(left)]


# ---- who stands in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "hosts"),
    [
        ([5], (4, 6, 6, 7)),  # the next replica up
        ([7], (4, 5, 6, 4)),  # after the last comes the first
        ([4, 5], (6, 7, 6, 7)),  # in turn
        ([5, 6], (4, 7, 4, 7)),
        ([4, 7], (5, 5, 6, 6)),
        ([4, 5, 6], (7, 7, 7, 7)),
        ([5, 6, 7], (4, 4, 4, 4)),
    ],
)
def test_missing_nodes_are_substituted_from_the_next_replica_up(missing, hosts):
    """Stage 1 of three stages with four replicas: places 4 to 7."""
    assert assign_slots(missing, a_cluster(2, nodes_per_stage=4)) == (0, 1, 2, 3, *hosts, 8, 9, 10, 11)


@given(st.data(), st.integers(2, 5), st.integers(1, 8))
def test_all_work_has_a_present_host_and_stage_loads_are_even(data, num_stages, num_replicas):
    cluster = a_cluster(num_stages, nodes_per_stage=num_replicas)
    missing, covers = data.draw(absences(cluster))
    hosts = assign_slots(missing, cluster, covers)
    for stage in cluster.stages:
        places = cluster.slots_of(stage)
        if stage in covers:
            assert [hosts[place] for place in places] == [hosts[place] for place in cluster.slots_of(covers[stage])]
            continue
        assert all(hosts[place] == place for place in places if place not in missing)
        assert all(hosts[place] in set(places) - missing for place in places)
        loads = Counter(hosts[place] for place in places).values()
        assert max(loads) - min(loads) <= 1


def test_a_stage_without_node_and_cover_is_an_error():
    cluster = a_cluster(3, nodes_per_stage=2)
    with pytest.raises(AssertionError, match="stage 2 has no node"):
        assign_slots([4, 5], cluster)
    assert assign_slots([4, 5], cluster, {2: 1}) == (0, 1, 2, 3, 2, 3, 6, 7)
    assert assign_slots([2, 4, 5], cluster, {2: 1}) == (0, 1, 3, 3, 3, 3, 6, 7)  # by the substitute of stage 1
    with pytest.raises(AssertionError, match="does not do its own work"):
        assign_slots([2, 3, 4, 5], cluster, {2: 1, 1: 0})
    with pytest.raises(AssertionError, match="numbers"):
        assign_slots([8], cluster)
    site = a_site(2, 2, cluster={"nodes_per_stage": 2})
    with pytest.raises(AssertionError, match="stage 1 has no node"):
        run_alone(site, plain_plan(site.costs.workload), "arrival", assignment=(0, 1, 3, 2, 4, 5))


# ---- whatever is missing ------------------------------------------------------------------------------------
@MANY
@given(incomplete())
def test_operations_and_messages_happen_once_at_their_hosts(shape):
    """Each hop between two nodes sends one message, each hop within a node none."""
    site, plan, hosts = shape
    found = on(site, hosts, plan)  # raises on a deadlock
    schedule, num_replicas = found.run.schedule, len(site.cluster.replicas)
    hosts, order = exchange_pipelines(tuple(hosts), site.cluster)
    real = [site.cluster.slot(stage, replica) for stage in site.cluster.stages for replica in order]
    expected_visits, expected_hops = Counter(), Counter()
    for replica in site.cluster.replicas:
        for microbatch in range(plan.num_microbatches):
            nodes = [real[host_of(site, hosts, 0, replica, microbatch)]]
            for visit in schedule.visits(microbatch):
                stage = schedule.stage(visit)
                nodes.append(real[host_of(site, hosts, stage, replica, microbatch)])
                expected_visits[visit.kind, stage, nodes[-1] % num_replicas, microbatch] += 1
            expected_hops.update((a, b) for a, b in pairwise([*nodes, nodes[0]]) if a != b)
    visits = [o for o in found.run.operations if o.kind in ("forward", "backward")]
    assert Counter((o.kind, o.stage, o.replica, o.microbatch) for o in visits) == expected_visits
    assert all(m.arrived and m.source != m.target for m in found.run.messages)
    assert {node for m in found.run.messages for node in (m.source, m.target)} <= {real[host] for host in hosts}
    between = [m for m in found.run.messages if m.what.split()[0] in ("activation", "gradient")]
    assert Counter((m.source, m.target) for m in between if "exchange" not in m.what) == expected_hops


@MANY
@given(incomplete())
def test_nodes_do_one_thing_at_a_time_and_splits_are_their_mean(shape):
    site, plan, hosts = shape
    found = on(site, hosts, plan)
    by_node = defaultdict(list)
    for o in found.run.operations:
        by_node[hosts[site.cluster.slot(o.stage, o.replica)]].append((o.start_seconds, o.end_seconds))
    for spans in by_node.values():
        spans.sort()
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert found.seconds == to_ticks(found.seconds) >= max(sum(b - a for a, b in spans) for spans in by_node.values())
    if site.costs.workload.schedule == "gpipe":
        head = site.costs.head_stage
        for replica in {hosts[place] % len(site.cluster.replicas) for place in site.cluster.slots_of(head)}:
            forwards, backwards = (done_by(found, head, replica, kind) for kind in (FORWARD, BACKWARD))
            assert max(o.end_seconds for o in forwards) <= min(o.start_seconds for o in backwards)
    site, plan, hosts = shape
    found = on(site, hosts, plan)
    num_nodes = len(set(hosts))
    stages_of = defaultdict(set)
    for place, host in enumerate(hosts):
        stages_of[host].add(site.cluster.stage_of(place))
    optimizer = to_ticks(site.costs.workload.optimizer_seconds) * sum(map(len, stages_of.values()))
    useful = seconds_of([o for o in found.run.operations if o.kind != "shadow"]) + optimizer
    shadow = seconds_of([o for o in found.run.operations if o.kind == "shadow"])
    assert found.split.productive_seconds == pytest.approx(useful / num_nodes, rel=1e-12)
    assert found.split.redundant_seconds == pytest.approx(shadow / num_nodes, rel=1e-12)
    assert found.split.bubble_seconds >= 0.0
    assert found.split.seconds == pytest.approx(found.seconds, rel=1e-14)


@MANY
@given(shapes((1, 2, 3)))
def test_without_absences_each_node_does_its_own_work(shape):
    site, plan = shape
    num_nodes = len(site.cluster.stages) * len(site.cluster.replicas)
    assert assign_slots((), site.cluster) == site.complete_assignment == tuple(range(num_nodes))
    plain, assigned = on(site, None, plan), on(site, site.complete_assignment, plan)
    assert plain.time == assigned.time
    assert (plain.run.operations, plain.run.messages) == (assigned.run.operations, assigned.run.messages)


@MANY
@given(incomplete(jitter=0.2), st.sampled_from([0.0, 0.37, 1234.5]), st.booleans())
def test_event_by_event_it_equals_the_computed_iteration(shape, start, jitters):
    """To the bit."""
    site, plan, hosts = shape
    if not jitters:
        config = site.cluster.config.model_copy(update={"jitter": 0.0})
        site = replace(site, cluster=Cluster(config, site.cluster.num_stages, site.cluster.regions))
    pipeline, start = IterationTimes(site, 0), to_ticks(start)
    priced = pipeline.executed(plan, 3, hosts)
    env = simpy.Environment()

    def something_else() -> Iterator[simpy.Event]:
        for _ in range(1000):
            yield env.timeout(to_ticks(1 / 3))

    env.process(something_else())
    if start:
        env.run(until=start)
    run = pipeline.begin(plan, env, Flows(env), 3, hosts)
    env.run(until=run.done)
    assert env.now - start == priced.seconds
    assert (run.split(env.now - start), run.work.order) == (priced.split, priced.order)
    among = run_among(site, plan, priced.order, (), hosts)
    assert among.seconds == pipeline.alone(plan, hosts).seconds


# ---- how long it takes ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "fifo"])
@pytest.mark.parametrize("m", [2, 5, 8])
def test_a_bottleneck_stage_short_of_a_node_doubles_the_work(schedule, m):
    """Stage 2 of 3 takes 10 + 20 s, the others 1 + 2: fill, 2 m visits there and back, drain."""
    site = a_site(
        3, m, schedule=schedule, stages=((1.0, 2.0), (10.0, 20.0), (1.0, 2.0)), cluster={"nodes_per_stage": 2}
    )
    assert on(site, without(site, (2, 1))).seconds == 1.0 + 2 * m * 30.0 + 2.0
    assert 1.0 + m * 30.0 + 2.0 <= on(site, None).seconds <= 1.0 + m * 30.0 + 3.0 + 2.0


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("m", "num_replicas"), [(1, 2), (4, 2), (7, 3), (8, 4)])
def test_without_all_pipelines_but_one_it_takes_the_work_of_all(schedule, m, num_replicas):
    site = a_site(4, m, schedule=schedule, cluster={"nodes_per_stage": num_replicas})
    gone = [(stage, replica) for stage in site.cluster.stages for replica in range(1, num_replicas)]
    assert on(site, without(site, *gone)).seconds == 3.0 * (num_replicas * m + 4 - 1)


@MANY
@given(st.data(), st.integers(2, 5), st.integers(1, 8), st.integers(2, 4), schedules)
def test_time_lies_between_the_busiest_node_and_one_pipeline(data, p, m, n, schedule):
    """Equal stages, a forward and a backward of which take 3 s, and free links."""
    m *= SCHEDULES[schedule].microbatch_multiple(p)
    site = a_site(p, m, cluster={"nodes_per_stage": n}, **options_of(schedule))
    missing = set()
    for stage in site.cluster.stages:
        missing |= data.draw(st.sets(st.sampled_from(site.cluster.slots_of(stage)), max_size=n - 1))
    hosts = assign_slots(missing, site.cluster)
    visits = [(stage, r, k) for stage in range(1, p + 1) for r in site.cluster.replicas for k in range(m)]
    busiest = max(Counter(host_of(site, hosts, *visit) for visit in visits).values())
    least = max(3.0 * busiest, on(site, None).seconds)
    assert least <= on(site, hosts).seconds <= 3.0 * (n * m + p - 1)


def test_a_shared_node_follows_the_schedule_by_pipeline():
    taken = []
    for schedule in ("gpipe", "fifo"):
        network = {"negligible_seconds": 1.0}  # all arrive at once, those of pipeline 0 before those of pipeline 1
        site = a_site(2, 3, schedule=schedule, network=network, max_in_flight=3, cluster={"nodes_per_stage": 2})
        taken.append([o.microbatch for o in done_by(on(site, without(site, (1, 1))), 1, 0, FORWARD)])
    assert taken == [[0, 0, 1, 1, 2, 2], [0, 1, 2, 0, 1, 2]]
    # One in flight in each of three pipelines: three at a time over a node for all of stage 2.
    site = a_site(2, 4, 1.0, 1.0, "fifo", max_in_flight=1, cluster={"nodes_per_stage": 3})
    assert on(site, None).seconds == 4 * 4.0
    # Stage 2 has 12 visits there and back and waits for nothing but the first forward and the last backward of stage 1.
    assert on(site, without(site, (2, 1), (2, 2))).seconds == 1.0 + 12 * 2.0 + 1.0


# ---- a node's pace is its own -----------------------------------------------------------------------------------
@pytest.mark.parametrize("slow", [0, 1])
def test_a_substitute_works_at_its_own_pace(slow):
    there, gone = slow, 1 - slow
    stragglers = ({"stage": 2, "replica": there, "slowdown": 2.0}, {"stage": 3, "replica": gone, "slowdown": 5.0})
    site = a_site(3, 4, cluster={"nodes_per_stage": 2, "stragglers": stragglers})

    def forwards(stage: int, hosts: Assignment) -> set[float]:
        return {o.end_seconds - o.start_seconds for o in done_by(on(site, hosts), stage, there, FORWARD)}

    hosts = without(site, (2, gone), (3, gone))
    assert (forwards(2, hosts), forwards(3, hosts)) == ({2.0}, {1.0})  # the slow one of stage 3 is not there
    assert forwards(3, without(site, (3, 0), (3, 1), covers={3: 2})) == {2.0}


def test_jitter_is_drawn_by_the_node_that_works():
    site = a_site(2, 1, cluster={"nodes_per_stage": 2, "jitter": 0.3})
    hosts, asked = without(site, (1, 0)), Counter()

    def slowness(stage: int, replica: int) -> float:
        asked[stage, replica] += 1
        return 1.0

    run_alone(site, plain_plan(site.costs.workload), "arrival", slowness, hosts)
    assert (asked[1, 0], asked[1, 1]) == (0, 4)


# ---- gradients, optimizer, pauses -------------------------------------------------------------------------------
@pytest.mark.parametrize("num_left", [1, 2, 3, 4])
@pytest.mark.parametrize("exchange", ["ring", "all_to_all"])
def test_a_stage_exchanges_gradients_among_those_that_are_there(num_left, exchange):
    """2 (k - 1) latencies and 2 (k - 1) / k of the bytes in a ring; k - 1 messages from each to all others."""
    site = a_site(4, 4, network=GRADIENT, gradient_exchange=exchange, cluster={"nodes_per_stage": 4})
    hosts = without(site, *((2, replica) for replica in range(num_left, 4)))
    found, k = on(site, hosts), num_left
    messages = [m for m in found.run.messages if m.what == "gradient exchange of stage 2"]
    assert {node for m in messages for node in (m.source, m.target)} == (set(range(8, 8 + k)) if k > 1 else set())
    seconds = {m.end_seconds - m.start_seconds for m in messages}
    if k == 1:
        assert not messages
    elif exchange == "ring":
        assert len(messages) == k
        assert list(seconds) == pytest.approx([2 * (k - 1) * 0.5 + 2 * (k - 1) / k * 10.0], abs=2 * TICK)
    else:
        assert len(messages) == k * (k - 1)
        assert seconds == {10.5}
    assert len(sent(found, "gradient exchange of stage 3")) == (4 if exchange == "ring" else 12)


@pytest.mark.parametrize("num_replicas", [2, 3, 4, 7])
def test_those_left_share_the_work_of_a_missing_node_evenly(num_replicas):
    m = 12
    site = a_site(3, m, cluster={"nodes_per_stage": num_replicas})
    found = on(site, without(site, (2, 1)))
    loads = Counter(o.replica for o in found.run.operations if o.stage == 2 and o.kind == FORWARD)
    assert sum(loads.values()) == num_replicas * m
    assert set(loads.values()) == {m + m // (num_replicas - 1)}
    assert found.seconds >= 3.0 * (m + m // (num_replicas - 1))


def test_gradients_and_optimizer_follow_the_substitutes_work():
    site = a_site(4, 4, network=GRADIENT, cluster={"nodes_per_stage": 3})
    found = on(site, without(site, (2, 1)))
    last = max(o.end_seconds for o in found.run.operations if o.stage == 2)
    started = {m.start_seconds for m in found.run.messages if m.what == "gradient exchange of stage 2"}
    assert started == {last}
    plain, optimizing = (
        a_site(4, 4, optimizer_seconds=seconds, cluster={"nodes_per_stage": 2}) for seconds in (0.0, 7.0)
    )
    stand_in, cover = without(plain, (2, 1)), without(plain, (2, 0), (2, 1), covers={2: 1})
    for hosts, most, total in ((stand_in, 1, 9), (cover, 2, 10)):
        before, after = on(plain, hosts), on(optimizing, hosts)
        assert after.seconds == before.seconds + 7.0 * most
        productive_seconds = after.split.productive_seconds - before.split.productive_seconds
        assert productive_seconds * len(set(hosts)) == pytest.approx(7.0 * total)


# ---- a stage that another one covers ----------------------------------------------------------------------------
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "fifo"])
def test_a_covering_node_does_the_work_of_both_stages(schedule):
    stages = ((1.0, 2.0), (3.0, 6.0), (1.0, 2.0), (1.0, 2.0))
    site = a_site(4, 5, schedule=schedule, stages=stages)
    found = on(site, without(site, (2, 0), covers={2: 1}))
    assert seconds_of(done_by(found, 1, 0, FORWARD, BACKWARD)) == 5 * 3.0
    assert seconds_of(done_by(found, 2, 0, FORWARD, BACKWARD)) == 5 * 9.0
    assert found.split.productive_seconds == pytest.approx(5 * 18.0 / 4)
    assert 5 * 12.0 <= found.seconds <= 5 * 18.0
    assert found.seconds > on(site, None).seconds


def test_hops_use_the_links_to_substitutes_none_within_a_node():
    network = {"software_seconds_per_hop": 0.25}
    site = a_site(4, 1, hop_seconds=0.5, network=network)
    assert on(site, None).seconds == 12.0 + 10 * 0.75
    assert on(site, without(site, (2, 0), covers={2: 1})).seconds == 12.0 + 8 * 0.75
    assert on(site, without(site, (2, 0), covers={2: 4})).seconds == 12.0 + 10 * 0.75
    assert on(site, without(site, (1, 0), covers={1: 0})).seconds == 12.0 + 8 * 0.75
    # Replica 1 is in region b, four seconds from a: its pipeline's hops to and from the stand-in are long.
    network = {"same_region": a_link(), "links": (("a", "b", 4000.0, 1e20),)}
    cluster = {"nodes_per_stage": 2, "placement": "by_hand", "regions": tuple("ab" * 4)}
    site = a_site(3, 1, network=network, cluster=cluster, overlap_gradient_exchange=False)
    complete = on(site, None)
    assert complete.seconds == 9.0 + 2 * 4.0  # the exchange
    found = on(site, without(site, (2, 1)))
    assert sorted(set(sent(found, "activation"))) == [(0, 2), (1, 3), (2, 4), (3, 4), (4, 6), (4, 7), (6, 0), (7, 1)]
    assert found.seconds == 9.0 + 4 * 4.0 + 2 * 4.0


# ---- what strategies add ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shadow", ["with_forward", "eager", "lazy"])
@pytest.mark.parametrize("loss_at", ["embedding_stage", "last_stage"])
def test_substitutes_do_the_shadow_work_too(shadow, loss_at):
    """Each stage's shadow is the next one's forward: 1 s for each of three microbatches and pipeline."""
    site = a_site(4, 3, loss_at=loss_at, cluster={"nodes_per_stage": 2})
    plan = IterationPlan(3, plain_routes(4), shadow_forwards=1.0, shadow=shadow)
    found = on(site, without(site, (0, 0), (2, 1)), plan)
    seconds = {
        stage: tuple(seconds_of(done_by(found, stage, replica, "shadow")) for replica in (0, 1)) for stage in range(4)
    }
    assert seconds == {0: (0.0, 6.0), 1: (3.0, 3.0), 2: (6.0, 0.0), 3: (3.0, 3.0)}


@pytest.mark.parametrize("loss_at", ["embedding_stage", "last_stage"])
def test_a_node_shadows_neither_its_covered_stage_nor_the_next(loss_at):
    site = a_site(4, 3, loss_at=loss_at)
    plan = IterationPlan(3, plain_routes(4), shadow_forwards=1.0, shadow_transfers=1)
    for covered, holder in ((2, 1), (1, 0)):
        found = on(site, without(site, (covered, 0), covers={covered: holder}), plan)
        shadowing = {o.stage for o in found.run.operations if o.kind == "shadow" and o.end_seconds > o.start_seconds}
        assert shadowing == {0, 1, 2, 3} - {covered, holder}
        lost = {(covered, holder), (covered + 1, covered)}
        assert set(sent(found, "shadow")) == {(0, 4), (1, 0), (2, 1), (3, 2), (4, 3)} - lost


def test_each_node_gets_one_embedding_copy_and_shadow():
    site = a_site(2, 2, network=GRADIENT, cluster={"nodes_per_stage": 2})
    plan = IterationPlan(2, plain_routes(2), shadow_transfers=1)
    found = on(site, without(site, (1, 1)), plan)  # places 0, 1 | 2 | 4, 5
    assert sent(found, "shadow of stage 0") == [(0, 4), (1, 5)]
    assert sent(found, "shadow of stage 1") == [(2, 0), (2, 1)]
    assert sent(found, "shadow of stage 2") == [(4, 2), (5, 2)]
    both = on(site, without(site, (1, 1), (2, 1)), plan)
    assert sent(both, "shadow of stage 2") == [(4, 2)]
    site = a_site(3, 2, cluster={"nodes_per_stage": 2})
    plan = IterationPlan(2, plain_routes(3), embedding_copies=True)
    assert sorted(sent(on(site, without(site, (1, 0)), plan), "copy")) == [(0, 3), (0, 6), (1, 3), (1, 7)]
    assert sorted(sent(on(site, without(site, (0, 1), (1, 0)), plan), "copy")) == [(0, 3), (0, 6), (0, 7)]
    covered = without(site, (1, 0), (1, 1), covers={1: 0})
    assert sent(on(site, covered, plan), "copy") == [(0, 6), (1, 7)]


# ---- prices ---------------------------------------------------------------------------------------------------------
def test_times_are_cached_by_plan_nodes_and_execution():
    site = a_site(4, 4, cluster={"nodes_per_stage": 2})
    pipeline, plan = IterationTimes(site, 0), plain_plan(site.costs.workload)
    one, other = without(site, (2, 1)), without(site, (2, 0))
    assert pipeline.alone(plan) is pipeline.alone(plan, site.complete_assignment)
    assert pipeline.alone(plan).order == "textbook"
    assert pipeline.alone(plan, one) is pipeline.alone(replace(plan), tuple(one))
    assert pipeline.alone(plan, one) is pipeline.alone(plan, other)  # but for an exchange of pipelines
    pairs = [without(site, (2, 1), (3, replica)) for replica in (0, 1)]
    assert pipeline.alone(plan, pairs[0]) is not pipeline.alone(plan, pairs[1])
    assert pipeline.alone(plan, one).order == "arrival"
    assert set(vars(pipeline.alone(plan, one))) == {"seconds", "split", "order"}  # no records
    assert pipeline.split(plan, one) is pipeline.alone(plan, one).split
    assert pipeline.executed(plan, 7, one) is pipeline.alone(plan, one)
    assert pipeline.among(plan, (), one) is pipeline.among(plan, (), one)
    assert pipeline.among(plan, (), one).seconds == pipeline.alone(plan, one).seconds > pipeline.alone(plan).seconds
    site = a_site(4, 4, cluster={"nodes_per_stage": 2, "jitter": 0.3})
    pipeline, plan = IterationTimes(site, 0), plain_plan(site.costs.workload)
    hosts = [None, without(site, (2, 1)), without(site, (3, 1))]
    drawn = [pipeline.executed(plan, execution, each) for execution in (1, 2) for each in hosts]
    assert len({price.seconds for price in drawn}) == 6
    assert drawn == [pipeline.executed(plan, execution, each) for execution in (1, 2) for each in hosts]
