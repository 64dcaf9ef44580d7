"""Cost of a map: seconds of each stage, and training steps against a sweep that trains every cell.

The quickstart's strategies over failure rate and bandwidth. The sweep's distinct steps are counted by a survey of its
runs, without training. The cache is empty at the start, so this takes some minutes.

Target: a map of 20 × 20 cells in minutes on 2 cores (`--cells 20`).
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from models.shared_training import SharedTraining
from models.training_plan import num_steps, together
from models.trajectory_store import TrajectoryStore
from sim.experiments.executors import ProcessPool
from sim.experiments.strategy_map.grid import Grid
from sim.experiments.strategy_map.job import MapJob
from sim.experiments.strategy_map.real_runs import RealRunsJob
from sim.experiments.sweep import SweepJob
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
    job.sweep.survey(job.runs)
    return num_steps(together(job.sweep.demands.values()))


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
    job = MapJob(grid, range(10), "time", 3, note=lambda _: None)
    with tempfile.TemporaryDirectory() as name, closing(TrajectoryStore(Path(name))) as store:
        folder, workshop, executor = Path(name), SharedTraining(store), ProcessPool(asked.workers)

        @contextmanager
        def at_work(_: SweepJob) -> Iterator[tuple[ProcessPool, SharedTraining]]:
            yield executor, workshop

        real = RealRunsJob(SCENARIO.parent, folder / "results", folder, at_work, lambda _: None, lambda _: None)
        with closing(executor):
            stages: dict[str, Callable[[], None]] = {
                "churn in the coarse mesh": partial(job.survey, executor),
                "real runs": partial(job.train, executor, real),
                "times to the target": partial(job.evaluate, executor),
            }
            for what, do in stages.items():
                began = time.perf_counter()
                do()
                print(f"{what}: {time.perf_counter() - began:.0f} s", flush=True)
            evaluated = len(job.results)
            print(f"{evaluated} of {len(grid.points)} cells evaluated; {workshop.num_trained_steps:,} steps trained")
            if asked.count_brute_force:
                steps = brute_force_steps(grid, executor, folder)
                print(
                    f"brute force: {steps:,} distinct steps; the map's share: {workshop.num_trained_steps / steps:.3f}"
                )


if __name__ == "__main__":
    main()
