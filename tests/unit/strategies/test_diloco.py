"""DiLoCo: when replicas synchronise and what that costs, who takes part, and what the training learns."""

import itertools

import pytest

from models.recipe import Recipe
from models.replicas import with_state
from models.trainer import Trainer
from models.training_state import Merge
from models.trajectory import Trajectory
from sim.scenario.loading import ScenarioError, parse_scenario
from sim.strategies.diloco import pairs_in_turn
from support.builders import INSTANT, a_link, a_scenario, of_kind, run, times, with_losses
from support.failure_processes import Loss
from support.local_steps import THREE, diloco, positions_of
from support.trainings import NUM_STAGES, a_corpus, spec_for

BROKEN = Loss(30.0, ((2, 1),))  # in the second iteration of 21 s; the node is back after 35 s and its state's transfer


def present(position):
    return set(with_state(position))


def test_each_replica_learns_its_rows_between_synchronisations(monkeypatch):
    positions, found = positions_of(monkeypatch, a_scenario((diloco(),), cluster=THREE, steps=12))
    first, last = positions[0], positions[-1]
    assert [state.lineage.recipe for state in first.replicas] == [
        Recipe(rows=tuple(range(0, 5))),
        Recipe(rows=tuple(range(5, 11))),
        Recipe(rows=tuple(range(11, 16))),
    ]
    merges = [step for step, entry in last.lineage.edits if isinstance(entry, Merge)]
    assert merges == [4, 8, 12]
    assert [event.iteration for event in of_kind(found, "synchronised")] == merges
    assert {event.detail for event in of_kind(found, "synchronised")} == {"3 of 3 replicas, 3 complete"}
    assert found.batch_share == 1.0


def test_a_synchronisation_exchanges_once_what_gradients_exchange_each_time():
    """With links of 680 bytes per second, a ring of 3 sends 2 · 2/3 of 680 parameters in 4 bytes: 5.33 s."""
    slow = {"same_region": a_link(bytes_per_second=680.0), "storage": INSTANT, "negligible_seconds": 1e9}
    kinds = diloco(), diloco(label="int8", compression="int8"), {"kind": "peer"}
    scenario = a_scenario(kinds, cluster=THREE, steps=8, network=slow)
    own, small, peer = (run(scenario, index) for index in range(3))
    alone = run(a_scenario(cluster={"nodes_per_stage": 1}, steps=8, network=slow)).wall_clock_seconds
    exchange = 4 * 4 / 3
    assert peer.wall_clock_seconds == pytest.approx(alone + 8 * exchange)
    assert own.wall_clock_seconds == pytest.approx(alone + 2 * exchange)
    assert small.wall_clock_seconds == pytest.approx(alone + 2 * exchange / 4)


def test_who_loses_a_node_is_out_until_the_next_synchronisation(monkeypatch):
    soon = {**THREE, "provisioning_seconds": 5.0}
    scenario = with_losses(a_scenario((diloco(),), cluster=soon, steps=12), BROKEN)
    positions, found = positions_of(monkeypatch, scenario)
    assert [present(position) for position in positions] == [{0, 1, 2}] + 3 * [{0, 2}] + 8 * [{0, 1, 2}]
    assert [event.detail[:1] for event in of_kind(found, "synchronised")] == ["2", "3", "3"]
    counts = [(one.num_replicas, one.num_complete, one.num_pipelines) for one in found.synchronisations]
    assert counts == [(2, 3, 3), (3, 3, 3), (3, 3, 3)]  # back, but not in the first one
    assert found.wall_clock_seconds == 12 * 21.0  # the others do not wait
    assert found.ledger["lost_work"] == found.ledger["detection"] == 0.0
    assert found.batch_share == pytest.approx(1 - 6 / 16 * 3 / 12)
    _, merge = next(entry for entry in positions[3].lineage.edits if isinstance(entry[1], Merge))
    assert {source.lineage.recipe.rows for source in merge.sources} == {tuple(range(0, 5)), tuple(range(11, 16))}


def test_a_loss_at_a_synchronisation_is_detected_by_all():
    late = with_losses(
        a_scenario((diloco(),), cluster={**THREE, "regroup_seconds": 2.0}, steps=8), Loss(70.0, ((2, 1),))
    )
    found = run(late)
    assert (found.ledger["detection"], found.ledger["provisioning"]) == (4.0, 2.0)
    assert found.wall_clock_seconds == 8 * 21.0 + 6.0


