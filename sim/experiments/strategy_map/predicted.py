"""Iterations to the target loss, predicted for the failures of each run from single failures (`branches`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from models.training_plan import Demands, together
from sim.core.text import format_count
from sim.experiments.branches.design import BranchDesign, default_steps, stages_that_fail
from sim.experiments.branches.measured import BranchedStrategy, validation_loss
from sim.experiments.branches.recoveries import trunk_of
from sim.experiments.outline import outline_of_steps
from sim.experiments.state_training import shared_training, train
from sim.experiments.strategy_map.grid import ComparisonGroup, Grid
from sim.experiments.strategy_map.interpolation import Seeds, mean
from sim.experiments.strategy_map.trained import TrainingJob
from sim.experiments.training import Texts, keep_compiled_code, on_this_machine
from sim.experiments.training_workers import TrainingWorkers
from sim.results.healing import Rebuilt
from sim.results.prediction import FEWEST_CONTINUED, Prediction
from sim.results.strategy_map import Cell
from sim.scenario.scenario import Scenario

SHARES = (0.2, 0.4, 0.6)
"""Of the training, at which stages are lost."""

AFTER_STEPS = (10, 20, 40)
"""Steps after a failure at which branches are compared, in trainings of 160 steps or more."""

MOST_CONTINUED = 1.25
"""Multiple of a trunk's steps up to which its continuation may reach the target without failures."""

ERROR = 0.5
"""Share of what failures add to the iterations by which predictions may be off: see docs/one-failure.md."""


@dataclass(frozen=True)
class PredictedIterations:
    """Iterations to the target of a strategy by training seed, for the failures of a run. NaN where it is missed.

    is_flat: whether no recovery changes weights, so that all runs take as many.
    """

    prediction: Prediction
    target: float
    iterations_per_step: int
    is_flat: bool

    @cached_property
    def without(self) -> Mapping[Seeds, float]:
        """Iterations without failures, by seeds (the failure seed is 0)."""
        return {(0, seed): self._iterations(seed, ()) for seed in self.prediction.seeds}

    @property
    def is_reached_without_failures(self) -> bool:
        """Whether all trunks reach the target, or would soon after the steps that they were trained for."""
        most = MOST_CONTINUED * self.prediction.steps[-1] * self.iterations_per_step
        return all(iterations <= most for iterations in self.without.values())

    def of_run(self, failures_per_iteration: float, rebuilt: Sequence[Rebuilt]) -> tuple[float, ...]:  # noqa: ARG002
        """Iterations of a run in which these stages are rebuilt, by training seed."""
        return tuple(self._iterations(seed, rebuilt) for seed in self.prediction.seeds)

    def _iterations(self, seed: int, rebuilt: Sequence[Rebuilt]) -> float:
        return self.prediction.step_of(self.target, seed, rebuilt) * self.iterations_per_step

    def error(self, failures_per_iteration: float, iterations: float) -> float:  # noqa: ARG002
        """The possible error of the prediction, as a share of the mean iterations."""
        if self.is_flat or math.isnan(iterations):
            return 0.0
        return ERROR * abs(iterations - mean(self.without)) / iterations


