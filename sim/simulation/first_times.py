"""When a run without training first completes each iteration."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sim.simulation.log import IterationLog
from sim.simulation.run import Run


def first_time(times: npt.NDArray[np.float64], iteration: float) -> float:
    """The time of an iteration in `first_times`, interpolated between two; NaN if it is never completed."""
    if math.isnan(iteration) or iteration > len(times) - 1:
        return math.nan
    return float(np.interp(iteration, np.arange(len(times)), times))


def first_times(run: Run) -> npt.NDArray[np.float64]:
    """(iterations + 1,) seconds until each iteration is first completed, the 0th at 0."""
    columns = log_of(run).columns()
    is_first = np.asarray(columns["execution"]) == 1
    ended: npt.NDArray[np.float64] = np.asarray(columns["ended_seconds"], dtype=np.float64)[is_first]
    return np.concatenate([[0.0], ended])


def log_of(run: Run) -> IterationLog:
    """The iterations of a run without training."""
    assert isinstance(run.iterations, IterationLog)
    return run.iterations
