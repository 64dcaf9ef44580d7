"""Runs of `diloco`: options, the training states of a run, and a hand-written loop of replicas that train apart."""

from collections.abc import Collection
from typing import Any

import pytest
import torch

from models.staged_model import StagedModel
from models.training_state import Position
from sim.scenario.scenario import Scenario
from sim.simulation.run import Run
from sim.simulation.training_process import TrainingProcess
from support.builders import run

THREE = {"nodes_per_stage": 3, "provisioning_seconds": 30.0, "detection_seconds": 4.0, "startup_seconds": 5.0}


def diloco(**options: Any) -> dict[str, Any]:
    """A strategy of the kind, with four inner steps."""
    return {"kind": "diloco", "inner_steps": 4, **options}


def positions_of(
    monkeypatch: pytest.MonkeyPatch, scenario: Scenario, index: int = 0, training: Any = None
) -> tuple[list[Position], Run]:
    """The training state after each completed iteration of a run, and the run."""
    found, record = list[Position](), TrainingProcess._record

    def noted(self: TrainingProcess, started_seconds: float) -> None:
        found.append(self._position)
        record(self, started_seconds)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProcess, "_record", noted)
        return found, run(scenario, index, training=training)


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

    def inner_step(self, training: Collection[int] | None = None) -> list[float]:
        """A step of replicas, all or some, on their rows; the losses of all."""
        windows = torch.from_numpy(self.corpus.batch(self.spec.data_seed, self.step, 4, self.spec.sequence_length))
        losses = []
        for number, rows in enumerate(self.shares):
            model, optimizer = self.models[number], self.inner[number]
            loss = model.loss(windows[rows, :-1], windows[rows, 1:], self.spec.routes[0])
            for flat, gradient in zip(model.flat, model.gradients(loss), strict=True):
                flat.grad = gradient
                torch.nn.utils.clip_grad_norm_([flat], self.spec.optimizer.clip_norm)
            if training is None or number in training:
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

    @torch.no_grad()
    def average(self, pair: Collection[int]) -> None:
        """Give the replicas of a pair the mean of their weights."""
        for flats in zip(*(self.models[number].flat for number in pair), strict=True):
            mean = torch.stack(flats).mean(dim=0)
            for flat in flats:
                flat.copy_(mean)

    @torch.no_grad()
    def loss_of_mean(self) -> float:
        """The validation loss of the mean of all weights."""
        for weights, *flats in zip(self.weights, *(model.flat for model in self.models), strict=True):
            weights.copy_(torch.stack(flats).mean(dim=0))
        return self.validation_loss()
