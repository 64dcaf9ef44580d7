"""Training seeds stacked along a leading axis, against one after another.

    python -m benchmarks.stacked_replicates [--device cuda] [--replicates 8] [--steps 100]

The quickstart's proxy model is trained with several training seeds. Stacked, a stage's weights are one tensor
[replicates, parameters], the model runs under `torch.vmap`, and clipping and Adam's update apply to all replicates: one
kernel launch in place of many small ones, which dominate the time of a small model on a GPU. It is compared with
`Trainer` on the CPU, which all results use, and on a GPU also with the same replicates there one at a time. Each
stacked step is followed by the same step of the others, so that noise of a shared machine affects all alike.

Losses agree with the trainer's within TOLERANCE, relative, over a hundred steps, but not to the bit: batched matrix
products add in another order, and rounding errors grow during training. Not supported: edits (a rebuilt stage, its
learning-rate factor, its optimizer reset) and divergence; this is failure-free training only. No product code depends
on it: on CPUs the default remains one process per core with one replicate each.

Measured on one core of a 2-core CPU: stacked / trainer 1.0 to 1.1 with 4 to 16 replicates, so there is no gain;
attention has no batched kernel there (PyTorch warns) and runs replicate by replicate. Not measured on a GPU yet.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from models.corpus import Corpus
from models.spec import TrainingSpec
from models.staged_model import StagedModel
from models.trainer import Trainer, rows_by_route, scheduled_rate
from sim.experiments.training import Texts, training_spec
from sim.scenario.loading import load_scenario

SCENARIO = Path(__file__).parents[1] / "scenarios" / "quickstart.yaml"
TOLERANCE = 1e-4
"""Largest relative difference of a training loss from the trainer's."""


class Whole(nn.Module):
    """A staged model as one module, so that `functional_call` can replace the weights of all its stages."""

    def __init__(self, model: StagedModel) -> None:
        super().__init__()
        self.stages = nn.ModuleList(model.stages)
        self._loss = model.loss

    def forward(self, tokens: Tensor, targets: Tensor, route: tuple[int, ...]) -> Tensor:
        return self._loss(tokens, targets, route)


class StackedTrainer:
    """Replicates that differ only in seeds. `flat[k]` holds stage k of all: [replicates, parameters].

    ValueError if the specs differ in more.
    """

    def __init__(self, specs: Sequence[TrainingSpec], corpus: Corpus, device: torch.device) -> None:
        self.specs, self.corpus, self.device = specs, corpus, device
        self.spec = spec = specs[0]
        seeds = {"init_seed": spec.init_seed, "data_seed": spec.data_seed}
        if any(other.model_copy(update=seeds) != spec for other in specs):
            raise ValueError("stacked replicates may differ only in init_seed and data_seed")
        models = [
            StagedModel(spec.model, spec.vocabulary_size, spec.sequence_length, other.init_seed) for other in specs
        ]
        self.flat = [
            torch.stack([model.flat[number].detach() for model in models]).to(device).requires_grad_()
            for number in range(len(models[0].flat))
        ]
        self.whole = Whole(models[0]).to(device)  # its weights are never used, its buffers are
        settings = spec.optimizer
        self.optimizer = torch.optim.Adam(
            self.flat,
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            fused=True,
        )
        self.step = 0

    def train_step(self) -> list[float]:
        """Update every stage of every replicate as `Trainer.train_step` does; return the mean losses of the batches."""
        spec = self.spec
        size = spec.sequences_per_batch, spec.sequence_length
        windows = np.stack([self.corpus.batch(other.data_seed, self.step, *size) for other in self.specs])
        self.optimizer.zero_grad()
        losses = torch.zeros(len(self.specs), device=self.device)
        for route, rows in rows_by_route(spec).items():
            group = torch.from_numpy(windows[:, rows]).to(self.device)  # [replicates, rows, T + 1]

            def loss(tokens: Tensor, targets: Tensor, *flat: Tensor, route: tuple[int, ...] = route) -> Tensor:
                one: Tensor = functional_call(self.whole, self.weights(flat), (tokens, targets, route))
                return one

            share = len(rows) / spec.sequences_per_batch
            found = torch.vmap(loss)(group[..., :-1], group[..., 1:], *self.flat) * share
            torch.autograd.backward(found.sum())  # own gradients: no loss depends on another replicate's weights
            losses += found.detach()
        self.clip()
        self.optimizer.param_groups[0]["lr"] = scheduled_rate(spec, self.step)
        self.optimizer.step()
        self.step += 1
        return losses.tolist()

    def weights(self, flat: Sequence[Tensor]) -> dict[str, Tensor]:
        """Named parameters of a replicate from its flat vectors (the inverse of `models.staged_model.flatten`)."""
        named = {}
        for number, vector in enumerate(flat):
            parameters = dict(self.whole.stages[number].named_parameters())
            pieces = torch.split(vector, [parameter.numel() for parameter in parameters.values()])
            for (name, parameter), piece in zip(parameters.items(), pieces, strict=True):
                named[f"stages.{number}.{name}"] = piece.view(parameter.shape)
        return named

    @torch.no_grad()
    def clip(self) -> None:
        """Scale each replicate's gradient of each stage to a norm of at most `clip_norm`."""
        clip_norm = self.spec.optimizer.clip_norm
        if clip_norm is None:
            return
        for flat in self.flat:
            assert flat.grad is not None
            norms = flat.grad.norm(dim=1, keepdim=True)
            flat.grad.mul_((clip_norm / norms).clamp(max=1.0))


