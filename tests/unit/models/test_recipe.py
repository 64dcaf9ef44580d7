"""Recipes: the gradient of the rows that count, stages left out, and names."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.utils import clip_grad_norm_

from models.recipe import PLAIN, ApproximateBackward, Pass, Recipe, rows_by_pass, rows_by_route, rows_of_parts
from models.spec import ModelSpec, OptimizerSpec, plain_routes, swapped_routes
from models.trainer import Trainer
from models.training_state import Edit, Lineage, edits_of_weights
from models.trajectory import Trajectory
from models.trajectory_store import TrajectoryStore
from support.trainings import AROUND_3, AVERAGE_2, FRESH_4, NUM_STAGES, RECIPES, as_of, bits, spec_for, start

WHOLE = (1, 2, 3, 4)


def trainer_for(corpus, family="llama", **changes):
    model = ModelSpec(family=family, dim=16, num_heads=2, num_stages=NUM_STAGES)
    return Trainer(spec_for(corpus, model=model, **changes), corpus)


class PlainLoop:
    """The same weights as separate parameters, trained row by row by one Adam a stage."""

    def __init__(self, trainer: Trainer) -> None:
        self.spec, self.model, self.step = trainer.spec, trainer.model, 0
        self.stages = [list(stage.parameters()) for stage in self.model.stages]
        for parameter in (parameter for stage in self.stages for parameter in stage):
            parameter.data = parameter.data.clone()  # a storage of its own
        settings = self.spec.optimizer
        self.optimizers = [torch.optim.Adam(stage, settings.learning_rate) for stage in self.stages]

    def train(
        self, corpus, routes_of_rows: dict[int, tuple[int, ...]], divisor: int, rate_factor: float = 1.0
    ) -> float:
        """One step on some rows, each on its route; the gradient is the sum over rows ÷ divisor. The mean loss."""
        windows = torch.from_numpy(corpus.batch(self.spec.data_seed, self.step, 4, self.spec.sequence_length))
        losses = []
        for optimizer in self.optimizers:
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = self.spec.optimizer.learning_rate * rate_factor
        for row, route in routes_of_rows.items():
            x = self.model.ends.embed(windows[row : row + 1, :-1])
            for stage in route:
                x = self.model.stages[stage](x)
            losses.append(F.cross_entropy(self.model.ends.logits(x).flatten(0, 1), windows[row, 1:]))
            (losses[-1] / divisor).backward()
        for stage, optimizer in zip(self.stages, self.optimizers, strict=True):
            if stage[0].grad is not None:
                clip_grad_norm_(stage, self.spec.optimizer.clip_norm)
                optimizer.step()
        self.step += 1
        return float(np.mean([loss.item() for loss in losses]))


STEPS = [  # a recipe, the route of each row that counts, the divisor of the sum of gradients, the factor of the rate
    (PLAIN, dict.fromkeys(range(4), WHOLE), 4, 1.0),
    (Recipe(rows=(0, 3)), dict.fromkeys((0, 3), WHOLE), 2, 1.0),
    (Recipe(rows=(1,)), {1: WHOLE}, 1, 1.0),
    (Recipe(rows=(1,), average_over="batch"), {1: WHOLE}, 4, 1.0),
    (AROUND_3, dict.fromkeys(range(4), (1, 2, 4)), 4, 1.0),
    (Recipe(rows=(0, 2, 3), routes=((1, 2, 4), WHOLE, (2, 1))), {0: (1, 2, 4), 2: (2, 1), 3: (1, 2, 4)}, 3, 0.25),
    (PLAIN, dict.fromkeys(range(4), WHOLE), 4, 1.0),
]


@pytest.mark.parametrize("family", ["llama", "gpt"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(STEPS))
def test_a_step_is_a_hand_written_loop_over_the_rows(corpus, family, order):
    """Batches shrink and grow again, stages are left out and return."""
    optimizer = OptimizerSpec(learning_rate=3e-3, clip_norm=0.5)
    trainer, loop = trainer_for(corpus, family, optimizer=optimizer), None
    loop = PlainLoop(trainer_for(corpus, family, optimizer=optimizer))
    for recipe, rows, divisor, rate_factor in order:
        recipe = replace(recipe, rate_factor=rate_factor)
        trainer.enter(recipe)
        result = trainer.train_step()
        assert result.train_loss == pytest.approx(loop.train(corpus, rows, divisor, rate_factor), rel=1e-4)
    for flat, stage in zip(trainer.model.flat, loop.stages, strict=True):
        expected = torch.cat([parameter.detach().flatten() for parameter in stage])
        assert torch.allclose(flat, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("divisor", ["counted", "batch"])
def test_the_gradient_is_the_mean_over_counted_rows_or_the_batch(corpus, divisor):
    trainer = trainer_for(corpus, optimizer=OptimizerSpec(clip_norm=None))
    windows = torch.from_numpy(corpus.batch(2, 0, 4, 16))
    losses = [trainer.model.loss(windows[row : row + 1, :-1], windows[row : row + 1, 1:], WHOLE) for row in (0, 2)]
    expected = trainer.model.gradients(sum(losses) / (2 if divisor == "counted" else 4))
    trainer.enter(Recipe(rows=(0, 2), average_over=divisor))
    result = trainer.train_step()
    for flat, gradient in zip(trainer.model.flat, expected, strict=True):
        assert torch.allclose(flat.grad, gradient, rtol=1e-4, atol=1e-7)
    assert result.gradient_norms == pytest.approx([gradient.norm().item() for gradient in expected], rel=1e-4)
    assert result.train_loss == pytest.approx(np.mean([loss.item() for loss in losses]), rel=1e-5)


def test_a_stage_left_out_keeps_its_state(corpus):
    trainer = trainer_for(corpus)
    for _ in range(3):
        trainer.train_step()
    before = bits(trainer)
    norm = trainer.gradient_norms[3]
    trainer.enter(AROUND_3)
    results = [trainer.train_step() for _ in range(4)]
    after = bits(trainer)
    own = [name for name in before if name.split(".")[1:2] == ["3"]]
    assert len(own) == 4  # weights, two moments, step count
    assert all(after[name] == before[name] for name in own)
    assert all(after[name] != before[name] for name in before if "." in name and name not in own)
    assert {result.gradient_norms[3] for result in results} == {0.0}
    assert trainer.gradient_norms[3] == norm
    assert all(trainer.gradient_norms[number] == results[-1].gradient_norms[number] for number in (0, 1, 2, 4))
    trainer.enter(PLAIN)
    assert trainer.train_step().gradient_norms[3] == trainer.gradient_norms[3] > 0.0
    assert bits(trainer)["adam.3.step"] == torch.tensor(4.0).numpy().tobytes()


def test_validation_is_of_the_whole_model_unless_asked(corpus):
    trainer = trainer_for(corpus)
    for _ in range(4):
        trainer.train_step()
    windows = torch.from_numpy(corpus.validation_windows(8, 16))
    tokens, targets = windows[:, :-1], windows[:, 1:]
    whole = trainer.validation_loss()
    trainer.enter(AROUND_3)
    assert trainer.validation_loss() == whole
    trainer.enter(replace(AROUND_3, validate_on_routes=True))
    assert trainer.validation_loss() == pytest.approx(trainer.model.loss(tokens, targets, (1, 2, 4)).item(), rel=1e-6)
    trainer.enter(Recipe(rows=(0, 1, 2), routes=((1, 2, 4), WHOLE), validate_on_routes=True))
    expected = 2 / 3 * trainer.model.loss(tokens, targets, (1, 2, 4)) + 1 / 3 * trainer.model.loss(
        tokens, targets, WHOLE
    )
    assert trainer.validation_loss() == pytest.approx(expected.item(), rel=1e-6)


def test_the_recipe_in_force_survives_resumption(corpus, spec, tmp_path):
    """From a keyframe in the line, before any keyframe in it, and without a store."""
    root = Trajectory(spec, corpus, None).root(plain_routes(NUM_STAGES))
    entered = root.after(3).entered(AROUND_3)
    edited = entered.after(5).edited(AVERAGE_2)
    wanted = edited.after(9).entered(PLAIN).after(12)
    expected = Trajectory(spec, corpus, None).train_loss(wanted)
    for until in (entered, entered.after(4), edited, edited.after(6), wanted.after(10)):
        trajectory = Trajectory(spec, corpus, TrajectoryStore(tmp_path), keyframe_interval_steps=2)
        trajectory.validation_loss(until)
        trajectory.flush()
        resumed = Trajectory(spec, corpus, TrajectoryStore(tmp_path), keyframe_interval_steps=2)
        assert resumed.state_at(until).recipe == until.lineage.recipe
        assert resumed.train_loss(wanted) == expected


# ---- names --------------------------------------------------------------------------------------
ROWS = st.one_of(st.none(), st.sets(st.integers(0, 3), min_size=1).map(lambda rows: tuple(sorted(rows))))
ROUTES = st.one_of(st.none(), st.lists(st.permutations(WHOLE).map(lambda way: tuple(way[:3])), min_size=1, max_size=3))
BACKWARD = st.builds(
    ApproximateBackward,
    stage=st.integers(1, 4),
    rows=ROWS,
    through_attention=st.booleans(),
    rank=st.sampled_from([None, 1, 1000]),
)
ANY = st.builds(
    Recipe,
    rows=ROWS,
    average_over=st.sampled_from(["counted", "batch"]),
    routes=ROUTES,
    backward=st.one_of(st.just(()), st.tuples(BACKWARD)),
    rate_factor=st.sampled_from([1, 1.0, 0.5, 2, 2.0]),
    validate_on_routes=st.booleans(),
)


@given(ANY, ANY)
def test_recipes_are_equal_where_their_texts_are(one, other):
    assert (one == other) == (one.as_text() == other.as_text())
    assert (one == PLAIN) == (one.as_text() == "recipe")
    here = start().after(5)
    assert (here.entered(one) == here.entered(other)) == (one.of_training(SPEC) == other.of_training(SPEC))


SPEC = start().lineage.spec


def test_texts_of_recipes_stay_as_they_are():
    """The store knows states by them."""
    approximate = Recipe(backward=(ApproximateBackward(1), ApproximateBackward(3, (0, 2), True, 8)))
    assert approximate.as_text() == "recipe:backward stage 1, stage 3 rows (0, 2) through attention rank 8"
    recipe = Recipe(np.array([0, 2]), "batch", ((1, 2), (2, 3)), rate_factor=0.5, validate_on_routes=True)
    assert recipe.as_text() == "recipe:rows (0, 2):over batch:routes ((1, 2), (2, 3)):rate 0.5:validated on routes"
    assert start().after(7).entered(recipe).edited(FRESH_4).lineage.key == "d053daa07fefaa453ce1a29e7aea8c1b"


def test_entering_the_recipe_in_force_is_no_entry():
    here = start().after(5)
    assert here.entered(PLAIN) is here
    exact = ApproximateBackward(2, through_attention=True, rank=64)
    for nothing in (
        Recipe(rows=(0, 1, 2, 3), average_over="batch"),
        Recipe(routes=plain_routes(6)),
        Recipe(backward=(exact, replace(exact, rank=None, stage=3))),
    ):
        assert here.entered(nothing) is here
    half = here.entered(Recipe(rows=(0, 1)))
    assert half != here
    assert half.entered(Recipe(rows=(0, 1))) is half
    assert half.edited(AVERAGE_2).after(9).lineage.recipe == Recipe(rows=(0, 1))
    again = half.after(8).entered(PLAIN)
    assert again.lineage.recipe == PLAIN
    assert again != here.after(8)
    assert again.lineage.edits == ((5, Recipe(rows=(0, 1))), (8, PLAIN))
    assert edits_of_weights(half.edited(AVERAGE_2).lineage.edits) == [(5, AVERAGE_2)]
    swapped = start(routes=swapped_routes(6))
    assert swapped.entered(Recipe(routes=swapped_routes(6))) is swapped
    assert swapped.entered(Recipe(routes=plain_routes(6))) != swapped


def test_a_stage_goes_back_past_recipes():
    saved = start().after(5)
    here = saved.entered(Recipe(rows=(0,))).after(8).entered(PLAIN)
    assert here.moment == (2, 8)
    assert here.moment_of(saved) == (0, 5)
    assert not here.descends_from(saved.after(6))
    assert isinstance(here.edited(as_of(3, here.moment_of(saved))).lineage.edits[-1][1], Edit)


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("backward of stage 1 is of at least one row", {"backward": {"rows": ()}}),
        ("ascending, found \\(1, 0\\)", {"rows": (1, 0)}),
        ("ascending, found \\(1, 1\\)", {"rows": (1, 1)}),
        ("found \\(-1, 0\\)", {"rows": (-1, 0)}),
        ("average_over is 'counted' or 'batch', not 'rows'", {"average_over": "rows"}),
        ("at least one route", {"routes": ()}),
        ("no stage twice in one, found \\(\\(1, 1\\),\\)", {"routes": ((1, 1),)}),
        ("rate_factor is finite and above 0, found 0", {"rate_factor": 0}),
        ("rate_factor is finite", {"rate_factor": math.nan}),
        ("rank of a gradient is at least 1, found 0", {"backward": {"rank": 0}}),
        ("ascending, found \\(2, 1\\)", {"backward": {"rows": (2, 1)}}),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(message, wrong):
    with pytest.raises(ValueError, match=message):
        ApproximateBackward(1, **wrong["backward"]) if "backward" in wrong else Recipe(**wrong)


@pytest.mark.parametrize(
    ("message", "recipe"),
    [
        ("a batch has rows 0 to 3, found 4", Recipe(rows=(1, 4))),
        ("routes visit stages 1 to 6, found 7", Recipe(routes=((1, 7),))),
        ("routes visit stages 1 to 6, found 0", Recipe(routes=((0, 1),))),
        ("a batch has rows 0 to 3, found 7", Recipe(backward=(ApproximateBackward(1, rows=(7,)),))),
        ("backward is of stages 1 to 6, found 0", Recipe(backward=(ApproximateBackward(0),))),
        (
            "backward has a row of stage 2 twice",
            Recipe(backward=(ApproximateBackward(2), ApproximateBackward(2, (1,)))),
        ),
    ],
)
def test_a_recipe_must_fit_its_training(message, recipe):
    with pytest.raises(ValueError, match=message):
        start().entered(recipe)
    with pytest.raises(ValueError, match=message):
        Lineage(SPEC, ((3, recipe),))


def test_each_row_keeps_its_microbatch():
    spec = SPEC.model_copy(update={"sequences_per_batch": 8, "routes": swapped_routes(6)})
    straight, swapped = spec.routes
    whole = {straight: [0, 1, 4, 5], swapped: [2, 3, 6, 7]}
    assert {route: list(rows) for route, rows in rows_by_route(spec).items()} == whole
    assert {route: list(rows) for route, rows in rows_by_route(spec, Recipe(rows=(2, 4, 7))).items()} == {
        straight: [4],
        swapped: [2, 7],
    }
    one_each = Recipe(rows=(0, 1), routes=((1,), (2,), (3,), (1,)))
    assert {route: list(rows) for route, rows in rows_by_route(spec, one_each).items()} == {(1,): [0, 1]}
    equal = Recipe(routes=((1,), (2,), (1,), (2,)))
    assert {route: list(rows) for route, rows in rows_by_route(spec, equal).items()} == {
        (1,): [0, 1, 4, 5],
        (2,): [2, 3, 6, 7],
    }


def test_rows_are_passed_together_where_the_same_is_approximated():
    one, other = ApproximateBackward(1, rows=(0, 1, 2)), ApproximateBackward(2, rows=(2, 3), rank=4)
    recipe = Recipe(rows=(0, 2, 3), routes=((1, 2), (2, 3), (1, 2), (1, 3)), backward=(one, other))
    first, second = replace(one, rows=None), replace(other, rows=None)
    found = {way: list(rows) for way, rows in rows_by_pass(SPEC, recipe).items()}
    assert found == {Pass((1, 2), (first,)): [0], Pass((1, 2), (first, second)): [2], Pass((1, 3)): [3]}


@given(st.integers(1, 40), st.integers(1, 12))
def test_parts_of_a_batch_share_out_its_rows(num_rows, num_parts):
    parts = [rows_of_parts({part}, num_parts, num_rows) for part in range(num_parts)]
    assert [row for rows in parts for row in rows] == list(range(num_rows))
    assert all(abs(len(rows) - num_rows / num_parts) < 1 for rows in parts)


def test_every_recipe_of_the_scripts_is_another_training(corpus, spec):
    trajectory = Trajectory(spec, corpus, None)
    root = trajectory.root(plain_routes(NUM_STAGES))
    states = [bits(trajectory.state_at(root.entered(recipe).after(3))) for recipe in RECIPES]
    assert all(one != other for number, one in enumerate(states) for other in states[:number])
