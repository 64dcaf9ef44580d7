"""The loop over arrays against SimPy's event loop: the same seconds, arrivals and rest of messages, to the bit."""

import random
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import simpy
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from sim.cluster.flows import Flows, FlowState
from sim.cluster.network import STORAGE, Network
from sim.workload.arrays import compilation
from sim.workload.arrays.compilation import Compilation
from sim.workload.arrays.run import longest_seconds, run_fast, sent_bytes, service_order
from sim.workload.config import Layout, WorkFactor, plain_plan
from sim.workload.deployment import assign_slots, exchange_pipelines, nodes_are_alike
from sim.workload.iteration import IterationRun
from sim.workload.iteration_time import time_among, time_of
from sim.workload.iteration_work import IterationWork
from support.builders import a_site
from support.examples import examples
from support.simpy_iteration import run_alone, run_among

MBIT_PER_S = st.sampled_from((1e-3, 1e-2, 0.1, 1e6))  # a microbatch's activation has some hundred bytes
LATENCIES_MS = st.sampled_from((0.0, 0.0, 1.0, 250.0))
SECONDS = st.sampled_from((0.0, 0.2, 0.3))


@st.composite
def networks(draw):
    regions = ("a", "b", "c")[: draw(st.integers(1, 3))]
    pairs = [(a, b) for index, a in enumerate(regions) for b in regions[index + 1 :]]
    link = st.fixed_dictionaries({"latency_ms": LATENCIES_MS, "bandwidth_mbit_per_s": MBIT_PER_S})
    access = {"up_mbit_per_s": MBIT_PER_S, "down_mbit_per_s": MBIT_PER_S, "latency_ms": LATENCIES_MS}
    network = {
        "same_region": draw(link),
        "storage": draw(link),
        "access": draw(st.none() | st.fixed_dictionaries(access)),
        "links": tuple((*pair, draw(LATENCIES_MS), draw(st.sampled_from((1e-6, 1e-5, 1e-3)))) for pair in pairs),
        "sharing": draw(st.sampled_from(("node_pair", "region_pair", "none"))),
        "software_seconds_per_hop": draw(st.sampled_from((0.0, 0.01))),
        "negligible_seconds": draw(st.sampled_from((0.0, 0.05))),
    }
    return network, regions


@st.composite
def sites(draw):
    num_stages, num_replicas = draw(st.integers(2, 5)), draw(st.integers(1, 4))
    schedule = draw(st.sampled_from(("gpipe", "1f1b", "zero_bubble", "fifo", "interleaved_1f1b")))
    interleaved = schedule == "interleaved_1f1b"
    network, regions = draw(networks())
    options = {
        "network": network,
        "loss_at": draw(st.sampled_from(("embedding_stage", "last_stage"))),
        "gradient_exchange": draw(st.sampled_from(("ring", "all_to_all"))),
        "overlap_gradient_exchange": draw(st.booleans()),
        "pause_seconds": draw(SECONDS),
        "optimizer_seconds": draw(SECONDS),
        "chunks_per_stage": draw(st.integers(1, 3)) if interleaved else 1,
        "max_in_flight": None if schedule == "gpipe" else draw(st.none() | st.integers(1, 6)),
        "cluster": {"nodes_per_stage": num_replicas, **({"regions": regions} if len(regions) > 1 else {})},
    }
    if options["loss_at"] == "last_stage":
        options["cluster"]["embedding_on"] = draw(st.sampled_from(("own_node", "first_stage")))
    if draw(st.booleans()):
        slow = {"stage": draw(st.integers(1, num_stages)), "replica": draw(st.integers(0, num_replicas - 1))}
        options["cluster"]["stragglers"] = ({**slow, "slowdown": draw(st.sampled_from((1.5, 2.0)))},)
    if draw(st.booleans()):
        options["stages"] = [draw(st.sampled_from(((1.0, 2.0), (0.5, 1.0), (0.3, 0.7)))) for _ in range(num_stages)]
    num_microbatches = draw(st.integers(1, 4)) * (num_stages if interleaved else draw(st.sampled_from((1, 2))))
    return a_site(num_stages, num_microbatches, 1.0, 2.0, schedule, draw(st.sampled_from((0.0, 0.9))), **options)


