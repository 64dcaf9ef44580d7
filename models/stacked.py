"""Training of several replicates at once, stacked along a leading axis; on a GPU and in bf16 also of a single one.

A stack has a fixed number of slots, `replicates_at_once` of the spec, and weights [slots, parameters]. The model runs
under `torch.vmap`; clipping and Adam's update apply to all slots: one kernel launch in place of many small ones, which
dominate the time of a small model on a GPU. Replicates differ in seeds, steps and edits; they share the recipe.

A replicate has the same bits in any slot and any company: shapes are the same, since free slots repeat the first
replicate, and all slots begin at equal alignments, since sizes are multiples of 16. The repeated slots are compared
with the first at every step. The bits are not those of `Trainer`, since batched kernels add in another order; losses
differ by rounding (`TOLERANCE`). Edits are applied by `Trainer`, on the CPU.

*Not modelled*: several GPUs, CUDA graphs.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import functional_call

from models.corpus import Corpus
from models.device import device_name, repeatable
from models.recipe import PLAIN, Pass, Recipe, rows_by_pass, visited_stages
from models.spec import TrainingSpec, odd_sizes
from models.staged_model import StagedModel, WholeModel
from models.trainer import (
    MAX_SEQUENCES_PER_EVALUATION,
    State,
    StepResult,
    Trainer,
    adam_state,
    divergence,
    outer,
    routes_of_validation,
    scheduled_rate,
)
from models.training_state import Edit, Merge, Moment

LiveTrainer: TypeAlias = "Trainer | StackedReplicate"

TOLERANCE = 1e-4
"""Largest relative difference of a training loss from that of `Trainer` in the first 25 steps, in fp32. Later, rounding
errors grow as they do after a change of the last bit of the weights (`benchmarks/gpu.py` compares both)."""

STACKED_CODE_HASH = hashlib.sha256(
    b"".join((Path(__file__).parent / f"{name}.py").read_bytes() for name in ("device", "stacked"))
).hexdigest()[:16]

Floats = npt.NDArray[np.float64]


class Stack:
    """Training states in slots: weights and Adam's moments are [slots, parameters], stage after stage.

    Life: `load` fills all slots, `enter` sets the recipe → `train_step` and `validation_losses`, in any order →
    `collect` gives the results of the steps → `snapshot`. ValueError for sizes that cannot be stacked.
    """

    def __init__(self, spec: TrainingSpec, corpus: Corpus) -> None:
        if spec.replicates_at_once > 1 and (odd := odd_sizes(spec.model, spec.sequence_length)):
            raise ValueError(f"stacked replicates need sizes that are multiples of 16, found {odd}")
        self.spec, self.corpus, self.num_slots = spec, corpus, spec.replicates_at_once
        self.device = torch.device(spec.device)
        model = StagedModel(spec.model, spec.vocabulary_size, spec.sequence_length, spec.init_seed)
        self.whole = WholeModel(model).to(self.device)  # its weights are never used, its buffers are
        sizes = self.whole.stage_sizes
        shape = self.num_slots, sum(sizes)
        self.weights = torch.zeros(shape, device=self.device, requires_grad=True)
        self.exp_avg, self.exp_avg_sq = (torch.zeros(shape, device=self.device) for _ in range(2))
        self.stage_of_column = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(self.device)
        validation = torch.from_numpy(corpus.validation_windows(spec.num_validation_sequences, spec.sequence_length))
        self._validation = validation.to(self.device)
        self._results: list[tuple[Tensor, Tensor]] = []
        self.enter(PLAIN)

    def enter(self, recipe: Recipe) -> None:
        """Train all slots by a recipe from the next step on; after `collect`."""
        assert not self._results
        self.recipe, self._rows_by_pass = recipe, rows_by_pass(self.spec, recipe)
        self._num_counted = sum(map(len, self._rows_by_pass.values()))
        visited = visited_stages(self._rows_by_pass)
        self._visited = np.array([number in visited for number in range(len(self.whole.stage_sizes))])
        self._visited_columns = torch.from_numpy(self._visited).to(self.device)[self.stage_of_column]

    @torch.no_grad()
    def load(self, replicates: Sequence[tuple[TrainingSpec, State]]) -> None:
        """Fill the slots with replicates: the spec under their seeds, and their states on the CPU."""
        alike = all(spec.without_seeds == self.spec.without_seeds for spec, _ in replicates)
        if not (1 <= len(replicates) <= self.num_slots and alike):
            raise ValueError(f"a stack takes 1 to {self.num_slots} replicates that differ in seeds alone")
        torch.set_num_threads(self.spec.num_threads)
        self.num_replicates = len(replicates)
        free = self.num_slots - self.num_replicates
        slots = [*replicates, *([replicates[0]] * free)]
        self.data_seeds = [spec.data_seed for spec, _ in slots]
        states = [state for _, state in slots]
        self.outer_momentum = [{name: value.clone() for name, value in outer(state).items()} for state in states]
        num_stages = len(self.whole.stage_sizes)
        self.steps = np.array([int(state["step"]) for state in states])
        self.gradient_norms: Floats = np.array([state["gradient_norms"].tolist() for state in states])
        self.rate_factors: Floats = np.array([state["rate_factors"].tolist() for state in states])  # [slots, stages, 3]
        self.adam_steps: Floats = np.zeros((self.num_slots, num_stages))
        for tensor in (self.weights, self.exp_avg, self.exp_avg_sq):
            tensor.zero_()
        for slot, state in enumerate(states):
            for number, (weights, exp_avg, exp_avg_sq) in enumerate(self._views(slot)):
                weights.copy_(state[f"weights.{number}"])
                if moments := adam_state(state, number):
                    self.adam_steps[slot, number] = float(moments["step"])
                    exp_avg.copy_(moments["exp_avg"])
                    exp_avg_sq.copy_(moments["exp_avg_sq"])
        self._finite = torch.ones(self.num_slots, dtype=torch.bool, device=self.device)
        self._results.clear()

    def _views(self, slot: int) -> Iterator[tuple[Tensor, ...]]:
        """Weights and Adam's moments of a slot, stage by stage."""
        rows = (
            torch.split(tensor[slot], self.whole.stage_sizes)
            for tensor in (self.weights, self.exp_avg, self.exp_avg_sq)
        )
        return zip(*rows, strict=True)

    def train_step(self) -> None:
        """Update the stages of every slot as `Trainer.train_step` does; one that diverges keeps its weights."""
        spec, size = self.spec, (self.spec.sequences_per_batch, self.spec.sequence_length)
        keys = list(zip(self.data_seeds, self.steps.tolist(), strict=True))
        batches = {(seed, step): self.corpus.batch(seed, step, *size) for seed, step in dict.fromkeys(keys)}
        windows = np.stack([batches[key] for key in keys])
        self.weights.grad = None
        train_loss = torch.zeros(self.num_slots, device=self.device)
        with repeatable(spec.device):
            for way, rows in self._rows_by_pass.items():
                group = self._moved(windows[:, rows])  # [slots, rows, T + 1]
                losses = self._losses(group, way) * (len(rows) / self._num_counted)
                torch.autograd.backward(losses.sum())  # own gradients: no loss depends on another slot's weights
                train_loss += losses.detach()
            norms = self._update(train_loss)
        self._results.append((train_loss, norms))
        self.steps += 1
        self.adam_steps += self._visited

    def _moved(self, array: npt.NDArray[Any]) -> Tensor:
        """An array on the device; on a GPU without waiting for it."""
        tensor = torch.from_numpy(array)
        return (
            tensor.pin_memory().to(self.device, non_blocking=True)
            if self.spec.device == "cuda"
            else tensor.to(self.device)
        )

    def _losses(self, windows: Tensor, way: Pass) -> Tensor:
        """Mean cross-entropy of each slot over its windows [slots, B, T + 1], in nats per token."""

        def loss(tokens: Tensor, targets: Tensor, vector: Tensor) -> Tensor:
            found: Tensor = functional_call(
                self.whole, self.whole.named(torch.split(vector, self.whole.stage_sizes)), (tokens, targets, *way)
            )
            return found

        with without_warning(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec.precision == "bf16"):
            return torch.vmap(loss)(windows[..., :-1], windows[..., 1:], self.weights)

    @torch.no_grad()
    def _update(self, train_loss: Tensor) -> Tensor:
        """Clip the gradients and apply Adam; return the norms [slots, stages] before the clip.

        Not where a slot diverged, nor to stages that no row visits.
        """
        settings, gradient = self.spec.optimizer, self.weights.grad
        assert gradient is not None
        if self.recipe.average_over == "batch":
            gradient *= self._num_counted / self.spec.sequences_per_batch
        norms = torch.stack([part.norm(dim=1) for part in torch.split(gradient, self.whole.stage_sizes, dim=1)], dim=1)
        self._finite &= train_loss.isfinite() & norms.isfinite().all(dim=1)
        if settings.clip_norm is not None:
            gradient *= (settings.clip_norm / norms).clamp(max=1.0)[:, self.stage_of_column]
        step_sizes, corrections = (each[:, self.stage_of_column] for each in self._step_sizes())
        updated = self._finite[:, None]
        if not self._visited.all():
            updated = updated & self._visited_columns
        for moment, value, decay in (
            (self.exp_avg, gradient, settings.beta1),
            (self.exp_avg_sq, gradient.square(), settings.beta2),
        ):
            torch.where(updated, moment.lerp(value, 1.0 - decay), moment, out=moment)
        update = step_sizes * self.exp_avg / (self.exp_avg_sq.sqrt() / corrections + settings.epsilon)
        self.weights -= torch.where(updated, update, 0.0)
        return norms

    def _step_sizes(self) -> Iterator[Tensor]:
        """Learning rate over bias correction of the first moment, and root of that of the second: [slots, stages]."""
        settings, adam_steps = self.spec.optimizer, self.adam_steps + 1
        schedule = np.array([scheduled_rate(self.spec, step) for step in self.steps.tolist()])
        factors, half_life_steps, since = np.moveaxis(self.rate_factors, -1, 0)
        decayed = 1.0 + (factors - 1.0) * 0.5 ** ((self.steps[:, None] - since) / half_life_steps)
        step_sizes = schedule[:, None] * decayed * self.recipe.rate_factor / (1.0 - settings.beta1**adam_steps)
        for values in (step_sizes, np.sqrt(1.0 - settings.beta2**adam_steps)):
            yield self._moved(values.astype(np.float32))

    def collect(self) -> list[list[StepResult]]:
        """Results of the steps since the last call, of each replicate; up to its divergence, that step included."""
        if not self._results:
            return [[] for _ in range(self.num_replicates)]
        losses, norms = (torch.stack(tensors).cpu() for tensors in zip(*self._results, strict=True))
        self._results.clear()
        copies = slice(self.num_replicates, self.num_slots)
        for found in (losses, norms):
            if not torch.equal(found[:, copies].nan_to_num(), found[:, :1].nan_to_num().expand_as(found[:, copies])):
                raise RuntimeError(
                    f"equal replicates have different losses in one stack on {device_name(self.spec.device)}: "
                    "set training.replicates_at_once to 1 there"
                )
        return [self._collected(slot, losses[:, slot], norms[:, slot]) for slot in range(self.num_replicates)]

    def _collected(self, slot: int, losses: Tensor, norms: Tensor) -> list[StepResult]:
        """Results of a slot. One that has diverged is at the step before, where its weights are."""
        found: list[StepResult] = []
        for loss, of_stages in zip(losses.tolist(), norms.tolist(), strict=True):
            found.append(StepResult(loss, tuple(of_stages)))
            if not is_finite(found[-1]):
                num_undone = len(losses) - len(found) + 1
                self.steps[slot] -= num_undone
                self.adam_steps[slot] -= num_undone * self._visited
                break
            self.gradient_norms[slot][self._visited] = np.array(of_stages)[self._visited]
        return found

    def validation_losses(self) -> list[float]:
        """Losses of the replicates on the fixed validation windows."""
        return self.losses_on(self._validation)

    @torch.no_grad()
    def losses_on(self, windows: Tensor) -> list[float]:
        """Mean cross-entropy of the replicates, in nats per token, over windows [B, T + 1], on validation's routes."""
        total: Floats = np.zeros(self.num_slots)
        with repeatable(self.spec.device):
            for route, share in routes_of_validation(self.spec, self.recipe).items():
                for group in torch.split(windows.to(self.device), MAX_SEQUENCES_PER_EVALUATION):
                    losses = self._losses(group.expand(self.num_slots, *group.shape), Pass(route))
                    total += losses.cpu().double().numpy() * (len(group) * share)
        found: list[float] = (total / len(windows)).tolist()
        return found[: self.num_replicates]

    def snapshot(self, slot: int) -> State:
        """Whole state of a replicate on the CPU, as of `Trainer.snapshot`; after `collect`."""
        assert not self._results
        state: State = {
            "step": torch.tensor(int(self.steps[slot])),
            "gradient_norms": torch.from_numpy(self.gradient_norms[slot].copy()),
            "rate_factors": torch.from_numpy(self.rate_factors[slot].copy()),
        }
        for number, tensors in enumerate(self._views(slot)):
            state[f"weights.{number}"], *moments = (tensor.detach().cpu().clone() for tensor in tensors)
            if steps := self.adam_steps[slot, number]:
                state[f"adam.{number}.step"] = torch.tensor(steps, dtype=torch.float32)
                state[f"adam.{number}.exp_avg"], state[f"adam.{number}.exp_avg_sq"] = moments
        return state | self.outer_momentum[slot]


