"""Repartitioning: which cuts there are, which is chosen, what it costs to get there, and what it cannot do."""

from typing import Any

import pytest

from sim.scenario.scenario import Scenario
from sim.simulation.run import Run, build_site
from sim.strategies.repartition import Repartition, RepartitionConfig
from sim.workload.cuts import Cut, cuts_for, fewest_nodes, fits, fitting_cuts, scenario_cut
from sim.workload.holdings import Holdings, parts_of
from support.builders import CHECKPOINT_BYTES, TINY_MODEL, a_link, a_scenario, a_world, of_kind, run
from support.builders import with_losses as losing
from support.failure_processes import Loss, ScriptedConfig

LAYER_BYTES = CHECKPOINT_BYTES
WAITS = {"detection_seconds": 10.0, "regroup_seconds": 4.0, "startup_seconds": 5.0, "provisioning_seconds": 1e5}
EIGHT_SECONDS_A_LAYER = {
    "same_region": a_link(0.0, LAYER_BYTES / 8),
    "storage": a_link(0.0, 8 * LAYER_BYTES / 10),
    "negligible_seconds": 1e9,
}
ONE_OF_STAGE_TWO = Loss(50.0, ((2, 0),))


def a_device(memory_bytes: float) -> dict[str, Any]:
    return {"memory_gib": memory_bytes / 2**30, "fp32_tflops": 1, "bf16_tflops": 1, "utilisation": 1}


def eight_nodes(strategy: dict[str, Any] | None = None, **options: Any) -> Scenario:
    """Two pipelines of stage 0 and three stages of two layers. Three layers do not fit: the model needs four nodes."""
    cluster = {"nodes_per_stage": 2, "device": a_device(28_000), **WAITS, **options.pop("cluster", {})}
    return a_scenario(
        ({"kind": "repartition", **(strategy or {})},),
        num_stages=3,
        model={**TINY_MODEL, "num_layers": options.pop("num_layers", 6)},
        sequences_per_microbatch=1,
        sequence_length=1,
        cluster=cluster,
        **{"network": EIGHT_SECONDS_A_LAYER, **options},
    )


def recuts(result: Run) -> list[tuple[float, str]]:
    return [(event.time_seconds, event.detail) for event in of_kind(result, "recut")]


def iteration_seconds(result: Run) -> list[float]:
    return [record.ended_seconds - record.started_seconds for record in result.iterations]


# ---- the cuts ----------------------------------------------------------------------------------------
def test_every_depth_that_fits_is_a_cut():
    """Eight microbatches in all, as the scenario has."""
    scenario = eight_nodes()
    costs, cluster = build_site(scenario).costs, scenario.cluster
    seven = cuts_for(costs, cluster, 7)
    assert [(cut.layers_per_stage, cut.num_pipelines, cut.num_microbatches) for cut in seven] == [
        ((6,), 3, 3),
        ((3, 3), 2, 4),
        ((2, 2, 2), 1, 8),
        ((2, 2, 1, 1), 1, 8),
        ((2, 1, 1, 1, 1), 1, 8),
        ((1, 1, 1, 1, 1, 1), 1, 8),
    ]
    assert [fits(costs, cluster, cut) for cut in seven] == [False, False, True, True, True, True]
    assert fitting_cuts(costs, cluster, 8)[0] == scenario_cut(build_site(scenario)).cut
    assert fewest_nodes(costs, cluster) == 4


def test_the_fastest_cut_is_chosen():
    """Seven nodes for a model that needs four: iterations of 30, 28, 26 and 19.5 s."""
    world = a_world(losing(eight_nodes(), ONE_OF_STAGE_TWO))
    strategy = Repartition(RepartitionConfig(), 3)
    slots = [slot for slot in range(8) if slot != 4]
    costs, cluster = world.costs, world.cluster.config
    held = strategy._holdings(world)
    seconds = {
        cut.num_stages: strategy._price(world, held.place(cut, slots), 0.0).iteration_seconds
        for cut in fitting_cuts(costs, cluster, 7)
    }
    assert seconds == {3: 30.0, 4: 28.0, 5: 26.0, 6: 19.5}
    best = strategy._best(world, slots)
    assert best.placed.cut == Cut((1,) * 6, 1, 8)
    assert best.iteration_seconds == 19.5


