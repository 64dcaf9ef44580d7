"""Recovery inside a replica of `diloco`, from copies on other nodes or its own saves: traffic, and what is learnt."""

import pytest

from models.recipe import REST, Recipe
from models.training_state import Edit, Merge
from models.trajectory import Trajectory
from sim.scenario.loading import ScenarioError, parse_scenario
from sim.simulation.run import build_site
from sim.strategies.diloco import Diloco
from sim.strategies.diloco_options import DilocoConfig
from support.builders import CHECKPOINT_BYTES, INSTANT, a_link, a_scenario, of_kind, run, times, with_losses
from support.failure_processes import Loss
from support.local_steps import THREE, DiLoCo, diloco, positions_of
from support.trainings import NUM_STAGES, a_corpus, copied, spec_for

SOON_BACK = {**THREE, "provisioning_seconds": 5.0}
GLOBAL_BYTES = 680 * 8  # weights and velocity of a stage in fp32
LATE = Loss(70.0, ((2, 1),))  # in the fourth iteration of 21 s; rests in the fourth and fifth, and then goes on


def entries_of(position, number=1):
    return [(step, entry) for step, entry in position.replicas[number].lineage.edits if not isinstance(entry, Merge)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return a_corpus(tmp_path_factory.mktemp("text"))


# ---- an exact copy ------------------------------------------------------------------------------------


def test_with_a_copy_the_line_goes_on_as_it_was_after_a_rest(monkeypatch):
    options = diloco(inner_steps=6, lost_stage="neighbour_copy")
    positions, found = positions_of(monkeypatch, with_losses(a_scenario((options,), cluster=SOON_BACK, steps=12), LATE))
    rows = Recipe(rows=tuple(range(5, 11)))
    assert entries_of(positions[-1]) == [(0, rows), (3, REST), (5, rows)]
    assert [event.detail[:1] for event in of_kind(found, "synchronised")] == ["3", "3"]


@pytest.mark.parametrize("lost", [((2, 1),), ((0, 1),), ((1, 1), (3, 1))])
def test_with_a_copy_it_learns_all_rows_but_those_of_its_rest(monkeypatch, corpus, lost):
    """Against a hand-written loop in which the second of two replicas takes no step in iterations 4 and 5."""
    spec = spec_for(corpus)
    options = diloco(inner_steps=6, lost_stage="neighbour_copy")
    cluster = {**SOON_BACK, "nodes_per_stage": 2}
    scenario = a_scenario((options,), num_stages=NUM_STAGES, steps=12, evaluation_interval=6, cluster=cluster)
    learner = Trajectory(spec, corpus, None)
    positions, found = positions_of(monkeypatch, with_losses(scenario, Loss(70.0, lost)), training=learner)
    rests = [step for step, position in enumerate(positions, 1) if position.replicas[1].lineage.is_at_rest]
    assert rests == [4, 5]
    loop = DiLoCo(spec, corpus, [[0, 1], [2, 3]])
    for step, record in enumerate(found.iterations, 1):
        training = [0] if step in rests else [0, 1]
        losses = loop.inner_step(training)
        assert record.train_loss == pytest.approx(sum(losses[n] for n in training) / len(training), rel=2e-5)
        if step % 6 == 0:
            loop.outer_step([0, 1])
            assert record.validation_loss == pytest.approx(loop.validation_loss(), rel=2e-5)


def test_with_copies_and_a_quorum_of_all_losses_change_no_bit(corpus):
    """Nodes that are lost in iterations 1 and 3 cost time alone; both are run again."""
    options = diloco(inner_steps=3, lost_stage="neighbour_copy", min_replicas=2)
    cluster = {**SOON_BACK, "nodes_per_stage": 2}
    scenario = a_scenario((options,), num_stages=NUM_STAGES, steps=6, evaluation_interval=3, cluster=cluster)
    churned = with_losses(scenario, Loss(10.0, ((2, 1),)), Loss(70.0, ((1, 0), (3, 1))))
    found, plain = (run(each, training=Trajectory(spec_for(corpus), corpus, None)) for each in (churned, scenario))
    for name in ("train_loss", "validation_loss"):
        assert [getattr(one, name) for one in found.iterations] == [getattr(one, name) for one in plain.iterations]
    assert [one.num_replicas for one in found.synchronisations] == [2, 2]
    durations = [one.ended_seconds - one.started_seconds for one in found.iterations]
    assert durations == [one.ended_seconds - one.started_seconds for one in plain.iterations]


def test_a_stage_lost_with_its_holder_takes_the_global_weights(monkeypatch):
    """The copy of stage 3 is on the node of stage 2, and that of stage 2 on the node of stage 1."""
    options = diloco(inner_steps=6, lost_stage="neighbour_copy")
    scenario = a_scenario((options,), cluster=SOON_BACK, steps=6)
    positions, found = positions_of(monkeypatch, with_losses(scenario, Loss(70.0, ((2, 1), (3, 1)))))
    zeros, merge, _ = (entry for step, entry in positions[5].replicas[1].lineage.edits if step == 5)
    assert (zeros.stage, zeros.rule, merge.stages, merge.rate) == (3, "zeros", (3,), 1.0)
    own_and_shadow = 2 * CHECKPOINT_BYTES  # stage 2's state, and that of stage 4, which the node of stage 3 holds
    assert found.sent_bytes == own_and_shadow + 2 * 680 * 4 + 2 * GLOBAL_BYTES  # stage 3's weights, twice


def test_copies_cost_a_gradient_each_iteration_and_weights_once_a_round():
    """With 680 bytes per second between two nodes, a stage's gradients or weights of 2720 bytes take 4 s."""
    slow = {"same_region": a_link(bytes_per_second=680.0), "storage": INSTANT, "negligible_seconds": 1e9}
    scenario = a_scenario((diloco(lost_stage="neighbour_copy"), diloco()), cluster=THREE, steps=12, network=slow)
    copies, plain = run(scenario, 0), run(scenario, 1)
    assert copies.wall_clock_seconds == pytest.approx(plain.wall_clock_seconds + 12 * 4.0 + 2 * 4.0)
    after = [copies.iterations[number].ended_seconds - copies.iterations[number - 1].ended_seconds for number in (4, 5)]
    assert after == pytest.approx([21.0 + 8.0, 21.0 + 4.0])


def test_a_node_is_sent_its_state_and_the_copy_that_it_holds():
    scenario = a_scenario((diloco(inner_steps=6, lost_stage="neighbour_copy"),), cluster=SOON_BACK, steps=12)
    assert run(with_losses(scenario, LATE)).sent_bytes == 2 * CHECKPOINT_BYTES + GLOBAL_BYTES


# ---- saves of its own -----------------------------------------------------------------------------------


PARTS = ("weights", ""), ("adam", ".step"), ("adam", ".exp_avg"), ("adam", ".exp_avg_sq")


def saving(lost_stage="checkpoint", **options):
    return diloco(inner_steps=6, lost_stage=lost_stage, interval_iterations=2, **options)


@pytest.mark.parametrize(
    ("lost_stage", "back"),
    [("checkpoint", [0, 1, 2, 3, 4]), ("neighbour_checkpoint", [0, 1, 2, 3, 4]), ("stale_stage", [2])],
)
def test_stages_go_back_to_the_replicas_own_save(monkeypatch, corpus, lost_stage, back):
    """To that of iteration 2: weights and Adam to the bit; the others stay as they are."""
    spec = spec_for(corpus)
    cluster = {**SOON_BACK, "nodes_per_stage": 2}
    scenario = a_scenario((saving(lost_stage),), num_stages=NUM_STAGES, steps=6, cluster=cluster)
    learner = Trajectory(spec, corpus, None)
    positions, found = positions_of(monkeypatch, with_losses(scenario, LATE), training=learner)
    saved, rested, last = positions[1].replicas[1], positions[4].replicas[1], positions[5].replicas[1]
    edits = [(step, entry) for step, entry in entries_of(positions[5]) if isinstance(entry, Edit)]
    assert [(step, edit.stage, edit.goes_back_to) for step, edit in edits] == [(5, s, saved.moment) for s in back]
    num_edits = 1 + max(number for number, (_, entry) in enumerate(last.lineage.edits) if isinstance(entry, Edit))
    gone_back = type(last)(last.lineage.first(num_edits), 5)
    before, older, after = (copied(learner.state_at(state)) for state in (rested, saved, gone_back))
    for stage in range(5):
        expected = older if stage in back else before
        for name in (f"{of}.{stage}{part}" for of, part in PARTS):
            assert after[name].equal(expected[name]), name
            assert after[name].equal(older[name]) == (stage in back), name
    assert found.iterations[-1].train_loss is not None


def test_only_lost_stages_are_fetched_from_the_store():
    """Each save uploads all stages; the replica goes on after iteration 5, from its save of iteration 2."""
    scenario = a_scenario((saving(),), cluster=SOON_BACK, steps=12)
    found = run(with_losses(scenario, LATE))
    started = [(event.iteration, event.detail) for event in of_kind(found, "checkpoint_started")]
    expected = [(step, f"replica {n}") for step in range(2, 13, 2) for n in range(3) if (step, n) != (4, 1)]
    assert started == expected
    assert len(of_kind(found, "checkpoint_durable")) == len(expected) - 3  # the run ends with the last ones
    uploaded = 5 * CHECKPOINT_BYTES * len(expected)
    assert found.sent_bytes == uploaded + CHECKPOINT_BYTES + GLOBAL_BYTES


def test_saves_in_memory_come_back_from_the_next_stage():
    """That of stage 2 from the node of stage 3; its new node also holds that of stage 1 again."""
    scenario = a_scenario((saving("neighbour_checkpoint"),), cluster=SOON_BACK, steps=12)
    found = run(with_losses(scenario, LATE))
    num_saves = len(of_kind(found, "checkpoint_started"))
    assert len(of_kind(found, "checkpoint_durable")) >= num_saves - 3  # the run ends with the last ones
    assert found.sent_bytes == 5 * CHECKPOINT_BYTES * num_saves + 2 * CHECKPOINT_BYTES + GLOBAL_BYTES


@pytest.mark.parametrize(("other", "is_lost"), [(3, True), (1, True), (4, False)])
def test_a_save_in_memory_is_lost_with_two_neighbours(monkeypatch, other, is_lost):
    scenario = a_scenario((saving("neighbour_checkpoint"),), cluster=SOON_BACK, steps=6)
    positions, _ = positions_of(monkeypatch, with_losses(scenario, Loss(70.0, ((2, 1), (other, 1)))))
    edits = [(edit.stage, edit.rule) for step, edit in entries_of(positions[5]) if isinstance(edit, Edit) and step == 5]
    rolled_back = [(stage, "sum") for stage in range(5)]
    assert edits == ([(stage, "zeros") for stage in sorted((2, other))] if is_lost else rolled_back)


def two_tiers(store_iterations, memory_iterations, **options):
    intervals = {"interval_iterations": store_iterations, "memory_interval_iterations": memory_iterations}
    return diloco(lost_stage="two_tier_checkpoint", **{"inner_steps": 6, **intervals, **options})


@pytest.mark.parametrize(
    ("strategy", "where"),
    [
        (diloco(lost_stage="neighbour_checkpoint", interval_iterations=1), ""),
        (two_tiers(4, 1), ", in memory"),
    ],
)
def test_training_never_waits_for_copies_in_memory(strategy, where):
    """Copies take 40.8 s, an iteration 21 s: those of iteration 1 are under way after iteration 2."""
    slow = {"same_region": a_link(bytes_per_second=200.0), "storage": INSTANT, "negligible_seconds": 1e9}
    found = run(a_scenario((strategy,), cluster={"nodes_per_stage": 2}, steps=6, network=slow))
    started = [event.iteration for event in of_kind(found, "checkpoint_started") if event.detail == f"replica 1{where}"]
    assert started == [1, 3, 5]
    assert found.ledger["checkpoint_save"] == 0.0


@pytest.mark.parametrize(
    ("store", "memory", "lost", "back_to"),
    [
        (2, 1, ((2, 1),), 3),  # in memory
        (2, 1, ((2, 1), (3, 1)), 2),  # in the store: stage 2's part in memory was on the node of stage 3
        (3, 2, ((2, 1),), 3),  # in the store, which is later
        (3, 3, ((2, 1),), 3),
        (5, 5, ((2, 1),), None),
        (5, 1, ((0, 1), (4, 1)), None),  # stage 4's part was on the node of stage 0
    ],
)
def test_of_two_tiers_the_latest_save_that_survives_is_used(monkeypatch, store, memory, lost, back_to):
    scenario = a_scenario((two_tiers(store, memory),), cluster=SOON_BACK, steps=6)
    positions, _ = positions_of(monkeypatch, with_losses(scenario, Loss(70.0, lost)))
    edits = [(edit.stage, edit.goes_back_to) for _, edit in entries_of(positions[5]) if isinstance(edit, Edit)]
    if back_to is None:  # global weights
        assert edits == [(stage, None) for stage in sorted(stage for stage, _ in lost)]
    else:
        assert edits == [(stage, positions[back_to - 1].replicas[1].moment) for stage in range(5)]


@pytest.mark.parametrize(("lost", "num_parts"), [(((2, 1),), 3), (((2, 1), (3, 1)), 2)])
def test_new_nodes_have_parts_of_both_tiers_again(lost, num_parts):
    """From holders its part and the one that it holds, from the store its part; or from the store alone."""
    scenario = a_scenario((two_tiers(2, 1),), cluster=SOON_BACK, steps=12)
    found = run(with_losses(scenario, Loss(70.0, lost)))
    started = of_kind(found, "checkpoint_started")
    assert {event.detail for event in started} == {
        f"replica {n}{where}" for n in range(3) for where in ("", ", in memory")
    }
    sent_to_new = num_parts * CHECKPOINT_BYTES + len(lost) * GLOBAL_BYTES
    assert found.sent_bytes == 5 * CHECKPOINT_BYTES * len(started) + sent_to_new


def test_a_save_in_memory_that_was_lost_is_not_used_later(monkeypatch):
    """Copies take 12 s. That of iteration 7 is lost with two nodes, and the next one, of iteration 11, is cut."""
    slow = {"same_region": a_link(bytes_per_second=680.0), "storage": INSTANT, "negligible_seconds": 1e9}
    scenario = a_scenario((two_tiers(6, 1, inner_steps=18),), cluster=SOON_BACK, steps=18, network=slow)
    losses = Loss(160.0, ((2, 1), (3, 1))), Loss(80.0, ((4, 1),))
    positions, found = positions_of(monkeypatch, with_losses(scenario, *losses))
    cut = [(event.iteration, event.detail[:20]) for event in of_kind(found, "checkpoint_lost")]
    assert cut == [(11, "replica 1, in memory")]
    moments = [edit.goes_back_to.step for _, edit in entries_of(positions[16]) if isinstance(edit, Edit)]
    assert moments == 10 * [6]


def test_steps_undone_twice_are_subtracted_once(monkeypatch):
    """Replica 1 goes back to iteration 6 in memory, and from iteration 10 to iteration 4 in the store.

    It has learnt iterations 1 to 4, 13 and 14, with six rows each; the others all 14 with five.
    """
    options = two_tiers(4, 2, inner_steps=14, weights="tokens")
    scenario = a_scenario((options,), cluster=SOON_BACK, steps=14, upload_seconds=10.0)
    losses = Loss(150.0, ((2, 1),)), Loss(65.0, ((2, 1), (3, 1)))
    positions, _ = positions_of(monkeypatch, with_losses(scenario, *losses))
    moments = {edit.goes_back_to.step for _, edit in entries_of(positions[12]) if isinstance(edit, Edit)}
    assert moments == {4, 6}
    (merge,) = (entry for _, entry in positions[13].lineage.edits if isinstance(entry, Merge))
    assert merge.shares == pytest.approx([70 / 176, 36 / 176, 70 / 176])


def test_only_what_cannot_be_rebuilt_rolls_back(monkeypatch):
    """Stage 2 is a copy of stage 1; lost together, both go back to the save of iteration 2."""
    options = diloco(inner_steps=12, lost_stage="checkfree_hybrid", interval_iterations=2)
    scenario = a_scenario((options,), cluster=SOON_BACK, steps=11)
    expected = {((2, 1),): [(2, "copy")], ((1, 1), (2, 1)): [(1, "sum"), (2, "sum")]}
    for lost, edits in expected.items():
        positions, _ = positions_of(monkeypatch, with_losses(scenario, Loss(70.0, lost)))
        found = [(edit.stage, edit.rule) for _, edit in entries_of(positions[-1]) if isinstance(edit, Edit)]
        assert found == edits


def test_only_the_loss_of_its_own_node_ends_a_save(monkeypatch):
    """Uploads of iteration 2 take from 42 to 72 s: that of replica 1 is cut at 50, and begins again in iteration 5."""
    scenario = a_scenario((saving(),), cluster=SOON_BACK, steps=6, upload_seconds=10.0)
    positions, found = positions_of(monkeypatch, with_losses(scenario, Loss(50.0, ((2, 1),))))
    assert [(event.time_seconds, event.detail) for event in of_kind(found, "checkpoint_lost")] == [
        (50.0, "replica 1: failure during the upload")
    ]
    first = [event for event in of_kind(found, "checkpoint_durable") if event.iteration == 2]
    assert {event.detail for event in first} == {"replica 0", "replica 2"}
    merge = positions[4].replicas[1].lineage.edits[-2][1]  # without a save, stage 2 took the global weights
    assert (merge.stages, merge.rate) == ((2,), 1.0)
    started = [event.iteration for event in of_kind(found, "checkpoint_started") if event.detail == "replica 1"]
    assert started == [2, 5, 6]


def test_training_waits_for_a_save_before_the_next_one():
    found = run(a_scenario((saving(),), cluster=THREE, steps=6, upload_seconds=20.0))
    assert times(of_kind(found, "checkpoint_started"))[::3] == [42.0, 102.0, 162.0]  # three replicas, 20 s each
    assert found.ledger["checkpoint_save"] == 2 * (60.0 - 42.0)


def test_steps_that_a_replica_no_longer_has_do_not_weigh(monkeypatch):
    """Replica 1 has learnt iterations 1, 2 and 6, with six rows each; the others six iterations with five."""
    scenario = a_scenario((saving(weights="tokens"),), cluster=SOON_BACK, steps=6)
    positions, _ = positions_of(monkeypatch, with_losses(scenario, LATE))
    (merge,) = (entry for _, entry in positions[5].lineage.edits if isinstance(entry, Merge))
    assert merge.shares == pytest.approx([30 / 78, 18 / 78, 30 / 78])


def test_a_replica_that_left_has_no_save_until_its_next(monkeypatch):
    """It leaves with iteration 6, begins again, and is lost in iteration 8: its save of iteration 2 is of no use."""
    scenario = a_scenario((saving(),), cluster=THREE, steps=12)
    losses = LATE, Loss(80.0, ((3, 1),))
    positions, _ = positions_of(monkeypatch, with_losses(scenario, *losses))
    assert [position.replicas[1] is None for position in positions] == [False] * 5 + [True] + [False] * 6
    (edit,) = (entry for _, entry in entries_of(positions[-1]) if isinstance(entry, Edit))
    assert (edit.stage, edit.rule) == (3, "zeros")  # and then the global weights


KEPT = {
    "leave": (0, 0, 0),
    "neighbour_copy": (1, 0, 0),
    "checkpoint": (0, 2, 1),
    "neighbour_checkpoint": (0, 4, 0),
    "two_tier_checkpoint": (0, 6, 1),
    "stale_stage": (0, 0, 1),
}


@pytest.mark.parametrize("lost_stage", KEPT)
def test_what_each_way_keeps_is_declared(lost_stage):
    """In states of a stage on devices and in hosts, there beside the global weights; and of all stages in the store."""
    scenario = a_scenario((diloco(lost_stage=lost_stage),))
    config, costs = scenario.strategies[0], build_site(scenario).costs
    declared = (
        Diloco.extra_memory_bytes(config, costs, 4),
        Diloco.host_memory_bytes(config, costs, 4) - GLOBAL_BYTES,
        Diloco.stored_bytes(config, costs) / 5,
    )
    assert declared == tuple(num * CHECKPOINT_BYTES for num in KEPT[lost_stage])
    assert Diloco.joining_bytes(config, costs, 4) == declared[0] + GLOBAL_BYTES


@pytest.mark.parametrize(("lost_stage", "interval"), [("leave", None), ("checkpoint", 25), ("stale_stage", 25)])
def test_a_job_shorter_than_the_interval_never_saves(lost_stage, interval):
    """The default interval is known to the notes on unused saves; other ways save nothing."""
    assert Diloco(DilocoConfig(lost_stage=lost_stage), 4).interval_iterations == interval


# ---- what cannot be -------------------------------------------------------------------------------------

BAD = {
    ("lost_stage: global, interval_iterations: 5", ""): "interval_iterations goes with lost_stage "
    "'checkpoint', 'neighbour_checkpoint', 'two_tier_checkpoint', 'stale_stage' or 'checkfree_hybrid', found 'global'",
    ("lost_stage: checkpoint, memory_interval_iterations: 5", ""): "memory_interval_iterations goes with lost_stage "
    "'two_tier_checkpoint', found 'checkpoint'",
    ("lost_stage: stale_stage", ", loss_at: last_stage"): "a last stage that holds the head would go back without",
    ("lost_stage: neighbour_copy", ", loss_at: last_stage"): "lost_stage 'neighbour_copy' needs the embedding on nodes "
    "of its own: set cluster.embedding_on to 'own_node', found 'first_stage'",
    (
        "lost_stage: skip",
        "",
    ): "allowed: leave, global, checkfree, checkfree_plus, reinit, neighbour_copy, checkpoint, neigh",
}


@pytest.mark.parametrize(("options", "workload"), BAD)
def test_what_cannot_bring_a_replica_back_is_refused(options, workload):
    text = f"""
name: bad
workload: {{num_stages: 4{workload}}}
cluster: {{nodes_per_stage: 2}}
strategies: [{{kind: diloco, {options}}}]
"""
    with pytest.raises(ScenarioError) as error:
        parse_scenario(text)
    assert BAD[options, workload] in str(error.value)