class SingleFailures:
    """The single failures that predictions rest on, of each comparison group of a grid.

    edited: groups in which recoveries change weights.
    """

    def __init__(
        self,
        grid: Grid,
        cells: Mapping[ComparisonGroup, Cell],
        edited: Sequence[ComparisonGroup],
        training: TrainingJob,
    ) -> None:
        self.grid, self.training, self.edited = grid, training, set(edited)
        texts, surveyed = Texts(training.base_folder, training.cache), {}
        for group, cell in cells.items():
            scenario = on_this_machine(grid.equal_scenario(cell, group.strategy))
            design = design_of(scenario, grid.seeds.training, group in self.edited, first_trunk_steps(scenario))
            arguments = grid.candidates[group.strategy], design.all_failures, design.num_steps_after
            surveyed[group] = scenario, design, training.executor.submit(trunk_of, scenario, *arguments)
        self.strategies = {
            group: BranchedStrategy(scenario, texts.of(scenario), future.result(), design)
            for group, (scenario, design, future) in surveyed.items()
        }

    @property
    def demands(self) -> Demands:
        """The validation losses to be known."""
        return together(one.demands() for one in self.strategies.values())

    @property
    def num_branches(self) -> int:
        """Branches in which weights are changed."""
        return sum(one.num_rebuilt for one in self.strategies.values())

    def outline(self) -> list[str]:
        """The work ahead in sentences; nothing is written."""
        seeds = format_count(len(self.grid.seeds.training), "training seed")
        line = f"No recovery changes weights: all runs learn as without failures, under {seeds}."
        if self.num_branches:
            number = format_count(self.num_branches, "single failure")
            line = f"{number} under {seeds}, from which whole runs are predicted."
        with shared_training(self.training.cache, dry_run=True) as shared, closing(self._trainers()) as trainers:
            return [line, *outline_of_steps(self.demands, shared, trainers, self.training.executor)]

    def _trainers(self) -> TrainingWorkers:
        corpora = [one.corpus for one in self.strategies.values() if one.corpus]
        return TrainingWorkers(self.training.executor, corpora)

    def measured(self) -> dict[ComparisonGroup, PredictedIterations]:
        """Train what is needed, and fit the predictions. ValueError if training fails.

        Trunks that are far from the target are trained on to the end of the training.
        """
        found = self._fitted()
        short = {
            group: one
            for group, one in self.strategies.items()
            if one.design.trunk_steps[-1] < one.scenario.training.steps
        }
        if not short or all(one.is_reached_without_failures for one in found.values()):
            return found
        first = next(iter(short.values()))
        self.training.observer.noted(
            f"The target is not near at step {first.design.trunk_steps[-1]:,} without failures: "
            f"training without failures goes on to step {first.scenario.training.steps:,}."
        )
        for group, one in short.items():
            design = replace(one.design, trunk_steps=one.scenario.training.evaluated_steps)
            self.strategies[group] = replace(one, design=design)
        return self._fitted()

    def _fitted(self) -> dict[ComparisonGroup, PredictedIterations]:
        """Train what is not known yet, and fit the predictions."""
        first, demands = next(iter(self.strategies.values())), self.demands
        keep_compiled_code(first.scenario, self.training.cache)
        with shared_training(self.training.cache) as shared, closing(self._trainers()) as trainers:
            train(demands, shared, trainers, self.training.executor, self.training.observer.progressed)
            losses = shared.losses(demands)
        if first.corpus:
            self.training.corpus_description = first.corpus.description
        loss = validation_loss(first.scenario.training.learner, losses)
        found = {}
        for group, one in self.strategies.items():
            trunks, branches = pd.DataFrame(one.trunk_rows(loss)), pd.DataFrame(one.rows(loss))
            training = one.scenario.training
            prediction = Prediction.of(trunks, branches, one.design.trunk_steps, training.steps)
            target = training.target_loss
            assert target is not None
            iterations = one.scenario.iterations_per_step
            found[group] = PredictedIterations(prediction, target, iterations, group not in self.edited)
        return found


def design_of(scenario: Scenario, seeds: Sequence[int], is_edited: bool, trunk_steps: tuple[int, ...]) -> BranchDesign:
    """The trunks of all seeds; and where weights are changed, stages that these lose in turn."""
    if not is_edited:
        return BranchDesign(dict.fromkeys(seeds, ()), (0,), trunk_steps)
    steps, after = branch_steps(scenario)
    return BranchDesign.rotated(seeds, stages_that_fail(scenario), steps, after, trunk_steps)


def branch_steps(scenario: Scenario) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Steps at which a stage is lost, and steps after that at which losses are compared."""
    last = scenario.training.steps
    after = AFTER_STEPS if last >= 4 * AFTER_STEPS[-1] else (max(1, last // 8), max(2, last // 4))
    return default_steps(last, after[-1], SHARES), after


def first_trunk_steps(scenario: Scenario) -> tuple[int, ...]:
    """The validated steps for which trunks are trained at first: up to the end of the last branch.

    All where these are too few to continue the trunk, or where a learning rate that decays bends it later.
    """
    steps, after = branch_steps(scenario)
    evaluated = scenario.training.evaluated_steps
    first = tuple(step for step in evaluated if step <= max(steps, default=0) + after[-1])
    is_line = len(first) >= FEWEST_CONTINUED and scenario.training.optimizer.decay == "constant"
    return first if is_line else evaluated