@st.composite
def laid_out(draw, site):
    """Some pipelines of a site, made of nodes of any of its pipelines, perhaps without a stage; or the site itself."""
    cluster, layers = site.cluster, [site.costs.num_layers(stage) for stage in site.cluster.stages[1:]]
    is_interleaved = site.costs.workload.schedule == "interleaved_1f1b"
    if draw(st.booleans()) or site.costs.workload.loss_at == "last_stage":
        return site
    stages, num_pipelines = list(cluster.stages_with_nodes), draw(st.integers(1, len(cluster.replicas)))
    if len(layers) > 2 and not is_interleaved and draw(st.booleans()):
        del stages[1], layers[0]
    nodes = [draw(st.permutations(cluster.replicas))[:num_pipelines] for _ in stages]
    slots = [cluster.slot(stage, replica) for stage, of in zip(stages, nodes, strict=True) for replica in of]
    return site.laid_out(Layout(tuple(layers), tuple(slots)))


@st.composite
def plans(draw, site):
    stages = range(1, site.cluster.num_stages + 1)
    routes = plain_plan(site.costs.workload).routes
    if site.costs.workload.schedule != "interleaved_1f1b":
        routes = draw(
            st.just(routes) | st.tuples(st.permutations(stages).map(tuple), st.permutations(stages).map(tuple))
        )
    num_microbatches = site.costs.workload.num_microbatches
    factor = st.builds(
        WorkFactor,
        st.sampled_from(stages),
        st.sampled_from((0.0, 1.0, 1.3)),
        st.sampled_from((0.0, 0.7)),
        st.none() | st.sets(st.integers(0, num_microbatches - 1)).map(sorted).map(tuple),
        st.none() | st.sets(st.sampled_from(site.cluster.replicas)).map(sorted).map(tuple),
    )
    num_pipelines = len(site.cluster.replicas)
    of_each = st.lists(st.integers(1, num_microbatches), min_size=num_pipelines, max_size=num_pipelines)
    shares = draw(st.none() | of_each.map(tuple))
    bytes_of_stages = st.dictionaries(st.sampled_from(site.cluster.stages), st.sampled_from((0.0, 1e5, 1e7)))
    exchanges = draw(st.none() | bytes_of_stages.map(lambda found: tuple(found.items())))
    if site.costs.workload.schedule == "zero_bubble":
        factors = tuple(draw(st.lists(factor, max_size=2)))
        plain = plain_plan(site.costs.workload)
        copies = draw(st.booleans())
        return replace(
            plain, routes=routes, factors=factors, embedding_copies=copies, exchanges=exchanges, shares=shares
        )
    return replace(
        plain_plan(site.costs.workload),
        routes=routes,
        factors=tuple(draw(st.lists(factor, max_size=2))),
        shadow=draw(st.sampled_from(("with_forward", "eager", "lazy"))),
        shadow_forwards=draw(st.sampled_from((0.0, 0.5, 1.0))),
        shadow_backwards=draw(st.sampled_from((0.0, 1.0))),
        shadow_transfers=draw(st.integers(0, 2)),
        embedding_copies=draw(st.booleans()),
        shares=shares,
        exchanges=exchanges,
    )


@st.composite
def assignments(draw, site):
    """Complete, or without some nodes, or with a stage whose work another one does."""
    num_replicas, missing, covers = len(site.cluster.replicas), [], {}
    if draw(st.booleans()):
        return site.complete_assignment
    if draw(st.booleans()):
        covered = draw(st.integers(1 + site.cluster.first_stage, site.cluster.num_stages))
        covers = {covered: covered - 1}
    for stage in site.cluster.stages_with_nodes:
        if stage not in covers:
            lost = draw(st.sets(st.integers(0, num_replicas - 1), max_size=num_replicas - 1))
            missing += [site.cluster.slot(stage, replica) for replica in lost]
    assignment = list(assign_slots(missing, site.cluster, covers))
    if not covers and draw(st.booleans()):  # nodes of the neighbouring stage work for some of these
        for slot in missing:
            stage, replica = site.cluster.place_of(slot)
            there = [other for other in (stage - 1, stage + 1) if site.cluster.first_stage <= other]
            slots = [site.cluster.slot(o, replica) for o in there if o <= site.cluster.num_stages]
            assignment[slot] = draw(st.sampled_from([assignment[slot], *(s for s in slots if s not in missing)]))
    return tuple(assignment)


