"""How lost stages are rebuilt from others: CheckFree, CheckFree+, the ablation's simpler rules, the hybrid."""

import pytest

from models.spec import plain_routes
from models.training_state import Edit, GradientNormWeights, Position, Term
from sim.strategies import STRATEGIES, UnrecoverableError
from sim.strategies.base import STORE, Transfer
from sim.strategies.checkfree_hybrid import CheckFreeHybrid
from support.builders import a_scenario, start_of
from support.on_paper import WorldOnPaper, keep, rebuild, result_of, strategy_of

NUM_STAGES = pytest.mark.parametrize("num_stages", [4, 6, 12])
PAPER = GradientNormWeights(exponent=2.0, after_clip=False, epsilon=0.0)
RELEASED = GradientNormWeights(exponent=1.0, after_clip=True, epsilon=1e-4)


def average(stage: int, weights: GradientNormWeights) -> Edit:
    """With the norm that goes with the weights."""
    norm = "own" if weights == RELEASED else "sources"
    return Edit(stage, "average", (stage - 1, stage + 1), weights, "fresh", 1.1, None, gradient_norm=norm)


def copy(stage: int, source: int, norm: str = "sources") -> Edit:
    return Edit(stage, "copy", (source,), None, "fresh", 1.1, None, gradient_norm=norm)


@NUM_STAGES
def test_checkfree_averages_inner_stages_not_the_ends(num_stages):
    """So do the paper and the first commit, each by its own weights."""
    copying = strategy_of("checkfree", num_stages, end_stages="copy")
    for preset, weights in (("paper", PAPER), ("reference_code_first_commit", RELEASED)):
        strategy = strategy_of("checkfree", num_stages, preset=preset)
        for stage in range(2, num_stages):
            assert strategy.edits(frozenset({stage})) == [average(stage, weights)]
        for stage in (0, 1, num_stages):
            with pytest.raises(UnrecoverableError, match=f"stage {stage} "):
                strategy.edits(frozenset({stage}))
    for stage in range(2, num_stages):
        assert copying.edits(frozenset({stage})) == [average(stage, PAPER)]
    assert copying.edits(frozenset({1, num_stages})) == [copy(1, 2), copy(num_stages, num_stages - 1)]
    with pytest.raises(UnrecoverableError, match="stage 0 "):
        copying.edits(frozenset({0}))


@NUM_STAGES
def test_the_released_head_copies_within_the_end_pairs(num_stages):
    released = strategy_of("checkfree", num_stages, preset="reference_code")
    twins = {1: 2, 2: 1, num_stages: num_stages - 1, num_stages - 1: num_stages}
    for stage in range(1, num_stages + 1):
        expected = copy(stage, twins[stage], "own") if stage in twins else average(stage, RELEASED)
        assert released.edits(frozenset({stage})) == [expected]
    with pytest.raises(UnrecoverableError, match="stage 0 "):
        released.edits(frozenset({0}))
    workload = a_scenario(num_stages=3).workload
    complaint = STRATEGIES["checkfree"].check(released.config, workload)
    assert "at least 4 stages, found 3" in complaint


@NUM_STAGES
@pytest.mark.parametrize(("preset", "weights"), [("paper", PAPER), ("reference_code", RELEASED)])
def test_checkfree_plus_copies_swapped_pairs_and_averages_others(num_stages, preset, weights):
    strategy = strategy_of("checkfree_plus", num_stages, preset=preset)
    twins = {1: 2, 2: 1, num_stages: num_stages - 1, num_stages - 1: num_stages}
    for stage in range(1, num_stages + 1):
        norm = average(stage, weights).gradient_norm
        expected = copy(stage, twins[stage], norm) if stage in twins else average(stage, weights)
        assert strategy.edits(frozenset({stage})) == [expected]
    assert strategy.edits(frozenset({0})) == []


