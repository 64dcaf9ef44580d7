"""The analogue of Table 3: perplexity of final states on two texts outside the training data.

One is the held-out part of the training text, the other the sources of NumPy: other authors, another subject.
Perplexity is per byte, the proxy's token; the paper's is per token of a vocabulary of 32,000.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy
import pandas as pd
import torch

from benchmarks.paper.published import HIGHEST
from benchmarks.paper.tables import RATE, REBUILDING
from models.corpus import load_corpus
from models.spec import DataSpec
from models.stacked import LiveTrainer
from models.training import Training
from models.training_state import Lineage, Position
from models.trajectory import Trajectory
from models.trajectory_store import TrajectoryStore
from sim.experiments.plan import ScenarioPlan, SweepRun
from sim.experiments.training import Texts
from sim.scenario.sweep_points import Point
from sim.simulation.run import simulate

RATE_PER_HOUR = HIGHEST

STRATEGIES = ("none", *REBUILDING)

NUM_SEQUENCES = 512

OTHER_TEXT = DataSpec(source="text", files=("lib/*.py", "ma/*.py", "linalg/*.py"), validation_fraction=0.5)


class LastState(Training):
    """Training that records the last state of which it returned a loss."""

    def __init__(self, trajectory: Trajectory) -> None:
        super().__init__(trajectory.spec, trajectory.iterations_per_step)
        self.trajectory = trajectory
        self.position: Position | None = None

    def train_loss(self, position: Position) -> float | None:
        """The loss of the step that led to a state."""
        self.position = position
        return super().train_loss(position)

    def loss_of_step(self, lineage: Lineage, step: int) -> float:
        """The loss of a step."""
        return self.trajectory.loss_of_step(lineage, step)

    def validation_loss_of(self, state: Position) -> float:
        """The validation loss at a state."""
        return self.trajectory.validation_loss_of(state)


def perplexities(points: list[Point], base_folder: Path, results: Path, cache: Path, budget_bytes: int) -> pd.DataFrame:
    """Loss per byte of the final states of STRATEGIES at the highest rate: strategy, seeds, text, loss_nats.

    States that are no longer in the cache are trained again.
    """
    (point,) = (point for point in points if point.parameters[RATE] == RATE_PER_HOUR)
    plan = ScenarioPlan(point, base_folder, results, Texts(base_folder, cache))
    assert plan.corpus is not None
    corpora = {"held-out files": plan.corpus, "NumPy's sources": load_corpus(OTHER_TEXT, Path(numpy.__path__[0]))}
    length = point.scenario.training.sequence_length
    texts = {text: torch.from_numpy(one.validation_windows(NUM_SEQUENCES, length)) for text, one in corpora.items()}
    rows: list[dict[str, object]] = []
    with closing(TrajectoryStore(cache, budget_bytes)) as store:
        for run, trainer in final_states(plan, store):
            losses = {text: trainer.loss_on(windows) for text, windows in texts.items()}
            rows += [run.identity | {"text": text, "loss_nats": loss} for text, loss in losses.items()]
    return pd.DataFrame(rows)


def final_states(plan: ScenarioPlan, store: TrajectoryStore) -> Iterator[tuple[SweepRun, LiveTrainer]]:
    """Runs of STRATEGIES, each with its trainer at the end of the run."""
    for run in plan.runs():
        if run.strategy.name not in STRATEGIES:
            continue
        assert plan.corpus is not None
        last = LastState(Trajectory(run.spec, plan.corpus, store, plan.scenario.iterations_per_step))
        simulate(plan.scenario, run.strategy, run.failure_seed, run.training_seed, last)
        assert last.position is not None, "a run has steps"
        yield run, last.trajectory.state_at(last.position)
