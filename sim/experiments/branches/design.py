"""Which branches are measured: failures of each training seed, and when losses are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from sim.failures import processes
from sim.scenario.loading import DataError
from sim.scenario.scenario import BranchesConfig, Scenario

Failures = tuple[tuple[int, int], ...]
"""Stage and step of each failure."""

SHARES = (0.25, 0.5, 0.75)
"""Of the training, at which a stage is lost by default."""


@dataclass(frozen=True)
class BranchDesign:
    """Which branches are measured.

    failures: of each training seed. trunk_steps: at which trunks are validated too. lost_at_once: consecutive stages
    that each failure takes, the stage in `failures` first.
    """

    failures: Mapping[int, Failures]
    after_steps: tuple[int, ...]
    trunk_steps: tuple[int, ...] = ()
    lost_at_once: int = 1

    @classmethod
    def of(cls, scenario: Scenario) -> BranchDesign:
        """The design of a scenario's section `branches`, or of its defaults. DataError if there is nothing to lose."""
        config, num_steps = scenario.branches or BranchesConfig(), scenario.training.steps
        can_fail = stages_that_fail(scenario)
        if not can_fail:
            raise DataError("all stages are immune: none can be lost", ("failures", "immune_stages"))
        stages = config.stages or tuple(stage for stage in can_fail if set(config.taken_with(stage)) <= set(can_fail))
        if not stages:
            raise DataError(
                f"found {config.lost_at_once}; so many consecutive stages that can be lost do not exist",
                ("branches", "lost_at_once"),
            )
        longest = max(config.after_steps)
        if longest >= num_steps:
            allowed = f"allowed: less than training.steps, {num_steps}"
            raise DataError(f"found {longest} steps after a loss; {allowed}", ("branches", "after_steps"))
        steps = config.steps or default_steps(num_steps, longest)
        if max(steps) + longest > num_steps:
            raise DataError(
                f"a loss at step {max(steps)} and {longest} steps after it (branches.after_steps) end after "
                f"training.steps, {num_steps}; allowed: at most {num_steps - longest}",
                ("branches", "steps"),
            )
        failures = tuple((stage, step) for step, stage in product(steps, stages))
        seeds = scenario.seeds.counted(None, config.replicates).training
        after_steps, evaluated = tuple(sorted(config.after_steps)), scenario.training.evaluated_steps
        return cls(dict.fromkeys(seeds, failures), after_steps, evaluated, config.lost_at_once)

    @classmethod
    def rotated(
        cls,
        seeds: Sequence[int],
        stages: Sequence[int],
        steps: Sequence[int],
        after_steps: tuple[int, ...],
        trunk_steps: tuple[int, ...],
    ) -> BranchDesign:
        """A design in which seeds take turns: each loses every other stage once, a single seed all stages.

        The steps rotate over seeds and stages.
        """
        turns = min(2, len(seeds))
        failures = {
            seed: tuple(
                (stage, steps[(number + place) % len(steps)])
                for place, stage in enumerate(stages)
                if (number + place) % turns == 0
            )
            for number, seed in enumerate(seeds)
        }
        return cls(failures, after_steps, trunk_steps)

    @property
    def all_failures(self) -> Failures:
        """The failures of all training seeds, each once."""
        return tuple(dict.fromkeys(failure for failures in self.failures.values() for failure in failures))

    @property
    def num_steps_after(self) -> int:
        """Steps after a failure until the last comparison, at least 1."""
        return max(1, *self.after_steps)

    @property
    def seeds(self) -> list[int]:
        """The training seeds."""
        return list(self.failures)


def stages_that_fail(scenario: Scenario) -> tuple[int, ...]:
    """The stages of a scenario that are not immune in every failure process."""
    immune = set.intersection(*(set(process.immune_stages) for process in processes(scenario.failures)))
    return tuple(stage for stage in range(scenario.workload.num_stages + 1) if stage not in immune)


def default_steps(num_steps: int, num_steps_after: int, shares: Sequence[float] = SHARES) -> tuple[int, ...]:
    """Steps at shares of the training, as far as the branches end with it; else the last such step."""
    last = num_steps - num_steps_after
    wanted = dict.fromkeys(round(num_steps * share) for share in shares)
    return tuple(step for step in wanted if 1 <= step <= last) or ((last,) if last > 0 else ())
