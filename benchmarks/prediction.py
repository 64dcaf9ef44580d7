"""Predictions of whole runs against whole runs: bias, spread, and the real seconds that each took.

    python -m benchmarks.prediction [PAIRS] [RATE] [CACHE]

The quickstart's CheckFree and CheckFree+ under independent pairs of seeds (14) at a failure rate per hour (0.16). First
the branches of as many training seeds are measured, then the whole runs are trained. Each run is compared with the
prediction of its own seed and failures: the loss above that of training without failures, as a mean over the second
half of the run and at its end, and the steps to the target. A CACHE folder keeps what was trained.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
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


def main(num_pairs: int = 14, rate_per_hour: float = 0.16, cache: Path | None = None) -> None:
    """Measure branches and whole runs, and print how they agree."""
    scenario = load_scenario(SCENARIO, {"failures.rate_per_hour": rate_per_hour})
    seeds = tuple(range(num_pairs))
    chosen = tuple(config for config in scenario.strategies if config.name in STRATEGIES)
    design = BranchesConfig(after_steps=AFTER_STEPS, replicates=num_pairs)
    changed = {"strategies": chosen, "seeds": SeedsConfig(failures=seeds, training=seeds), "branches": design}
    scenario = scenario.model_copy(update=changed)
    with tempfile.TemporaryDirectory(prefix="churnlab-") as folder:
        cache = cache or Path(folder) / "cache"
        began = time.perf_counter()
        predictions = branches(scenario, cache=cache).predictions()
        branched = time.perf_counter()
        outcome = run_scenario(scenario, Path(folder) / "results", SCENARIO.parent, cache)
        ended = time.perf_counter()
        runs = outcome.results().iterations.merge(
            outcome.results().runs[["run", "strategy", "training_seed"]], on="run"
        )
    found = pd.DataFrame(
        [compared(scenario, predictions[name], name, seed, runs) for name in STRATEGIES for seed in seeds]
    )
    print(f"{num_pairs} independent pairs at {rate_per_hour:g} an hour, {scenario.training.steps} steps")
    print(f"branches {branched - began:.0f} s, whole runs {ended - branched:.0f} s of real time, in this order")
    for name, own in found.groupby("strategy", sort=False):
        print(name)
        for what in ("excess in the second half", "excess at the end", "steps to the target"):
            print(f"  {what}: {agreement(own, what)}")


def compared(
    scenario: Scenario, prediction: Prediction, name: str, seed: int, runs: pd.DataFrame
) -> dict[str, str | int | float]:
    """What a whole run and its prediction give, as `real` and `predicted` of each quantity."""
    index = [config.name for config in scenario.strategies].index(name)
    rebuilt = rebuilt_in(simulate(scenario, scenario.strategies[index], seed, seed, time_only(scenario)))
    own = runs[(runs["strategy"] == name) & (runs["training_seed"] == seed)].dropna(subset=["validation_loss"])
    steps = np.array(prediction.steps)
    real = own.drop_duplicates("step", keep="last").set_index("step")["validation_loss"].reindex(steps).to_numpy(float)
    trunk, target = prediction.trunks[seed], scenario.training.target_loss
    assert target is not None
    row: dict[str, str | int | float] = {"strategy": name, "training_seed": seed}
    for kind, losses in (("real", real), ("predicted", prediction.losses(seed, rebuilt))):
        reached = np.flatnonzero(losses <= target)
        row[f"excess in the second half {kind}"] = float((losses - trunk)[len(steps) // 2 :].mean())
        row[f"excess at the end {kind}"] = float((losses - trunk)[-1])
        row[f"steps to the target {kind}"] = float(steps[reached[0]]) if len(reached) else math.nan
    return row


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
    arguments = sys.argv[1:]
    main(
        int(arguments[0]) if arguments else 14,
        float(arguments[1]) if len(arguments) > 1 else 0.16,
        Path(arguments[2]) if len(arguments) > 2 else None,
    )
