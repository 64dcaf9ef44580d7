"""The trainer: what a step does, and that a rebuilt stage is exactly what the formula says."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models import llama_gradients
from models.llama import rope_tables, rotate
from models.recipe import rows_by_route
from models.spec import ModelSpec, OptimizerSpec, plain_routes, swapped_routes
from models.trainer import Trainer, average_shares, scheduled_rate
from models.training_state import DivergedError, Edit, GradientNormWeights, Moment, Term
from support.trainings import spec_for


def trainer_for(corpus, num_stages=4, family="llama", steps=3, routes=None, **optimizer) -> Trainer:
    spec = spec_for(
        corpus,
        model=ModelSpec(family=family, dim=16, num_heads=2, num_stages=num_stages, layers_per_stage=2),
        optimizer=OptimizerSpec(**optimizer),
        num_validation_sequences=4,
        init_seed=3,
        data_seed=4,
        routes=routes or plain_routes(num_stages),
    )
    trainer = Trainer(spec, corpus)
    for _ in range(steps):
        trainer.train_step()
    return trainer


def stages_with_moments(trainer: Trainer) -> list[int]:
    return [number for number, flat in enumerate(trainer.model.flat) if flat in trainer.optimizer.state]


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [flat.detach().clone() for flat in trainer.model.flat]


@pytest.mark.parametrize("num_stages", [4, 6])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_average_is_weighted_by_gradient_norms_at_every_stage(corpus, num_stages, exponent):
    for stage in range(2, num_stages):
        trainer = trainer_for(corpus, num_stages)
        before, norms = weights(trainer), list(trainer.gradient_norms)
        edit = Edit(stage, "average", (stage - 1, stage + 1), GradientNormWeights(exponent=exponent))
        trainer.apply(edit)
        a, b = norms[stage - 1] ** exponent, norms[stage + 1] ** exponent
        expected = (a * before[stage - 1].double() + b * before[stage + 1].double()) / (a + b)
        after = weights(trainer)
        assert torch.equal(after[stage], expected.float()) or torch.allclose(
            after[stage].double(), expected, rtol=2**-23, atol=1e-12
        )
        assert all(torch.equal(after[k], before[k]) for k in range(num_stages + 1) if k != stage)


@pytest.mark.parametrize(("stage", "source"), [(1, 2), (2, 1), (3, 4), (4, 3)])
def test_a_copy_is_its_source(corpus, stage, source):
    trainer = trainer_for(corpus, routes=swapped_routes(4))
    before = weights(trainer)
    trainer.apply(Edit(stage, "copy", (source,)))
    assert torch.equal(weights(trainer)[stage], before[source])


@pytest.mark.parametrize("stage", [0, 3])
def test_fresh_weights_depend_on_stage_and_step_alone(corpus, stage):
    """A second draw at the same step repeats the first."""
    at_three, four_steps, from_elsewhere = trainer_for(corpus), trainer_for(corpus, steps=4), trainer_for(corpus)
    initial = weights(trainer_for(corpus, steps=0))[stage]
    from_elsewhere.apply(Edit(2, "copy", (1,)))
    for trainer in (at_three, four_steps, from_elsewhere):
        trainer.apply(Edit(stage, "fresh"))
    once = weights(at_three)[stage]
    assert torch.equal(weights(from_elsewhere)[stage], once)
    assert not torch.equal(weights(four_steps)[stage], once)
    assert not torch.equal(once, initial)
    if stage:
        assert once.std().item() == pytest.approx(initial.std().item(), rel=0.05)
        at_three.apply(Edit(2, "fresh"))
        assert not torch.equal(weights(at_three)[2], once)
    at_three.apply(Edit(stage, "fresh"))
    assert torch.equal(weights(at_three)[stage], once)
    at_three.train_step()


def test_only_the_rebuilt_stage_loses_its_optimizer_state(corpus):
    trainer = trainer_for(corpus, learning_rate=1e-3)
    trainer.apply(Edit(2, "average", (1, 3), GradientNormWeights(), learning_rate_factor=1.1))
    assert stages_with_moments(trainer) == [0, 1, 3, 4]
    assert [trainer.learning_rate(k) for k in range(5)] == pytest.approx([1e-3, 1e-3, 1.1e-3, 1e-3, 1e-3])
    before = weights(trainer)
    trainer.train_step()
    first_update = (weights(trainer)[2] - before[2]).abs().max().item()
    assert first_update == pytest.approx(1.1e-3, rel=1e-3)  # Adam's first step is lr · sign(gradient)


def test_the_uniform_average_is_the_mean_to_the_bit(corpus):
    """Of the weights, and of the moments where the optimizer's state is averaged."""
    trainer = trainer_for(corpus)
    before = weights(trainer)
    moments = [trainer.optimizer.state[flat] for flat in trainer.model.flat]
    expected = {name: ((moments[1][name].double() + moments[3][name].double()) / 2).float() for name in moments[1]}
    trainer.apply(Edit(2, "average", (1, 3), GradientNormWeights(exponent=0.0), optimizer="average"))
    assert torch.equal(weights(trainer)[2], ((before[1].double() + before[3].double()) / 2).float())
    found = trainer.optimizer.state[trainer.model.flat[2]]
    assert all(torch.equal(found[name], expected[name]) for name in ("step", "exp_avg", "exp_avg_sq"))
    trainer.train_step()


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.snapshot().items()}