def test_with_the_last_replica_those_that_wait_begin_at_once(monkeypatch):
    """Pipeline 0 has lost a node and is complete again when pipeline 1, the only one that trains, loses its own."""
    cluster = {**THREE, "nodes_per_stage": 2, "provisioning_seconds": 0.0}
    scenario = a_scenario((diloco(inner_steps=10),), cluster=cluster, steps=10)
    losses = Loss(30.0, ((2, 0),)), Loss(70.0, ((3, 1),))
    positions, found = positions_of(monkeypatch, with_losses(scenario, *losses))
    assert [present(position) for position in positions] == [{0, 1}] + 3 * [{1}] + 5 * [{0}] + [{0}]
    assert len(of_kind(found, "synchronised")) == 1


def test_with_fewer_than_the_quorum_it_waits():
    scenario = with_losses(a_scenario((diloco(min_replicas=3),), cluster=THREE, steps=8), BROKEN)
    found = run(scenario)
    assert found.ledger["provisioning"] + found.ledger["state_transfer"] == pytest.approx(35.0)
    assert [event.detail[:1] for event in of_kind(found, "synchronised")] == ["2", "3"]


def test_a_synchronisation_waits_for_those_on_their_way_at_most_so_long(monkeypatch):
    slow = {**THREE, "provisioning_seconds": 100.0}  # lost at 30, back at 135; synchronised at 84
    waits = {5.0: 5.0, 1e6: 51.0}
    for timeout, waited in waits.items():
        scenario = with_losses(a_scenario((diloco(join_timeout_seconds=timeout),), cluster=slow, steps=8), BROKEN)
        positions, found = positions_of(monkeypatch, scenario)
        assert found.wall_clock_seconds == pytest.approx(8 * 21.0 + waited)
        assert present(positions[4]) == ({0, 2} if timeout == 5.0 else {0, 1, 2})


def test_after_a_lost_stage_all_begin_from_the_global_weights(monkeypatch):
    scenario = a_scenario((diloco(),), cluster={**THREE, "nodes_per_stage": 2}, steps=12, fallback="restart")
    stage_lost = Loss(120.0, ((2, 0), (2, 1)))
    positions, found = positions_of(monkeypatch, with_losses(scenario, stage_lost))
    assert [event.iteration for event in of_kind(found, "synchronised")] == [4, 4, 8, 12]
    assert positions[-1] == positions_of(monkeypatch, scenario)[0][-1]


def test_fragments_are_synchronised_in_turn(monkeypatch):
    scenario = a_scenario((diloco(inner_steps=6, fragments=3),), cluster=THREE, steps=12)
    positions, _ = positions_of(monkeypatch, scenario)
    merges = [(step, entry.stages) for step, entry in positions[-1].lineage.edits if isinstance(entry, Merge)]
    assert merges == [(2, (0, 1)), (4, (2, 3)), (6, (4,)), (8, (0, 1)), (10, (2, 3)), (12, (4,))]


def test_an_overlap_hides_the_exchange(monkeypatch):
    """The differences of iteration 4 take 5.33 s, and are applied after iteration 5, without a wait."""
    slow = {"same_region": a_link(bytes_per_second=680.0), "storage": INSTANT, "negligible_seconds": 1e9}
    scenario = a_scenario((diloco(overlap_iterations=1),), cluster=THREE, steps=10, network=slow)
    positions, found = positions_of(monkeypatch, scenario)
    alone = run(a_scenario(cluster={"nodes_per_stage": 1}, steps=10, network=slow)).wall_clock_seconds
    assert found.wall_clock_seconds == pytest.approx(alone)
    merges = [(step, entry) for step, entry in positions[-1].lineage.edits if isinstance(entry, Merge)]
    assert [(step, {source.step for source in merge.sources}) for step, merge in merges] == [(5, {4}), (9, {8})]


def test_an_exchange_that_takes_longer_than_the_overlap_is_waited_for():
    slow = {"same_region": a_link(bytes_per_second=17.0), "storage": INSTANT, "negligible_seconds": 1e9}
    scenario = a_scenario((diloco(overlap_iterations=1),), cluster=THREE, steps=6, network=slow)
    found, alone = run(scenario), run(a_scenario(cluster={"nodes_per_stage": 1}, steps=6, network=slow))
    exchange = 4 * 4 / 3 * 40
    assert times(of_kind(found, "synchronised")) == [pytest.approx(alone.iterations[3].ended_seconds + exchange)]


