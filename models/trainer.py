"""Training of the staged proxy model: one live state, changed by steps and by edits.

A step: gradients of the batch, clipped stage by stage (as in the paper), then one Adam update per stage. Microbatches
of one route run in one pass: the gradient of a batch is the mean over its equal microbatches in any grouping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from models.corpus import Corpus
from models.llama_gradients import LlamaGradients, is_by_hand
from models.recipe import PLAIN, Pass, Recipe, Route, rows_by_pass, rows_by_route, visited_stages
from models.spec import TrainingSpec, plain_routes
from models.staged_model import StagedModel
from models.training_state import DivergedError, Edit, GradientNormWeights, Merge, Moment, Term

MAX_SEQUENCES_PER_EVALUATION = 64
ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")
OUTER = "outer."

State = dict[str, Tensor]
"""Whole training state as named tensors: the result of `Trainer.snapshot`."""


@dataclass(frozen=True)
class StepResult:
    """Result of a step: mean loss of the rows that count before the update, in nats per token, and gradient norm of
    each stage before clipping, by stage number; 0 for a stage that no row visits."""

    train_loss: float
    gradient_norms: tuple[float, ...]


class Trainer:
    """Weights, optimizer states and learning-rate factors of one training state.

    Life: created at step 0 → `train_step`, `apply(edit)`, `merge`, `enter(recipe)`, `rest_until(step)`, in any order →
    `snapshot` / `restore` at any time; the recipe in force is not part of a state. `gradient_norms` are those of the
    last step in which rows visited the stage, all 1 before the first. An edit gives a stage its sources' mean, or
    leaves its own.
    """

    def __init__(self, spec: TrainingSpec, corpus: Corpus) -> None:
        self.spec = spec
        self.corpus = corpus
        torch.set_num_threads(spec.num_threads)
        self.model = StagedModel(spec.model, spec.vocabulary_size, spec.sequence_length, spec.init_seed)
        settings = spec.optimizer
        betas = settings.beta1, settings.beta2
        flats = self.model.flat
        self.optimizer = torch.optim.Adam(flats, settings.learning_rate, betas, settings.epsilon, fused=True)
        self.enter(PLAIN)
        self.step = 0
        num_stages = len(self.model.flat)
        self.gradient_norms = [1.0] * num_stages
        self.rate_factors: list[tuple[float, float, int]] = [(1.0, math.inf, 0)] * num_stages
        self.outer_momentum: dict[int, Tensor] = {}  # of the stages that a merge with momentum has moved
        validation = corpus.validation_windows(spec.num_validation_sequences, spec.sequence_length)
        self._validation = torch.from_numpy(validation)

    def enter(self, recipe: Recipe) -> None:
        """Train by a recipe from the next step on."""
        self.recipe = recipe
        self._rows_by_pass = rows_by_pass(self.spec, recipe)
        self._by_hand: dict[Pass, LlamaGradients] = {}
        self._num_counted = sum(map(len, self._rows_by_pass.values()))
        self._visited = visited_stages(self._rows_by_pass)

    def train_step(self) -> StepResult:
        """Update every stage that rows visit. DivergedError, with weights unchanged, when the loss is not finite."""
        spec = self.spec
        windows = self.corpus.batch(spec.data_seed, self.step, spec.sequences_per_batch, spec.sequence_length)
        train_loss, gradients = 0.0, list[Tensor]()
        for way, rows in self._rows_by_pass.items():
            group = torch.from_numpy(windows if len(rows) == len(windows) else windows[rows])
            loss, found = self._gradients(group[:, :-1], group[:, 1:], way)
            gradients = [total.add_(more) for total, more in zip(gradients, found, strict=True)] if gradients else found
            train_loss += loss.item()
        self._require_finite(train_loss, "loss")
        if self.recipe.average_over == "batch":
            torch._foreach_mul_(gradients, self._num_counted / spec.sequences_per_batch)
        gradient_norms = clip(gradients, spec.optimizer.clip_norm)
        self._require_finite(sum(gradient_norms), "gradient norm")
        flats_by_rate: dict[float, list[Tensor]] = {}
        for number in self._visited:  # Adam leaves the weights and moments of the others alone
            self.model.flat[number].grad = gradients[number]
            self.gradient_norms[number] = gradient_norms[number]
            flats_by_rate.setdefault(self.learning_rate(number), []).append(self.model.flat[number])
        defaults = self.optimizer.defaults
        self.optimizer.param_groups = [{**defaults, "lr": rate, "params": of} for rate, of in flats_by_rate.items()]
        self.optimizer.step()
        self.step += 1
        return StepResult(train_loss, tuple(gradient_norms))

    def _gradients(self, tokens: Tensor, targets: Tensor, way: Pass) -> tuple[Tensor, list[Tensor]]:
        """Loss of sequences in one pass, weighted by their share of the rows that count, and its gradients by stage."""
        share = len(tokens) / self._num_counted
        if self.spec.compile == "on":
            from models.compiled import compiled_gradients

            weights = [flat.detach() for flat in self.model.flat]
            found, loss = compiled_gradients(self.spec, way, len(tokens), share)(weights, tokens, targets)
            return loss, found
        if is_by_hand(self.spec, way):
            if way not in self._by_hand:
                self._by_hand[way] = LlamaGradients(self.model, way.route, *tokens.shape)
            return self._by_hand[way](tokens, targets, share)
        loss = self.model.loss(tokens, targets, *way) * share
        return loss, self.model.gradients(loss)

    def validation_loss(self) -> float:
        """Loss on the fixed validation windows. Raises DivergedError when it is not finite."""
        loss = self.loss_on(self._validation)
        self._require_finite(loss, "validation loss")
        return loss

    @torch.no_grad()
    def loss_on(self, windows: Tensor) -> float:
        """Mean cross-entropy in nats per token over windows [B, T + 1], on the routes of validation."""
        total = 0.0
        for route, share in routes_of_validation(self.spec, self.recipe).items():
            for group in torch.split(windows, MAX_SEQUENCES_PER_EVALUATION):
                total += float(self.model.loss(group[:, :-1], group[:, 1:], route)) * len(group) * share
        return total / len(windows)

    def _require_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise divergence(self.step + 1, what, value)

    def learning_rate(self, number: int) -> float:
        """Learning rate of stage `number` at the next step: schedule × the factors of stage and recipe."""
        factor, half_life_steps, since_step = self.rate_factors[number]
        decayed = 1.0 + (factor - 1.0) * math.pow(0.5, (self.step - since_step) / half_life_steps)
        return scheduled_rate(self.spec, self.step) * decayed * self.recipe.rate_factor

    @torch.no_grad()
    def apply(self, edit: Edit, older: Mapping[Moment | None, State] | None = None) -> None:
        """Rebuild a stage by an edit: weights, optimizer state, gradient norm and learning rate.

        older: states at the moments that the terms of the edit refer to.
        """
        states: dict[Moment | None, State] = {None: self.snapshot(), **(older or {})}
        terms = edit.terms or tuple(Term(source, 1.0) for source in edit.sources)
        if edit.weights:
            shares = average_shares(edit.sources, self.gradient_norms, edit.weights, self.spec.optimizer.clip_norm)
            terms = tuple(Term(source, share) for source, share in shares.items())
        if edit.rule == "fresh":
            self.model.initialise(edit.stage, self.step + 1)
        elif edit.rule == "zeros":
            self.model.flat[edit.stage].zero_()
        else:
            vectors = [(term.share, states[term.moment][f"weights.{term.stage}"]) for term in terms]
            self.model.flat[edit.stage].copy_(combine(vectors))
            if edit.gradient_norm == "sources":
                norms = [(term.share, states[term.moment]["gradient_norms"][term.stage]) for term in means(edit, terms)]
                self.gradient_norms[edit.stage] = sum(share * float(norm) for share, norm in norms)
        self.model.zero(edit.stage, edit.zeroed)
        self._rebuild_optimizer(edit, terms, states)
        half_life_steps = edit.learning_rate_half_life_steps or math.inf
        self.rate_factors[edit.stage] = (edit.learning_rate_factor, half_life_steps, self.step)

    def _rebuild_optimizer(self, edit: Edit, terms: tuple[Term, ...], states: Mapping[Moment | None, State]) -> None:
        flat = self.model.flat[edit.stage]
        sources: list[tuple[float, dict[str, Tensor]]] = []
        if edit.optimizer == "older":
            sources = [(1.0, adam_state(states[terms[0].moment], edit.stage))]
        elif edit.optimizer == "average":
            sources = [(term.share, adam_state(states[term.moment], term.stage)) for term in means(edit, terms)]
        self.optimizer.state.pop(flat, None)
        if sources and all(moments for _, moments in sources):
            combined = {name: combine([(share, moments[name]) for share, moments in sources]) for name in ADAM_STATE}
            self.optimizer.state[flat] = combined

    def rest_until(self, step: int) -> None:
        """Let steps pass without an update."""
        self.step = step

    @torch.no_grad()
    def merge(self, merge: Merge, sources: Sequence[State]) -> None:
        """Move weights towards the mean of the weights of other states, those of the sources of the merge."""
        for number in range(len(self.model.flat)) if merge.stages is None else merge.stages:
            flat = self.model.flat[number]
            own = flat.detach().double()
            mean = mean_of([state[f"weights.{number}"] for state in sources], merge.shares)
            moved = merge.rate * mean if merge.rate == 1 else (1.0 - merge.rate) * own + merge.rate * mean
            if merge.momentum:
                momentum = own - mean
                if number in self.outer_momentum:
                    momentum = merge.momentum * self.outer_momentum[number].double() + momentum
                moved = moved - merge.rate * merge.momentum * momentum
                self.outer_momentum[number] = momentum.float()
            flat.copy_(moved)

    def snapshot(self) -> State:
        """Whole state as named tensors, to the bit; most are live: write or clone them before the next step."""
        tensors: State = {
            "step": torch.tensor(self.step),
            "gradient_norms": torch.tensor(self.gradient_norms, dtype=torch.float64),
            "rate_factors": torch.tensor(self.rate_factors, dtype=torch.float64),
        }
        for number, flat in enumerate(self.model.flat):
            tensors[f"weights.{number}"] = flat.detach()
            for name, value in self.optimizer.state.get(flat, {}).items():
                tensors[f"adam.{number}.{name}"] = value
        return {**tensors, **{f"{OUTER}{number}": momentum for number, momentum in self.outer_momentum.items()}}

    @torch.no_grad()
    def restore(self, tensors: State) -> None:
        """Restore a state given by `snapshot`; the recipe in force stays."""
        self.step = int(tensors["step"])
        self.gradient_norms = tensors["gradient_norms"].tolist()
        self.rate_factors = [(factor, half, int(since)) for factor, half, since in tensors["rate_factors"].tolist()]
        self.outer_momentum = {int(name.removeprefix(OUTER)): each.clone() for name, each in outer(tensors).items()}
        self.optimizer.state.clear()
        for number, flat in enumerate(self.model.flat):
            flat.copy_(tensors[f"weights.{number}"])
            if moments := adam_state(tensors, number):
                self.optimizer.state[flat] = {name: value.clone() for name, value in moments.items()}


def divergence(step: int, what: str, value: float) -> DivergedError:
    """The error of a step at which a loss or gradient norm is not finite."""
    return DivergedError(
        f"training diverged: the {what} at step {step} is {value}; lower "
        "training.optimizer.learning_rate, or the learning-rate factor after a recovery"
    )


def adam_state(tensors: State, number: int) -> dict[str, Tensor]:
    """Adam's state of a stage in a whole state; empty before its first step."""
    prefix = f"adam.{number}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def outer(tensors: State) -> State:
    """Outer momentum of the stages in a whole state, by the names that it has there."""
    return {name: value for name, value in tensors.items() if name.startswith(OUTER)}