def test_neighbours_are_rebuilt_in_sequence_only_on_request():
    released = strategy_of("checkfree", preset="reference_code")
    assert released.edits(frozenset({3, 4})) == [average(3, RELEASED), average(4, RELEASED)]
    with pytest.raises(UnrecoverableError, match="stage 3 is lost together with stage 4"):
        strategy_of("checkfree").edits(frozenset({3, 4}))
    strategy = strategy_of("checkfree_plus", 4)
    assert strategy.edits(frozenset({2, 3})) == [copy(2, 1), copy(3, 4)]  # adjacent, yet each has its twin
    with pytest.raises(UnrecoverableError):
        strategy.edits(frozenset({1, 2}))


@pytest.mark.parametrize(
    ("num_stages", "swapped"),
    [(4, (2, 1, 4, 3)), (6, (2, 1, 3, 4, 6, 5)), (12, (2, 1, 3, 4, 5, 6, 7, 8, 9, 10, 12, 11))],
)
def test_checkfree_plus_swaps_routes_of_every_other_microbatch(num_stages, swapped):
    strategy = strategy_of("checkfree_plus", num_stages)
    assert strategy.training_variant() == (tuple(range(1, num_stages + 1)), swapped)


@pytest.mark.parametrize("kind", sorted(set(STRATEGIES) - {"checkfree_plus", "checkfree_hybrid", "stale_stage"}))
def test_other_strategies_train_on_plain_routes(kind):
    assert strategy_of(kind).training_variant() == plain_routes(6) == ((1, 2, 3, 4, 5, 6),)


def transfers(kind: str, *lost: int, **options: object) -> list[Transfer]:
    """What is sent to rebuild some stages."""
    strategy, world = strategy_of(kind, **options), WorldOnPaper(lost=lost)
    rebuild(strategy, world, start_of(strategy).after(9))
    return world.transfers


def test_transfers_that_rebuild_a_stage():
    costs = WorldOnPaper().costs
    weights, checkpoint = costs.weight_bytes(3), costs.checkpoint_bytes(3)
    assert transfers("checkfree", 3) == [Transfer(2, 3, weights), Transfer(4, 3, weights)]
    assert transfers("checkfree", 3, optimizer="average") == [Transfer(2, 3, checkpoint), Transfer(4, 3, checkpoint)]
    assert transfers("redundant", 3) == [Transfer(2, 3, checkpoint), Transfer(4, 3, checkpoint)]
    half = costs.checkpoint_bytes(0) / 2
    assert transfers("checkfree_plus", 1) == [Transfer(2, 1, weights), Transfer(0, 1, half)]
    assert transfers("checkfree_plus", 2) == [Transfer(1, 2, weights)]
    assert transfers("checkfree_plus", 0) == [Transfer(1, 0, half), Transfer(6, 0, half)]


# ---- the ablation ------------------------------------------------------------------------------------

UNIFORM = GradientNormWeights(exponent=0.0)


def fresh(stage: int) -> Edit:
    return Edit(stage, "fresh", (), None, "fresh", 1.1, None)


@NUM_STAGES
def test_fresh_weights_need_no_transfer(num_stages):
    strategy = strategy_of("reinit", num_stages, rule="random")
    everybody = frozenset(range(num_stages + 1))
    assert strategy.edits(everybody) == [fresh(stage) for stage in sorted(everybody)]
    assert transfers("reinit", 0, 2, 3, rule="random") == []


@NUM_STAGES
@pytest.mark.parametrize("rule", ["copy_previous", "uniform_average"])
def test_simple_rules_fail_where_a_neighbour_is_missing(num_stages, rule):
    """Ends can be copied on request."""
    strategy = strategy_of("reinit", num_stages, rule=rule)
    for stage in range(2, num_stages):
        expected = copy(stage, stage - 1) if rule == "copy_previous" else average(stage, UNIFORM)
        assert strategy.edits(frozenset({stage})) == [expected]
    if rule == "copy_previous":
        assert strategy.edits(frozenset({num_stages})) == [copy(num_stages, num_stages - 1)]
    for stage in (0, 1) if rule == "copy_previous" else (0, 1, num_stages):
        with pytest.raises(UnrecoverableError, match=f"stage {stage} "):
            strategy.edits(frozenset({stage}))
    with_ends = strategy_of("reinit", num_stages, rule=rule, end_stages="copy")
    for stage, source in ((1, 2), (num_stages, num_stages - 1)):
        assert with_ends.edits(frozenset({stage})) == [copy(stage, source)]


