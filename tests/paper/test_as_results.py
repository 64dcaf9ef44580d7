"""Results made from an extract: the same curves and times as those of the runs, for figures without runs."""

import pandas as pd

from benchmarks.paper.as_results import TARGET, as_results
from sim.reporting.registry import figure_of
from sim.results.loss_curves import loss_curves
from sim.results.outcome_tables import time_to_end
from sim.results.storage import load


def test_extract_gives_the_tables_of_its_runs(tiny):
    """Losses by iteration and hours to the end, at every point; the target is that of the rule."""
    folder, path, extract = tiny
    runs = load(folder / "results" / "tiny")
    with as_results(path, extract) as found:
        pd.testing.assert_frame_equal(loss_curves(found, "iteration"), loss_curves(runs, "iteration"))
        pd.testing.assert_frame_equal(time_to_end(found), time_to_end(runs))
        expected = extract.to_target()[list(TARGET)]
        pd.testing.assert_frame_equal(found.runs[list(TARGET)], expected, check_dtype=False)


def test_figure_is_drawn_from_an_extract(tiny):
    _, path, extract = tiny
    with as_results(path, extract) as found:
        assert figure_of("time_to_loss", found).axes