def states_at(trainer: Trainer, *steps: int) -> dict[Moment, dict[str, torch.Tensor]]:
    """The trainer's states at some steps, on its way to the last of them."""
    found = {}
    for step in steps:
        while trainer.step < step:
            trainer.train_step()
        found[Moment(0, step)] = state_of(trainer)
    return found


def stage_of(state: dict[str, torch.Tensor], number: int) -> dict[str, torch.Tensor]:
    """What a state holds of one stage."""
    tensors = {name: tensor for name, tensor in state.items() if name.split(".")[1:2] == [str(number)]}
    return tensors | {"norm": state["gradient_norms"][number], "rate": state["rate_factors"][number]}


@pytest.mark.parametrize("stage", [0, 1, 4])
def test_a_rolled_back_stage_leaves_the_others_unchanged(corpus, stage):
    trainer = trainer_for(corpus, steps=0)
    older = states_at(trainer, 2, 5)
    moment = Moment(0, 2)
    trainer.apply(Edit(stage, "sum", terms=(Term(stage, 1.0, moment),), optimizer="older"), older)
    after = state_of(trainer)
    for number in range(5):
        found, expected = stage_of(after, number), stage_of(older[moment if number == stage else Moment(0, 5)], number)
        if number == stage:
            assert expected.pop("rate").tolist() == [1.0, math.inf, 0.0]
            assert found.pop("rate").tolist() == [1.0, math.inf, 5.0]
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    assert after[f"adam.{stage}.step"] == 2
    trainer.train_step()
    assert state_of(trainer)[f"adam.{stage}.step"] == 3


def test_a_rolled_back_stage_may_keep_or_lose_its_optimizer(corpus):
    trainer = trainer_for(corpus)
    before = state_of(trainer)
    trainer.apply(Edit(2, "sum", terms=(Term(2, 1.0, Moment(0, 3)),), optimizer="older"), {Moment(0, 3): before})
    after = state_of(trainer)
    del before["rate_factors"], after["rate_factors"]
    assert all(torch.equal(after[name], before[name]) for name in before)
    trainer = trainer_for(corpus, steps=0)
    older = states_at(trainer, 0, 3)
    trainer.apply(Edit(2, "sum", terms=(Term(2, 1.0, Moment(0, 0)),), optimizer="older"), older)
    assert stages_with_moments(trainer) == [0, 1, 3, 4]
    assert trainer.gradient_norms[2] == 1.0
    terms = (Term(2, 0.5, Moment(0, 0)), Term(3, 0.5))
    trainer.apply(Edit(1, "sum", terms=terms, optimizer="average"), older)
    assert stages_with_moments(trainer) == [0, 3, 4]
    trainer.train_step()