def routes_of_validation(spec: TrainingSpec, recipe: Recipe) -> dict[Route, float]:
    """Share of each route in the validation loss: the plain order alone, unless the recipe validates on its routes."""
    if not recipe.validate_on_routes:
        return dict.fromkeys(plain_routes(spec.model.num_stages), 1.0)
    groups = rows_by_route(spec, recipe)
    num_counted = sum(map(len, groups.values()))
    return {route: len(rows) / num_counted for route, rows in groups.items()}


def clip(gradients: list[Tensor], clip_norm: float | None) -> list[float]:
    """Scale each gradient in place to a norm of at most `clip_norm`; return the norms before."""
    norms: list[float] = torch.stack(torch._foreach_norm(gradients)).tolist()
    for gradient, norm in zip(gradients, norms, strict=True):
        if clip_norm is not None and norm > clip_norm:
            gradient.mul_(clip_norm / norm)
    return norms


def scheduled_rate(spec: TrainingSpec, step: int) -> float:
    """Learning rate of the schedule at 0-based `step`: linear warm-up, then constant or cosine."""
    settings = spec.optimizer
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.decay == "constant":
        return settings.learning_rate
    assert settings.decay_steps is not None
    progress = min(1.0, (step - settings.warmup_steps) / max(1, settings.decay_steps - settings.warmup_steps))
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return settings.learning_rate * (settings.final_fraction + (1.0 - settings.final_fraction) * cosine)


