"""The page of a report: what it is made from, what its charts hold, and that nothing in it can do harm."""

import json
import re
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sim.core.text import decimals, format_number
from sim.reporting.html.answer import answer
from sim.reporting.html.charts import charts_of, vega_bundle
from sim.reporting.html.data import SweepAxis, combinations, plain, report_data, thin
from sim.reporting.html.page import content, page_of, report_page
from sim.reporting.html.swept_axis import positions_of, step_of
from sim.reporting.html.tables import comparison, events, failures, ledger, without_repeats
from sim.reporting.registry import FigureRequest, figure_kinds
from sim.reporting.table import Column, Row, Table
from sim.reporting.tables import mean_and_spread
from sim.results import storage as results
from sim.results.loss_curves import loss_curves
from support.reports import CURVE, ONE_FIELD, REPLACED, TWO_FIELDS, a_run, a_sweep
from support.sweeps import TIME_ONLY


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return a_sweep(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return a_sweep(tmp_path_factory.mktemp("grid"), TWO_FIELDS)


@pytest.fixture(scope="module")
def drawn(sweep):
    """The sweep's charts by name."""
    return charts(sweep)[0]


def charts(folder):
    """The charts of a folder by name, and why some are missing."""
    source = report_data(folder)
    made, left_out = charts_of(source)
    return {chart.id: chart for chart in made}, left_out


def rows(chart):
    return chart.spec["datasets"]["rows"]


# ---- points --------------------------------------------------------------------------------------
def test_points_of_a_grid_have_two_axes_and_every_strategy(grid):
    source = report_data(grid)
    assert [point.label for point in source.points] == [
        "failure rate 50 % per hour, checkpoint interval 10 iterations",
        "failure rate 50 % per hour, checkpoint interval 40 iterations",
        "failure rate 90 % per hour, checkpoint interval 10 iterations",
        "failure rate 90 % per hour, checkpoint interval 40 iterations",
    ]
    assert source.axes == [
        SweepAxis("failure rate (% per hour)", ("50", "90"), (0, 0, 1, 1), (50, 90)),
        SweepAxis("checkpoint interval (iterations)", ("10", "40"), (0, 1, 0, 1), (10, 40)),
    ]
    for point in source.points:
        assert sorted(point.runs["strategy"].unique()) == ["checkfree", "checkpoint", "none"]
    of_checkfree = [group.points for key, group in source.groups.items() if key[0] == "checkfree"]
    assert of_checkfree == [[0, 1], [2, 3]]  # the interval does not concern it


def test_values_that_concern_different_strategies_join():
    assert combinations([{"a": 1}, {"a": 2}, {"b": 3}, {}]) == [{"a": 1, "b": 3}, {"a": 2, "b": 3}]
    assert combinations([{"a": 1, "c": 1}, {"b": 3, "c": 1}, {"a": 2, "c": 2}]) == [
        {"a": 1, "c": 1, "b": 3},
        {"a": 2, "c": 2},
    ]
    assert combinations([{}]) == [{}]


def test_fields_that_are_no_grid_make_one_axis(tmp_path):
    first, second, third = "0.1, give_up_after: 9", "0.3, give_up_after: 9", "0.3, give_up_after: 8"
    by_hand = ", ".join(f"{{failures.rate_per_hour: {point}}}" for point in (first, second, third))
    text = CURVE.replace(ONE_FIELD, f"list: [{by_hand}]")
    (axis,) = report_data(a_sweep(tmp_path, text)).axes
    assert (axis.label, axis.places, axis.values[2]) == (
        "swept point",
        (0, 1, 2),
        "failure rate 30 % per hour, give up after 8",
    )
    zipped = "zip: {failures.rate_per_hour: [0.1, 0.3], give_up_after: [8, 9]}"
    (axis,) = report_data(a_sweep(tmp_path, CURVE.replace(ONE_FIELD, zipped))).axes
    assert (axis.label, axis.values) == ("failure rate (% per hour) and give up after", ("10", "30"))


def test_a_swept_section_has_an_axis_in_words_and_charts(tmp_path):
    kinds = "{kind: exponential, rate_per_hour: 0.3}, {kind: weibull, shape: 0.6, rate_per_hour: 0.3}"
    folder = a_sweep(tmp_path, CURVE.replace(ONE_FIELD, f"grid: {{failures: [{kinds}]}}"))
    (axis,) = report_data(folder).axes
    assert axis == SweepAxis(
        "failures", ("exponential, rate 0.3 per hour", "weibull, shape 0.6, rate 0.3 per hour"), (0, 1)
    )
    assert "hours" in charts(folder)[0]


# ---- charts --------------------------------------------------------------------------------------
def test_loss_charts_have_all_curves_in_the_figures_colours(sweep, drawn):
    assert list(drawn) == ["loss-time", "loss-iteration", "hours", "ledger", "usd"]
    found = loss_curves(results.load(sweep), "iteration")
    assert [(row["x"], row["loss"], row["low"]) for row in rows(drawn["loss-iteration"])] == [
        tuple(map(plain, row)) for row in found[["iteration", "loss_nats", "low_loss_nats"]].to_numpy()
    ]
    styles = report_data(sweep).styles
    assert [(style.label, style.colour) for style in styles] == [
        ("no failures", "#000000"), ("checkpointing", "#D55E00"), ("CheckFree", "#009E73")
    ]  # fmt: skip
    assert {row["group"] for row in rows(drawn["loss-time"])} == {0, 1, 2, 3, 4, 5}
    marks = drawn["loss-time"].spec["datasets"]["marks"]
    assert {row["strategy"] for row in marks} == {1, 2}  # who ignores failures has none


def test_means_stand_at_points_that_do_not_concern_a_strategy(grid):
    made, _ = charts(grid)
    found = [(row["strategy"], row["point"], row["places"]) for row in rows(made["hours"])]
    assert len(found) == 3 * 4
    assert (2, 1, ["50", "40"]) in found
    assert (2, 0, ["50", "10"]) in found
    source = report_data(grid)
    told = content(source, list(made.values()))
    assert told["points"][2] == {
        "label": "failure rate 90 % per hour, checkpoint interval 10 iterations",
        "places": [1, 0],
    }
    assert told["charts"][2]["datasets"]["rows"]["mean"] == [row["mean"] for row in rows(made["hours"])]
    assert told["charts"][2]["signals"] == ("strategies", "along", "axis")


@pytest.mark.parametrize(
    ("values", "numbers", "positions"),
    [
        (("5", "10", "15"), (5, 10, 15), [0, 0.5, 1]),
        (("2", "20", "200"), (2, 20, 200), [0, 0.5, 1]),  # by ratio, over a wide range
        (("30", "0", "10"), (30, 0, 10), [1, 0, 0.333333]),
        (("a", "b", "c"), (), [0, 0.5, 1]),
        (("a",), (), [0.5]),
    ],
)
def test_swept_numbers_have_a_numeric_axis(values, numbers, positions):
    axis = SweepAxis("x", values, tuple(range(len(values))), numbers)
    assert positions_of(axis) == positions
    apart = np.diff(sorted(positions)).min(initial=1.0)
    assert 5 * step_of(axis, 5) < apart / 2  # the strategies at a value stay apart from those at the next


def test_every_axis_of_a_grid_has_positions_and_a_title(grid):
    spec = charts(grid)[0]["hours"].spec
    x = spec["layer"][1]["encoding"]["x"]
    assert (x["type"], x["scale"]["domain"]) == ("quantitative", [-0.08, 1.08])
    assert '["50"]' in x["axis"]["labelExpr"]
    assert '["40"]' in x["axis"]["labelExpr"]
    titles = '["failure rate (% per hour)", "checkpoint interval (iterations)"][axis]'
    assert spec["title"]["text"] == {"expr": titles}


def test_charts_have_the_limits_and_sums_of_the_figures(sweep, drawn):
    source = FigureRequest.of(results.load(sweep))
    for kind, chart, layer in (("time_to_loss", "hours", 1), ("money_to_loss", "usd", 1), ("ledger", "ledger", 0)):
        axis, encoding = figure_kinds()[kind].draw(source).axes[0], drawn[chart].spec["layer"][layer]["encoding"]
        which, limits = ("x", axis.get_xlim()) if kind == "ledger" else ("y", axis.get_ylim())
        assert encoding[which]["scale"]["domain"] == pytest.approx(limits, rel=1e-5)
    runs = results.load(sweep).runs
    first = rows(drawn["ledger"])
    hours = sum(row["hours"] for row in first if row["group"] == 2)
    own = runs[(runs["strategy"] == "checkfree") & (runs["failures.rate_per_hour"] == 0.1)]
    assert hours == pytest.approx(own["wall_clock_seconds"].mean() / 3600, rel=1e-5)
    assert {name for name, _ in drawn["ledger"].fills} == {row["bucket"] for row in first}


def test_short_runs_have_three_digits_everywhere(tmp_path):
    folder = a_run(tmp_path, overrides=("training.steps=12",))
    made, _ = charts(folder)
    source = report_data(folder)
    hours = source.results.runs.query("strategy == 'checkpoint'")["wall_clock_seconds"].mean() / 3600
    assert 0.01 < hours < 1.0
    text = format_number(hours)
    assert len(text.replace(".", "").lstrip("0")) == 3
    assert text in {row["words"] for row in made["ledger"].spec["datasets"]["totals"]}
    own = next(cells for cells in comparison(source).cells if cells[0] == "checkpointing")
    assert text in {cell.partition(" ")[0] for cell in own}
    whole = ledger(source)
    assert whole is not None
    assert text in {cell for cells in whole.cells for cell in cells}
    for name, field in (("hours", "mean"), ("ledger", "hours"), ("loss-time", "x")):
        (digits,) = [column.digits for column in made[name].columns if column.field == field]
        assert digits >= decimals(hours)


def test_no_learner_or_a_single_run_gives_fewer_charts(tmp_path):
    made, left_out = charts(a_sweep(tmp_path, TIME_ONLY))
    assert list(made) == ["hours", "ledger"]
    assert [line.partition(":")[0] for line in left_out] == ["No chart of losses", "No chart of money"]
    folder = a_run(tmp_path / "one")
    one = next(path for path in sorted(folder.iterdir()) if path.name.startswith("checkfree"))
    made, _ = charts(one)
    assert list(made) == ["loss-time", "loss-iteration", "ledger"]
    assert made["loss-time"].signals == ("groups", "failures")


def test_nodes_are_drawn_where_they_come_and_go(tmp_path):
    made, _ = charts(a_run(tmp_path, REPLACED, ("failures.rate_per_hour=0.9",)))
    ordered = [layer["encoding"]["y"]["sort"] for layer in made["hours"].spec["layer"]]
    assert ordered == 2 * [{"field": "strategy", "op": "min"}]  # whatever is hidden and shown again
    found = [row["nodes"] for row in rows(made["nodes"]) if row["strategy"] == 2]
    assert found[0] == 4
    assert min(found) < 4
    y = made["nodes"].spec["layer"][0]["encoding"]["y"]
    assert y["scale"]["domain"][0] == 0
    assert y["axis"]["values"] == [0, 1, 2, 3, 4]


def test_long_curves_are_thinned_with_a_note(sweep, drawn):
    source = report_data(sweep)
    curves = loss_curves(source.results, "time")
    assert curves.groupby(["strategy", "failures.rate_per_hour"]).size().max() == 400
    assert "Thinned to about 200 points per curve." in drawn["loss-time"].caption
    assert "Thinned" not in drawn["loss-iteration"].caption
    gap = curves.iloc[:400].copy()
    gap.loc[gap.index[7], "loss_nats"] = None
    kept = thin(gap, source, 20).index
    assert {gap.index[0], gap.index[6], gap.index[7], gap.index[8], gap.index[-1]} <= set(kept)
    assert len(kept) <= 23


# ---- tables and words ----------------------------------------------------------------------------
def test_tables_say_what_the_statistics_say(sweep):
    source = report_data(sweep)
    table = comparison(source)
    assert [column.title for column in table.columns][:6] == [
        "strategy", "failure rate (% per hour)", "runs", "hours to loss 4.9", "% against no failures", "hours to end"
    ]  # fmt: skip
    assert [tuple(cells[:2]) for cells in table.cells[:4]] == [
        ("no failures", "any"), ("checkpointing", "10"), ("CheckFree", "10"), ("checkpointing", "30")
    ]  # fmt: skip
    assert [row.begins_group for row in table.rows] == [False, True, False, True, False]
    hours = source.results.runs.query("strategy == 'none'")["wall_clock_seconds"].mean() / 3600
    assert table.cells[0][5] == f"{hours:.2f}"
    assert table.cells[0][4] == ""
    whole = ledger(source)
    assert whole is not None
    assert float(whole.cells[0][2]) == pytest.approx(hours, abs=0.005)
    lost = failures(source).cells
    assert lost[0][3] == "-"
    assert int(lost[4][3]) == source.points[1].runs.query("strategy == 'checkfree'")["num_failures"].mean()


def test_only_equal_rows_without_failures_are_joined(sweep):
    source = report_data(sweep)
    names = ["no failures", "CheckFree"] * 2
    columns = Column("strategy", "left"), Column("at"), Column("value")
    alike = Table("", columns, tuple(Row((name, number // 2, "x")) for number, name in enumerate(names)))
    joined = without_repeats(alike, source)
    assert joined.cells == [["no failures", "any", "x"], ["CheckFree", "0", "x"], ["CheckFree", "1", "x"]]
    assert [row.begins_group for row in joined.rows] == [False, True, True]
    differing = Table("", columns, tuple(Row((name, number, number)) for number, name in enumerate(names)))
    assert without_repeats(differing, source).cells == differing.cells


# ---- the answer ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("hours", "marks", "verdict"),
    [
        ([(10.0, 20.0), (10.2, 20.4), (10.1, 20.1)], ["first", ""], "checkpointing"),
        ([(10.0, 20.0), (20.0, 11.0), (15.0, 14.0)], ["close", "close"], "too close to call"),
        ([(10.0, 20.0), (10.2, None), (10.1, 20.1)], ["", ""], "checkpointing alone"),
    ],
)
def test_the_answer_tints_the_first_and_names_ties(hours, marks, verdict, sweep):
    source = report_data(sweep)
    runs = source.results.runs.assign(num_failures=20, target_reached_num_failures=20)
    runs = runs[runs["strategy"] != "none"]
    parts = [runs[runs["failure_seed"] == 0].assign(failure_seed=seed, training_seed=seed) for seed in range(3)]
    for part, pair in zip(parts, hours, strict=True):
        values = dict(zip(("checkpoint", "checkfree"), pair, strict=True))
        seconds = part["strategy"].map(lambda name, values=values: (values[name] or float("nan")) * 3600)
        part["target_reached_seconds"] = seconds
    whole = replace(source, results=replace(source.results, runs=pd.concat(parts, ignore_index=True)))
    whole = replace(whole, parameters={name: source.parameters[name] for name in runs["run"]})
    found = answer(whole)
    assert found is not None
    assert found.headings == ("strategy", "failure rate 10 % per hour", "failure rate 30 % per hour")
    assert [cells[0].mark for _, cells in found.rows[:2]] == marks
    assert found.rows[-1][1][0].hours == verdict
    words = {"first": "first", "close": "too close", "": ""}
    missed = ["2 of 3 runs"] if None in (hour for pair in hours for hour in pair) else [words[marks[1]]]
    assert [found.rows[1][1][0].words] == missed


def test_the_answer_on_many_points_has_a_row_for_each(sweep, monkeypatch):
    monkeypatch.setattr("sim.reporting.html.answer.MOST_COLUMNS", 1)
    found = answer(report_data(sweep))
    assert found is not None
    assert found.headings == ("point", "No failures", "Checkpointing", "CheckFree", "first")
    assert [label for label, _ in found.rows] == ["failure rate 10 % per hour", "failure rate 30 % per hour"]
    assert found.rows[0][1][0].mark == "reference"


def test_digits_of_a_mean_end_with_those_of_its_interval():
    for mean, half_width, text in (
        (13.46, 0.61, ("13.5", "0.6")), (12.2, 17.8, ("12", "18")), (18.87, 0.04, ("18.9", "0.04")),
        (1.8301, 0.05, ("1.83", "0.05")), (5.0, float("nan"), ("5.00", "")), (5.0, 0.0, ("5.00", "")),
    ):  # fmt: skip
        assert mean_and_spread(mean, half_width) == text


def test_links_lead_from_the_page_to_the_runs(sweep):
    page = report_page(sweep, sweep.parent)
    names = [path.parent.name for path in sweep.glob("*/summary.json")]
    assert all(f'href="tiny/{name}/"' in page for name in names)
    one = next(path.parent for path in sweep.glob("*/summary.json"))
    assert '<a href="./">' in report_page(one)


def test_every_failure_of_a_run_is_listed(tmp_path):
    folder = a_run(tmp_path, overrides=("failures.rate_per_hour=0.9",))
    table = events(report_data(folder))
    assert table is not None
    found = results.load(folder).events
    assert sum(cells[4] == "failure" for cells in table.cells) == (found["kind"] == "failure").sum() > 0


def test_runs_of_an_earlier_scenario_are_left_out_with_a_note(tmp_path):
    a_run(tmp_path, overrides=("failures.rate_per_hour=0.8",))
    folder = a_run(tmp_path, overrides=("failures.rate_per_hour=0.9",))
    source = report_data(folder)
    assert (len(source.results.runs), source.num_left_out) == (3, 3)
    assert "3 older runs of another version of the scenario in this folder are left out." in page_of(source)["cautions"]


def test_what_went_wrong_stands_at_the_top(tmp_path):
    folder = a_sweep(tmp_path)
    table = pd.read_parquet(folder / "runs.parquet")
    table.loc[0, ["outcome", "error"]] = ["failed", "the disk is <full>"]
    table.loc[1, ["outcome", "stopped_because"]] = ["stopped", "no node came back"]
    table.loc[2, "num_fallbacks"] = 2
    table.loc[3, "version_source"] = "other"
    table.to_parquet(folder / "runs.parquet")
    page = page_of(report_data(folder))
    told = " ".join(page["cautions"])
    for words in (
        "1 run failed and is not in the numbers.",
        "1 run stopped before the end (checkpointing); means of finished runs leave them out: no node came back.",
        "nothing was trained (learner: curve)",
        "CheckFree could not recover 2 times in 1 run, when the fallback 'restart' took over",
        "of several versions of churnlab",
    ):
        assert words in told
    assert page["failed"].cells[0][1] == "the disk is <full>"


def test_the_scenario_on_the_page_is_the_sweep_once_more(grid, tmp_path):
    path = tmp_path / "again.yaml"
    path.write_text(page_of(report_data(grid))["scenario_text"])
    from sim.scenario.sweep_points import load_points

    points = load_points(path)
    assert [point.parameters["failures.rate_per_hour"] for point in points] == [0.5, 0.5, 0.9, 0.9]
    assert [point.parameters["strategies[checkpoint].interval_iterations"] for point in points] == [10, 40, 10, 40]
    assert points[0].scenario.seeds.failures == (0, 1)


# ---- the file ------------------------------------------------------------------------------------
def test_the_page_is_one_self_contained_file(sweep):
    page = report_page(sweep)
    assert page == report_page(sweep)
    assert len(page.encode()) < 1_300_000
    without_scripts = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    folders = [f"{path.parent.name}/" for path in sweep.glob("*/summary.json")]
    targets = re.findall(r"(?:src|href)=(\"[^\"]*\"|[^\"]*)", without_scripts)
    assert sorted(one.strip('"') for one in targets if not one.startswith('"#')) == sorted(folders)
    assert not re.search(r"@import|url\(", without_scripts)
    assert "default-src 'none'" in page
    assert "unsafe-eval" not in page
    assert vega_bundle() in page


def test_progress_counts_every_part_of_the_page(sweep):
    parts = {}

    @contextmanager
    def working(what, num_parts):
        parts[what] = [num_parts, 0]

        def part_done():
            parts[what][1] += 1

        yield part_done

    assert report_page(sweep, None, working) == report_page(sweep)
    assert {"runs read", "loss curves", "strips of runs"} < set(parts)
    assert all(num_parts == num_done for num_parts, num_done in parts.values())


def test_names_and_texts_of_users_cannot_become_markup(tmp_path):
    evil = '</script><script>alert("x")</script>'
    folder = a_sweep(tmp_path, f"description: '{evil}'\n{CURVE}")
    table = pd.read_parquet(folder / "runs.parquet")
    table["strategy"] = table["strategy"].replace({"checkfree": evil})
    table.to_parquet(folder / "runs.parquet")
    page = report_page(folder)
    assert evil not in page
    assert 'alert("x")' not in re.sub(r"&lt;.*?&gt;", "", page.replace("\\u003c", "&lt;").replace("\\u003e", "&gt;"))
    assert page.count("<script") == page.count("</script>") == 3
    assert "&lt;/script&gt;&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in page
    data = re.search(r'<script type="application/json" id="content">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert evil in json.loads(data[1])["labels"]
