"""The measurement of branches: from a scenario to the excess loss of each failure."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from models.training_plan import Demands, together
from sim.core.text import format_count
from sim.experiments.branches.design import BranchDesign
from sim.experiments.branches.measured import BranchedStrategy, validation_loss
from sim.experiments.branches.recoveries import trunk_of
from sim.experiments.executors import Executor
from sim.experiments.outline import outline_of_steps
from sim.experiments.state_training import shared_training, train
from sim.experiments.sweep import Observer, new_executor
from sim.experiments.training import Texts, keep_compiled_code, on_this_machine
from sim.experiments.training_workers import TrainingWorkers
from sim.results.branches import Branches
from sim.scenario.loading import DataError, ScenarioSource, document_of, scenario_of
from sim.scenario.scenario import Scenario
from sim.strategies import strategy_class

if TYPE_CHECKING:
    from models.corpus import Corpus
    from models.shared_training import SharedTraining


@dataclass(eq=False)
class BranchJob:
    """The measurement of a scenario's branches: `survey`, then `train`, then `found`.

    corpus, training: None for a learner that trains nothing.
    """

    scenario: Scenario
    corpus: Corpus | None
    design: BranchDesign
    executor: Executor
    training: SharedTraining | None
    observer: Observer
    strategies: Sequence[BranchedStrategy] = ()

    def survey(self) -> None:
        """Simulate what each strategy makes of each failure."""
        affected = [
            index
            for index, config in enumerate(self.scenario.strategies)
            if strategy_class(config.kind).stops_on_failures
        ]
        if not affected:
            raise DataError("no strategy is affected by failures; give one that is", ("strategies",))
        arguments = self.design.all_failures, self.design.num_steps_after, self.design.lost_at_once
        futures = [self.executor.submit(trunk_of, self.scenario, index, *arguments) for index in affected]
        trunks = [future.result() for future in futures]
        self.strategies = [BranchedStrategy(self.scenario, self.corpus, trunk, self.design) for trunk in trunks]

    @cached_property
    def demands(self) -> Demands:
        """The validation losses to be known, after the survey."""
        return together(one.demands() for one in self.strategies)

    def outline(self) -> list[str]:
        """The work ahead in sentences; some steps are measured."""
        rebuilt = {one.trunk.strategy: one.num_rebuilt for one in self.strategies if one.num_rebuilt}
        lines = [
            f"{format_count(sum(rebuilt.values()), 'branch', 'branches')} of {', '.join(rebuilt) or 'no strategy'}: "
            f"{format_count(len(self.design.all_failures), 'failure')}, "
            f"{format_count(len(self.design.seeds), 'training seed')}."
        ]
        if self.training is None:
            return [*lines, "Losses: a PARAMETRIC CURVE, nothing is trained (learner: curve); for dry runs only."]
        with closing(self._trainers()) as trainers:
            return [*lines, *outline_of_steps(self.demands, self.training, trainers, self.executor)]

    def _trainers(self) -> TrainingWorkers:
        return TrainingWorkers(self.executor, [self.corpus] if self.corpus else [])

    def train(self) -> None:
        """Train the trunks and branches, each step once."""
        if self.training is not None:
            with closing(self._trainers()) as trainers:
                train(self.demands, self.training, trainers, self.executor, self.observer.progressed)

    def found(self) -> Branches:
        """The measured branches."""
        losses = self.training.losses(self.demands) if self.training else None
        loss = validation_loss(self.scenario.training.learner, losses)
        return Branches(
            self.scenario,
            self.corpus.description if self.corpus else "no text",
            pd.DataFrame([row for one in self.strategies for row in one.rows(loss)]),
            pd.DataFrame([row for one in self.strategies for row in one.trunk_rows(loss)]),
            self.design.lost_at_once,
        )


@contextmanager
def opened(
    scenario: Scenario,
    base_folder: Path,
    cache: Path | None = None,
    jobs: int | None = None,
    observer: Observer | None = None,
    dry_run: bool = False,
    design: BranchDesign | None = None,
) -> Iterator[BranchJob]:
    """Context with the measurement after its survey. DataError for what cannot be measured.

    cache: of training states, by default a temporary one. jobs: workers, by default every core. design: by default
    that of the scenario's section `branches`.
    """
    scenario = on_this_machine(scenario)
    design = design or BranchDesign.of(scenario)
    with ExitStack() as stack:
        folder = cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="churnlab-")))
        if scenario.training.learner == "none":
            raise DataError("found 'none': branches need losses; allowed: 'torch', 'curve'", ("training", "learner"))
        corpus = Texts(base_folder, folder).of(scenario)
        keep_compiled_code(scenario, folder)
        executor = stack.enter_context(closing(new_executor("serial" if jobs == 1 else "pool", jobs)))
        training = stack.enter_context(shared_training(folder, dry_run=dry_run)) if corpus else None
        job = BranchJob(scenario, corpus, design, executor, training, observer or Observer())
        job.survey()
        yield job


def branches(
    source: ScenarioSource,
    *,
    cache: str | Path | None = None,
    jobs: int | None = None,
    observer: Observer | None = None,
) -> Branches:
    """Measure the cost of one failure for each strategy of a scenario. Its section `branches` defines the failures.

    cache: folder of training states, such as `default_cache()`; by default they are deleted. jobs: workers; by default
    every core. ScenarioError for a faulty scenario; ValueError for one without losses, or if training fails.
    """
    document, base_folder = document_of(source)
    scenario = scenario_of(document, base_folder, [])
    folder = Path(cache) if cache is not None else None
    with opened(scenario, base_folder, cache=folder, jobs=jobs, observer=observer) as job:
        job.train()
        return job.found()
