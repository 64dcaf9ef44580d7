"""Training steps of the proxy against a plain torch loop, against their matrix products alone, eager and compiled.

    python -m benchmarks.proxy_steps [--sizes 48x6 128x6 256x12] [--rounds 10] [--no-compile]

The quickstart's proxy, in widths x layers, on one thread of one core:

- trainer: `Trainer.train_step`, which all results use; compiled: the same under `training.compile: on`;
- plain loop: the same model and batches with ordinary modules and autograd, one clip and one Adam for all parameters;
- products: the matrix products that autograd runs in one step of the plain loop, each with its shapes and strides, one
  after the other and nothing else. Products within attention and within fused kernels are not among them.

Each round runs some steps of each in a row, as in a training, so that caches hold what they hold there, and noise of a
shared machine affects all alike; times are of the CPU, and ratios are medians over rounds. The last table shows where a
step of the first size spends its time, by kind of operation.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.training_overhead import SCENARIO
from models.corpus import Corpus
from models.spec import TrainingSpec
from models.staged_model import StagedModel
from models.trainer import Trainer
from sim.experiments.training import Texts, training_spec
from sim.scenario.loading import load_scenario

KINDS = {
    "matrix products": ("aten::mm", "aten::addmm"),
    "products within attention": ("aten::bmm", "aten::baddbmm"),
    "element by element": (
        "aten::mul",
        "aten::add",
        "aten::silu",
        "aten::exp",
        "aten::sub",
        "aten::clamp",
        "aten::square",
        "aten::pow",
        "aten::rsqrt",
        "aten::div",
    ),
    "sums and greatest values": ("aten::sum", "aten::mean", "aten::amax", "aten::linalg_vector_norm"),
    "copies and fills": ("aten::copy_", "aten::cat", "aten::fill_", "aten::index", "aten::embedding"),
    "optimizer": ("Optimizer.step", "aten::_fused_adam_"),
}
"""Kinds of operation by the beginnings of their names in the profiler; all else is dispatch and bookkeeping."""


STEPS_IN_A_ROW = 6
"""Of a variant in a round."""


class PlainLoop:
    """An ordinary training loop."""

    def __init__(self, spec: TrainingSpec, corpus: Corpus) -> None:
        self.spec, self.corpus, self.num_steps = spec, corpus, 0
        self.model = StagedModel(spec.model, spec.vocabulary_size, spec.sequence_length, spec.init_seed)
        self.parameters = [parameter for stage in self.model.stages for parameter in stage.parameters()]
        for parameter in self.parameters:
            parameter.data = parameter.data.clone()  # an ordinary tensor with its own storage
        self.adam = torch.optim.Adam(self.parameters, lr=spec.optimizer.learning_rate, fused=True)

    def train_step(self) -> None:
        """One update of all parameters."""
        spec = self.spec
        windows = self.corpus.batch(spec.data_seed, self.num_steps, spec.sequences_per_batch, spec.sequence_length)
        tokens = torch.from_numpy(windows)
        self.adam.zero_grad()
        loss = self.model.loss(tokens[:, :-1], tokens[:, 1:], spec.routes[0])
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adam.step()
        loss.item()
        self.num_steps += 1


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operands of the matrix products that run under it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operands: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), options: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and keep the operands of a product."""
        if function is torch.ops.aten.mm.default:
            self.operands.append((arguments[0].detach(), arguments[1].detach()))
        return function(*arguments, **(options or {}))

    @torch.no_grad()
    def run(self) -> None:
        """All products once."""
        for one, other in self.operands:
            torch.mm(one, other)

    @property
    def num_operations(self) -> int:
        """Floating-point operations of all products."""
        return sum(2 * one.shape[0] * one.shape[1] * other.shape[1] for one, other in self.operands)


def products_of(loop: PlainLoop) -> Products:
    """The matrix products of a step."""
    products = Products()
    with products:
        loop.train_step()
    return products


def interleaved(variants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of a step of each variant in each round, after a round that is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, step in variants.items():
            began = time.process_time()
            for _ in range(STEPS_IN_A_ROW):
                step()
            if number:
                seconds[name].append((time.process_time() - began) / STEPS_IN_A_ROW)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], name: str, other: str) -> float:
    """Median over rounds of a variant's time relative to another's."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[other], strict=True))


def compare(size: str, rounds: int, with_compiled: bool) -> Trainer:
    """Print the times of a size, WIDTHxLAYERS; return the trainer."""
    spec, corpus = recipe(size)
    trainer, plain_loop = Trainer(spec, corpus), PlainLoop(spec, corpus)
    products = products_of(plain_loop)
    variants: dict[str, Callable[[], object]] = {
        "trainer": trainer.train_step,
        "plain loop": plain_loop.train_step,
        "products": products.run,
    }
    if with_compiled:
        variants["compiled"] = Trainer(spec.model_copy(update={"compile": "on"}), corpus).train_step
    seconds = interleaved(variants, rounds)
    steps = {name: 1 / statistics.median(values) for name, values in seconds.items()}
    gflops = products.num_operations / statistics.median(seconds["products"]) / 1e9
    print(f"{size}: {steps['trainer']:.1f} steps/s, products alone at {gflops:.0f} GFLOP/s")
    for name in variants:
        if name != "trainer":
            print(f"  {name} / trainer: {ratio(seconds, name, 'trainer'):.2f} ({steps[name]:.1f} steps/s)")
    return trainer


def recipe(size: str) -> tuple[TrainingSpec, Corpus]:
    """The quickstart's recipe with another width and number of layers, and its text."""
    width, num_layers = map(int, size.split("x"))
    scenario = load_scenario(SCENARIO)
    with tempfile.TemporaryDirectory() as cache:
        corpus = Texts(SCENARIO.parent, Path(cache)).of(scenario)
    assert corpus is not None
    spec = training_spec(scenario, corpus, 0)
    model = spec.model.model_copy(update={"dim": width, "num_stages": num_layers})
    return spec.model_copy(update={"model": model, "routes": (tuple(range(1, num_layers + 1)),)}), corpus


def print_kinds(trainer: Trainer, num_steps: int = 20) -> None:
    """Print the share of each kind of operation in the time of a step."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(num_steps):
            trainer.train_step()
    totals = dict.fromkeys([*KINDS, "dispatch and bookkeeping"], 0.0)
    for event in profiler.key_averages():
        names = (kind for kind, starts in KINDS.items() if event.key.startswith(starts))
        totals[next(names, "dispatch and bookkeeping")] += event.self_cpu_time_total
    print("shares of a step's time:")
    for kind, microseconds in totals.items():
        print(f"  {kind}: {microseconds / sum(totals.values()):.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["48x6", "128x6", "256x12"], help="WIDTHxLAYERS")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of some steps of each variant")
    parser.add_argument("--no-compile", action="store_true", help="leave out compiled steps")
    options = parser.parse_args()
    trainers = [compare(size, options.rounds, not options.no_compile) for size in options.sizes]
    print_kinds(trainers[0])


if __name__ == "__main__":
    main()
