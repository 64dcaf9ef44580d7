"""The measurement of branches: from a scenario to the excess loss of each failure."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from models.spec import TrainingSpec
from models.training import ReplayedTraining
from models.training_plan import Demand, Demands, num_steps, together
from models.training_state import DivergedError, Lineage, Position
from sim.core.text import format_count, format_duration
from sim.experiments.branches.recoveries import Recovery, Trunk, trunk_of
from sim.experiments.executors import Executor
from sim.experiments.outline import estimate
from sim.experiments.state_training import shared_training, train
from sim.experiments.sweep import Observer, new_executor
from sim.experiments.training import Texts, keep_compiled_code, on_this_machine, training_spec
from sim.experiments.training_workers import TrainingWorkers
from sim.failures import processes
from sim.results.branches import Branches
from sim.scenario.loading import DataError, ScenarioSource, document_of, scenario_of
from sim.scenario.scenario import BranchesConfig, Scenario
from sim.strategies import strategy_class

if TYPE_CHECKING:
    from models.corpus import Corpus
    from models.shared_training import SharedTraining

Failures = tuple[tuple[int, int], ...]
"""Stage and step of each failure."""


@dataclass(frozen=True)
class BranchDesign:
    """Which branches are measured. failures: of each training seed. trunk_steps: at which trunks are validated too."""

    failures: Mapping[int, Failures]
    after_steps: tuple[int, ...]
    trunk_steps: tuple[int, ...] = ()

    @classmethod
    def of(cls, scenario: Scenario) -> BranchDesign:
        """The design of a scenario's section `branches`, or of its defaults. DataError if there is nothing to lose."""
        config, num_steps = scenario.branches or BranchesConfig(), scenario.training.steps
        immune = {stage for process in processes(scenario.failures) for stage in process.immune_stages}
        stages = config.stages or tuple(s for s in range(scenario.workload.num_stages + 1) if s not in immune)
        if not stages:
            raise DataError("all stages are immune: none can be lost", ("failures", "immune_stages"))
        first, longest = scenario.seeds.training[0], max(config.after_steps)
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
        return cls(dict.fromkeys(range(first, first + config.replicates), failures), tuple(sorted(config.after_steps)))

    @property
    def all_failures(self) -> Failures:
        """The failures of all training seeds, each once."""
        return tuple(dict.fromkeys(failure for failures in self.failures.values() for failure in failures))


def default_steps(num_steps: int, num_steps_after: int) -> tuple[int, ...]:
    """A quarter, half and three quarters of the training, as far as the branches end with it; else the last such."""
    last = num_steps - num_steps_after
    wanted = dict.fromkeys(round(num_steps * share) for share in (0.25, 0.5, 0.75))
    return tuple(step for step in wanted if 1 <= step <= last) or ((last,) if last > 0 else ())


