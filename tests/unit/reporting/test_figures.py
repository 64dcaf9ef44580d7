"""What is drawn is what the tables hold: artists and their values, labels, limits; and how it looks in grey."""

import itertools
import sys

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

import sim.reporting
from sim.core.records import BUCKETS
from sim.reporting.ledger import LOOKS, draw_nodes
from sim.reporting.loss import draw_loss
from sim.reporting.outcomes import draw_means, draw_rows, means_figure, set_hours
from sim.reporting.registry import FigureRequest, figure_kinds
from sim.reporting.series import (
    SERIES_STYLES,
    describe_point,
    line_handles,
    points_in,
    series_in,
    series_styles,
    with_series,
)
from sim.reporting.style import (
    PAPER,
    SLIDE,
    add_legend,
    caption,
    caption_of,
    from_zero,
    latex,
    print_form,
    save,
    value_limits,
)
from sim.results import storage as results
from sim.results.loss_curves import loss_curves
from sim.results.selection import comparable
from sim.strategies import legend_label
from support.pictured import INTERVAL, RATE, SCENARIO, SWEEP, of, of_scenario, of_sweep, run_all


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    return FigureRequest.of(of_scenario(tmp_path_factory.mktemp("dry")))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    return FigureRequest.of(of_sweep(tmp_path_factory.mktemp("swept")))


@pytest.fixture
def axis():
    return Figure().subplots()


def drawn(source, name):
    tables = figure_kinds()[name].tables(source)
    return figure_kinds()[name].figure(source, tables), tables


def texts_of(legend_or_axis):
    return [text.get_text() for text in legend_or_axis]


RATES = ["failure rate 60 % per hour", "failure rate 90 % per hour"]


def lines_by_label(axis):
    return {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}


def alone(source, kind):
    """The results of one run."""
    return FigureRequest.of(results.load(source.results.folder / of(source.results.runs, kind=kind)["run"].iloc[0]))


