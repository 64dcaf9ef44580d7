"""The sweeps of scenarios/paper in the order in which they share training, full or at a tenth; and its branches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SCENARIOS = Path(__file__).parents[2] / "scenarios" / "paper"

ONE_TRAINING_SEED = "sweep.training_replicates=1"

THREE_RUNS = ("sweep.replicates=3", ONE_TRAINING_SEED)

SHORT = "training.steps=500"

SHALLOW = "training.model.layers_per_stage=1"


@dataclass(frozen=True)
class Job:
    """A sweep of a scenario file. quick: overrides that reduce the work to a tenth."""

    name: str
    quick: tuple[str, ...]

    @property
    def scenario(self) -> Path:
        """The scenario file."""
        return SCENARIOS / f"{self.name}.yaml"


JOBS = (
    Job("table2", (SHALLOW, SHORT, *THREE_RUNS)),
    Job("figure4b", (SHALLOW, SHORT, *THREE_RUNS)),
    Job("uploads", (SHALLOW, SHORT, *THREE_RUNS)),
    Job("figure4c", (SHALLOW, SHORT, ONE_TRAINING_SEED)),
    Job(
        "depth",
        ("sweep.zip={training.model.layers_per_stage: [1, 2], training.steps: [1000, 500]}", ONE_TRAINING_SEED),
    ),
    Job("figure2", (SHORT, *THREE_RUNS)),
    Job("end_stages", (SHORT,)),
    Job("correlated", (SHORT,)),
)

TABLE_2_JOB = JOBS[0]

BRANCHES = SCENARIOS / "branches.yaml"
"""Single failures, which are no sweep; measured in full only."""

NEIGHBOURS = SCENARIOS / "neighbours.yaml"
"""Failures of two neighbouring stages, likewise."""
