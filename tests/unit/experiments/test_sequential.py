"""Replicates until intervals are small enough: who gets how many, what is said of the rest; and the table of means."""

import pandas as pd
import pytest
from rich.console import Console

from sim.experiments.sequential import parse_share, seeds_wanted, too_wide
from sim.reporting.tables import groups_in_order, summary_table, swept_columns
from sim.reporting.words import format_value
from sim.results.statistics import points_of, summary


def runs_of(rows: list[tuple[str, float, int, int, float]]) -> pd.DataFrame:
    """Runs by strategy, swept value, point, failure seed and seconds."""
    columns = ["strategy", "cluster.x", "point", "failure_seed", "wall_clock_seconds"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(training_seed=0, outcome="finished", target_reached_seconds=float("nan"))


WIDE, TIGHT = (10.0, 20.0, 30.0), (10.0, 10.1, 10.2)


def wanted(rows, share=0.05, num_seeds=(3, 3), most=100, metric="wall_clock_seconds"):
    return seeds_wanted(points_of(runs_of(rows), ["cluster.x"]), metric, share, num_seeds, most)


def at(strategy: str, value: float, point: int, seconds) -> list[tuple[str, float, int, int, float]]:
    return [(strategy, value, point, seed, one) for seed, one in enumerate(seconds)]


def test_wide_intervals_get_more_seeds_at_most_doubling():
    rows = at("a", 1.0, 0, WIDE) + at("a", 2.0, 1, TIGHT)
    assert wanted(rows) == {0: 3}
    assert wanted(rows, most=4) == {0: 1}
    assert wanted(rows, most=3) == {}
    assert wanted(rows, share=0.9999) == {0: 1}
    shared = [("b", float("nan"), 0 if seed < 3 else 1, seed, 10.0 + 9 * (seed % 2)) for seed in range(20)]
    assert wanted(shared, num_seeds=(3, 20)) == {1: 20}
    rows = at("a", 1.0, 0, WIDE)
    assert wanted(rows, metric="target_reached_seconds") == {}
    assert wanted(rows, metric="not_there") == {}
    groups = points_of(runs_of(rows), ["cluster.x"])
    assert too_wide(groups, "target_reached_seconds", 0.05) == [
        "a at cluster.x=1.0, target_reached_seconds: no run has a value"
    ]


def test_intervals_that_stay_wide_are_reported_with_the_reason():
    rows = at("a", 1.0, 0, WIDE) + at("a", 2.0, 1, TIGHT) + at("b", 1.0, 0, (5.0, float("nan")))
    lines = too_wide(points_of(runs_of(rows), ["cluster.x"]), "wall_clock_seconds", 0.05)
    assert lines == [
        "a at cluster.x=1.0, wall_clock_seconds: still ± 124.2% with 3 failure seeds (--max-replicates)",
        "b at cluster.x=1.0, wall_clock_seconds: one run alone has a value",
    ]
    frame = runs_of(at("a", 1.0, 0, (5.0, 5.0))).assign(failure_seed=0, training_seed=[0, 1])
    assert too_wide(points_of(frame, ["cluster.x"]), "wall_clock_seconds", 0.05) == [
        "a at cluster.x=1.0, wall_clock_seconds: "
        "its runs have one failure seed alone, and training seeds make no difference"
    ]


def test_shares_of_the_mean_lie_between_0_and_1():
    assert [parse_share(text) for text in ("5%", "0.05", " 5 % ")] == [0.05] * 3
    for text in ("", "0", "100%", "-1%", "1.5", "nan", "five"):
        with pytest.raises(ValueError, match="give a share of the mean between 0 and 1"):
            parse_share(text)


def shown(frame: pd.DataFrame, reference: str | None = "none") -> list[list[str]]:
    found = summary(frame, ["cluster.x"], reference=reference)
    table = summary_table("demo", found, ["cluster.x"], reference)
    assert Console(width=120).render_str(table.title).plain.startswith("demo: means")
    return [[column.title for column in table.columns], *table.cells]


def test_the_table_has_means_intervals_and_paired_differences():
    hour = 3600.0
    rows = at("none", 1.0, 0, [10 * hour] * 3) + at("none", 2.0, 1, [10 * hour] * 3)
    rows += at("mine", 1.0, 0, [11 * hour, 12 * hour, 13 * hour]) + at("mine", 2.0, 1, [20 * hour] * 3)
    heading, *table = shown(runs_of(rows))
    assert heading == ["strategy", "x", "runs", "hours to end", "% against no failures"]
    assert table == [
        ["no failures", "1", "3", "10.0", ""],
        ["mine", "1", "3", "12.0 ± 2.5", "+20 (-5, +45)"],
        ["no failures", "2", "3", "10.0", ""],
        ["mine", "2", "3", "20.0", "+100"],
    ]


def test_the_table_says_how_many_runs_reached_a_loss():
    frame = runs_of(at("none", 1.0, 0, WIDE)).assign(target_reached_seconds=[7200.0, 7200.0, float("nan")])
    heading, row = shown(frame)
    assert heading[5:] == ["hours to target loss", "% against no failures"]
    assert row[5] == "2.00 (2/3)"
    heading, _ = shown(runs_of(at("mine", 1.0, 0, WIDE)), None)
    assert heading == ["strategy", "x", "runs", "hours to end"]


def test_swept_values_and_headings_are_distinguished():
    values = [40.0, 1234567.0, 1234568.0, 0.12345678, 5, "a", float("nan")]
    assert list(map(format_value, values)) == ["40", "1234567", "1234568", "0.12345678", "5", "a", ""]
    section = '{"kind": "weibull", "shape": 0.6, "downtime": {"mean_hours": 1}, "file": "traces/a.csv"}'
    assert format_value(section) == "weibull, shape 0.6, mean downtime 1 hour, a.csv"
    columns = swept_columns(["failures.rate_per_hour", "cluster.x"])
    assert [" ".join(column.title.split()) for column in columns] == ["failure rate (% per hour)", "x"]
    assert [column.title for column in swept_columns(["a.x", "b.x"])] == ["a.x", "b.x"]


def test_what_concerns_no_point_comes_first():
    rows = at("none", float("nan"), 0, WIDE) + at("mine", 2.0, 0, WIDE) + at("mine", 1.0, 1, WIDE)
    groups = groups_in_order(summary(runs_of(rows), ["cluster.x"]), ["cluster.x"])
    assert [(group["strategy"].iloc[0], str(group["cluster.x"].iloc[0])) for group in groups] == [
        ("none", "nan"),
        ("mine", "2.0"),
        ("mine", "1.0"),
    ]