class Stopwatch:
    """Total seconds of a kind of training."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to stack")
    parser.add_argument("--replicates", type=int, default=8, help="training seeds")
    parser.add_argument("--steps", type=int, default=100, help="steps of each, after one that is not timed")
    parser.add_argument("--threads", type=int, default=1, help="of the stacked ones on a CPU; the trainer has one")
    options = parser.parse_args()
    device, on_gpu = torch.device(options.device), torch.device(options.device).type != "cpu"
    scenario = load_scenario(SCENARIO)
    with tempfile.TemporaryDirectory() as cache:
        corpus = Texts(SCENARIO.parent, Path(cache)).of(scenario)
        assert corpus is not None
        specs = [training_spec(scenario, corpus, seed) for seed in range(options.replicates)]
        trainers = [Trainer(spec, corpus) for spec in specs]
    stacked = StackedTrainer(specs, corpus, device)
    single = [StackedTrainer([spec], corpus, device) for spec in specs] if on_gpu else []
    watches = {name: Stopwatch() for name in ("stacked", "single", "trainer")}
    largest = 0.0
    for step in range(options.steps + 1):
        if step == 1:
            watches = {name: Stopwatch() for name in watches}
        torch.set_num_threads(options.threads)
        with watches["stacked"]:
            found = stacked.train_step()
        torch.set_num_threads(1)
        with watches["single"]:
            for one in single:
                one.train_step()
        with watches["trainer"]:
            expected = [trainer.train_step().train_loss for trainer in trainers]
        largest = max(largest, *(abs(a / b - 1) for a, b in zip(found, expected, strict=True)))
    tokens = options.steps * options.replicates * specs[0].sequences_per_batch * specs[0].sequence_length
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device}, {options.threads} thread(s)"
    rates = {name: tokens / watch.seconds for name, watch in watches.items()}
    print(f"{options.replicates} replicates stacked on {where}: {rates['stacked']:,.0f} tokens/s")
    print(f"trainer, one after another, 1 CPU thread: {rates['trainer']:,.0f} tokens/s ({os.cpu_count()} cores here)")
    print(f"stacked / trainer on one core: {rates['stacked'] / rates['trainer']:.2f}")
    if on_gpu:
        print(f"stacked / one at a time on the same device: {rates['stacked'] / rates['single']:.2f}")
    verdict = "within" if largest <= TOLERANCE else "BEYOND"
    print(
        f"largest relative difference from the trainer's losses: {largest:.1e}, {verdict} the tolerance {TOLERANCE:g}"
    )


if __name__ == "__main__":
    main()