@dataclass(eq=False)
class BranchJob:
    """The measurement of the branches of a design: `survey`, then `train`, then `found`."""

    scenario: Scenario
    corpus: Corpus
    design: BranchDesign
    executor: Executor
    training: SharedTraining
    trainers: TrainingWorkers
    observer: Observer
    trunks: Sequence[Trunk] = ()

    def survey(self) -> None:
        """Simulate what each strategy makes of each failure."""
        affected = [
            index
            for index, config in enumerate(self.scenario.strategies)
            if strategy_class(config.kind).stops_on_failures
        ]
        if not affected:
            raise DataError("no strategy is affected by failures; give one that is", ("strategies",))
        arguments = self.design.all_failures, max(1, *self.design.after_steps)
        futures = [self.executor.submit(trunk_of, self.scenario, index, *arguments) for index in affected]
        self.trunks = [future.result() for future in futures]

    @property
    def seeds(self) -> Sequence[int]:
        """The training seeds."""
        return list(self.design.failures)

    def spec(self, seed: int) -> TrainingSpec:
        """The name of the training of a seed."""
        return training_spec(self.scenario, self.corpus, seed)

    def branches(self) -> Iterator[tuple[Trunk, int, Recovery]]:
        """Each strategy, training seed and failure."""
        for trunk, (seed, failures) in product(self.trunks, self.design.failures.items()):
            wanted = set(failures)
            yield from ((trunk, seed, one) for one in trunk.recoveries if (one.stage, one.step) in wanted)

    def demands(self) -> Demands:
        """The validation losses to be known."""
        found: list[Demands] = []
        for trunk, seed, recovery in self.branches():
            spec = self.spec(seed)
            at = {recovery.step + after for after in self.design.after_steps}
            lines = dict.fromkeys([trunk.line(spec), trunk.branch(spec, recovery)])
            found += [{line: Demand(validations=set(at))} for line in lines]
        for trunk, seed in product(self.trunks, self.seeds):
            found.append({trunk.line(self.spec(seed)): Demand(validations=set(self.design.trunk_steps))})
        return together(found)

    def outline(self, with_time: bool) -> list[str]:
        """The work ahead in sentences. with_time: measure some steps."""
        demands = self.demands()
        segments = self.training.plan(demands)
        rebuilt = [(trunk, seed) for trunk, seed, recovery in self.branches() if recovery.edits]
        names = dict.fromkeys(trunk.strategy for trunk, _ in rebuilt)
        left = sum(segment.num_steps for segment in segments)
        lines = [
            f"{format_count(len(rebuilt), 'branch', 'branches')} of {', '.join(names) or 'no strategy'}: "
            f"{format_count(len(self.design.all_failures), 'failure')}, "
            f"{format_count(len(self.seeds), 'training seed')}.",
            f"Training: {num_steps(demands):,} steps; {max(0, num_steps(demands) - left):,} of them known, "
            f"{left:,} to train.",
        ]
        if with_time and segments:
            step_seconds, seconds = estimate(self.executor, self.trainers, segments)
            workers = format_count(self.executor.num_workers, "worker")
            if step_seconds is not None:
                step = f"{1e3 * step_seconds:.3g} ms a step, measured just now"
                lines.append(f"About {format_duration(seconds)} on {workers} ({step}).")
        return lines

    def train(self) -> None:
        """Train the trunks and branches, each step once."""
        train(self.demands(), self.training, self.trainers, self.executor, self.observer.progressed)

    def found(self) -> Branches:
        """The measured branches."""
        losses = self.training.losses(self.demands())

        def loss(line: Lineage, step: int) -> float:
            return ReplayedTraining(line.spec, 1, losses).validation_loss(Position(line, step))

        rows: list[dict[str, Any]] = []
        without: dict[tuple[str, int, int], float] = {}
        for trunk, seed, recovery in self.branches():
            spec = self.spec(seed)
            plain, line = trunk.line(spec), trunk.branch(spec, recovery)
            about = {"strategy": trunk.strategy, "stage": recovery.stage, "step": recovery.step}
            for after in self.design.after_steps:
                step, stopped = recovery.step + after, recovery.stopped
                before = without[trunk.strategy, seed, step] = loss(plain, step)
                excess = float("nan") if stopped else 0.0
                if line != plain and not stopped:
                    excess, stopped = excess_of(line, step, before, loss)
                rows.append(
                    about
                    | {"after_steps": after, "training_seed": seed, "excess": excess, "is_rebuilt": line != plain}
                    | {"seconds": recovery.seconds, "stopped": stopped}
                )
        for trunk, seed, step in product(self.trunks, self.seeds, self.design.trunk_steps):
            without[trunk.strategy, seed, step] = loss(trunk.line(self.spec(seed)), step)
        trunks = pd.DataFrame(
            [(*key, value) for key, value in sorted(without.items())],
            columns=["strategy", "training_seed", "step", "loss"],
        )
        return Branches(self.scenario, self.corpus.description, pd.DataFrame(rows), trunks)


def excess_of(
    line: Lineage, step: int, without: float, loss: Callable[[Lineage, int], float]
) -> tuple[float, str | None]:
    """The excess of a branch at a step; NaN, and why, if its training has diverged."""
    try:
        return loss(line, step) - without, None
    except DivergedError as error:
        return float("nan"), str(error)


@contextmanager
def opened(
    scenario: Scenario,
    base_folder: Path,
    design: BranchDesign | None = None,
    cache: Path | None = None,
    jobs: int | None = None,
    observer: Observer | None = None,
    dry_run: bool = False,
) -> Iterator[BranchJob]:
    """Context with the measurement after its survey. DataError for what cannot be measured.

    cache: of training states, by default a temporary one. jobs: workers, by default every core.
    """
    scenario = on_this_machine(scenario)
    design = design or BranchDesign.of(scenario)
    with ExitStack() as stack:
        folder = cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="churnlab-")))
        corpus = Texts(base_folder, folder).of(scenario)
        if corpus is None:
            learner = scenario.training.learner
            raise DataError(f"found '{learner}': branches need losses; allowed: 'torch'", ("training", "learner"))
        keep_compiled_code(scenario, folder)
        executor = stack.enter_context(closing(new_executor("serial" if jobs == 1 else "pool", jobs)))
        training = stack.enter_context(shared_training(folder, dry_run=dry_run))
        trainers = stack.enter_context(closing(TrainingWorkers(executor, [corpus])))
        job = BranchJob(scenario, corpus, design, executor, training, trainers, observer or Observer())
        job.survey()
        yield job


def branches(
    source: ScenarioSource,
    *,
    cache: str | Path | None = None,
    jobs: int | None = None,
    observer: Observer | None = None,
) -> Branches:
    """Measure what one failure costs each strategy of a scenario: its section `branches` says which failures.

    cache: folder of training states, such as `default_cache()`; by default they are deleted. jobs: workers; by default
    every core. ScenarioError for a faulty scenario; ValueError for one without losses, or if training fails.
    """
    document, base_folder = document_of(source)
    scenario = scenario_of(document, base_folder, [])
    folder = Path(cache) if cache is not None else None
    with opened(scenario, base_folder, cache=folder, jobs=jobs, observer=observer) as job:
        job.train()
        return job.found()