def test_an_extrapolation_adds_the_difference_to_the_newer_state(corpus):
    trainer = trainer_for(corpus, steps=0)
    older = states_at(trainer, 1, 4, 6)
    new, old = older[Moment(0, 4)], older[Moment(0, 1)]
    terms = (Term(3, 1.25, Moment(0, 4)), Term(3, -0.25, Moment(0, 1)))
    edit = Edit(3, "sum", terms=terms, optimizer="average", learning_rate_factor=1.5)
    trainer.apply(edit, older)
    after = state_of(trainer)
    expected = new["weights.3"].double() * 1.25 - old["weights.3"].double() * 0.25
    assert torch.equal(after["weights.3"], expected.float())
    shares = (1.25 / 1.5, 0.25 / 1.5)
    for name in ("adam.3.step", "adam.3.exp_avg", "adam.3.exp_avg_sq"):
        assert torch.equal(after[name], (shares[0] * new[name].double() + shares[1] * old[name].double()).float())
    norms = [float(state["gradient_norms"][3]) for state in (new, old)]
    assert trainer.gradient_norms[3] == pytest.approx(shares[0] * norms[0] + shares[1] * norms[1], rel=1e-12)
    assert trainer.rate_factors[3] == (1.5, math.inf, 6)
    assert (after["adam.3.exp_avg_sq"] >= 0).all()
    assert math.isfinite(trainer.train_step().train_loss)


@pytest.mark.parametrize("optimizer", ["fresh", "average"])
def test_two_terms_of_a_half_are_the_uniform_average(corpus, optimizer):
    one, two = trainer_for(corpus), trainer_for(corpus)
    one.apply(Edit(2, "average", (1, 3), GradientNormWeights(exponent=0.0), optimizer=optimizer))
    two.apply(Edit(2, "sum", terms=(Term(1, 0.5), Term(3, 0.5)), optimizer=optimizer))
    for trainer in (one, two):
        trainer.train_step()
    found, expected = state_of(two), state_of(one)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_sum_may_mix_what_others_are_with_what_the_stage_was(corpus):
    trainer = trainer_for(corpus, steps=0)
    older = states_at(trainer, 2, 5)
    now, then = older[Moment(0, 5)], older[Moment(0, 2)]
    terms = (Term(2, 0.25, Moment(0, 2)), Term(3, 0.5, Moment(0, 2)), Term(4, 0.25))
    trainer.apply(Edit(3, "sum", terms=terms, optimizer="older"), older)
    after = state_of(trainer)
    expected = then["weights.3"].double() / 2 + (then["weights.2"].double() + now["weights.4"].double()) / 4
    assert torch.allclose(after["weights.3"].double(), expected, rtol=2**-23, atol=1e-12)
    assert torch.equal(after["adam.3.exp_avg"], then["adam.3.exp_avg"])
    norms = [float(state["gradient_norms"][stage]) for state, stage in ((then, 3), (then, 2), (now, 4))]
    assert trainer.gradient_norms[3] == pytest.approx(norms[0] / 2 + norms[1] / 4 + norms[2] / 4, rel=1e-12)


@pytest.mark.parametrize(("kept", "share"), [("own", 0.387), ("sources", 0.437)])
def test_a_stage_rebuilt_beside_another_weighs_by_its_norm(corpus, kept, share):
    """Stages 3 and 4 lost together, rebuilt one after the other: the share of the third in the fourth."""
    trainer, weights = (
        trainer_for(corpus, num_stages=6),
        GradientNormWeights(exponent=1.0, after_clip=True, epsilon=1e-4),
    )
    trainer.gradient_norms = [1.0, 0.02, 0.027, 0.034, 0.050, 0.054, 0.02]
    for stage in (3, 4):
        third = trainer.model.flat[3].double().clone()
        trainer.apply(Edit(stage, "average", (stage - 1, stage + 1), weights, gradient_norm=kept))
    expected = share * third + (1 - share) * trainer.model.flat[5].double()
    assert torch.allclose(trainer.model.flat[4].double(), expected, atol=1e-3)
    assert (trainer.gradient_norms[3:5] == [0.034, 0.050]) == (kept == "own")
    shares = average_shares((3, 5), [*trainer.gradient_norms[:4], 0.0, 0.054, 0.0], weights, 1.0)
    assert shares[3] == pytest.approx(share, abs=1e-3)