# ---- the look ------------------------------------------------------------------------------------
def luminance(colour):
    """Relative luminance of sRGB, then as lightness between 0 and 1."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return (1.16 * (linear @ [0.2126, 0.7152, 0.0722]) ** (1 / 3)) - 0.16


def test_looks_that_are_close_in_grey_differ_otherwise():
    for one, other in itertools.combinations(SERIES_STYLES, 2):
        assert one.marker != other.marker
        if abs(luminance(one.colour) - luminance(other.colour)) < 0.25:
            assert one.line != other.line, (one, other)
    assert max(luminance(look.colour) for look in SERIES_STYLES) < 0.8  # and stands out from white paper
    for (one, hatch, _), (other, other_hatch, _) in itertools.combinations(LOOKS.values(), 2):
        assert hatch != other_hatch or abs(luminance(one) - luminance(other)) > 0.2


def test_known_kinds_keep_their_looks_and_many_series_differ():
    table = pd.DataFrame({"strategy": [*"abcdefghijklmnop", "checkfree"], "kind": [*["checkpoint"] * 16, "checkfree"]})
    looks = series_styles(table)
    assert looks["a"] == SERIES_STYLES[1]
    assert looks["CheckFree"] == SERIES_STYLES[3]
    assert len(set(looks.values())) == 17


def test_captions_fit_the_figure_and_keep_units_with_numbers():
    text = caption(["word " * 60, "short"])
    assert text.replace("\n", " ").split() == ["word"] * 60 + ["short"]
    assert max(map(len, text.splitlines())) <= 150
    assert text.splitlines()[-1] == "short"
    assert caption(["one.", "two."], SLIDE) == "one. two."
    for words in ("16 %", "2 h", "3 $", "60 s", "5 hours"):
        texts = [caption([f"{'x' * width} {words} of it"]) for width in range(120, 150)]
        assert all(words.replace(" ", "\u00a0") in text for text in texts)
    assert "\u00a0" not in caption(["4 stages of 3 hosts"])


def test_panels_show_all_of_their_values(tmp_path):
    panels = Figure().subplots(3, 1, sharex=True)
    for axis, end in zip(panels, (1.0, 9.0, 4.0), strict=True):
        axis.plot([0.5, end], [0.0, 1.0])
        from_zero(axis)
    assert {axis.get_xlim()[0] for axis in panels} == {0.0}
    assert all(9.0 <= axis.get_xlim()[1] < 10.0 for axis in panels)
    text = SWEEP.replace("[0.6, 0.9]", "[0.2, 0.95]") + "cluster: {device: l4, provisioning_seconds: 600}\n"
    source = FigureRequest.of(of_sweep(tmp_path, text))
    for name in ("loss", "spikes", "nodes"):
        figure, _ = drawn(source, name)
        assert len(figure.axes) >= 4
        for axis in figure.axes:
            (left, right), (first, last) = axis.get_xlim(), axis.dataLim.intervalx
            assert left <= first <= last <= right, name
        top = max(axis.dataLim.ymax for axis in figure.axes)
        assert name != "nodes" or all(axis.get_ylim()[1] > top for axis in figure.axes)


@pytest.mark.parametrize(("form", "num_columns"), [(PAPER, 6), (SLIDE, 3)])
def test_a_legend_has_as_few_rows_as_fit(form, num_columns):
    figure = Figure()
    names = ["no failures", "checkpointing", "redundant", "CheckFree", "CheckFree+", "stage failure"]
    add_legend(figure, line_handles(dict(zip(names, SERIES_STYLES, strict=False))), form)
    assert figure.legends[0]._ncols == num_columns
    assert texts_of(figure.legends[0].get_texts()) == names


def test_slides_are_16_to_9_and_files_equal_for_equal_data(dry, tmp_path):
    (stem, slide), *more = figure_kinds()["loss"].figures(
        FigureRequest(dry.results, SLIDE), figure_kinds()["loss"].tables(dry)
    )
    paper, _ = drawn(dry, "loss")
    assert (stem, more) == ("loss_slide", [])
    width, height = slide.get_size_inches()
    assert width / height == pytest.approx(16 / 9)
    sizes = [figure.axes[0].xaxis.label.get_size() / figure.get_size_inches()[0] for figure in (paper, slide)]
    assert sizes[1] > 1.2 * sizes[0]
    for name in ("one", "two"):
        save(drawn(dry, "ledger")[0], tmp_path / name, ("pdf", "svg"), ("txt", "tex"))
    for ending in ("pdf", "svg", "txt", "tex"):
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


def test_captions_are_beside_a_figure_and_drawn_if_asked(dry, tmp_path):
    plain, captioned = (
        figure_kinds()["loss"].draw(FigureRequest(dry.results, form)) for form in (PAPER, print_form(has_caption=True))
    )
    assert plain.get_supxlabel() == ""
    assert captioned.get_supxlabel().replace("\n", " ").replace("\u00a0", " ") == caption_of(plain).replace("\n", " ")
    assert captioned.get_size_inches()[1] > plain.get_size_inches()[1]
    save(plain, tmp_path / "loss", ("svg",))
    assert (tmp_path / "loss.txt").read_text().strip() == caption_of(plain)
    assert "7 $\\times$" in latex("7 × a100, 16 % of $1 in my_scenario")
    assert latex("16 % of $1, my_name") == r"16~\% of \$1, my\_name"


@pytest.mark.parametrize("kind", ["loss", "spikes", "ledger", "time_to_loss"])
@pytest.mark.parametrize("inches", [3.3, 5.5])
def test_at_every_width_texts_are_inside_and_no_axes_overlap(dry, kind, inches):
    figure = figure_kinds()[kind].draw(FigureRequest(dry.results, print_form(inches)))
    figure.set_layout_engine("constrained")
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    assert width / figure.dpi == pytest.approx(inches)
    boxes = [axis.get_tightbbox() for axis in figure.axes] + [legend.get_tightbbox() for legend in figure.legends]
    for box in boxes:
        assert box.x0 > -2
        assert box.x1 < width + 2
        assert box.y0 > -2
        assert box.y1 < height + 2
    for one, other in itertools.combinations(boxes, 2):
        assert min(one.x1, other.x1) - max(one.x0, other.x0) < 2 or min(one.y1, other.y1) - max(one.y0, other.y0) < 2


# ---- loss ----------------------------------------------------------------------------------------
def test_means_are_lines_and_ranges_are_shaded(dry):
    figure, tables = drawn(dry, "loss")
    for axis, against, column in zip(figure.axes, ("time", "iteration"), ("hours", "iteration"), strict=True):
        lines = lines_by_label(axis)
        assert list(lines) == [legend_label(name) for name in ("none", "checkpoint", "checkfree", "checkfree_plus")]
        bands = [one for one in axis.collections if isinstance(one, PolyCollection)]
        for (name, rows), band in zip(series_in(tables[against]), bands, strict=True):
            assert lines[name].get_xdata() == pytest.approx(rows[column].to_numpy())
            assert lines[name].get_ydata() == pytest.approx(rows["loss_nats"].to_numpy(), nan_ok=True)
            corners = {tuple(corner) for path in band.get_paths() for corner in path.vertices.round(9)}
            known = rows.dropna(subset=["low_loss_nats"])
            for end in ("low_loss_nats", "high_loss_nats"):
                assert set(zip(known[column].round(9), known[end].round(9), strict=True)) <= corners
        thin = [line for line in axis.lines if line.get_linewidth() < 0.5]
        assert len(thin) == 8  # two seeds of four strategies
    assert len({line.get_color() for line in lines.values()}) == 4
    assert texts_of(figure.legends[0].get_texts()) == list(lines)
    time_axis, iteration_axis = figure.axes
    assert "hours" in time_axis.get_xlabel()
    assert "nats/token" in time_axis.get_ylabel()
    assert iteration_axis.get_xlabel() == "iteration"
    assert " target 2.5" in texts_of(iteration_axis.texts)
    low, high = time_axis.get_ylim()
    assert low < tables["iteration"]["loss_nats"].min()
    assert (of(tables["iteration"], iteration=60)["loss_nats"] < high).all()  # all but the start is in sight
    assert "2 failure seeds and 1 training seed: lines are means" in caption_of(figure)
    own = Figure().subplots()  # a table and an axis are enough
    draw_loss(own, loss_curves(dry.results, "iteration"))
    assert len(lines_by_label(own)) == 4


def test_a_run_has_gaps_at_rollbacks_and_marks_at_failures(dry):
    source = alone(dry, "checkpoint")
    figure, tables = drawn(source, "loss")
    time_axis, iteration_axis = figure.axes
    summary = source.results.runs.iloc[0]
    assert np.isnan(lines_by_label(time_axis)["checkpointing"].get_ydata()).sum() == summary["num_rollbacks"] > 0
    assert not time_axis.collections
    for axis, name, column in ((time_axis, "time", "hours"), (iteration_axis, "iteration", "iteration")):
        (marks,) = [line for line in axis.lines if line.get_marker() == "x"]
        failures = tables[f"{name}_failures"]
        assert len(failures) > 0
        assert list(marks.get_xdata()) == failures[column].tolist()
        assert list(marks.get_ydata()) == failures["loss_nats"].tolist()
    assert texts_of(figure.legends[0].get_texts()) == ["checkpointing", "stage failure"]


def test_sweep_points_are_rows_and_strategy_variants_are_lines(swept):
    figure, _ = drawn(swept, "loss")
    assert [axis.get_title(loc="left") for axis in figure.axes[::2]] == RATES
    assert [label for label in lines_by_label(figure.axes[0]) if label.startswith("checkp")] == [
        "checkpointing every 20 iterations",
        "checkpointing every 40 iterations",
    ]
    assert "; failure rate 60 and 90 % per hour." in swept.notes[0]
    assert "Varied" not in swept.notes[0]
    slides = dict(
        figure_kinds()["loss"].figures(FigureRequest(swept.results, SLIDE), figure_kinds()["loss"].tables(swept))
    )
    assert list(slides) == ["loss_slide_1", "loss_slide_2"]
    assert [axis.get_title(loc="left") for axis in slides["loss_slide_2"].axes] == ["failure rate 90 % per hour", ""]


# ---- hours and money -----------------------------------------------------------------------------
def segments_of(axis):
    return [one.get_segments() for one in axis.collections if isinstance(one, LineCollection)]


@pytest.mark.parametrize(
    ("values", "scale", "places"),
    [
        ([pd.NA, 2, 25, 100], "log", [2, 25, 100]),
        ([None, 20, 30, 40], "linear", [20, 30, 40]),
        ([None, "young", "daly", "adaptive"], "linear", [0, 1, 2]),
        ([None, True, False, None], "linear", [0, 1]),
    ],
)
def test_an_option_of_one_strategy_has_an_axis_of_its_numbers(values, scale, places):
    field = "strategies[checkpoint].option"
    table = pd.DataFrame({"strategy": ["none", *["checkpoint"] * 3], "kind": ["none", *["checkpoint"] * 3]})
    table = table.assign(num_reached=2, num_runs=2, mean_hours=[1.0, 3.0, 2.0, 4.0], low_hours=0.5, high_hours=5.0)
    table[field] = pd.Series(values, dtype=object)
    (axis,) = means_figure(table, [field], "hours", "hours", []).axes
    assert axis.get_xscale() == scale
    assert list(axis.get_xticks()) == places


def test_means_with_intervals_against_any_swept_field(swept):
    figure, tables = drawn(swept, "time_to_loss")
    (axis,) = figure.axes
    table, lines, bars = with_series(tables[""], [INTERVAL]), lines_by_label(axis), segments_of(axis)
    bottom, top = axis.get_ylim()
    assert len(lines) == len(bars) == 5
    assert sum(map(len, bars)) >= 8
    for (name, rows), bar in zip(series_in(table), bars, strict=True):
        rows = rows.sort_values(RATE)
        assert lines[name].get_xdata().tolist() == rows[RATE].tolist()
        assert lines[name].get_ydata() == pytest.approx(rows["mean_hours"].to_numpy(), nan_ok=True)
        assert rows["mean_hours"].dropna().between(bottom, top).all()
        ends = [(start[0], start[1], end[1]) for start, end in bar]
        known = rows.dropna(subset=["low_hours"])
        assert ends == list(
            zip(known[RATE], known["low_hours"].clip(lower=bottom), known["high_hours"].clip(upper=top), strict=True)
        )
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["60", "90"]
    assert axis.get_xlabel() == "failure rate (% per hour)"
    assert axis.get_ylabel() == "simulated hours to loss 2.5"
    money, _ = drawn(swept, "money_to_loss")
    assert money.axes[0].get_ylabel() == "US dollars to loss 2.5"
    assert "Money: $0.25 for each hour" in caption_of(money)
    source = FigureRequest.of(swept.results, field=INTERVAL)
    figure, _ = drawn(source, "time_to_loss")
    assert [axis.get_title(loc="left") for axis in figure.axes] == RATES
    assert list(lines_by_label(figure.axes[0]))[-1] == "checkpointing"
    with pytest.raises(ValueError, match=r"--x failures.rate: no such swept field; nearest: failures.rate_per_hour"):
        FigureRequest.of(swept.results, field="failures.rate")


MEANS = {"strategy": "s", "kind": "checkfree", "num_runs": 3, "num_reached": 3}


def means_of(*rows):
    columns = ("field", "mean_hours", "low_hours", "high_hours", "num_reached")
    return pd.DataFrame([MEANS | dict(zip(columns, row, strict=False)) for row in rows])


def test_open_intervals_end_in_carets_missed_targets_are_counted(axis):
    table = means_of((1.0, 10.0, 9.0, 11.0, 3), (2.0, 12.0, -90.0, 100.0, 2), (20.0, np.nan, np.nan, np.nan, 0))
    draw_means(axis, table, "field", "hours")
    bottom, top = axis.get_ylim()
    assert (bottom, top) == value_limits(table, "hours")
    assert bottom == 0.0
    assert 12.0 < top < 15.0
    ((first, second),) = segments_of(axis)
    assert [tuple(end) for end in first] == [(1.0, 9.0), (1.0, 11.0)]
    assert [tuple(end) for end in second] == [(2.0, bottom), (2.0, top)]
    carets = {line.get_marker(): list(line.get_ydata()) for line in axis.lines[1:]}
    assert carets == {"v": [bottom], "^": [top]}
    assert texts_of(axis.texts) == ["2/3", "0/3"]
    assert axis.get_xscale() == "log"  # 1 to 20


def test_panels_of_different_values_share_their_places():
    first, second = means_of((1, 20.0, 19.0, 21.0), (2, 25.0, 24.0, 26.0)), means_of((4, 30.0, 29.0, 31.0))
    table = pd.concat([second.assign(other=0), first.assign(other=1)])
    figure = means_figure(table, ["field", "other"], "hours", "hours", [], "field")
    for axis in figure.axes:
        assert axis.get_xticks().tolist() == [1.0, 2.0, 4.0]
        assert axis.get_xlim()[0] < 1.0 < 4.0 < axis.get_xlim()[1]
    table["field"] = ["c", "a", "b"]
    lines = [axis.lines[0] for axis in means_figure(table, ["field", "other"], "hours", "hours", [], "field").axes]
    assert [list(line.get_xdata()) for line in lines] == [[0.0], [1.0, 2.0]]


def test_fields_that_are_no_numbers_or_null_have_places(axis):
    table = means_of(("gcp", 3.0, 2.0, 4.0), ("home_us", 5.0, 4.0, 6.0))
    draw_means(axis, table, "field", "hours")
    line = lines_by_label(axis)["s"]
    assert (line.get_xdata().tolist(), line.get_linestyle()) == ([0.0, 1.0], "None")
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["gcp", "home_us"]
    rows = [MEANS | {"workload.max_in_flight": flight, "mean_hours": 2.0, "low_hours": 1.0, "high_hours": 3.0}
            for flight in (np.nan, 6.0)]  # fmt: skip
    figure = means_figure(pd.DataFrame(rows), ["workload.max_in_flight"], "hours", "hours", [])
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["null", "6"]
    assert describe_point({"workload.max_in_flight": np.nan}) == "workload.max_in_flight null"


def test_where_nothing_is_swept_each_strategy_has_a_row(dry, axis):
    figure, tables = drawn(dry, "time_to_loss")
    found = tables[""]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [name for name, _ in series_in(found)]
    marks = lines_by_label(figure.axes[0])
    assert [line.get_xdata()[0] for line in marks.values()] == found["mean_hours"].dropna().tolist()
    assert [text for text in texts_of(figure.axes[0].texts) if "not reached" in text] == ["not reached (0/2)"]
    draw_rows(axis, means_of((0, np.nan, np.nan, np.nan, 0)).drop(columns="field"), "hours")
    assert texts_of(axis.texts) == ["not reached (0/3)"]
    assert value_limits(means_of((0, np.nan, np.nan, np.nan, 0)), "hours") == (0.0, 1.0)


def test_hours_by_checkpoint_interval_with_the_others_as_levels(swept):
    figure, tables = drawn(swept, "checkpoint_interval")
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        f"{what}, {rate}" for rate in RATES for what in ("hours to the end", "hours to loss 2.5")
    ]
    table = of(tables[""], **{RATE: 0.6})
    for axis, unit in zip(figure.axes[:2], ("end_hours", "target_hours"), strict=True):
        own = of(table, kind="checkpoint").sort_values("interval_iterations")
        line = lines_by_label(axis)["checkpointing"]
        assert list(line.get_xdata()) == [20, 40]
        assert list(line.get_ydata()) == own[f"mean_{unit}"].tolist()
        level = lines_by_label(axis)["no failures"]
        assert list(level.get_ydata()) == of(table, kind="none")[f"mean_{unit}"].tolist() * 2


# ---- ledger, nodes, recoveries -------------------------------------------------------------------
def test_bars_add_up_to_the_wall_clock_time(dry, swept):
    for source in (dry, swept):
        figure, tables = drawn(source, "ledger")
        points = points_in(tables[""], source.fields)
        assert len(figure.axes) == len(points)
        for axis, point in zip(figure.axes, points, strict=True):
            rows = of(tables[""], **point)
            widths = dict.fromkeys(range(len(rows)), 0.0)
            for patch in axis.patches:
                widths[round(patch.get_y() + patch.get_height() / 2)] += patch.get_width()
                assert axis.get_xlim()[0] <= patch.get_x() <= patch.get_x() + patch.get_width() <= axis.get_xlim()[1]
            assert list(widths.values()) == pytest.approx(rows["all_hours"].to_numpy())
        used = [bucket.replace("_", " ") for bucket in BUCKETS if tables[""][f"{bucket}_hours"].any()]
        assert texts_of(figure.legends[0].get_texts()) == used
        assert "waiting for nodes" not in used
        assert "hours" in figure.axes[-1].get_xlabel()


def test_nodes_are_steps_that_end_with_the_run(tmp_path):
    cluster = "cluster: {device: l4, num_spares: 1, provisioning_seconds: 600}\n"
    source = FigureRequest.of(comparable(results.load(run_all(tmp_path, SCENARIO + cluster))))
    figure, tables = drawn(source, "nodes")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["failure seed 0", "failure seed 1"]
    for axis, seed in zip(figure.axes, (0, 1), strict=True):
        lines = lines_by_label(axis)
        for name, rows in series_in(of(tables[""], failure_seed=seed)):
            assert lines[name].get_drawstyle() == "steps-post"
            assert list(lines[name].get_xdata()) == rows["hours"].tolist()
            assert list(lines[name].get_ydata()) == rows["num_nodes"].tolist()
        assert any(list(line.get_ydata()) == [5, 5] for line in axis.lines)  # needed: four stages and stage 0
        assert axis.get_ylim()[0] == 0 < 6 < axis.get_ylim()[1]
    table = pd.DataFrame({"strategy": "a", "kind": "none", "hours": [0.0, 1.0, 2.0], "num_nodes": [5, 4, 4]})
    own = Figure().subplots()
    draw_nodes(own, table)
    assert own.get_ylim() == (0, 1.05 * 5)


def test_spikes_and_half_lives(dry):
    figure, tables = drawn(dry, "spikes")
    curve_axis, halving_axis = figure.axes
    lines = lines_by_label(curve_axis)
    for name, rows in series_in(tables[""]):
        assert list(lines[name].get_xdata()) == rows["iterations_since_recovery"].tolist()
        assert list(lines[name].get_ydata()) == rows["mean_excess_nats"].tolist()
    assert "nats/token" in curve_axis.get_ylabel()
    medians = {line.get_label(): line.get_xdata()[0] for line in halving_axis.lines if line.get_marker() in "Dv"}
    finite = tables["half_lives"].query("median_iterations < inf")
    assert medians == dict(zip(map(legend_label, finite["strategy"]), finite["median_iterations"], strict=True))
    ends = [x for line in halving_axis.lines for x in line.get_xdata()]
    assert halving_axis.get_xlim()[0] <= min(ends) <= max(ends) <= halving_axis.get_xlim()[1]
    words = [f"{row.num_recoveries} recoveries" for row in tables["half_lives"].itertuples()]
    assert [text.split(",")[0] for text in texts_of(halving_axis.texts)] == words


def test_what_swapping_costs_by_failure_free_runs_alone(tmp_path):
    source = FigureRequest.of(comparable(results.load(run_all(tmp_path, SCENARIO, "failures={kind: never}"))))
    figure, tables = drawn(source, "swapping")
    line = lines_by_label(figure.axes[0])["CheckFree+"]
    assert list(line.get_xdata()) == tables[""]["iteration"].tolist()
    assert list(line.get_ydata()) == tables[""]["difference_nats"].tolist()
    assert min(line.get_ydata()) > 0.0
    source = FigureRequest.of(of_sweep(tmp_path / "swept", SWEEP.replace("[0.6, 0.9]", "[0.0, 0.000001, 0.9]")))
    figure, tables = drawn(source, "swapping")
    assert RATE not in tables[""]
    assert tables[""]["num_pairs"].unique().tolist() == [2]  # one for each training seed, whatever the rate
    assert [axis.get_title(loc="left") for axis in figure.axes] == [""]
    words = caption_of(figure)
    assert "Runs without failures" in words
    assert "Lines: means over 2 pairs of runs; shaded" in words
    slides = dict(figure_kinds()["swapping"].figures(FigureRequest(source.results, SLIDE), tables))
    assert list(slides) == ["swapping_slide"]


def test_ways_to_fill_a_stage_are_compared_with_no_failures(tmp_path):
    variants = "strategies=[none, redundant, {kind: reinit, rule: random, label: anew}, {kind: reinit, label: plain}]"
    source = FigureRequest.of(comparable(results.load(run_all(tmp_path, SCENARIO, variants))))
    figure, tables = drawn(source, "reinit")
    assert texts_of(figure.legends[0].get_texts()) == ["no failures", "anew", "plain"]
    losses, above = (lines_by_label(axis) for axis in figure.axes)
    assert list(losses) == ["no failures", "anew", "plain"]
    assert list(above) == ["anew", "plain"]
    for name, line in above.items():
        rows = of(tables[""], strategy=name)
        assert list(line.get_ydata()) == rows["difference_nats"].tolist()
        expected = losses[name].get_ydata() - losses["no failures"].get_ydata()
        assert line.get_ydata() == pytest.approx(expected)
    assert "nats/token" in figure.axes[1].get_ylabel()


def test_hours_that_span_a_wide_range_are_on_a_logarithmic_axis(axis):
    table = means_of((2, 20.0, 19.0, 21.0), (100, 80.0, -5.0, 300.0))
    set_hours(axis, table, "hours")
    low, high = axis.get_ylim()
    assert axis.get_yscale() == "log"
    assert 0.0 < low < 20.0 < 80.0 < high < 150.0
    axis.clear()
    set_hours(axis, table.assign(mean_hours=[20.0, 30.0]), "hours")
    assert axis.get_yscale() == "linear"


# ---- the registry --------------------------------------------------------------------------------


def test_a_new_module_with_figures_is_found(tmp_path, monkeypatch):
    """A kind of figure needs no other file than its module."""
    source = "from sim.reporting.registry import FigureKind\nFIGURES = (FigureKind('extra', 'more', dict, dict),)\n"
    (tmp_path / "extra_figure.py").write_text(source)
    monkeypatch.setattr(sim.reporting, "__path__", [*sim.reporting.__path__, str(tmp_path)])
    known = figure_kinds.__wrapped__()
    monkeypatch.delitem(sys.modules, "sim.reporting.extra_figure")
    assert set(known) == {*figure_kinds(), "extra"}
