"""What a map draws: the best of each cell in its colour, paler where the lead is small, hatched where it is close."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from sim.reporting.map_axes import edges
from sim.reporting.series import styles_by_kind
from sim.reporting.strategy_map import describe_behind, draw_lines, draw_map, format_means, map_figure
from sim.reporting.style import caption_of
from sim.results.crossed_design import Estimate
from sim.results.ranking import Ranking, Standing
from sim.results.strategy_map import CellResult, FirstPassages
from sim.scenario.axes import Axis
from sim.strategies import legend_label

X = Axis("failures.rate_per_hour", (0.1, 0.2, 0.4), 0.2, True, "--x")
Y = Axis("workload.model", ("small", "large"), None, False, "--y")
COLOURS = {"checkpoint": "#D55E00", "redundant": "#0072B2"}


def a_table(best: list[list[str | None]], lead: float = 0.2, close: tuple[tuple[int, int], ...] = ()) -> pd.DataFrame:
    """Rows (y) of cells (x): who is best there."""
    rows = []
    for j, row in enumerate(best):
        for i, first in enumerate(row):
            for name in COLOURS:
                rows.append(
                    {
                        X.field: X.values[i],
                        Y.field: Y.values[j],
                        "strategy": name,
                        "is_best": name == first,
                        "is_close": (i, j) in close,
                        "is_tested": True,
                        "behind": 0.0 if name == first else lead,
                        "num_reached": 3 if first else 1,
                        "num_runs": 3,
                        "hours": 1.0 + i + (name != first),
                        "hours_low": 0.5 + i,
                        "hours_high": 3.0 + i,
                    }
                )
    return pd.DataFrame(rows)


BEST = [["checkpoint", "checkpoint", "redundant"], ["checkpoint", "redundant", None]]


def drawn(table: pd.DataFrame) -> Any:
    axis = Figure().subplots()
    draw_map(axis, table, X, Y, COLOURS)
    return axis


def test_cells_have_the_best_strategys_colour_hatched_if_close():
    (mesh,) = drawn(a_table(BEST)).collections
    colours = np.asarray(mesh.get_array()).reshape(2, 3, 3)
    for j, row in enumerate(BEST):
        for i, name in enumerate(row):
            assert colours[j, i] == pytest.approx(to_rgb(COLOURS[name]) if name else (1, 1, 1))
    hatched = [patch for patch in drawn(a_table(BEST, close=((1, 0),))).patches if isinstance(patch, Rectangle)]
    (patch,) = hatched
    assert patch.get_hatch() == "////"
    assert patch.get_x() == pytest.approx(edges(X)[1])
    assert patch.get_x() + patch.get_width() == pytest.approx(edges(X)[2])
    assert (patch.get_y(), patch.get_height()) == (-0.5, 1.0)


@pytest.mark.parametrize(("lead", "strength"), [(0.01, 0.35), (0.1, 0.6), (0.3, 1.0)])
def test_a_small_lead_makes_a_colour_pale(lead, strength):
    (mesh,) = drawn(a_table(BEST, lead)).collections
    first = np.asarray(mesh.get_array()).reshape(2, 3, 3)[0, 0]
    assert first == pytest.approx(1 - strength * (1 - np.array(to_rgb(COLOURS["checkpoint"]))))


def test_regions_have_borders_and_their_names_in_them():
    lines = {(*line.get_xdata(), *line.get_ydata()) for line in drawn(a_table(BEST)).lines}
    x = edges(X)
    assert lines == {
        (x[2], x[2], -0.5, 0.5),
        (x[1], x[1], 0.5, 1.5),
        (x[2], x[2], 0.5, 1.5),
        (x[1], x[2], 0.5, 0.5),
        (x[2], x[3], 0.5, 0.5),
    }
    axis = drawn(a_table(BEST))
    for text in axis.texts:
        i = int(np.searchsorted(edges(X), text.xy[0])) - 1
        j = round(text.xy[1])
        assert text.get_text() == {"checkpoint": "checkpointing", "redundant": "redundant"}[BEST[j][i]]
    assert {text.get_text() for text in axis.texts} == {"checkpointing", "redundant"}


@pytest.mark.parametrize("width", [1, 4, 9])
def test_names_of_regions_stay_inside_them(width):
    """Diagonal bands: the name of the one between is left out where it has no room, since the legend has it."""
    num = 24
    x = Axis("failures.rate_per_hour", tuple(np.geomspace(0.01, 0.5, num)), None, True, "--x")
    y = Axis("network.bandwidth_factor", tuple(np.geomspace(0.1, 10, num)), None, True, "--y")
    names = ["checkpoint", "redundant", "checkfree_plus"]
    best = [[names[(i + j >= 16) + (i + j >= 16 + width)] for i in range(num)] for j in range(num)]
    rows = [
        {x.field: x.values[i], y.field: y.values[j], "strategy": name, "is_best": name == best[j][i], "is_close": False,
         "is_tested": True, "behind": 0.2 * (name != best[j][i]), "num_reached": 3, "num_runs": 3}
        for j in range(num) for i in range(num) for name in names
    ]  # fmt: skip
    figure = map_figure(pd.DataFrame(rows), (x, y), dict.fromkeys(names, "#D55E00"), {}, [])
    figure.draw_without_rendering()
    (axis,) = figure.axes
    named = {text.get_text(): text for text in axis.texts}
    assert set(named) - {"redundant"} == {"checkpointing", "CheckFree+"}
    assert ("redundant" in named) == (width == 9)
    for label, text in named.items():
        corners = axis.transData.inverted().transform(text.get_window_extent().corners())
        columns, lines = (np.searchsorted(edges(one), corners[:, k]) - 1 for k, one in enumerate((x, y)))
        inside = {best[j][i] for i, j in zip(columns, lines, strict=True)}
        assert {legend_label(name) for name in inside} == {label}


def test_axes_name_fields_and_the_legend_the_strategies():
    marks = {"own": [(0.2, 0.0)], "knots": [(0.1, 0.0), (0.4, 1.0)]}
    figure = map_figure(a_table(BEST, close=((0, 0),)), (X, Y), COLOURS, marks, ["A note."])
    (axis,) = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("failure rate (% per hour)", "target model")
    assert axis.get_xscale() == "log"
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["small", "large"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "checkpointing",
        "redundant",
        "none reaches the target",
        "too close to call",
        "the scenario's own values",
        "real runs under failures",
    ]
    stars = [line for line in axis.lines if line.get_marker() == "*"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in stars] == [(0.2, 0.0)]
    assert "A note." in caption_of(figure)
    assert edges(X) == pytest.approx([0.1 / 2**0.5, 0.1 * 2**0.5, 0.2 * 2**0.5, 0.4 * 2**0.5])
    assert edges(Axis("f", (1, 2, 4), None, False, "")) == pytest.approx([0.5, 1.5, 3.0, 5.0])
    assert edges(Y) == pytest.approx([-0.5, 0.5, 1.5])


def test_one_axis_gives_each_strategy_a_line_with_its_interval():
    table = a_table([["checkpoint", "checkpoint", "redundant"]])
    styles = styles_by_kind({"checkpoint": "checkpoint", "redundant": "redundant"})
    axis = Figure().subplots()
    draw_lines(axis, table, X, styles, "hours")
    for line, (name, look) in zip(axis.lines, styles.items(), strict=True):
        rows = table[table["strategy"] == name]
        assert list(line.get_xdata()) == list(X.values)
        assert list(line.get_ydata()) == list(rows["hours"])
        assert (line.get_color(), line.get_linestyle(), line.get_marker()) == look
    low, high = axis.collections[0].get_paths()[0].get_extents().get_points()[:, 1]
    assert (low, high) == (0.5, 5.0)


STANDING = Standing("a", Estimate(1.0, 1.0, 1.0, 1, 1, 1, 1, 0.0), 0.0, 0.0, 0.0)
shares = st.floats(-0.9, 0.9) | st.sampled_from([0.0, -0.0, 0.001, -0.001, math.nan])


@given(shares, shares, shares)
def test_no_difference_has_words_not_zeros(behind, low, high):
    standing = replace(STANDING, behind=0.0 if math.isnan(behind) else behind, behind_low=low, behind_high=high)
    said = describe_behind(standing, "later")
    assert "-0 " not in said
    assert "nan" not in said
    assert said == "" or re.fullmatch(r"-?\d+ % later( \(-?\d+ to -?\d+\))?", said)


@given(st.floats(1e-3, 1e9))
def test_times_are_in_words_that_one_would_say(seconds):
    """Hours as in the tables, or minutes or seconds; no powers of ten."""
    times = {(seed, 0): seconds * (1 + seed / 10) for seed in range(3)}
    none = dict.fromkeys(times, 0)
    passed = FirstPassages(0.0, False, 0, (1.0,), times, dict.fromkeys(times, math.nan), none, 0, 0, 0, {}, 0, 0)
    said = format_means(CellResult({"a": passed}, Ranking(()), None), "a")
    assert re.fullmatch(r"[\d,.]+ (h|min|s) \(95 % interval [\d,.]+ to [\d,.]+\)", said)
    mean = float(said.split()[0].replace(",", ""))
    unit = said.split()[1]
    assert unit == "h" or mean < 60.01
