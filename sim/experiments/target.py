"""The target loss of `training.target_validation_loss: auto`, from training without failures.

It is the loss after 5/12 of the steps (`TrainingConfig.auto_target_step`), the mean over the training seeds, rounded up
to a thousandth: low enough that failures show, and reached by runs that take up to 2.4 times as many steps. Neither
strategies nor failures enter it, so it is known before a run begins, and runs have the number in their key and in
their scenario.yaml. Its training is that of strategies which never change weights, which continue from it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from models.training_plan import together
from sim.core.text import format_count
from sim.experiments.executors import Executor
from sim.experiments.folder import SweepProgress
from sim.experiments.job import SweepJob, begun
from sim.experiments.training import on_this_machine
from sim.failures import PROCESSES
from sim.scenario.scenario import Scenario, SeedsConfig
from sim.scenario.sweep_points import Point
from sim.strategies import STRATEGIES

ROUNDED_TO = 1000
"""Parts of a nat to which the target is rounded up."""


class Targets:
    """Target losses of scenarios, each found once. Arguments as of `SweepJob`; noted: receives each, in a sentence.

    trains: false for a dry run, in which a target that is not known without training stays `auto`.
    """

    def __init__(
        self,
        base_folder: Path,
        cache: Path,
        executor: Executor,
        watch: Callable[[SweepProgress], None],
        noted: Callable[[str], None],
        trains: bool = True,
    ) -> None:
        self.base_folder, self.cache, self.executor, self.watch = base_folder, cache, executor, watch
        self.noted, self.trains = noted, trains
        self._found: dict[str, float | None] = {}

    def with_numbers(self, points: Sequence[Point]) -> list[Point]:
        """Points with a number in place of `auto`."""
        return [replace(point, scenario=self.with_number(point.scenario)) for point in points]

    def with_number(self, scenario: Scenario) -> Scenario:
        """A scenario with a number in place of `auto`; with no target where nothing is learnt."""
        if scenario.training.target_validation_loss != "auto":
            return scenario
        target = None if scenario.training.learner == "none" else self._target_of(scenario)
        if target is None and scenario.training.learner != "none":
            return scenario
        training = scenario.training.model_copy(update={"target_validation_loss": target})
        return scenario.model_copy(update={"training": training})

    def _target_of(self, scenario: Scenario) -> float | None:
        alone = failure_free(scenario)
        more = alone.seeds.training, alone.iterations_per_step, alone.workload.num_stages
        key = f"{alone.training.model_dump_json()} {more}"
        if key not in self._found:
            self._found[key] = found = self._trained(alone)
            self.noted(describe(found, scenario))
        return self._found[key]

    def _trained(self, alone: Scenario) -> float | None:
        with tempfile.TemporaryDirectory(prefix="churnlab-") as results:
            job = SweepJob([Point({}, alone)], self.base_folder, Path(results), self.cache, self.watch, "run")
            with begun(job, self.executor, self.cache, dry_run=not self.trains):
                if not (self.trains or is_trained(job)):
                    return None
                job.do(job.runs)
            for message, _ in job.failures.values():
                raise ValueError(f"training.target_validation_loss: auto: training without failures failed: {message}")
            loss = float(job.table["final_validation_loss"].mean())
        return math.ceil(ROUNDED_TO * loss) / ROUNDED_TO


def failure_free(scenario: Scenario) -> Scenario:
    """The runs whose last loss is the target: without failures and strategy, up to the step of the target."""
    training = on_this_machine(scenario).training
    optimizer = training.optimizer
    if optimizer.decay == "cosine" and optimizer.decay_steps is None:  # its end is that of the whole training
        optimizer = optimizer.model_copy(update={"decay_steps": training.steps})
    shorter = {"steps": training.auto_target_step, "optimizer": optimizer, "target_validation_loss": None}
    return scenario.model_copy(
        update={
            "training": training.model_copy(update=shorter),
            "strategies": (STRATEGIES["none"].Config(kind="none"),),
            "failures": PROCESSES["never"].Config(kind="never"),
            "fidelity": "iteration",
            "seeds": SeedsConfig(failures=(0,), training=scenario.seeds.training),
            "sweep": None,
        }
    )


def is_trained(job: SweepJob) -> bool:
    """Whether a job's runs need no training, or none that is not in the cache."""
    job.survey(job.runs)
    return job.training is None or not job.training.plan(together(job.demands.values()))


def describe(target: float | None, scenario: Scenario) -> str:
    """What a target is, or why it is not known."""
    training, num_seeds = scenario.training, len(scenario.seeds.training)
    when = f"{training.auto_target_step:,} of {training.steps:,} steps"
    if num_seeds > 1:
        when += f", mean of {format_count(num_seeds, 'training seed')}"
    if target is None:
        return (
            f"Target loss (auto): not known before the failure-free training, {when}, which is done first. Until then "
            "all runs count as to be done."
        )
    return f"Target loss (auto): {target:g}, that of training without failures after {when}."
