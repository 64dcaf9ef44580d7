"""The branches of one strategy: the losses that they need, and their rows once these are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

from models.spec import TrainingSpec
from models.training import ReplayedLosses, ReplayedTraining, Training
from models.training_plan import Demand, Demands, together
from models.training_state import DivergedError, Lineage, Position
from sim.experiments.branches.design import BranchDesign
from sim.experiments.branches.recoveries import Recovery, Trunk
from sim.experiments.training import training_spec, training_without_text
from sim.scenario.scenario import Scenario

if TYPE_CHECKING:
    from models.corpus import Corpus

ValidationLoss = Callable[[Lineage, int], float]
"""The validation loss of a line at a step, in nats per token. Raises DivergedError."""


@dataclass(frozen=True)
class BranchedStrategy:
    """A strategy's trunk and branches under each training seed of a design. corpus: None for the curve."""

    scenario: Scenario
    corpus: Corpus | None
    trunk: Trunk
    design: BranchDesign

    def spec(self, seed: int) -> TrainingSpec:
        """The name of the training of a seed."""
        return training_spec(self.scenario, self.corpus, seed)

    def branches(self) -> Iterator[tuple[int, Recovery]]:
        """Each training seed and failure."""
        for seed, failures in self.design.failures.items():
            wanted = set(failures)
            yield from ((seed, one) for one in self.trunk.recoveries if (one.stage, one.step) in wanted)

    @property
    def num_rebuilt(self) -> int:
        """Branches in which weights are changed."""
        return sum(bool(recovery.edits) for _, recovery in self.branches())

    def demands(self) -> Demands:
        """The validation losses to be known."""
        found: list[Demands] = []
        for seed, recovery in self.branches():
            spec = self.spec(seed)
            at = {recovery.step + after for after in self.design.after_steps}
            lines = dict.fromkeys([self.trunk.line(spec), self.trunk.branch(spec, recovery)])
            found += [{line: Demand(validations=set(at))} for line in lines]
        for seed in self.design.seeds:
            found.append({self.trunk.line(self.spec(seed)): Demand(validations=set(self.design.trunk_steps))})
        return together(found)

    def rows(self, loss: ValidationLoss) -> list[dict[str, Any]]:
        """The rows of the branches' table."""
        found = []
        for seed, recovery in self.branches():
            spec = self.spec(seed)
            plain, line = self.trunk.line(spec), self.trunk.branch(spec, recovery)
            about = {"strategy": self.trunk.strategy, "stage": recovery.stage, "step": recovery.step}
            for after in self.design.after_steps:
                excess, stopped = float("nan") if recovery.stopped else 0.0, recovery.stopped
                if line != plain and not stopped:
                    excess, stopped = excess_of(line, plain, recovery.step + after, loss)
                found.append(
                    about
                    | {"after_steps": after, "training_seed": seed, "excess": excess, "is_rebuilt": line != plain}
                    | {"seconds": recovery.seconds, "stopped": stopped}
                )
        return found

    def trunk_rows(self, loss: ValidationLoss) -> list[dict[str, Any]]:
        """The rows of the trunks' table, by seed and step. ValueError if the training of the trunk diverges."""
        steps = {(seed, one.step + after) for (seed, one), after in product(self.branches(), self.design.after_steps)}
        steps |= set(product(self.design.seeds, self.design.trunk_steps))
        lines = {seed: self.trunk.line(self.spec(seed)) for seed in self.design.seeds}
        about = {"strategy": self.trunk.strategy}
        try:
            return [
                about | {"training_seed": seed, "step": step, "loss": loss(lines[seed], step)}
                for seed, step in sorted(steps)
            ]
        except DivergedError as error:
            raise ValueError(f"{self.trunk.strategy} without failures: {error}") from error


def excess_of(line: Lineage, plain: Lineage, step: int, loss: ValidationLoss) -> tuple[float, str | None]:
    """The excess of a branch at a step; NaN, and why, if its training has diverged."""
    try:
        return loss(line, step) - loss(plain, step), None
    except DivergedError as error:
        return float("nan"), str(error)


def validation_loss(learner: str, losses: ReplayedLosses | None) -> ValidationLoss:
    """The validation losses that were trained, or those of a learner that trains nothing (losses: None)."""

    @cache
    def training(spec: TrainingSpec) -> Training:
        return training_without_text(learner, spec, 1) if losses is None else ReplayedTraining(spec, 1, losses)

    def loss(line: Lineage, step: int) -> float:
        found = training(line.spec).validation_loss(Position(line, step))
        assert found is not None
        return found

    return loss