@lru_cache(maxsize=1)
def stack_of(spec: TrainingSpec, corpus: Corpus) -> Stack:
    """A stack to load, kept for the next segments of its spec: to make one takes as long as several steps."""
    return Stack(spec, corpus)


class StackedReplicate:
    """One training state in a stack of which every slot repeats it: the interface of `Trainer`, the bits of stacks."""

    def __init__(self, spec: TrainingSpec, corpus: Corpus) -> None:
        self.spec = spec
        self._stack, self._editor = Stack(spec, corpus), Trainer(spec, corpus)
        self._stack.load([(spec, self._editor.snapshot())])

    @property
    def step(self) -> int:
        """Updates made so far."""
        return int(self._stack.steps[0])

    def enter(self, recipe: Recipe) -> None:
        """Train by a recipe from the next step on."""
        self._stack.enter(recipe)

    def train_step(self) -> StepResult:
        """Update every stage that rows visit. DivergedError, with weights unchanged, when the loss is not finite."""
        self._stack.train_step()
        ((result,),) = self._stack.collect()
        if not is_finite(result):
            raise divergence_at(self.step + 1, result)
        return result

    def validation_loss(self) -> float:
        """Loss on the fixed validation windows. Raises DivergedError when it is not finite."""
        (loss,) = self._stack.validation_losses()
        if not math.isfinite(loss):
            raise divergence(self.step + 1, "validation loss", loss)
        return loss

    def loss_on(self, windows: Tensor) -> float:
        """Mean cross-entropy in nats per token over windows [B, T + 1], on the routes of validation."""
        (loss,) = self._stack.losses_on(windows)
        return loss

    def apply(self, edit: Edit, older: Mapping[Moment | None, State] | None = None) -> None:
        """Rebuild a stage by an edit; older: states at the moments that its terms refer to."""
        self._editor.restore(self.snapshot())
        self._editor.apply(edit, older)
        self.restore(self._editor.snapshot())

    def merge(self, merge: Merge, sources: Sequence[State]) -> None:
        """Move weights towards the mean of the weights of other states, those of the sources of the merge."""
        self._editor.restore(self.snapshot())
        self._editor.merge(merge, sources)
        self.restore(self._editor.snapshot())

    def rest_until(self, step: int) -> None:
        """Let steps pass without an update."""
        self._stack.steps[:] = step

    def snapshot(self) -> State:
        """Whole state as named tensors on the CPU."""
        return self._stack.snapshot(0)

    def restore(self, tensors: State) -> None:
        """Restore a state given by `snapshot`, also of a `Trainer`."""
        self._stack.load([(self.spec, tensors)])


def open_trainer(spec: TrainingSpec, corpus: Corpus) -> LiveTrainer:
    """The initial state of a training, on its device."""
    return StackedReplicate(spec, corpus) if spec.is_stacked else Trainer(spec, corpus)


def is_finite(result: StepResult) -> bool:
    """Whether loss and gradient norms of a step are finite."""
    return math.isfinite(result.train_loss) and math.isfinite(sum(result.gradient_norms))


def divergence_at(step: int, result: StepResult) -> Exception:
    """The error of a step whose result is not finite."""
    if not math.isfinite(result.train_loss):
        return divergence(step, "loss", result.train_loss)
    return divergence(step, "gradient norm", sum(result.gradient_norms))


@contextmanager
def without_warning() -> Iterator[None]:
    """Suppress the note that attention has no batched kernel on the CPU; it runs slot by slot there."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")
        yield
