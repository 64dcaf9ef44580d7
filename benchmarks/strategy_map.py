"""Cost of a map: seconds of each stage, and training steps against a sweep that trains every cell.

The quickstart's strategies over failure rate and bandwidth. The sweep's distinct steps are counted by a survey of its
runs, without training. The cache is empty at the start, so this takes some minutes.

Target: a map of 20 × 20 cells in minutes on 2 cores (`--cells 20`).
"""

import argparse
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from models.shared_training import SharedTraining
from models.training_plan import num_steps, together
from models.trajectory_store import TrajectoryStore
from sim.experiments.executors import ProcessPool
from sim.experiments.job import SweepJob
from sim.experiments.strategy_map.grid import Grid
from sim.experiments.strategy_map.job import MapJob
from sim.experiments.strategy_map.trained import TrainingJob
from sim.experiments.sweep import Observer
from sim.scenario.axes import ScenarioTemplate
from sim.scenario.scenario import SeedsConfig

SCENARIO = Path(__file__).parent.parent / "scenarios" / "quickstart.yaml"


def brute_force_steps(grid: Grid, executor: ProcessPool, folder: Path) -> int:
    """Distinct training steps of a sweep over all cells, with the scenario's number of steps a run."""
    points = [
        replace(point, scenario=point.scenario.model_copy(update={"seeds": grid.seeds}))
        for point in grid.points.values()
    ]
    job = SweepJob(points, SCENARIO.parent, folder / "brute", folder)
    job.begin(executor, SharedTraining(None))
    job.survey(job.runs)
    return num_steps(together(job.demands.values()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--count-brute-force", action=argparse.BooleanOptionalAction, default=True)
    asked = parser.parse_args()
    template = ScenarioTemplate(SCENARIO)
    axes = (
        template.axis("--x", "failures.rate_per_hour=0.02..0.4", asked.cells),
        template.axis("--y", "network.bandwidth_factor=0.125..8", asked.cells),
    )
    grid = Grid(template, axes, SeedsConfig(failures=(0, 1, 2), training=(0,)), "quickstart-map")
    with tempfile.TemporaryDirectory() as name, closing(ProcessPool(asked.workers)) as executor:
        folder = Path(name)
        training = TrainingJob(SCENARIO.parent, folder / "results", folder, executor, Observer())
        job = MapJob(grid, training, range(10), "time", 3)
        stages = {
            "churn in the coarse mesh": job.survey,
            "trained runs": job.train,
            "times to the target": job.evaluate,
        }
        for what, do in stages.items():
            began = time.perf_counter()
            do()
            print(f"{what}: {time.perf_counter() - began:.0f} s", flush=True)
        with closing(TrajectoryStore(folder)) as store:
            num_trained = store.info().num_steps
        print(f"{len(job.results)} of {len(grid.points)} cells evaluated; {num_trained:,} steps trained")
        if asked.count_brute_force:
            steps = brute_force_steps(grid, executor, folder)
            print(f"brute force: {steps:,} distinct steps; the map's share: {num_trained / steps:.3f}")


if __name__ == "__main__":
    main()