def test_learning_rates_follow_the_schedule_and_the_factor(corpus):
    """A cosine goes from the peak to its final share; an edit's factor halves its excess."""
    trainer = trainer_for(corpus, steps=0, learning_rate=1.0)
    trainer.apply(Edit(2, "copy", (1,), learning_rate_factor=1.4, learning_rate_half_life_steps=10.0))
    trainer.step = 10
    assert trainer.learning_rate(2) == pytest.approx(1.2)
    cosine = {"warmup_steps": 10, "decay": "cosine", "decay_steps": 110, "final_fraction": 0.1}
    spec = trainer_for(corpus, steps=0, learning_rate=1.0, **cosine).spec
    rates = [scheduled_rate(spec, step) for step in (0, 9, 10, 60, 110, 500)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.55, 0.1, 0.1])


def test_stages_are_clipped_by_themselves_and_shares_by_norms(corpus):
    trainer = trainer_for(corpus, steps=1, clip_norm=0.05)
    clipped = [flat.grad.norm().item() for flat in trainer.model.flat]
    assert any(norm > 0.05 for norm in trainer.gradient_norms)
    for before, after in zip(trainer.gradient_norms, clipped, strict=True):
        assert after == pytest.approx(min(before, 0.05), rel=1e-4)
    assert average_shares((1, 3), [0.0] * 5, GradientNormWeights(), None) == {1: 0.5, 3: 0.5}
    shares = average_shares((1, 3), [0, 5.0, 0, 0.5, 0], GradientNormWeights(exponent=1.0, after_clip=True), 1.0)
    assert shares == pytest.approx({1: 1 / 1.5, 3: 0.5 / 1.5})


@pytest.mark.parametrize("family", ["llama", "gpt"])
def test_a_step_is_that_of_a_plain_torch_loop(corpus, family):
    """The staged, flat, grouped step against ordinary modules and one ordinary Adam, no clipping."""
    trainer = trainer_for(corpus, family=family, steps=0, clip_norm=None)
    plain = trainer_for(corpus, family=family, steps=0, clip_norm=None)
    parameters = [parameter for stage in plain.model.stages for parameter in stage.parameters()]
    copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    adam = torch.optim.Adam(copies, lr=1e-3)
    route = plain.spec.routes[0]
    for step in range(4):
        result = trainer.train_step()
        for parameter, copy in zip(parameters, copies, strict=True):
            parameter.data.copy_(copy.data)
            parameter.grad = None
        windows = torch.from_numpy(corpus.batch(4, step, 4, 16))
        loss = plain.model.loss(windows[:, :-1], windows[:, 1:], route)
        loss.backward()
        for parameter, copy in zip(parameters, copies, strict=True):
            copy.grad = parameter.grad.clone()
        adam.step()
        assert result.train_loss == pytest.approx(loss.item(), rel=1e-5)


def test_swapped_microbatches_really_take_the_swapped_route(corpus):
    trainer = trainer_for(corpus, steps=0, routes=swapped_routes(4), clip_norm=None)
    groups = rows_by_route(trainer.spec)
    assert {route: rows.tolist() for route, rows in groups.items()} == {(1, 2, 3, 4): [0, 2], (2, 1, 4, 3): [1, 3]}
    windows = torch.from_numpy(corpus.batch(4, 0, 4, 16))
    expected = np.mean(
        [
            trainer.model.loss(windows[j : j + 1, :-1], windows[j : j + 1, 1:], route).item()
            for j, route in enumerate([(1, 2, 3, 4), (2, 1, 4, 3)] * 2)
        ]
    )
    assert trainer.train_step().train_loss == pytest.approx(expected, rel=1e-5)


def test_attention_sees_the_past_alone_by_distance(corpus):
    for family in ("llama", "gpt"):
        model = trainer_for(corpus, family=family).model
        tokens = torch.randint(0, 256, (1, 16), generator=torch.Generator().manual_seed(0))
        other = tokens.clone()
        other[0, 10] = (other[0, 10] + 1) % 256

        def logits(inputs, model=model):
            x = model.ends.embed(inputs)
            for stage in model.stages[1:]:
                x = stage(x)
            return model.ends.logits(x)

        with torch.no_grad():
            assert torch.allclose(logits(tokens)[0, :10], logits(other)[0, :10], atol=1e-6)
            assert not torch.allclose(logits(tokens)[0, 10:], logits(other)[0, 10:], atol=1e-6)
    cos, sin = rope_tables(12, 8)
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(8, generator=generator).expand(12, 8) for _ in range(2))
    scores = rotate(q, cos, sin, 1) @ rotate(k, cos, sin, 1).T
    assert torch.allclose(scores[3, 1], scores[9, 7], atol=1e-5)
    assert torch.allclose(rotate(q, cos, sin, 1).norm(dim=-1), q.norm(dim=-1), atol=1e-5)


