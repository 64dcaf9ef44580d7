"""Loss by the number of local steps between merges: two replicas with DiLoCo's outer optimizer, no failures.

Each replica learns half of each batch of the quickstart's training; H steps after the last merge both are merged, by
SGD with Nesterov's momentum (by default rate 0.7, momentum 0.9; rate 1, momentum 0 average the weights). Synchronous
training learns the whole batch in every step. The loss is that of the final weights on held-out text, in per cent over
synchronous training with the same seed: mean, 95 % interval and range over training seeds. Public: ft-diloco (51M
parameters, two workers).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from scipy.stats import t

from models.replicas import own_rows, split, synchronised
from models.shared_training import SharedTraining
from models.training import ReplayedTraining, Training
from models.training_plan import DemandRecorder, Demands, together
from models.training_state import Position
from models.trajectory_store import TrajectoryStore
from sim.experiments.executors import ProcessPool
from sim.experiments.state_training import train
from sim.experiments.training import Texts, training_spec
from sim.experiments.training_workers import TrainingWorkers
from sim.scenario.loading import load_scenario
from sim.scenario.scenario import Scenario

SCENARIO = Path(__file__).parent.parent / "scenarios" / "quickstart.yaml"
NUM_REPLICAS = 2
STEPS_BETWEEN_MERGES = (25, 50, 100, 200, 500)
PUBLIC_PER_CENT = {25: 2.8, 50: 4.7, 100: 6.3, 200: 7.4, 500: 9.4}


class Outer(NamedTuple):
    """The outer optimizer."""

    rate: float
    momentum: float


def final_state(training: Training, num_steps: int, every: int, outer: Outer) -> Position:
    """The state at the end of synchronous training (`every` 0) or of replicas merged at every so many steps."""
    position = training.root(training.spec.routes)
    if not every:
        return position.after(num_steps)
    position = split(position, [own_rows(number, NUM_REPLICAS, training.spec) for number in range(NUM_REPLICAS)])
    for step in (*range(every, num_steps, every), num_steps):
        position = synchronised(position.after(step), rate=outer.rate, momentum=outer.momentum)
    return position


def final_losses(
    scenario: Scenario, seeds: Sequence[int], steps_between: Sequence[int], outer: Outer, cache: Path, num_workers: int
) -> dict[tuple[int, int], float]:
    """Validation loss at the end by training seed and H, 0 being synchronous training."""
    corpus = Texts(SCENARIO.parent, cache).of(scenario)
    assert corpus is not None
    num_steps = scenario.training.steps
    demands: dict[int, Demands] = {}
    specs = {seed: training_spec(scenario, corpus, seed) for seed in seeds}
    for seed, spec in specs.items():
        recorder = DemandRecorder(spec)
        for every in (0, *steps_between):
            recorder.validation_loss(final_state(recorder, num_steps, every, outer))
        demands[seed] = recorder.demands
    with closing(TrajectoryStore(cache)) as store, closing(ProcessPool(num_workers)) as executor:
        shared, trainers = SharedTraining(store), TrainingWorkers(executor, [corpus])
        train(together(demands.values()), shared, trainers, executor, lambda _: None)
        found = {}
        for seed, spec in specs.items():
            known = ReplayedTraining(spec, 1, shared.losses(demands[seed]))
            for every in (0, *steps_between):
                loss = known.validation_loss(final_state(known, num_steps, every, outer))
                assert loss is not None
                found[seed, every] = loss
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="training seeds")
    parser.add_argument("--every", type=int, nargs="+", default=STEPS_BETWEEN_MERGES, help="steps between merges")
    parser.add_argument("--rate", type=float, default=0.7, help="of the outer optimizer")
    parser.add_argument("--momentum", type=float, default=0.9, help="of the outer optimizer")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--jobs", type=int, default=1, help="worker processes")
    parser.add_argument("--cache", type=Path, help="folder of training states; default: a temporary one")
    arguments = parser.parse_args()
    scenario = load_scenario(SCENARIO, (f"training.steps={arguments.steps}", "training.num_threads=1"))
    with tempfile.TemporaryDirectory() as folder:
        cache = arguments.cache or Path(folder)
        seeds = range(arguments.seeds)
        outer = Outer(arguments.rate, arguments.momentum)
        losses = final_losses(scenario, seeds, arguments.every, outer, cache, arguments.jobs)
    synchronous = [losses[seed, 0] for seed in seeds]
    print(f"{arguments.steps} steps, {NUM_REPLICAS} replicas, {arguments.seeds} training seeds, {outer}")
    print(f"synchronous: {statistics.mean(synchronous):.3f} nats, by seed {[round(loss, 3) for loss in synchronous]}")
    print("  H   over synchronous            range   public")
    for every in arguments.every:
        excess = [100 * (losses[seed, every] / losses[seed, 0] - 1) for seed in seeds]
        half = statistics.stdev(excess) / len(excess) ** 0.5 * t.ppf(0.975, len(excess) - 1) if len(excess) > 1 else 0
        public = f"{PUBLIC_PER_CENT[every]:+.1f} %" if every in PUBLIC_PER_CENT else "-"
        mean = f"{statistics.mean(excess):+.1f} ± {half:.1f} %"
        print(f"{every:3}   {mean:16} {min(excess):+8.1f} to {max(excess):+.1f} %   {public}")


if __name__ == "__main__":
    main()