def test_sources_that_are_lost_too_are_refused_or_used_as_asked():
    strategy = strategy_of("reinit", rule="copy_previous")
    with pytest.raises(UnrecoverableError, match="stage 4 is lost together with stage 3"):
        strategy.edits(frozenset({3, 4}))
    asked = strategy_of("reinit", rule="copy_previous", adjacent_stages="one_after_the_other")
    assert asked.edits(frozenset({3, 4})) == [copy(3, 2), copy(4, 3)]


def test_options_reach_the_edits_of_every_rule():
    options = {"learning_rate_factor": 1.5, "learning_rate_half_life_steps": 10.0}
    for rule in ("random", "copy_previous", "uniform_average"):
        (edit,) = strategy_of("reinit", rule=rule, **options).edits(frozenset({3}))
        assert (edit.learning_rate_factor, edit.learning_rate_half_life_steps) == (1.5, 10.0)
    (edit,) = strategy_of("reinit", rule="copy_previous", optimizer="average").edits(frozenset({3}))
    assert edit.optimizer == "average"
    weights, checkpoint = WorldOnPaper().costs.weight_bytes(3), WorldOnPaper().costs.checkpoint_bytes(3)
    assert transfers("reinit", 3, rule="copy_previous") == [Transfer(2, 3, weights)]
    assert transfers("reinit", 3, rule="copy_previous", optimizer="average") == [Transfer(2, 3, checkpoint)]
    options = {"norm_exponent": 0.0, "learning_rate_factor": 1.5, "learning_rate_half_life_steps": 10.0}
    (edit,) = strategy_of("checkfree", optimizer="average", **options).edits(frozenset({3}))
    assert edit == Edit(3, "average", (2, 4), GradientNormWeights(exponent=0.0), "average", 1.5, 10.0)


@pytest.mark.parametrize(
    ("rule", "is_possible"), [("random", False), ("copy_previous", False), ("uniform_average", True)]
)
def test_a_last_stage_with_the_head_cannot_be_rebuilt(rule, is_possible):
    """The plain average refuses the ends, where it is not asked to copy them."""
    workload = a_scenario(num_stages=6, loss_at="last_stage").workload
    complaint = STRATEGIES["reinit"].check(STRATEGIES["reinit"].Config(rule=rule), workload)
    assert (complaint is None) == is_possible
    assert is_possible or "holds the head" in complaint
    assert "head" in STRATEGIES["reinit"].check(STRATEGIES["reinit"].Config(rule=rule, end_stages="copy"), workload)


# ---- the hybrid -----------------------------------------------------------------------------------------
def older(stage: int, stored: Position) -> Edit:
    """A stage as it was."""
    return Edit(stage, "sum", terms=(Term(stage, 1.0, stored.moment),), optimizer="older")


def hybrid(**options: object) -> tuple[CheckFreeHybrid, WorldOnPaper, Position]:
    """A hybrid at iteration 250 whose last checkpoint is of 200, and stage 3 was rebuilt at 220."""
    strategy, world = strategy_of("checkfree_hybrid", **options), WorldOnPaper()
    stored = start_of(strategy).after(200)
    keep(strategy, world, stored)
    return strategy, world, stored.after(220).edited(average(3, PAPER)).after(250)


STORED = start_of(strategy_of("checkfree_plus")).after(200)


@pytest.mark.parametrize("lost", [(1,), (2,), (3,), (6,), (2, 4), (1, 6), (0,), (0, 3), (0, 3, 5)])
def test_the_hybrid_rebuilds_from_neighbours_as_checkfree_plus(lost):
    strategy, world, position = hybrid()
    world.lost_stages = frozenset(lost)
    recovered = rebuild(strategy, world, position)
    plus, beside = strategy_of("checkfree_plus"), WorldOnPaper(lost=lost)
    assert recovered == rebuild(plus, beside, position)
    assert world.transfers == beside.transfers


