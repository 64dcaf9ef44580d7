"""Branches: the excess loss of single failures, their means over training seeds, and their files.

All losses are validation losses of the proxy, in nats per token; seconds are those of the target model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sim.core.files import atomic_write, atomic_write_table
from sim.results.prediction import Prediction
from sim.results.seed_means import means_over_seeds
from sim.results.storage import read_json, read_table, refusals_explained, require, require_format, resolved_yaml
from sim.scenario.loading import scenario_of_run
from sim.scenario.scenario import Scenario

FORMAT = 1
FOLDER, TABLE, TRUNKS, ABOUT = "branches", "branches.parquet", "trunks.parquet", "branches.json"
MISSING = "there are no branches: `churnlab branches SCENARIO` measures them"

REQUIRED = {
    TABLE: ("strategy", "stage", "step", "after_steps", "training_seed", "excess", "is_rebuilt", "seconds", "stopped"),
    TRUNKS: ("strategy", "training_seed", "step", "loss"),
}
"""Columns of the files."""


@dataclass(frozen=True)
class Branches:
    """The excess loss of single failures, and the losses of the trunks that they branch from.

    table: a row for each strategy, stage (the first one that is lost), step of the failure, steps after it, and
    training seed: `excess`, the loss above that of the trunk at the same step; `is_rebuilt`, whether weights were
    changed, else the excess is 0; `seconds` of the target by which the failure delays the last compared step;
    `stopped`, why the run ended, or None. trunks: a row for each strategy, training seed and step: `loss` without
    failures. lost_at_once: consecutive stages that each failure takes.
    """

    scenario: Scenario
    corpus_description: str
    table: pd.DataFrame
    trunks: pd.DataFrame
    lost_at_once: int = 1

    @property
    def strategies(self) -> list[str]:
        """Strategies in the scenario's order."""
        return list(dict.fromkeys(self.table["strategy"]))

    @property
    def rebuilding(self) -> list[str]:
        """Strategies of which some recovery changes weights."""
        return list(dict.fromkeys(self.table.loc[self.table["is_rebuilt"], "strategy"]))

    @property
    def steps(self) -> list[int]:
        """Steps of the failures."""
        return sorted(set(self.table["step"]))

    @property
    def after_steps(self) -> list[int]:
        """Steps after a failure at which losses are compared."""
        return sorted(set(self.table["after_steps"]))

    @property
    def stages(self) -> list[int]:
        """The stages that are lost."""
        return sorted(set(self.table["stage"]))

    def excess(self, by: Sequence[str] = ("strategy", "stage", "step", "after_steps")) -> pd.DataFrame:
        """Mean excess in groups, with 95 % t intervals over training seeds: `mean`, `low`, `high`, `num_seeds`.

        by: columns of the table; each seed's values are first averaged over the others (stages, steps).
        """
        return means_over_seeds(self.table, "excess", by)

    def difference(self, strategy: str, reference: str, by: Sequence[str] = ("after_steps",)) -> pd.DataFrame:
        """Mean difference of the excess of two strategies by the same failures and training seeds, as `excess`."""
        keys = ["stage", "step", "after_steps", "training_seed"]
        ours, theirs = (self.table[self.table["strategy"] == name].set_index(keys) for name in (strategy, reference))
        both = (ours["excess"] - theirs["excess"]).rename("excess").reset_index()
        return means_over_seeds(both, "excess", by)

    def without_failures(self, strategy: str, reference: str) -> pd.DataFrame:
        """Mean difference of the loss of two strategies without failures by step, as `excess`: of swapped routes."""
        keys = ["step", "training_seed"]
        ours, theirs = (self.trunks[self.trunks["strategy"] == name].set_index(keys) for name in (strategy, reference))
        both = (ours["loss"] - theirs["loss"]).rename("loss").dropna().reset_index()
        return means_over_seeds(both, "loss", ("step",))

    def predictions(self) -> dict[str, Prediction]:
        """The predicted learning of each strategy in whole runs. ValueError where failures take several stages."""
        if self.lost_at_once > 1:
            raise ValueError(
                f"whole runs are predicted from single lost stages; here {self.lost_at_once} are lost at once"
            )
        steps = self.scenario.training.evaluated_steps
        of_strategy = (
            (name, self.trunks["strategy"] == name, self.table["strategy"] == name) for name in self.strategies
        )
        return {name: Prediction.of(self.trunks[own], self.table[rows], steps) for name, own, rows in of_strategy}

    def write(self, folder: Path) -> list[Path]:
        """Write the tables and the scenario into a folder, which is created. OSError where the disk refuses."""
        with refusals_explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            atomic_write_table(folder / TABLE, self.table)
            atomic_write_table(folder / TRUNKS, self.trunks)
            atomic_write(folder / "scenario.yaml", resolved_yaml(self.scenario))
            about = {"format": FORMAT, "corpus": self.corpus_description, "lost_at_once": self.lost_at_once}
            atomic_write(folder / ABOUT, json.dumps(about, indent=2) + "\n")
        return [folder / TABLE, folder / TRUNKS]


def load_branches(folder: Path) -> Branches:
    """Read the branches of a scenario's results folder. ValueError if there are none, or files lack columns."""
    place = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    if not (place / ABOUT).is_file():
        raise ValueError(f"{folder}: {MISSING}")
    about = read_json(place / ABOUT)
    require_format(place / ABOUT, about, FORMAT)
    require(place / ABOUT, about, ("corpus",))
    table, trunks = (read_table(place / name, columns) for name, columns in REQUIRED.items())
    scenario, lost_at_once = scenario_of_run(place / "scenario.yaml"), about.get("lost_at_once", 1)
    return Branches(scenario, about["corpus"], table, trunks, lost_at_once)
