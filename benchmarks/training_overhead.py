"""Overhead of the simulator in training: the same steps in a plain torch loop and in a simulated run.

Both train the quickstart's proxy model on the same batches with the same threads: the plain loop with ordinary
modules, `clip_grad_norm_` and one Adam per stage; the run through world, strategy, trajectory and its store on disk
(including keyframes, without validations on both sides). Each simulated step is followed by the same step of the plain
loop, so that noise of a shared machine affects both alike. Target: a ratio of at most 1.05.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from models.corpus import Corpus
from models.recipe import rows_by_route
from models.spec import TrainingSpec
from models.staged_model import StagedModel
from models.trajectory import Trajectory
from sim.experiments.training import Texts, open_training
from sim.scenario.loading import load_scenario
from sim.scenario.scenario import Scenario
from sim.simulation.run import simulate
from sim.simulation.training_process import Progress

SCENARIO = Path(__file__).parent.parent / "scenarios" / "quickstart.yaml"


class PlainLoop:
    """An ordinary training loop; `seconds` is the total time of its steps."""

    def __init__(self, spec: TrainingSpec, corpus: Corpus) -> None:
        self.spec, self.corpus = spec, corpus
        self.model = StagedModel(spec.model, spec.vocabulary_size, spec.sequence_length, spec.init_seed)
        self.stages = [list(stage.parameters()) for stage in self.model.stages]
        for parameter in (parameter for stage in self.stages for parameter in stage):
            parameter.data, parameter.grad = parameter.data.clone(), None  # an ordinary tensor with its own storage
        rate = spec.optimizer.learning_rate
        self.optimizers = [torch.optim.Adam(parameters, lr=rate, fused=True) for parameters in self.stages]
        self.num_steps = 0
        self.seconds = 0.0

    def step(self, _: Progress | None = None) -> None:
        began = time.perf_counter()
        spec = self.spec
        windows = self.corpus.batch(spec.data_seed, self.num_steps, spec.sequences_per_batch, spec.sequence_length)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        for route, rows in rows_by_route(spec).items():  # one group, unless routes are swapped
            tokens = torch.from_numpy(windows if len(rows) == len(windows) else windows[rows])
            loss = self.model.loss(tokens[:, :-1], tokens[:, 1:], route) * (len(rows) / len(windows))
            torch.autograd.backward(loss)
        for parameters in self.stages:
            nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        loss.item()
        self.num_steps += 1
        self.seconds += time.perf_counter() - began


def pair(scenario: Scenario) -> tuple[float, float]:
    """Seconds of the scenario's steps in the plain loop, and of the same steps inside a run of `none`."""
    with tempfile.TemporaryDirectory() as cache:
        corpus = Texts(SCENARIO.parent, Path(cache)).of(scenario)
        assert corpus is not None
        training = open_training(scenario, corpus, 0, Path(cache))
        assert isinstance(training, Trajectory)
        plain = PlainLoop(training.spec, corpus)
        began = time.perf_counter()
        simulate(scenario, scenario.strategies[0], 0, 0, training, watch=plain.step)
        seconds = time.perf_counter() - began
        assert training.num_trained_steps == plain.num_steps == scenario.training.steps
        return plain.seconds, seconds - plain.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="steps of a run")
    parser.add_argument("--runs", type=int, default=4, help="runs")
    options = parser.parse_args()
    changes = {"steps": options.steps, "evaluation.interval_steps": options.steps, "evaluation.num_sequences": 1}
    scenario = load_scenario(SCENARIO, tuple(f"training.{field}={value}" for field, value in changes.items()))
    pairs = [pair(scenario) for _ in range(options.runs)]
    step_seconds = statistics.median(plain for plain, _ in pairs) / options.steps
    tokens = scenario.training.sequences_per_batch * scenario.training.sequence_length
    ratios = [simulated / plain for plain, simulated in pairs]
    print(f"plain loop: {step_seconds * 1e3:.1f} ms per step, {tokens / step_seconds:,.0f} tokens/s")
    print(
        f"simulated / plain: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to {max(ratios):.3f} "
        f"over {options.runs} runs of {options.steps} steps"
    )


if __name__ == "__main__":
    main()