def average_shares(
    sources: tuple[int, ...], gradient_norms: list[float], weights: GradientNormWeights, clip_norm: float | None
) -> dict[int, float]:
    """CheckFree's weights of the sources, normalised to sum 1 (arXiv 2506.15461, algorithm 1); equal if all are 0."""
    raw = {}
    for source in sources:
        norm = gradient_norms[source]
        if weights.after_clip and clip_norm is not None:
            norm = min(norm, clip_norm)
        raw[source] = norm**weights.exponent + weights.epsilon
    total = sum(raw.values())
    return {source: weight / total if total else 1.0 / len(raw) for source, weight in raw.items()}


def means(edit: Edit, terms: Sequence[Term]) -> list[Term]:
    """Terms with shares |share| normalised to sum 1: for gradient norms and Adam's state, which are not negative."""
    if edit.rule != "sum":
        return list(terms)
    total = sum(abs(term.share) for term in terms)
    return [replace(term, share=abs(term.share) / total) for term in terms]


def combine(vectors: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Σ share · vector, summed in float64 in the order given and rounded once to float32."""
    total = torch.zeros_like(vectors[0][1], dtype=torch.float64)
    for share, vector in vectors:
        total += share * vector.double()
    return total.float()


def mean_of(vectors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Mean of vectors in float64; of a single vector the vector itself, to the sign of a zero."""
    if not shares:
        shares = [1.0 / len(vectors)] * len(vectors)
    first, *others = (share * vector.double() for share, vector in zip(shares, vectors, strict=True))
    return sum(others, first)