@pytest.mark.parametrize(
    ("lost", "stale", "rebuilt"),
    [
        ((3, 4), (3, 4), []),
        ((1, 2), (1, 2), []),
        ((5, 6), (5, 6), []),
        ((2, 3), (3,), [copy(2, 1)]),
        ((2, 3, 4), (3, 4), [copy(2, 1)]),
        ((0, 1), (0,), [copy(1, 2)]),
        ((0, 6), (0,), [copy(6, 5)]),
        ((0, 1, 2), (0, 1, 2), []),
        ((0, 1, 2, 3, 4, 5, 6), (0, 1, 2, 3, 4, 5, 6), []),
    ],
)
def test_the_hybrid_restores_the_rest_and_rolls_back_no_other(lost, stale, rebuilt):
    strategy, world, position = hybrid()
    world.lost_stages = frozenset(lost)
    recovered = rebuild(strategy, world, position)
    assert recovered == position.edited(*(older(stage, STORED) for stage in stale), *rebuilt)
    assert recovered.iteration == 250
    from_store = [t for t in world.transfers if t.source == STORE and t.what == "checkpoint"]
    assert from_store == [Transfer(STORE, stage, world.costs.checkpoint_bytes(stage), "checkpoint") for stage in stale]


def test_transfers_of_the_hybrid_avoid_lost_copies():
    """S1 gets its copy of E from stage 0, as ever, and its weights from its twin; stage 0 the whole from the store."""
    strategy, world, position = hybrid()
    world.lost_stages = frozenset({0, 1})
    rebuild(strategy, world, position)
    half, whole = world.costs.checkpoint_bytes(0) / 2, world.costs.checkpoint_bytes(0)
    assert world.transfers == [
        Transfer(2, 1, world.costs.weight_bytes(2)),
        Transfer(STORE, 1, half),
        Transfer(STORE, 0, whole, "checkpoint"),
    ]
    strategy, world, position = hybrid(rebuild_from="checkpoint")
    world.lost_stages = frozenset({0, 3})
    assert rebuild(strategy, world, position) == position.edited(older(3, STORED))
    half = world.costs.checkpoint_bytes(0) / 2
    assert world.transfers == [
        Transfer(1, 0, half),
        Transfer(6, 0, half),
        Transfer(STORE, 3, world.costs.checkpoint_bytes(3), "checkpoint"),
    ]


def test_without_a_checkpoint_on_its_lineage_weights_are_drawn():
    """Before any checkpoint, from the beginning again, or on another way since: the first weights take its place."""
    without, (checkpointing, world, _) = strategy_of("checkfree_hybrid"), hybrid()
    start = start_of(without)
    for strategy, position in (
        (without, start.after(150)),
        (checkpointing, start.after(150)),
        (checkpointing, start.after(100).edited(average(3, PAPER)).after(300)),
    ):
        world.lost_stages = frozenset({3, 4})
        assert rebuild(strategy, world, position) == position.edited(older(3, start), older(4, start))
        assert world.transfers == []


def test_a_checkpoint_counts_once_complete_and_on_the_lineage():
    strategy, world, position = hybrid()
    result_of(strategy.after_iteration(world, position.after(400)))
    (_, upload) = world.begun
    upload.when_lost()
    world.lost_stages = frozenset({3, 4})
    recovered = rebuild(strategy, world, position.after(400))
    assert recovered == position.after(400).edited(older(3, STORED), older(4, STORED))
    strategy, world, _ = hybrid()
    world.lost_stages = frozenset({3, 4})
    position = start_of(strategy).after(210)
    assert rebuild(strategy, world, position) == position.edited(older(3, STORED), older(4, STORED))


def test_the_hybrid_checkpoints_beside_the_training_now_and_then():
    strategy, world = strategy_of("checkfree_hybrid", interval_iterations=50), WorldOnPaper()
    for iteration in (49, 50, 51, 100):
        keep(strategy, world, start_of(strategy).after(iteration))
    assert len(world.begun) == 2
    assert strategy.checkpoint.durable == start_of(strategy).after(100)
    costs = world.costs
    everything = sum(costs.checkpoint_bytes(stage) for stage in range(7))
    assert STRATEGIES["checkfree_hybrid"].stored_bytes(STRATEGIES["checkfree_hybrid"].Config(), costs) == everything
