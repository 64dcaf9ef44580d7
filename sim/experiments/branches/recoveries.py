"""What strategies make of one failure: simulated, without training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.spec import Routes, TrainingSpec
from models.training_state import Edits, Lineage, root
from sim.failures import PROCESSES, ProcessConfig
from sim.failures.script import Loss, ScriptConfig
from sim.scenario.scenario import Scenario
from sim.simulation.first_times import first_times
from sim.simulation.run import Run, simulate, time_only
from sim.strategies import strategy_class


@dataclass(frozen=True)
class Recovery:
    """What a strategy makes of a failure at a step. stage: the first one that it takes.

    edits: that rebuild stages, and recipes, with their steps; none where the run goes back to an older state.
    seconds: by which the failure delays the last step that is compared; NaN if the run stops. stopped: the reason.
    """

    stage: int
    step: int
    edits: Edits
    seconds: float
    stopped: str | None = None


@dataclass(frozen=True)
class Trunk:
    """The training of a strategy without failures, and its recoveries from single ones."""

    strategy: str
    routes: Routes
    recoveries: tuple[Recovery, ...]

    def line(self, spec: TrainingSpec) -> Lineage:
        """Its line of training states. spec: of a training seed."""
        return root(spec, routes=self.routes).lineage

    def branch(self, spec: TrainingSpec, recovery: Recovery) -> Lineage:
        """The line of training states after a failure; the trunk itself where no weights change."""
        lineage = self.line(spec)
        for step, edit in recovery.edits:
            lineage = lineage.edited(step, edit)
        return lineage


def trunk_of(
    scenario: Scenario,
    strategy_index: int,
    failures: Sequence[tuple[int, int]],
    num_steps_after: int,
    lost_at_once: int = 1,
) -> Trunk:
    """The trunk of a strategy. failures: stage and step of each. num_steps_after: at least 1, to compare. A task.

    lost_at_once: consecutive stages that each failure takes, from its stage on.
    """
    config, iterations = scenario.strategies[strategy_index], scenario.iterations_per_step
    routes = strategy_class(config.kind)(config, scenario.workload.num_stages).training_variant()
    last_step = max((step for _, step in failures), default=0) + num_steps_after
    never = PROCESSES["never"].Config(kind="never")
    without, _ = simulated(scenario, strategy_index, never, last_step)
    recoveries = []
    for stage, step in failures:
        before, end = step * iterations, (step + num_steps_after) * iterations
        seconds = float(without[before] + without[before + 1]) / 2  # in the middle of the next iteration
        loss = Loss(at_seconds=seconds, stages=tuple(range(stage, stage + lost_at_once)))
        script = ScriptConfig(losses=(loss,), notice_seconds=scenario.failures.notice_seconds)
        ended, run = simulated(scenario, strategy_index, script, step + num_steps_after)
        delay = math.nan if run.stopped else float(ended[end] - without[end])
        recoveries.append(Recovery(stage, step, run.edits, delay, run.stopped))
    return Trunk(config.name, routes, tuple(recoveries))


def simulated(
    scenario: Scenario, strategy_index: int, failures: ProcessConfig, num_steps: int
) -> tuple[npt.NDArray[np.float64], Run]:
    """(iterations + 1,) seconds until each iteration is first completed, and the run. Nothing is trained."""
    training = scenario.training.model_copy(update={"steps": num_steps})
    scenario = scenario.model_copy(update={"failures": failures, "training": training})
    seeds = scenario.seeds.failures[0], scenario.seeds.training[0]
    run = simulate(scenario, scenario.strategies[strategy_index], *seeds, time_only(scenario))
    return first_times(run), run
