"""Replicas that train apart and are merged: plain training for one, a hand-written loop of DiLoCo for several."""

import pytest
import torch

from models.recipe import PLAIN, Recipe, rows_of_parts
from models.replicas import split, synchronised
from models.spec import plain_routes
from models.staged_model import StagedModel
from models.training_state import Position
from models.trajectory import Trajectory
from support.trainings import NUM_STAGES, bits

PLAIN_OUTER = {"rate": 1.0, "momentum": 0.0}
NESTEROV = {"rate": 0.7, "momentum": 0.9}


def parts(num_replicas: int) -> list[Recipe]:
    """Recipes that share the rows of a batch of 4 among replicas."""
    return [Recipe(rows=rows_of_parts((part,), num_replicas, 4)) for part in range(num_replicas)]


def beginning(trajectory: Trajectory) -> Position:
    return trajectory.root(plain_routes(NUM_STAGES))


@pytest.mark.parametrize("every", [1, 3])
def test_one_replica_that_is_averaged_is_plain_training_to_the_bit(corpus, spec, every):
    plain, alone = Trajectory(spec, corpus, None), Trajectory(spec, corpus, None)
    before = beginning(plain).after(2)
    position = split(before, [PLAIN])
    for step in range(3, 10):
        position = position.after(step)
        assert alone.train_loss(position) == plain.train_loss(before.after(step))
        if step % every == 0:
            position = synchronised(position, **PLAIN_OUTER)
            assert alone.train_loss(position) == plain.train_loss(before.after(step))
            assert alone.validation_loss(position) == plain.validation_loss(before.after(step))
    assert bits(alone.state_at(position.replicas[0])) == bits(plain.state_at(before.after(9)))
    assert alone.num_trained_steps == plain.num_trained_steps == 9


class DiLoCo:
    """Replicas as separate models, each with an Adam, and torch's SGD on the differences from the global weights."""

    def __init__(self, spec, corpus, shares: list[list[int]]) -> None:
        self.spec, self.corpus, self.shares, self.step = spec, corpus, shares, 0
        self.models = [self.model() for _ in shares]
        settings = spec.optimizer
        self.inner = [
            torch.optim.Adam([{"params": [flat]} for flat in model.flat], settings.learning_rate)
            for model in self.models
        ]
        self.weights = [torch.nn.Parameter(flat.detach().clone()) for flat in self.model().flat]
        self.outer = torch.optim.SGD(self.weights, 0.7, momentum=0.9, nesterov=True)

    def model(self) -> StagedModel:
        return StagedModel(self.spec.model, self.spec.vocabulary_size, self.spec.sequence_length, self.spec.init_seed)

    def inner_step(self) -> list[float]:
        """A step of every replica on its rows; the losses."""
        windows = torch.from_numpy(self.corpus.batch(self.spec.data_seed, self.step, 4, self.spec.sequence_length))
        losses = []
        for model, optimizer, rows in zip(self.models, self.inner, self.shares, strict=True):
            loss = model.loss(windows[rows, :-1], windows[rows, 1:], self.spec.routes[0])
            for flat, gradient in zip(model.flat, model.gradients(loss), strict=True):
                flat.grad = gradient
                torch.nn.utils.clip_grad_norm_([flat], self.spec.optimizer.clip_norm)
            optimizer.step()
            losses.append(loss.item())
        self.step += 1
        return losses

    @torch.no_grad()
    def outer_step(self, present: list[int]) -> None:
        """A step of SGD on the mean difference of the replicas that are present, which receive the result."""
        for number, weights in enumerate(self.weights):
            others = [self.models[replica].flat[number] for replica in present]
            weights.grad = torch.stack([weights - other for other in others]).mean(dim=0)
        self.outer.step()
        for replica in present:
            self.receive(replica)

    @torch.no_grad()
    def receive(self, replica: int) -> None:
        for own, weights in zip(self.models[replica].flat, self.weights, strict=True):
            own.copy_(weights)

    def validation_loss(self) -> float:
        model = self.model()
        with torch.no_grad():
            for own, weights in zip(model.flat, self.weights, strict=True):
                own.copy_(weights)
            windows = torch.from_numpy(self.corpus.validation_windows(8, self.spec.sequence_length))
            return float(model.loss(windows[:, :-1], windows[:, 1:], self.spec.routes[0]))


def test_replicas_follow_a_hand_written_loop_of_diloco(corpus, spec):
    """Three replicas, three rounds of four steps."""
    loop, trajectory = DiLoCo(spec, corpus, [[0, 3], [1], [2]]), Trajectory(spec, corpus, None)
    position = split(beginning(trajectory), [Recipe(rows=(0, 3)), Recipe(rows=(1,)), Recipe(rows=(2,))])
    for step in range(1, 13):
        position = position.after(step)
        one, two, three = loop.inner_step()
        assert trajectory.train_loss(position) == pytest.approx((2 * one + two + three) / 4, rel=2e-5)
        if step % 4 == 0:
            position = synchronised(position, **NESTEROV)
            loop.outer_step([0, 1, 2])
            assert trajectory.validation_loss(position) == pytest.approx(loop.validation_loss(), rel=2e-5)
    assert trajectory.num_trained_steps == 3 * 12
