"""The strips of a report: states in columns, failures in words, and a bound on what they hold."""

import re
import shutil

import numpy as np
import pytest

from sim.reporting.html import strips as module
from sim.reporting.html.data import report_data
from sim.reporting.html.page import report_page
from sim.reporting.html.strips import COLUMNS, LETTERS, columns_of, encoded, strips
from sim.reporting.tracks import records_of
from sim.results.activity import STATES
from sim.results.storage import load_run
from support.reports import CURVE, REPLACED, a_run, a_sweep
from support.sweeps import TIME_ONLY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nodes are away for ten minutes, and many are lost."""
    return a_run(tmp_path_factory.mktemp("run"), REPLACED, ("failures.rate_per_hour=0.9",))


def decoded(row: str) -> list[int]:
    parts = re.findall(r"([a-z-])(\d+)", row)
    return [LETTERS.find(letter) for letter, number in parts for _ in range(int(number))]


def test_rows_are_decoded_to_what_was_encoded():
    for states in ([0] * 5, [-1, 0, 0, 4, 1, 1], list(range(-1, 5))):
        assert decoded(encoded(np.array(states, dtype=np.int8))) == states


def test_every_row_fills_all_columns_and_short_states_show(folder):
    (found,) = strips(report_data(folder)).sets
    assert [run["strategy"] for run in found["runs"]] == [0, 1, 2]
    for run in found["runs"]:
        assert {len(decoded(row)) for row in run["rows"]} == {COLUMNS}
        assert len(run["rows"]) == len(run["names"])
        states = {state for row in run["rows"] for state in decoded(row)}
        assert (STATES.index("gone") in states) == bool(run["events"])
        assert run["progress"][0] == 0
        assert max(run["progress"]) == run["progress"][-1] == 960


def test_shares_of_columns_are_those_of_time(folder):
    path = next(one for one in sorted(folder.iterdir()) if one.name.startswith("none"))
    records = records_of(load_run(path))
    assert (columns_of(records) == STATES.index("computing")).all()


def test_each_failure_says_what_followed(folder):
    source = report_data(folder)
    (found,) = strips(source).sets
    runs = source.results.runs.set_index("strategy")
    for run, kind in zip(found["runs"], ("none", "checkpoint", "checkfree"), strict=True):
        count = 0 if kind == "none" else runs.loc[kind, "num_failures"]
        assert len(run["events"]) == count
        for hours, place, words in run["events"]:
            assert re.match(rf"S\d lost at {hours:.2f} h, in iteration \d+; recovered by .* after \d+ s", words)
            assert 0 <= place < len(run["rows"])
            assert (", back to iteration" in words) or kind == "checkfree"


def test_more_runs_rows_and_events_than_allowed_are_left_out(tmp_path, monkeypatch):
    source = report_data(a_sweep(tmp_path, CURVE))
    whole = strips(source)
    assert (len(whole.sets), whole.num_left_out) == (4, 0)
    for name, most in (("MOST_RUNS", 7), ("MOST_ROWS", 2), ("MOST_EVENTS", 0)):
        monkeypatch.setattr(module, name, most)
    part = strips(source)
    assert [(one["seeds"], one["point"]) for one in part.sets] == [
        (one["seeds"], one["point"]) for one in whole.sets[:2]
    ]
    assert part.num_left_out == 6
    assert all((len(run["rows"]), run["events"]) == (2, []) for one in part.sets for run in one["runs"])
    assert "6 runs with further seeds or points are left out." in module.note_on(part)


def test_runs_without_losses_or_records_have_strips_or_none(tmp_path):
    folder = a_sweep(tmp_path, TIME_ONLY)
    assert all(run["loss"] == [[], []] for one in strips(report_data(folder)).sets for run in one["runs"])
    for path in folder.glob("*/summary.json"):  # as of a sweep with `keep: outcomes`
        shutil.rmtree(path.parent)
    assert strips(report_data(folder)).sets == []
    assert "What each node did" not in report_page(folder)
