"""Results: run folders on disk, summaries, statistics over replicates, and tidy tables for figures.

Does not belong here: drawing and formatting (`sim.reporting`), and deciding what to run (`sim.experiments`).
"""

from sim.results.storage import Results, load, load_run

__all__ = ["Results", "load", "load_run"]
