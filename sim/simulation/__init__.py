"""The discrete-event simulation of one run: SimPy clock, failures, iterations, transfers, recovery.

Start at `run.simulate`. Does not belong here: files, statistics, and what a strategy decides (`sim.strategies`).
"""

from sim.simulation.run import Run, simulate

__all__ = ["Run", "simulate"]
