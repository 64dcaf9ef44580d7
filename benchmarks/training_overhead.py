"""What the simulator adds to training: the same steps in a plain torch loop and inside a simulated run.

Both train the quickstart's proxy model on the same batches with the same threads: the plain loop with ordinary
modules, `clip_grad_norm_` and one Adam a stage; the run through world, strategy, trajectory service and its store
on disk (keyframes included, validations left out on both sides). Blocks alternate in one process, so that the
ratio of their times stands even where the machine is shared and noisy. Target: at most 1.05.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from models.corpus import Corpus
from models.lineage import TrainingSpec
from models.staged import StagedModel
from models.trajectory import Trajectory
from sim.loading import load_scenario
from sim.runner import ScenarioRunner
from sim.scenario import Scenario
from sim.simulation import simulate

SCENARIO = Path(__file__).parent.parent / "scenarios" / "quickstart.yaml"


class Stopwatch:
    """Wall-clock and processor seconds since it was made; the latter are blind to other programs, and to the disk."""

    def __init__(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.began[0], time.process_time() - self.began[1]


def plain_steps(spec: TrainingSpec, corpus: Corpus, num_steps: int) -> tuple[float, float]:
    """Seconds of training steps as anyone would write them."""
    torch.set_num_threads(spec.num_threads)
    model = StagedModel(spec.model, spec.vocabulary_size, spec.sequence_length, spec.init_seed)
    stages = []
    for stage in model.stages:  # back to ordinary parameters, each with its own storage
        for parameter in stage.parameters():
            parameter.data, parameter.grad = parameter.data.clone(), None
        stages.append(list(stage.parameters()))
    optimizers = [torch.optim.Adam(parameters, lr=spec.optimizer.learning_rate, fused=True) for parameters in stages]
    watch = Stopwatch()
    for step in range(num_steps):
        windows = torch.from_numpy(corpus.batch(spec.data_seed, step, spec.sequences_per_batch, spec.sequence_length))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = model.loss(windows[:, :-1], windows[:, 1:], spec.routes[0])
        loss.backward()
        for parameters in stages:
            nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        loss.item()
    return watch.read()


def simulated_steps(scenario: Scenario, runner: ScenarioRunner) -> tuple[float, float]:
    """Seconds of the same steps inside a run of the strategy `none`."""
    training = runner.open_training(0)
    assert isinstance(training, Trajectory)
    watch = Stopwatch()
    simulate(scenario, scenario.strategies[0], 0, 0, training)
    seconds = watch.read()
    assert training.num_trained_steps == scenario.training.steps
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150, help="steps in a block")
    parser.add_argument("--blocks", type=int, default=7, help="pairs of blocks")
    options = parser.parse_args()
    overrides = (f"training.steps={options.steps}", f"training.evaluation.interval_steps={options.steps}",
                 "training.evaluation.num_sequences=1", "training.target_validation_loss=null")  # fmt: skip
    scenario = load_scenario(SCENARIO, overrides)
    pairs = []
    for block in range(options.blocks + 1):
        with tempfile.TemporaryDirectory() as cache:
            runner = ScenarioRunner(scenario, SCENARIO.parent, Path(cache) / "results", Path(cache))
            spec = runner.open_training(0).spec
            plain = plain_steps(spec, runner.corpus, options.steps)
            simulated = simulated_steps(scenario, runner)
        if block:  # the first pair warms up
            pairs.append((plain, simulated))
    step_seconds = statistics.median(plain[0] for plain, _ in pairs) / options.steps
    tokens = spec.sequences_per_batch * spec.sequence_length
    print(f"plain loop: {step_seconds * 1e3:.1f} ms a step, {tokens / step_seconds:,.0f} tokens/s")
    for index, clock in enumerate(("wall-clock", "processor time")):
        ratios = [simulated[index] / plain[index] for plain, simulated in pairs]
        print(
            f"simulated / plain, {clock}: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to "
            f"{max(ratios):.3f} over {len(ratios)} pairs of {options.steps} steps"
        )


if __name__ == "__main__":
    main()
