"""Predictions of whole runs against whole runs: bias, spread, and the real seconds that each took.

    python -m benchmarks.prediction [--pairs 14] [--first-seed 300] [--steps 800] [--target 2.0] [--rates 0.08 0.16]

The quickstart's CheckFree and CheckFree+ under independent pairs of seeds at some failure rates. First the branches of
as many training seeds are measured, which serve every rate, then the whole runs are trained. Each run is compared with
the prediction of its own seed and failures: the loss above that of training without failures, by part of the run, and
the steps to the target. The form of the prediction was chosen with seeds 0 to 13 and 100 to 113, so the first seed is
300. The folder of --cache keeps what was trained.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from sim.experiments.branches.study import branches
from sim.experiments.branches.whole_runs import rebuilt_in
from sim.experiments.sweep import run_scenario
from sim.results.prediction import Prediction
from sim.results.seed_means import estimate_over_seeds
from sim.scenario.loading import load_scenario
from sim.scenario.scenario import BranchesConfig, Scenario, SeedsConfig
from sim.simulation.run import simulate, time_only

SCENARIO = Path(__file__).parents[1] / "scenarios" / "quickstart.yaml"
STRATEGIES = ("checkfree", "checkfree_plus")
AFTER_STEPS = (0, 20, 60)
PARTS = {"second quarter": (0.25, 0.5), "second half": (0.5, 1.0)}
"""Parts of a run in which excess losses are compared, as shares of its steps."""


def main() -> None:
    """Measure branches and whole runs, and print how they agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=14, help="pairs of a failure seed and a training seed")
    parser.add_argument("--first-seed", type=int, default=300, help="of the pairs")
    parser.add_argument("--steps", type=int, default=800, help="steps of a run")
    parser.add_argument("--target", type=float, default=2.0, help="validation loss to be reached")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.08, 0.16, 0.32], help="failures per hour")
    parser.add_argument("--cache", type=Path, help="folder of training states")
    options = parser.parse_args()
    seeds = tuple(range(options.first_seed, options.first_seed + options.pairs))
    with tempfile.TemporaryDirectory(prefix="churnlab-") as folder:
        cache = options.cache or Path(folder) / "cache"
        began, predictions = time.perf_counter(), dict[str, Prediction]()
        for rate_per_hour in options.rates:
            changes = {
                "failures.rate_per_hour": rate_per_hour,
                "training.steps": options.steps,
                "training.target_validation_loss": options.target,
            }
            scenario = compared_scenario(seeds, changes)
            if not predictions:
                predictions = branches(scenario, cache=cache).predictions()
                print(f"branches of {options.pairs} training seeds: {time.perf_counter() - began:.0f} s of real time")
            began = time.perf_counter()
            results = run_scenario(scenario, Path(folder) / f"{rate_per_hour:g}", SCENARIO.parent, cache).results()
            seconds = time.perf_counter() - began
            runs = results.iterations.merge(results.runs[["run", "strategy", "training_seed"]], on="run")
            print(
                f"{rate_per_hour:g} per hour, {scenario.training.steps} steps: whole runs {seconds:.0f} s of real time"
            )
            for name in STRATEGIES:
                rows = [compared(scenario, predictions[name], name, seed, runs) for seed in seeds]
                print_agreement(name, pd.DataFrame(rows))


def compared_scenario(seeds: tuple[int, ...], changes: Mapping[str, float]) -> Scenario:
    """The quickstart, changed, with the strategies that change weights, under pairs of these seeds."""
    scenario = load_scenario(SCENARIO, changes)
    changed = {
        "strategies": tuple(config for config in scenario.strategies if config.name in STRATEGIES),
        "seeds": SeedsConfig(failures=seeds, training=seeds),
        "branches": BranchesConfig(after_steps=AFTER_STEPS, replicates=len(seeds)),
    }
    return scenario.model_copy(update=changed)


def compared(scenario: Scenario, prediction: Prediction, name: str, seed: int, runs: pd.DataFrame) -> dict[str, float]:
    """What a whole run and its prediction give, as `real` and `predicted` of each quantity."""
    index = [config.name for config in scenario.strategies].index(name)
    rebuilt = rebuilt_in(simulate(scenario, scenario.strategies[index], seed, seed, time_only(scenario)))
    own = runs[(runs["strategy"] == name) & (runs["training_seed"] == seed)].dropna(subset=["validation_loss"])
    steps = np.array(prediction.steps)
    real = own.drop_duplicates("step", keep="last").set_index("step")["validation_loss"].reindex(steps).to_numpy(float)
    trunk, target = prediction.trunks[seed], scenario.training.target_loss
    assert target is not None
    row: dict[str, float] = {"training_seed": seed}
    for kind, losses in (("real", real), ("predicted", prediction.losses(seed, rebuilt))):
        reached = np.flatnonzero(losses <= target)
        for part, shares in PARTS.items():
            first, last = (round(share * len(steps)) for share in shares)
            row[f"excess in the {part} {kind}"] = float((losses - trunk)[first:last].mean())
        row[f"steps to the target {kind}"] = float(steps[reached[0]]) if len(reached) else math.nan
    row["rebuilt stages"] = len(rebuilt)
    return row


def print_agreement(name: str, rows: pd.DataFrame) -> None:
    """A line for each quantity of a strategy's runs."""
    print(f"  {name}, {rows['rebuilt stages'].mean():.1f} stages rebuilt in a run")
    for what in (*(f"excess in the {part}" for part in PARTS), "steps to the target"):
        print(f"    {what}: {agreement(rows, what)}")


def agreement(rows: pd.DataFrame, what: str) -> str:
    """Means, their difference with its 95 % interval, the spread of single runs, and whether the interval covers."""
    both = rows.dropna(subset=[f"{what} real", f"{what} predicted"])
    real, predicted = (both[f"{what} {kind}"].to_numpy(float) for kind in ("real", "predicted"))
    bias = estimate_over_seeds(both["training_seed"], predicted - real)
    interval = estimate_over_seeds(both["training_seed"], predicted)
    covers = interval.low <= real.mean() <= interval.high
    digits = 0 if what.startswith("steps") else 4
    return (
        f"real {real.mean():.{digits}f}, predicted {predicted.mean():.{digits}f} ± {interval.half_width:.{digits}f} "
        f"({'covers' if covers else 'misses'} the real mean), predicted - real {bias.mean:+.{digits}f} ± "
        f"{bias.half_width:.{digits}f}, sd of a run {np.std(predicted - real, ddof=1):.{digits}f}, {len(both)} runs"
    )


if __name__ == "__main__":
    main()
