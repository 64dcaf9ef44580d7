"""Seconds until the page of `churnlab explore` has an answer, by the slider that was moved.

Every position of a slider is asked for once, as the page does, in a random order; those of the bandwidth twice: before
and after its iterations are priced. Losses follow a curve in place of training, which takes no part in an answer.
A slow position has fewer failure seeds in this answer than in the one that follows.
Real seconds and CPU seconds of this process: median and maximum.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

from sim.experiments.sweep import Observer
from sim.exploring.controls import controls_of
from sim.exploring.learning import measured
from sim.exploring.server import Explorer
from sim.scenario.axes import ScenarioTemplate

SCENARIO = Path(__file__).parent.parent / "scenarios" / "quickstart.yaml"


def asked(explorer: Explorer, field: str, value: object) -> tuple[float, float]:
    """Real and CPU seconds of an answer."""
    real, cpu = time.perf_counter(), time.process_time()
    explorer.answered({field: value})
    return time.perf_counter() - real, time.process_time() - cpu


def main() -> None:
    """Print a line for each slider."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", nargs="?", type=Path, default=SCENARIO)
    template = ScenarioTemplate(parser.parse_args().scenario, ["training.learner=curve"])
    with tempfile.TemporaryDirectory() as cache:
        learning = measured(template, Path(cache), 1, Observer())
    controls = controls_of(template)
    explorer = Explorer(learning, controls)
    explorer.answered({})
    for control in controls:
        rounds = ("not priced", "priced") if control.field == "network.bandwidth_factor" else ("priced",)
        for name in rounds:
            values = [value for value in control.axis.values if value != control.axis.own]
            random.Random(0).shuffle(values)
            real, cpu = zip(*(asked(explorer, control.field, value) for value in values), strict=True)
            print(
                f"{control.label} ({name}): {len(values)} positions, real {statistics.median(real):.2f} s, at most "
                f"{max(real):.2f} s; CPU {statistics.median(cpu):.2f} s, at most {max(cpu):.2f} s"
            )


if __name__ == "__main__":
    main()