def orders(site, plan, assignment):
    """Orders in which the iteration can run; with routes the schedule's own may never end."""
    is_plain = plan.routes == plain_plan(site.costs.workload).routes
    is_complete = assignment == site.complete_assignment and is_plain
    return ("textbook", "arrival") if is_complete and site.costs.schedule(plan).has_textbook_order else ("arrival",)


@st.composite
def iterations(draw):
    site = draw(laid_out(draw(sites())))
    plan, assignment = draw(plans(site)), draw(assignments(site))
    return site, plan, draw(st.sampled_from(orders(site, plan, assignment))), assignment


def jitter(seed):
    """Factors that often are equal, from a stream for each node."""
    streams = {}

    def factor(stage, replica):
        return streams.setdefault((stage, replica), random.Random(f"{seed} {stage} {replica}")).choice((0.9, 1.0, 1.3))

    return factor


MANY = settings(max_examples=examples(40, 150), suppress_health_check=[HealthCheck.too_slow])


@MANY
@given(iterations(), st.none() | st.integers(0, 9))
def test_alone_it_takes_simpys_time(iteration, seed):
    site, plan, order, assignment = iteration
    event(f"{order}, {'complete' if assignment == site.complete_assignment else 'incomplete'}")
    factors = [None if seed is None else jitter(seed) for _ in range(2)]
    reference = run_alone(site, plan, order, factors[0], assignment)
    assert time_of(IterationWork(site, plan, order, assignment), factors[1]) == reference.time


@MANY
@given(iterations())
def test_no_iteration_exceeds_its_longest_time(iteration):
    site, plan, order, assignment = iteration
    work = IterationWork(site, plan, order, assignment)
    assert run_fast(work).seconds <= longest_seconds(work) * (1 + 1e-9) + 1e-3  # of ticks


@MANY
@given(iterations(), st.data())
def test_beside_messages_it_equals_simpy(iteration, data):
    site, plan, order, assignment = iteration
    nodes = st.integers(0, len(assignment) - 1)
    uploads = data.draw(st.lists(st.tuples(nodes, SECONDS, st.sampled_from((1e2, 1e3, 1e6))), min_size=1, max_size=4))
    others = tuple(FlowState(site.network.path(node, STORAGE), *state) for node, *state in uploads)
    assert time_among(IterationWork(site, plan, order, assignment), others) == run_among(
        site, plan, order, others, assignment
    )


@settings(max_examples=examples(15, 40))
@given(iterations())
def test_sent_bytes_are_those_of_all_messages(iteration):
    site, plan, order, assignment = iteration
    record = run_alone(site, plan, order, None, assignment).run
    expected = sum(message.num_bytes for message in record.messages)
    assert sent_bytes(IterationWork(site, plan, order, assignment)) == pytest.approx(expected, rel=1e-12)


@MANY
@given(iterations(), st.randoms(use_true_random=False))
def test_exchanged_pipelines_take_the_same_time(iteration, shuffler):
    site, plan, order, assignment = iteration
    stage_of, slots_of = site.cluster.stage_of, site.cluster.slots_of
    moved = {slot for slot, node in enumerate(assignment) if stage_of(slot) != stage_of(node)}
    is_by_stage = all(moved.issuperset(slots_of(stage_of(slot))) for slot in moved)
    if not (nodes_are_alike(site.cluster) and is_by_stage and all(each.pipelines is None for each in plan.factors)):
        return
    exchanged = list(site.cluster.replicas)
    shuffler.shuffle(exchanged)
    slots = [site.cluster.slot(stage, replica) for stage in site.cluster.stages_with_nodes for replica in exchanged]
    other = [0] * len(assignment)
    for slot, node in enumerate(assignment):
        other[slots[slot]] = slots[node]
    runs = [run_alone(site, plan, order, None, one) for one in (assignment, tuple(other))]
    assert runs[0].time == runs[1].time
    assert exchange_pipelines(assignment, site.cluster)[0] == exchange_pipelines(tuple(other), site.cluster)[0]


# ---- order of service --------------------------------------------------------------------------------------------
@st.composite
def served(draw):
    """An iteration, and the same one whose nodes serve visits in the order in which they do without disturbance."""
    site, plan, order, assignment = draw(iterations())
    work = IterationWork(site, plan, order, assignment)
    return work, IterationWork(site, plan, order, assignment, service_order(work))