def test_the_cuts_of_the_documented_example():
    """docs/strategies.md: seven V100s for a model of 1.5B parameters that needs four."""
    scenario = Scenario.model_validate(
        {
            "name": "example",
            "workload": {"model": "large", "num_stages": 3, "num_microbatches": 8, "sequences_per_microbatch": 1},
            "training": {"learner": "none", "model": {"num_stages": 3}},
            "cluster": {"device": "v100", "nodes_per_stage": 2},
            "network": "single_cluster",
            "strategies": ({"kind": "repartition"},),
        }
    )
    world, slots = a_world(scenario), [0, 1, 2, 3, 5, 6, 7]
    strategy, costs, cluster = Repartition(RepartitionConfig(), 3), world.costs, scenario.cluster
    world.placement.lose(4)
    held = strategy._holdings(world)
    rows = [
        (cut.num_stages, round(strategy._price(world, placed, 0.0).iteration_seconds, 1), held.lacking_bytes(placed))
        for cut in fitting_cuts(costs, cluster, 7)
        for placed in (held.place(cut, slots),)
    ]
    assert [(depth, seconds, round(num / 2**30, 2)) for depth, seconds, num in rows] == [
        (3, 11.7, 0.0),
        (4, 9.3, 4.5),
        (5, 8.1, 2.25),
        (6, 7.0, 3.0),
    ]
    assert fewest_nodes(costs, cluster) == 4
    assert round(world.iteration_seconds(world.plain_plan()), 1) == 8.2


def test_no_cut_is_faster_than_the_one_chosen():
    """Also where nodes differ in region and in speed; whatever is left out by its lower bound."""
    far = {**EIGHT_SECONDS_A_LAYER, "negligible_seconds": 0.0, "links": (("here", "there", 100, 1e-5),)}
    slow = {"stragglers": ({"stage": 1, "slowdown": 0.5}, {"stage": 2, "replica": 1, "slowdown": 3.0})}
    for network in (EIGHT_SECONDS_A_LAYER, far):
        for cluster in ({}, slow):
            world = a_world(eight_nodes(network=network, cluster=cluster))
            strategy = Repartition(RepartitionConfig(), 3)
            held = strategy._holdings(world)
            for slots in ([0, 1, 2, 3, 5, 6, 7], [0, 2, 3, 5, 7]):
                best = strategy._best(world, slots)
                for bound_seconds, cut in strategy._cuts_for(world, len(slots)):
                    for placed in strategy._placed(world, held, cut, slots):
                        seconds = strategy._price(world, placed, 0.0).iteration_seconds
                        assert seconds >= max(bound_seconds, best.iteration_seconds)


@pytest.mark.parametrize("loss_at", ["embedding_stage", "last_stage"])
@pytest.mark.parametrize("embedding_on", ["own_node", "first_stage"])
def test_a_cut_has_every_part_once(loss_at, embedding_on):
    if (loss_at, embedding_on) == ("embedding_stage", "first_stage"):
        return
    scenario = eight_nodes(loss_at=loss_at, cluster={"embedding_on": embedding_on})
    site = build_site(scenario)
    for cut in cuts_for(site.costs, scenario.cluster, 8):
        stages = range(site.cluster.first_stage, cut.num_stages + 1)
        parts = [part for stage in stages for part in parts_of(site.costs, cut, stage, site.cluster.first_stage)]
        assert sorted(parts) == [-2, -1, 0, 1, 2, 3, 4, 5]