def test_rotation_and_its_gradient_are_those_of_each_head():
    generator = torch.Generator().manual_seed(0)
    x, g = (torch.randn(2, 12, 3 * 8, generator=generator, requires_grad=True) for _ in range(2))
    cos, sin = rope_tables(12, 8)
    half_cos, half_sin = cos[:, None, :4], sin[:, None, 4:]
    first, second = x.view(2, 12, 3, 8).chunk(2, dim=-1)
    heads = torch.cat((first * half_cos - second * half_sin, first * half_sin + second * half_cos), dim=-1)
    expected, found = heads.flatten(-2), rotate(x, cos.repeat(1, 3), sin.repeat(1, 3), 3)
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(y, x, g)[0] for y in (found, expected)))


@pytest.mark.parametrize("routes", [plain_routes(4), swapped_routes(4)])
def test_a_stage_gradient_joins_those_of_its_parameters(corpus, routes, monkeypatch):
    monkeypatch.setattr(llama_gradients, "LONGEST_SEQUENCE", 0)  # gradients by autograd
    trainer = trainer_for(corpus, steps=0, routes=routes, clip_norm=None)
    windows = torch.from_numpy(corpus.batch(4, 0, 4, 16))
    for route, rows in rows_by_route(trainer.spec).items():
        loss = trainer.model.loss(windows[rows, :-1], windows[rows, 1:], route) * (len(rows) / 4)
        loss.backward()
    expected = [torch.cat([p.grad.flatten() for p in stage.parameters()]) for stage in trainer.model.stages]
    trainer.train_step()
    found = [flat.grad for flat in trainer.model.flat]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_training_learns_from_chance_or_diverges_with_its_step(corpus):
    trainer = trainer_for(corpus, steps=0, learning_rate=3e-3)
    assert trainer.validation_loss() == pytest.approx(math.log(256), rel=0.02)
    first = trainer.validation_loss()
    for _ in range(60):
        trainer.train_step()
    assert trainer.validation_loss() < 0.7 * first
    with pytest.raises(DivergedError, match=r"training diverged: the (loss|gradient norm) at step \d+ is (nan|inf)"):
        trainer_for(corpus, steps=400, learning_rate=1e30, clip_norm=None)


def test_validation_loss_is_the_mean_over_its_windows(corpus):
    trainer = trainer_for(corpus)
    windows = torch.from_numpy(corpus.validation_windows(4, 16))
    with torch.no_grad():
        x = trainer.model.ends.embed(windows[:, :-1])
        for stage in trainer.model.stages[1:]:
            x = stage(x)
        expected = F.cross_entropy(trainer.model.ends.logits(x).flatten(0, 1), windows[:, 1:].flatten()).item()
    assert trainer.validation_loss() == pytest.approx(expected, rel=1e-6)


def test_tensors_of_a_rebuilt_stage_can_be_zero(corpus):
    """A stage of layers whose outputs are zero passes on what it receives; with rule zeros all tensors are zero."""
    trainer = trainer_for(corpus)
    x = torch.randn(1, 8, trainer.spec.model.dim)
    trainer.apply(Edit(stage=1, rule="fresh", zeroed=("output",)))
    assert torch.equal(trainer.model.stages[1](x), x)
    assert trainer.model.flat[1].abs().max() > 0
    trainer.apply(Edit(stage=2, rule="zeros"))
    assert trainer.model.flat[2].abs().max() == 0
    with pytest.raises(ValueError, match="stage 1 has no tensor whose name ends in 'outputs'"):
        trainer.apply(Edit(stage=1, rule="fresh", zeroed=("outputs",)))