@MANY
@given(served(), st.integers(0, 9))
def test_in_its_own_order_it_takes_the_same_time(both, seed):
    work, in_order = both
    assert time_of(in_order) == time_of(work)
    factors = [jitter(seed) for _ in range(2)]
    env = simpy.Environment()
    run = IterationRun(in_order, env, Flows(env), factors[0])
    env.run(until=run.done)
    assert time_of(in_order, factors[1]).seconds == env.now


@MANY
@given(served(), st.integers(0, 9), st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=4))
def test_more_load_never_takes_less_time(both, seed, uploads):
    """Where a message shares links only with those between the same two nodes; fair shares of others can shift."""
    work, (site, in_order) = both[0], (both[0].deployment, both[1])
    assume(site.network.config.access is None and site.network.config.sharing != "region_pair")
    alone_seconds, factor = run_fast(work).seconds, jitter(seed)
    assert run_fast(in_order, (), lambda *node: max(1.0, factor(*node))).seconds >= alone_seconds
    ends = [(a % in_order.cluster.num_slots, b % in_order.cluster.num_slots) for a, b in uploads]
    others = [FlowState(site.network.path(a, b), 0.0, 1e6) for a, b in ends if a != b]
    assert run_fast(in_order, others).seconds >= alone_seconds - 1e-9


@MANY
@given(iterations(), st.sampled_from((1.1, 2.0, 1e3)))
def test_more_bandwidth_never_takes_more_time(iteration, factor):
    """In the same order of service, where messages share links as above."""
    site, plan, order, assignment = iteration
    config = site.network.config
    assume(config.access is None and config.sharing != "region_pair")
    work = IterationWork(site, plan, order, assignment)
    faster = Network(config.model_copy(update={"bandwidth_factor": factor}), site.network.regions_of_nodes)
    again = IterationWork(replace(site, network=faster), plan, order, assignment, service_order(work))
    assert run_fast(again).seconds <= run_fast(work).seconds + 1e-9


def test_nodes_that_wait_for_each_other_raise():
    site = a_site(3, 3, schedule="1f1b", max_in_flight=1)  # too few for the order of 1f1b
    with pytest.raises(RuntimeError, match="wait for each other"):
        run_fast(IterationWork(site, plain_plan(site.costs.workload), "textbook"))


# ---- compiled ------------------------------------------------------------------------------------------------
@pytest.mark.slow
@MANY
@given(iterations(), st.none() | st.integers(0, 9), st.data())
def test_compiled_it_has_the_same_bits(iteration, seed, data):
    pytest.importorskip("numba")
    site, plan, order, assignment = iteration
    nodes = st.integers(0, len(assignment) - 1)
    uploads = data.draw(st.lists(st.tuples(nodes, SECONDS, st.sampled_from((1e2, 1e3, 1e6))), max_size=4))
    others = tuple(FlowState(site.network.path(node, STORAGE), *state) for node, *state in uploads)
    work = IterationWork(site, plan, order, assignment)
    factors = [None if seed is None else jitter(seed) for _ in range(2)]
    plain = run_fast(work, others, factors[0])
    with patch.object(Compilation, "pays", return_value=True):
        assert run_fast(work, others, factors[1]) == plain


def test_compiling_pays_only_for_long_work(monkeypatch, tmp_path):
    monkeypatch.setattr(compilation, "machine_code_folder", lambda: tmp_path / "none")
    monkeypatch.setattr(compilation, "is_numba_installed", lambda: True)
    short, long = Compilation(), Compilation()
    assert not short.pays(1_000_000)
    assert short.pays(10_000_000)
    long.plain_seconds = 19.0
    assert long.pays(100_000)
    (tmp_path / "loop.nbi").write_text("")  # as numba names what it keeps
    monkeypatch.setattr(compilation, "machine_code_folder", lambda: tmp_path)
    assert Compilation().pays(100_000)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(compilation, "machine_code_folder", lambda: tmp_path / "file" / "code")  # cannot be made
    assert not short.pays(10_000_000)
    monkeypatch.setattr(compilation, "is_numba_installed", lambda: False)
    assert not short.pays(10_000_000)


def test_machine_code_is_found_again_from_any_installation():
    """numba looks for it by the folder of the source."""
    pytest.importorskip("numba")
    if (folder := compilation.machine_code_folder()) is None or not compilation.is_writable(folder):
        pytest.skip("no folder for machine code")
    from sim.workload.arrays.compiled import compile_loop

    assert Path(compile_loop().py_func.__code__.co_filename).parent == folder