@pytest.mark.parametrize("num", range(2, 10))
def test_in_turn_each_two_meet_once(num):
    numbers = range(10, 10 + num)
    turns = [pairs_in_turn(numbers, turn) for turn in range(num - 1 + num % 2)]
    assert {len(pairs) for pairs in turns} == {num // 2}
    assert all(len({number for pair in pairs for number in pair}) == 2 * len(pairs) for pairs in turns)
    met = sorted(tuple(sorted(pair)) for pairs in turns for pair in pairs)
    assert met == list(itertools.combinations(numbers, 2))


def in_pairs(**options):
    return diloco(partners="pairs", outer_learning_rate=1.0, outer_momentum=0.0, **options)


def test_pairs_send_their_weights_to_each_other_alone():
    """With 680 bytes per second between two nodes: 4 s for 2720 bytes, and 6 s for 2 · 3/4 as much in a ring."""
    slow = {"same_region": a_link(bytes_per_second=680.0), "storage": INSTANT, "negligible_seconds": 1e9}
    scenario = a_scenario((in_pairs(), diloco()), cluster={**THREE, "nodes_per_stage": 4}, steps=8, network=slow)
    pairs, ring = run(scenario, 0), run(scenario, 1)
    alone = run(a_scenario(cluster={"nodes_per_stage": 1}, steps=8, network=slow)).wall_clock_seconds
    assert pairs.wall_clock_seconds == pytest.approx(alone + 2 * 4.0)
    assert ring.wall_clock_seconds == pytest.approx(alone + 2 * 6.0)


def test_a_pipeline_begins_as_a_replica_where_pairs_average(monkeypatch):
    """Out in iterations 2 to 4 of 12; then it has the weights and Adam's state of replica 0, on its own rows."""
    soon = {**THREE, "provisioning_seconds": 5.0}
    scenario = with_losses(a_scenario((in_pairs(),), cluster=soon, steps=12), BROKEN)
    positions, found = positions_of(monkeypatch, scenario)
    assert [present(position) for position in positions] == [{0, 1, 2}] + 3 * [{0, 2}] + 8 * [{0, 1, 2}]
    averaged, begun = positions[3].replicas[0], positions[4].replicas[1]
    assert begun.descends_from(averaged)
    assert begun.lineage.edits[len(averaged.lineage.edits) :] == ((4, Recipe(rows=tuple(range(5, 11)))),)
    sources = [
        [len(entry.sources) for step, entry in state.lineage.edits if isinstance(entry, Merge) and step == 8]
        for state in (positions[7], *positions[7].replicas)
    ]
    assert sources == [[3], [2], [2], []]  # the mean of all; turn 1: replicas 0 and 1, and 2 is without a partner
    assert found.sent_bytes == 8160.0  # no global weights


BAD = {
    "partners: pairs": "partners 'pairs' goes with outer_learning_rate 1, found 0.7",
    "partners: pairs, outer_learning_rate: 1, outer_momentum: 0, lost_stage: global": "partners 'pairs' goes with "
    "lost_stage 'leave', found 'global'",
    "min_replicas: 5": "min_replicas 5 is more than cluster.nodes_per_stage, 2",
    "fragments: 9, inner_steps: 90": "fragments 9 is more than the stages, 5 with that of the embedding",
    "fragments: 2, inner_steps: 5": "inner_steps 5 is no multiple of fragments, 2",
    "overlap_iterations: 7, inner_steps: 7": "overlap_iterations 7 is not less than the iterations between two",
    "compression: int8, sent_share: 0.1": "sent_share 0.1 is in place of compression 'int8': give one of them",
    "compression: int9": "found 'int9'; nearest: int8; allowed: none, bf16, int8, int4, top_k",
}


@pytest.mark.parametrize("options", BAD)
def test_impossible_options_are_refused(options):
    text = f"""
name: bad
workload: {{num_stages: 4}}
cluster: {{nodes_per_stage: 2}}
strategies: [{{kind: diloco, {options}}}]
"""
    with pytest.raises(ScenarioError) as error:
        parse_scenario(text)
    assert BAD[options] in str(error.value)


SOON_BACK = {**THREE, "provisioning_seconds": 5.0}


@pytest.mark.parametrize("lost_stage", ["global", "checkfree", "checkfree_plus", "reinit"])
def test_a_pipeline_goes_on_with_its_lost_stage_restored(monkeypatch, lost_stage):
    """Lost in iteration 2, sent its state from iteration 3 on, back in iteration 4, and in the synchronisation."""
    scenario = a_scenario((diloco(inner_steps=6, lost_stage=lost_stage),), cluster=SOON_BACK, steps=12)
    positions, found = positions_of(monkeypatch, with_losses(scenario, Loss(25.0, ((2, 1),))))
    rests = [[state.lineage.recipe.is_rest for state in position.replicas] for position in positions]
    assert [at for at, each in enumerate(rests, start=1) if each[1]] == [2, 3]
    assert not any(each[0] or each[2] for each in rests)
    assert [event.detail[:1] for event in of_kind(found, "synchronised")] == ["3", "3"]
    entries = [entry for _, entry in positions[4].replicas[1].lineage.edits if not isinstance(entry, Recipe)]
    if lost_stage == "global":
        zeros, merge = entries
        assert (zeros.stage, zeros.rule, merge.stages, merge.rate) == (2, "zeros", (2,), 1.0)
        assert merge.sources[0].lineage.is_at_rest
    else:
        (edit,) = entries
        assert (edit.stage, edit.sources) == (2, {"checkfree_plus": (1,)}.get(lost_stage, (1, 3)))
    assert found.batch_share == pytest.approx(1 - 6 / 16 * 2 / 12)


def test_who_is_not_back_at_the_synchronisation_loses_its_steps(monkeypatch):
    scenario = a_scenario((diloco(lost_stage="checkfree"),), cluster=THREE, steps=12)
    positions, found = positions_of(monkeypatch, with_losses(scenario, BROKEN))
    assert [event.detail[:1] for event in of_kind(found, "synchronised")] == ["2", "2", "3"]
    assert [position.replicas[1] is None for position in positions] == 3 * [False] + 5 * [True] + 4 * [False]


def test_ends_that_checkfree_cannot_rebuild_take_the_global_weights(monkeypatch):
    scenario = a_scenario((diloco(inner_steps=6, lost_stage="checkfree"),), cluster=SOON_BACK, steps=6)
    positions, _ = positions_of(monkeypatch, with_losses(scenario, Loss(30.0, ((4, 1), (2, 1), (3, 1)))))
    entries = [entry for _, entry in positions[4].replicas[1].lineage.edits if not isinstance(entry, Recipe)]
    assert [getattr(entry, "stage", None) for entry in entries] == [2, 3, 4, None]
    assert entries[-1].stages == (2, 3, 4)  # neighbours of each other


def test_a_rebuilt_stage_fetches_its_sources_alone():
    """Of stage 2: weights of stages 1 and 3 in 4 bytes, and global weights and velocity, in 8, beside the training."""
    kinds = diloco(inner_steps=6, lost_stage="checkfree", label="own"), diloco(inner_steps=6)
    scenario = with_losses(a_scenario(kinds, cluster=SOON_BACK, steps=12), BROKEN)
    own, peer = run(scenario, 0), run(scenario, 1)
    assert own.sent_bytes == 680 * (2 * 4 + 8)
    assert peer.sent_bytes == 680 * (12 + 8)


def test_one_replica_averaged_at_each_iteration_is_plain_training(tmp_path):
    corpus = a_corpus(tmp_path)
    spec = spec_for(corpus)
    options = diloco(inner_steps=1, outer_learning_rate=1.0, outer_momentum=0.0)
    scenario = a_scenario(({"kind": "none"}, options), num_stages=NUM_STAGES, steps=6, evaluation_interval=2)
    plain, own = (run(scenario, index, training=Trajectory(spec, corpus, None)) for index in range(2))
    for name in ("started_seconds", "ended_seconds", "train_loss", "validation_loss"):
        assert [getattr(one, name) for one in own.iterations] == [getattr(one, name) for one in plain.iterations]
    assert own.iterations[-1].validation_loss is not None


def test_rows_of_a_lost_replica_are_not_learnt(tmp_path):
    """A hand-written loop: two replicas with two rows of four each, the second one lost in iteration 2."""
    corpus = a_corpus(tmp_path)
    spec = spec_for(corpus)
    cluster = {**THREE, "nodes_per_stage": 2, "provisioning_seconds": 1e6}
    options = diloco(inner_steps=3, outer_learning_rate=1.0, outer_momentum=0.0)
    scenario = a_scenario((options,), num_stages=NUM_STAGES, steps=6, evaluation_interval=3, cluster=cluster)
    found = run(with_losses(scenario, Loss(30.0, ((2, 1),))), training=Trajectory(spec, corpus, None))
    alone = Trainer(spec, corpus)
    alone.enter(Recipe(rows=(0, 1)))
    losses = [alone.train_step().train_loss for _ in range(6)]
    assert [one.train_loss for one in found.iterations[1:]] == losses[1:]
    assert found.iterations[-1].validation_loss == alone.validation_loss()


@pytest.mark.parametrize("lost", [((2, 1),), ((2, 0), (3, 1), (2, 2))])
def test_differences_of_a_replica_that_breaks_while_they_are_sent_do_not_count(lost):
    """Sent from 84 on for 53 s, and again after the loss at 100 by those that are left: two, or none."""
    slow = {"same_region": a_link(bytes_per_second=68.0), "storage": INSTANT, "negligible_seconds": 1e9}
    cluster = {**THREE, "provisioning_seconds": 1e5}
    scenario = a_scenario((diloco(overlap_iterations=3),), cluster=cluster, steps=7, network=slow)
    found = run(with_losses(scenario, Loss(100.0, lost)))
    assert [one.num_replicas for one in found.synchronisations] == [2][: 3 - len(lost)]
    assert (found.stopped is None) == (len(lost) == 1)