def test_nodes_keep_what_they_hold():
    """Nothing moves from two layers a node to one, but for the layer whose second holder is lost."""
    costs = build_site(eight_nodes()).costs
    cut = Cut((2, 2, 2), 2, 4)
    parts = [parts_of(costs, cut, stage, 0) for stage in range(4)]
    held = Holdings(costs, 0, {slot: parts[slot // 2] for slot in range(8) if slot != 4})
    placed = held.place(Cut((1,) * 6, 1, 8), [0, 1, 2, 3, 5, 6, 7])
    moves = list(held.moves(placed, ["local"] * 8))
    assert [num_bytes for _, _, num_bytes in moves] == [LAYER_BYTES]
    assert moves[0][0] == 5
    assert moves[0][1] in (0, 1)
    assert held.lacking_bytes(placed) == LAYER_BYTES


# ---- runs ---------------------------------------------------------------------------------------------
def test_a_loss_costs_detection_regrouping_and_the_bytes_that_move():
    """The third iteration is cut at 50 s; one layer moves in 8 s; then iterations take 19.5 s."""
    result = run(losing(eight_nodes(), ONE_OF_STAGE_TWO))
    first = iteration_seconds(result)[0]
    num_before = int(50.0 / first)
    assert recuts(result) == [(50.0 + 10.0 + 4.0 + 8.0, "1 pipeline of 6 stages on 7 of 7 nodes")]
    assert iteration_seconds(result) == [first] * num_before + [19.5] * (20 - num_before)
    assert result.wall_clock_seconds == 72.0 + (20 - num_before) * 19.5
    assert result.sent_bytes == LAYER_BYTES
    assert result.ledger["state_transfer"] == 8.0
    assert result.ledger["lost_work"] == pytest.approx(50.0 - num_before * first)
    assert result.num_failures == 0


def losses_of(result: Run) -> dict[int, Any]:
    return {record.iteration: (record.train_loss, record.validation_loss) for record in result.iterations}


@pytest.mark.parametrize("lost", [((2, 0),), ((2, None),), ((0, 0), (3, 1))])
def test_losses_are_those_of_training_without_failures(lost):
    plain = run(eight_nodes())
    assert plain.wall_clock_seconds == run(a_plain_line()).wall_clock_seconds
    churned = run(losing(eight_nodes({"interval_iterations": 1}), Loss(50.0, lost), Loss(200.0, ((1, 1),), 30.0)))
    assert len(recuts(churned)) >= 2
    assert losses_of(churned) == losses_of(plain) == losses_of(run(a_plain_line()))


def a_plain_line() -> Scenario:
    return eight_nodes().model_copy(update={"strategies": a_scenario(({"kind": "none"},)).strategies})


def test_a_lost_part_is_fetched_by_all_from_the_store():
    """Both nodes of stage 2 are lost: 7 of 8 parts of the size of a layer are stored after two iterations."""
    scenario = losing(eight_nodes({"interval_iterations": 1}), Loss(100.0, ((2, None),)))
    result = run(scenario)
    (back,) = of_kind(result, "rolled_back")
    kept = max(event.iteration for event in of_kind(result, "checkpoint_durable") if event.time_seconds < 100.0)
    assert back.detail == f"to iteration {kept}"
    assert recuts(result)[0][1] == "1 pipeline of 5 stages on 6 of 6 nodes"
    download_seconds = 7 * LAYER_BYTES / (8 * LAYER_BYTES / 10)
    assert recuts(result)[0][0] == pytest.approx(100.0 + 10.0 + 4.0 + download_seconds)
    assert result.num_failures == 1
    assert result.num_iterations == 20


def test_a_failure_meanwhile_begins_it_anew():
    """A second node is lost while a layer moves: six nodes, found by another detection."""
    result = run(losing(eight_nodes(), ONE_OF_STAGE_TWO, Loss(20.0, ((3, 0),))))
    ((at_seconds, detail),) = recuts(result)
    assert detail == "1 pipeline of 5 stages on 6 of 6 nodes"
    assert at_seconds >= 70.0 + 10.0 + 4.0


@pytest.mark.parametrize("grow", ["at_once", "at_next_loss"])
def test_nodes_that_return_are_taken_in(grow):
    fast = {"same_region": a_link(0.0, 1e9), "storage": a_link()}
    scenario = losing(eight_nodes({"grow": grow}, network=fast), Loss(50.0, ((2, 0),), 100.0))
    result = run(scenario)
    details = [detail for _, detail in recuts(result)]
    both = ["1 pipeline of 6 stages on 7 of 7 nodes", "2 pipelines of 3 stages on 8 of 8 nodes"]
    assert details == (both if grow == "at_once" else both[:1])
    assert (iteration_seconds(result)[-1] < 19.5) is (grow == "at_once")
    assert (result.joining_seconds > 0.0) is (grow == "at_once")


def test_as_many_pipelines_as_wanted_while_nodes_suffice():
    """Six nodes make two pipelines of stage 0 and two stages, which are slower than one of five; four nodes do not."""
    scenario = eight_nodes({"min_pipelines": 2}, cluster={"device": a_device(40_000)})
    result = run(losing(scenario, Loss(50.0, ((2, 0), (3, 1))), Loss(100.0, ((0, 0), (1, 0)))))
    details = [detail for _, detail in recuts(result)]
    assert details == ["2 pipelines of 2 stages on 6 of 6 nodes", "1 pipeline of 3 stages on 4 of 4 nodes"]
    assert not of_kind(result, "rolled_back")


def test_idle_nodes_come_and_go_without_effect():
    """Of seven nodes four take part where three layers make three stages; the last to come is lost again."""
    scenario = eight_nodes(num_layers=3, cluster={"device": a_device(16_000)})
    calm, churned = (
        run(losing(scenario, Loss(50.0, ((2, 0),), 1e6), *more))
        for more in ((), (Loss(70.0, ((-1, None), (3, 1)), 50.0),))
    )
    assert recuts(calm) == [(64.0, "1 pipeline of 3 stages on 4 of 7 nodes")]
    assert [event.kind for event in churned.events if event.time_seconds > 64.0] == ["node_lost"]
    assert churned.wall_clock_seconds == calm.wall_clock_seconds


def test_training_begins_with_the_nodes_that_are_there():
    start = ScriptedConfig(scope="cluster", num_initial_nodes=5)
    result = run(eight_nodes().model_copy(update={"failures": start}))
    assert recuts(result) == [(0.0, "1 pipeline of 4 stages on 5 of 5 nodes")]
    assert result.stopped is None
    too_few = run(eight_nodes().model_copy(update={"failures": start.model_copy(update={"num_initial_nodes": 3})}))
    assert too_few.stopped
    assert "3 nodes are active, and the model needs 4" in too_few.stopped


@pytest.mark.parametrize("lost", [((2, 0),), ((2, None),)])
@pytest.mark.parametrize("network", [EIGHT_SECONDS_A_LAYER, {**EIGHT_SECONDS_A_LAYER, "negligible_seconds": 0.0}])
@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_both_fidelities_agree(lost, network, jitter):
    scenario = eight_nodes({"interval_iterations": 2}, network=network, cluster={"jitter": jitter})
    scenario = losing(scenario, Loss(90.0, lost, 150.0), Loss(90.0, ((0, 0),)))
    one, other = (run(scenario.model_copy(update={"fidelity": each})) for each in ("iteration", "microbatch"))
    assert one.events == other.events
    assert one.wall_clock_seconds == other.wall_clock_seconds
    assert one.ledger == pytest.approx(other.ledger)


@pytest.mark.parametrize(
    ("options", "workload", "message"),
    [
        ({"just_in_time": True}, {}, "just_in_time goes with kind 'checkpoint'"),
        ({"local_gib_per_s": 1.0}, {}, "local_gib_per_s goes with kind 'checkpoint'"),
        ({}, {"schedule": "interleaved_1f1b", "chunks_per_stage": 2}, "is for a fixed number of stages"),
        ({"interval_iterations": 1, "interval": "young"}, {}, "not several"),
    ],
)
def test_what_does_not_go_with_it_is_refused(options, workload, message):
    found = Repartition.check(RepartitionConfig(**options), a_scenario(**workload).workload)
    assert found
    assert message in found
