"""Churn traces are read as they are written, and replayed node by node; what is malformed is told in one line."""

import json
import os
from collections import Counter
from datetime import datetime, timedelta
from itertools import accumulate, combinations, islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from sim.core.units import to_ticks
from sim.failures import trace_formats, trace_text
from sim.failures.base import Member
from sim.failures.history import TraceRow, fleet_counts
from sim.failures.trace import TraceConfig, TraceFailures
from sim.failures.trace_formats import read_trace
from sim.failures.trace_rows import names_nodes, rows_of_text, text_of_rows
from sim.failures.trace_text import TraceError
from support.examples import examples

BAMBOO = Path(__file__).parents[3] / "scenarios" / "traces" / "bamboo_p3.csv"
END_SECONDS = 40_920.0
HOUR = 3600.0
MANY_FILES = settings(
    max_examples=examples(20, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NAMED = ((0.0, 3, 0, ()), (10.0, 1, 2, (0, 2)), (25.0, 2, 0, ()), (40.0, 1, 1, (3,)))  # 3, 2, 4, 4 nodes: 1, 4, 5, 6
COUNTED = ((0.0, 3, 0, ()), (10.0, 0, 2, ()), (25.0, 4, 0, ()), (40.0, 0, 3, ()))  # 3, 1, 5, 2 nodes


@pytest.fixture(scope="module")
def bamboo() -> tuple[TraceRow, ...]:
    return read_trace(BAMBOO)


def process(rows: tuple[TraceRow, ...], **options: object) -> TraceFailures:
    return TraceFailures(TraceConfig(rows=rows, **options))


def members(numbers) -> list[Member]:
    return [Member(number=number, region="local", stage=None) for number in numbers]


def played(failures: TraceFailures, num_strikes: int = 10**6, seed: int = 0):
    """A fleet that the process moves, as the event loop does: each strike's instant, who leaves, and who is there."""
    rng = np.random.default_rng(seed)
    num_arrived = failures.num_initial_nodes
    assert num_arrived is not None
    fleet, now, story = list(range(num_arrived)), 0.0, [(0.0, (), tuple(range(num_arrived)))]
    for index, uptime_seconds in enumerate(islice(failures.uptimes(rng, "cluster"), num_strikes)):
        now += to_ticks(uptime_seconds)
        gone = tuple(failures.lost_nodes(rng, members(fleet), index))
        assert len(set(gone)) == len(gone)
        for number in gone:
            fleet.remove(number)
        fleet += range(num_arrived, num_arrived + failures.arrivals(index))
        num_arrived += failures.arrivals(index)
        story.append((now, gone, tuple(fleet)))
    return story


def by_hand(rows, num_laps: int, offset_seconds: float = 0.0, time_scale: float = 1.0):
    """The same for traces with names, as a log kept by hand: who is there under which name of the trace."""
    end_seconds, num_start = rows[-1][0], rows[0][1]
    names = list(range(num_start))  # of the trace, in order of arrival
    numbers: list[int | None] = [None] * num_start  # in the fleet, beside
    story, num_arrived, begun = [], 0, False
    for lap in range(num_laps):
        num_named = num_start
        for row in (rows if lap == 0 else rows[1:]) if rows[1:] else rows:
            seconds, num_came, _, who_left = row
            if row is not rows[0]:
                gone = [number for name, number in zip(names, numbers, strict=True) if name in who_left]
                numbers = [number for name, number in zip(names, numbers, strict=True) if name not in who_left]
                names = [name for name in names if name not in who_left]
                names += range(num_named, num_named + num_came)
                numbers += [None] * num_came
                num_named += num_came
            if row is rows[-1] and row is not rows[0] and num_laps > 1:
                gone += [number for number in numbers[num_start:] if number is not None]
                numbers = (numbers + [None] * num_start)[:num_start]
                names = list(range(num_start))
            if not begun and (row is rows[-1] or rows[rows.index(row) + 1][0] > offset_seconds):
                begun, numbers = True, list(range(len(names)))
                story.append((0.0, set(), tuple(numbers)))
                num_arrived = len(names)
            elif begun:
                for index, number in enumerate(numbers):
                    if number is None:
                        numbers[index], num_arrived = num_arrived, num_arrived + 1
                instant = to_ticks((lap * end_seconds + seconds - offset_seconds) * time_scale)
                story.append((instant, set(gone), tuple(numbers)))
    return story


def without_idle(story):
    """Only instants at which somebody leaves or comes."""
    return [story[0], *(after for before, after in pairwise(story) if after[1] or after[2] != before[2])]


@st.composite
def named_traces(draw) -> tuple[TraceRow, ...]:
    """Rows with names, whose times are whole milliseconds."""
    present = list(range(draw(st.integers(1, 5))))
    rows, ms, num_arrived = [(0.0, len(present), 0, ())], 0, len(present)
    for _ in range(draw(st.integers(0, 8))):
        ms += draw(st.integers(1, 10**7))
        left = tuple(sorted(draw(st.sets(st.sampled_from(present), max_size=len(present))) if present else ()))
        num_came = draw(st.integers(0 if left else 1, 4))
        rows.append((ms / 1000.0, num_came, len(left), left))
        present = [node for node in present if node not in left] + list(range(num_arrived, num_arrived + num_came))
        num_arrived += num_came
    return tuple(rows)


counts = st.lists(st.integers(0, 6), min_size=2, max_size=12).filter(any)


@st.composite
def counted_traces(draw) -> tuple[TraceRow, ...]:
    """Rows of counts at instants of their own."""
    numbers = draw(counts)
    gaps = draw(st.lists(st.floats(1.0, 1e5), min_size=len(numbers) - 1, max_size=len(numbers) - 1))
    return rows_of(list(accumulate([0.0, *gaps])), numbers)


def rows_of(seconds, numbers) -> tuple[TraceRow, ...]:
    """Rows that say the same as counts at some instants."""
    changes = zip(seconds, [0, *numbers], numbers, strict=False)
    rows = [(float(at), max(0, after - before), max(0, before - after), ()) for at, before, after in changes]
    return tuple(row for i, row in enumerate(rows) if row[1] or row[2] or i in (0, len(rows) - 1))


# ---- the trace of Bamboo ----------------------------------------------------------------------------
def test_the_trace_of_bamboo_is_as_published_and_replayed(bamboo):
    instants, present = fleet_counts(bamboo)
    assert sum(row[1] for row in bamboo) == 177
    assert sum(row[2] for row in bamboo) == 167
    assert instants[0] == 0.0
    assert instants[-1] == END_SECONDS
    assert f"{END_SECONDS / HOUR:.2f}" == "11.37"
    assert max(present) == 32
    assert sum(row[2] > 0 for row in bamboo) == 79
    assert max(row[2] for row in bamboo) == 6
    node_hours = sum((after - at) * num for (at, after), num in zip(pairwise(instants), present, strict=False)) / HOUR
    assert round(167 / node_hours, 3) == 0.611
    assert BAMBOO.read_bytes().count(b"\r\n") == 344 == BAMBOO.read_bytes().count(b"\n")
    story = played(process(bamboo, loop=False))
    instants, present = fleet_counts(bamboo)
    assert [at for at, _, _ in story] == [to_ticks(at) for at in instants]
    assert [len(fleet) for _, _, fleet in story] == list(present)
    assert [set(gone) for _, gone, _ in story] == [set(row[3]) for row in bamboo]  # numbered alike, from the start


@pytest.mark.parametrize("time_scale", [1.0, 0.3, 7.7])
@pytest.mark.parametrize("offset_hours", [0.0, 5.0, 11.0])
def test_bamboos_trace_is_replayed_node_by_node_from_any_start(bamboo, time_scale, offset_hours):
    expected = by_hand(bamboo, 3, offset_hours * HOUR, time_scale)
    failures = process(bamboo, time_scale=time_scale, offset_hours=offset_hours)
    story = played(failures, len(expected) - 1)
    assert [(at, set(gone), fleet) for at, gone, fleet in story] == expected
    laps = [
        (at, len(fleet)) for at, _, fleet in story if at >= to_ticks((END_SECONDS - offset_hours * HOUR) * time_scale)
    ]
    assert laps[0][1] == bamboo[0][1]  # where it begins anew there are as many as at its start
    assert [num for _, num in laps[1:162]] == list(fleet_counts(bamboo)[1][1:-1])


def test_start_and_mean_of_a_replay_are_those_of_the_trace(bamboo):
    for hours in (0.0, 1.0, 4.5, 11.3):
        instants, present = fleet_counts(bamboo)
        there = [num for at, num in zip(instants, present, strict=True) if at <= hours * HOUR][-1]
        assert process(bamboo, offset_hours=hours).num_initial_nodes == there
    assert process(bamboo, loop=False).mean_uptime_seconds == END_SECONDS / 79
    assert process(bamboo, additions="ignore", time_scale=2.0).mean_uptime_seconds == 2 * END_SECONDS / 79
    assert process(((0.0, 2, 0, ()), (5.0, 1, 0, ()))).mean_uptime_seconds == float("inf")


def test_captions_say_what_is_replayed(bamboo):
    whole = process(bamboo, file="traces/bamboo_p3.csv")
    assert whole.describe() == "replay of 'bamboo_p3.csv' (177 arrivals, 167 losses in 11.37 h), repeated"
    options = {"time_scale": 2.0, "offset_hours": 1.5, "loop": False}
    numbers, how = "(177 arrivals, 167 losses in 11.37 h)", "its times × 2, from 1.5 h on"
    assert process(bamboo, **options, max_nodes=8).describe() == f"replay of a trace {numbers}, {how}, at most 8 nodes"
    assert process(bamboo, **options, additions="ignore").describe() == f"losses alone of a trace {numbers}, {how}"


# ---- replay -----------------------------------------------------------------------------------------
@given(named_traces().filter(names_nodes), st.floats(0.1, 9.0), st.floats(0.0, 0.99), st.integers(1, 4))
@settings(deadline=None)
def test_any_trace_with_names_is_replayed_node_by_node(rows, time_scale, part, num_laps):
    loop = num_laps > 1 and rows[-1][0] * time_scale > 1.0
    offset_hours = part * rows[-1][0] / HOUR
    failures = process(rows, time_scale=time_scale, offset_hours=offset_hours, loop=loop)
    expected = without_idle(by_hand(rows, num_laps if loop else 1, offset_hours * HOUR, time_scale))
    story = [(at, set(gone), fleet) for at, gone, fleet in played(failures, len(expected) - 1)]
    assert story == expected


@given(counted_traces(), st.floats(0.0, 0.99), st.integers(1, 9))
@settings(deadline=None)
def test_any_trace_of_counts_is_replayed_in_number(rows, part, max_nodes):
    instants, present = fleet_counts(rows)
    end, offset_hours = instants[-1], part * instants[-1] / HOUR
    capped = [min(num, max_nodes) for num in present]
    laps = list(zip(instants[:-1], capped, strict=False))
    timeline = [(lap * end + at - offset_hours * HOUR, num) for lap in range(3) for at, num in laps]
    failures = process(rows, offset_hours=offset_hours, max_nodes=max_nodes)
    story = played(failures, 3 * len(rows))
    for (at, _, fleet), (following, _, _) in pairwise([*story, (timeline[-1][0], (), ())]):
        inside = [num for seconds, num in timeline if at < to_ticks(seconds) < following]
        assert set(inside) <= {len(fleet)}  # nothing changes between two strikes
        now = [num for seconds, num in timeline if to_ticks(seconds) <= at]
        if at <= timeline[-1][0]:
            assert len(fleet) == now[-1]


def test_short_traces_are_replayed_within_the_capacity():
    begin = [(0.0, (), (0, 1, 2)), (10.0, (0, 2), (1, 3)), (25.0, (), (1, 3, 4, 5))]
    assert played(process(NAMED, loop=False)) == [*begin, (40.0, (3,), (1, 4, 5, 6))]
    again = played(process(NAMED), 6)
    assert again[:3] == begin
    # At 40 s one more is there than at the start: the one that comes then does not, and 1, 4, 5 go on as 0, 1, 2.
    assert again[3:] == [
        (40.0, (3,), (1, 4, 5)),
        (50.0, (1, 5), (4, 6)),
        (65.0, (), (4, 6, 7, 8)),
        (80.0, (6,), (4, 7, 8)),
    ]
    assert played(process(NAMED, loop=False, max_nodes=2)) == [
        (0.0, (), (0, 1)),
        (10.0, (0,), (1, 2)),  # of 0 and 2 only the first was taken; 3 comes
        (40.0, (2,), (1, 3)),  # 4 and 5 found it full; 6 comes
    ]
    story = played(process(COUNTED, loop=False, max_nodes=2))
    assert [(at, len(fleet)) for at, _, fleet in story] == [(0.0, 2), (10.0, 1), (25.0, 2)]


def test_repeated_traces_neither_drift_nor_slow_down():
    rows = ((0.0, 2, 0, ()), (0.1, 1, 0, ()), (1.1, 0, 1, (0,)))
    gaps = process(rows, time_scale=1 / 0.3).uptimes(np.random.default_rng(0), "cluster")
    instants = list(accumulate(to_ticks(gap) for gap in islice(gaps, 20_000)))
    assert instants[-1] == to_ticks(10_000 * 1.1 / 0.3)
    failures = process(NAMED)
    lap = 10**9
    assert [failures.arrivals(3 * lap + row) for row in range(3)] == [1, 2, 0]
    there = played(failures, 3 * 50)[-1][2]
    assert failures.lost_nodes(np.random.default_rng(0), members(there), 3 * 50) == [there[0], there[2]]
    assert failures.lost_nodes(np.random.default_rng(0), members(there), 3 * lap) == []  # others are there by then


def test_a_replay_ends_with_its_trace_or_begins_a_new_cycle():
    assert len(played(process(NAMED, loop=False))) == 4
    assert len(played(process(((0.0, 4, 0, ()),)))) == 1
    assert len(played(process(((0.0, 4, 0, ()), (50.0, 0, 0, ()))))) == 1
    assert len(played(process(((0.0, 4, 0, ()),), offset_hours=7.0))) == 1
    fewer = ((0.0, 3, 0, ()), (10.0, 0, 2, (0, 1)))
    assert played(process(fewer), 3) == [
        (0.0, (), (0, 1, 2)),
        (10.0, (0, 1), (2, 3, 4)),
        (20.0, (2, 3), (4, 5, 6)),
        (30.0, (4, 5), (6, 7, 8)),
    ]
    more = ((0.0, 1, 0, ()), (10.0, 3, 0, ()), (20.0, 0, 1, (1,)))
    assert played(process(more), 4) == [
        (0.0, (), (0,)),
        (10.0, (), (0, 1, 2, 3)),
        (20.0, (1, 2, 3), (0,)),
        (30.0, (), (0, 4, 5, 6)),
        (40.0, (4, 5, 6), (0,)),
    ]


def test_victims_of_counted_losses_are_uniform_members():
    numbers = [3, 8, 9, 12, 40]
    samples = [process(COUNTED).lost_nodes(np.random.default_rng(seed), members(numbers), 2) for seed in range(4000)]
    assert all(len(gone) == len(set(gone)) == 3 for gone in samples)
    triples = Counter(tuple(sorted(gone)) for gone in samples)
    assert set(triples) == set(combinations(numbers, 3))
    assert stats.chisquare(list(triples.values())).pvalue > 0.01
    rng = np.random.default_rng(0)
    assert process(NAMED).lost_nodes(rng, members([1, 2, 7]), 0) == [2]  # 0 is gone already, or at an immune stage
    assert sorted(process(COUNTED).lost_nodes(rng, members([5]), 0)) == [5]
    assert process(COUNTED).lost_nodes(rng, [], 0) == []


# ---- losses alone -----------------------------------------------------------------------------------
def test_with_additions_ignored_nodes_are_ordered(bamboo):
    failures = process(bamboo, additions="ignore")
    assert failures.num_initial_nodes is None
    assert not failures.supplies_nodes
    assert process(bamboo).supplies_nodes
    assert [failures.arrivals(index) for index in range(200)] == [0] * 200
    losing = [row[0] for row in bamboo if row[2]]
    instants = accumulate(islice(failures.uptimes(np.random.default_rng(0), "cluster"), 2 * len(losing)))
    assert list(instants) == [to_ticks(at) for at in [*losing, *(END_SECONDS + at for at in losing)]]


@pytest.mark.parametrize("num_members", [2, 5, 9])
def test_losses_scale_with_the_share_of_the_traces_fleet(num_members):
    """Hypergeometric: 4 of 9 nodes of the trace are lost, of which the first `num_members` are ours."""
    failures = process(((0.0, 9, 0, ()), (10.0, 0, 4, ()), (20.0, 0, 1, ())), additions="ignore")
    there = members(range(100, 100 + num_members))
    sizes = [len(failures.lost_nodes(np.random.default_rng(seed), there, 0)) for seed in range(4000)]
    law = stats.hypergeom(9, num_members, 4)
    support = np.arange(max(0, num_members - 5), min(4, num_members) + 1)
    observed = [sizes.count(size) for size in support]
    assert sum(observed) == 4000
    if len(support) > 1:
        assert stats.chisquare(observed, 4000 * law.pmf(support)).pvalue > 0.01


def test_a_larger_cluster_loses_the_same_share_of_any_nodes():
    """3 of 5 leave there: 12 of 20 here, and of 7 4.2, which is 4 or 5."""
    failures = process(COUNTED, additions="ignore")
    samples = [failures.lost_nodes(np.random.default_rng(seed), members(range(20)), 1) for seed in range(2000)]
    assert all(len(gone) == len(set(gone)) == 12 for gone in samples)
    assert stats.chisquare(np.bincount(np.concatenate(samples), minlength=20)).pvalue > 0.01
    sizes = [len(failures.lost_nodes(np.random.default_rng(seed), members(range(7)), 1)) for seed in range(2000)]
    assert set(sizes) == {4, 5}
    assert stats.binomtest(sizes.count(5), 2000, 0.2).pvalue > 0.01


def test_a_new_cycle_is_no_loss_with_additions_ignored():
    failures = process(((0.0, 1, 0, ()), (10.0, 3, 0, ()), (20.0, 0, 1, (1,))), additions="ignore")
    assert list(islice(failures.uptimes(np.random.default_rng(0), "cluster"), 3)) == [20.0, 20.0, 20.0]
    lost = [failures.lost_nodes(np.random.default_rng(0), members(range(8)), index) for index in range(3)]
    assert list(map(len, lost)) == [2, 2, 2]


# ---- reading ----------------------------------------------------------------------------------------
@given(named_traces(), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.sampled_from(["auto", "bamboo"]))
@MANY_FILES
def test_any_trace_of_bamboo_is_read_as_written(tmp_path, rows, newline, marked, format):
    free, names, lines, num_named, first_ms = [], {}, [], 0, 5_000
    for seconds, num_came, _, who_left in rows:
        ms = first_ms + round(seconds * 1000.0)
        for node in who_left:
            free.append(names.pop(node))
            lines.append(f"{ms},remove,{free[-1]}")
        for _ in range(num_came):
            names[num_named] = free.pop() if free else f"node-{num_named}"  # who comes back is a new arrival
            lines.append(f"{ms},add,{names[num_named]}")
            num_named += 1
    path = tmp_path / "trace.csv"
    path.write_text("\ufeff" * marked + newline.join(lines) + 2 * newline, encoding="utf-8", newline="")
    assert read_trace(path, format) == rows


@given(counts, st.data(), st.sampled_from(["auto", "google_counts"]))
@MANY_FILES
def test_google_cloud_traces_are_read_in_any_order(tmp_path, numbers, data, format):
    gaps = data.draw(st.lists(st.integers(1, 10**5), min_size=len(numbers) - 1, max_size=len(numbers) - 1))
    seconds = list(accumulate([0, *gaps]))
    begin = datetime(2021, 12, 31, 23, 59, 58)
    lines = [
        f"{begin + timedelta(seconds=at):%Y-%m-%d, %H:%M:%S}, {n}\n" for at, n in zip(seconds, numbers, strict=True)
    ]
    path = tmp_path / "trace.txt"
    path.write_text("".join(data.draw(st.permutations(lines))))
    assert read_trace(path, format) == rows_of(seconds, numbers)


@given(counts, st.floats(0.5, 1e4), st.sampled_from(["auto", "skypilot"]))
@MANY_FILES
def test_any_trace_of_skypilot_is_read_as_written(tmp_path, numbers, gap_seconds, format):
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"metadata": {"gap_seconds": gap_seconds}, "data": numbers, "prices": []}))
    seconds = [index * gap_seconds for index in range(len(numbers) + 1)]
    assert read_trace(path, format) == rows_of(seconds, [*numbers, numbers[-1]])


@given(st.lists(st.integers(0, 1), min_size=1, max_size=20))
@MANY_FILES
def test_the_other_polarity_reads_what_is_not_available(tmp_path, numbers):
    for name, written in (("a", numbers), ("b", [1 - number for number in numbers])):
        (tmp_path / name).write_text(json.dumps({"metadata": {"gap_seconds": 60}, "data": written}))
    assert read_trace(tmp_path / "a", polarity="preempted") == read_trace(tmp_path / "b", polarity="available")


def test_unusual_traces_are_read(tmp_path):
    lines = ["7,add,a", "7,remove,a", "9,add,b", "9,add,a", "9,remove,b", "9,add,c", "12,remove,a", "12,add,a"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    assert read_trace(tmp_path / "t.csv") == ((0.0, 0, 0, ()), (0.002, 2, 0, ()), (0.005, 1, 1, (0,)))
    lines = ["2021-12-11, 11:00:09, 5", "2021-12-11, 11:00:00, 3", "2021-12-11, 11:00:09, 2"]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    assert read_trace(tmp_path / "t.txt") == ((0.0, 3, 0, ()), (9.0, 0, 1, ()))
    (tmp_path / "t.csv").write_text("0,add,a\n10,add,b\n")
    assert read_trace(tmp_path / "t.csv") == ((0.0, 1, 0, ()), (0.01, 1, 0, ()))


def test_rows_are_read_from_the_file_and_round_trip(tmp_path, bamboo):
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "t.csv").write_bytes(BAMBOO.read_bytes())
    options, context = {"file": "traces/t.csv", "loop": False}, {"base_folder": tmp_path}
    config = TraceConfig.model_validate(options, context=context)
    assert config == TraceConfig(**options, rows=bamboo)
    assert TraceConfig.model_validate_json(config.model_dump_json(), context=context) == config  # plain data
    with pytest.raises(ValueError, match="1 validation error for TraceConfig\nformat"):
        TraceConfig.model_validate({**options, "format": "no such"}, context=context)
    with pytest.raises(ValueError, match="polarity 'preempted' requires format skypilot; found bamboo"):
        TraceConfig.model_validate({**options, "polarity": "preempted"}, context=context)
    named = TraceConfig(rows=bamboo, file="traces/bamboo_p3.csv")
    assert TraceConfig.model_validate_json(named.model_dump_json()) == named


@given(
    rows=st.lists(
        st.tuples(
            st.floats(0, 1e9), st.integers(0, 1000), st.integers(0, 1000), st.tuples() | st.tuples(st.integers(0))
        )
    )
)
def test_rows_as_text_are_the_same_rows(rows: list[TraceRow]) -> None:
    assert list(rows_of_text(text_of_rows(rows))) == rows


JSON = '{"metadata": {"gap_seconds": 60}, "data": %s}'
BEGINNINGS = (
    "allowed: a table of node,start,end; time,node,event; time,count or lifetime,censored, with a header of these "
    "names or with 'columns'; 'milliseconds,add or remove,node'; 'YYYY-MM-DD, HH:MM:SS, count'; or JSON"
)
COUNT = "a whole number from 0 to 100,000"
GAP = "seconds, a number above 0 and at most 1e+09"
MALFORMED = [
    ("", ": is empty"),
    ("\ufeff \r\n\r\n", ": is empty"),
    (b"0,add,a\n\xff\xfe", ", line 2: not text in UTF-8"),
    ("time,event,node\n0,add,a", ": no line has an interval in which a node was there"),
    ("when,who\n0,add", f", line 1: found 'when,who', which is not the start of a trace; {BEGINNINGS}"),
    ("\x00\x01", f", line 1: found '\\x00\\x01', which is not the start of a trace; {BEGINNINGS}"),
    # Bamboo
    ("0,add,a\n5,remove", ", line 2: found 2 columns; allowed: 3, 'milliseconds,add or remove,node'"),
    (
        "0\n",
        ", line 1: a list of numbers can be lifetimes or failure times; allowed: a header 'lifetime' or 'time', "
        "or format 'lifetimes' or 'times'",
    ),
    ("0,add,a\n\n5,add,b", ", line 2: found an empty line; allowed: 3, 'milliseconds,add or remove,node'"),
    ("0,add,a\n5,ad,b", ", line 2: found 'ad'; nearest: add; allowed: add, remove"),
    ("0,add,a\n5,REMOVE,a", ", line 2: found 'REMOVE'; nearest: remove; allowed: add, remove"),
    ("0,add,a\n5,+,b", ", line 2: found '+'; allowed: add, remove"),
    ("0,add,a\n5,add, ", ", line 2: the third column does not name a node"),
    ("0,add,a\n-5,add,b", ", line 2: found '-5' as the time; allowed: milliseconds, a number of at least 0"),
    ("0,add,a\nnan,add,b", ", line 2: found 'nan' as the time; allowed: milliseconds, a number of at least 0"),
    ("0,add,a\n1e999,add,b", ", line 2: found '1e999' as the time; allowed: milliseconds, a number of at least 0"),
    ("0,add,a\n1_0,add,b", ", line 2: found '1_0' as the time; allowed: milliseconds, a number of at least 0"),
    ("0,add,a\n,add,b", ", line 2: found '' as the time; allowed: milliseconds, a number of at least 0"),
    (
        "ms,add,node\n0,add,a",
        ", line 1: found 'ms' as the time; allowed: milliseconds, a number of at least 0; a header line is not",
    ),
    ("0,add,a\n9,add,b\n5.5,add,c", ", line 3: time 5.5 after 9 of line 2; allowed: times in ascending order"),
    ("0,add,a\n5,remove,b", ", line 2: node 'b' is removed, but was never added"),
    ("0,add,node1\n5,remove,node2", ", line 2: node 'node2' is removed, but was never added; nearest: node1"),
    ("0,add,a\n5,remove,a\n6,remove,a", ", line 3: node 'a' is removed, but left in line 2"),
    ("0,add,a\n5,add,b\n6,add,a", ", line 3: node 'a' is added, but has been present since line 1"),
    ("0,add,a\n0,add,a", ", line 2: node 'a' is added, but has been present since line 1"),
    (
        "0,add,a\n2e12,add,b",
        ", line 2: found 2e+09 s after the first instant; allowed: at most 1e+09 s, which is 31 years",
    ),
    # Google Cloud
    ("2021-12-11, 11:00:00, 3.5", f", line 1: found '3.5' as the count; allowed: {COUNT}"),
    ("2021-12-11, 11:00:00, -3", f", line 1: found '-3' as the count; allowed: {COUNT}"),
    ("2021-12-11, 11:00:00, 100001", f", line 1: found '100001' as the count; allowed: {COUNT}"),
    ("2021-12-11, 11:00:00, 3\n2021-12-11, 11:00:05,", f", line 2: found '' as the count; allowed: {COUNT}"),
    (
        "2021-12-11, 11:00:00, 3\n2021-12-11, 25:00:00, 3",
        ", line 2: found '2021-12-11, 25:00:00' as the time; allowed: 'YYYY-MM-DD, HH:MM:SS'",
    ),
    (
        "2021-12-11, 11:00:00, 3\n2091-12-11, 11:00:00, 3",
        ", line 2: found 2.21e+09 s after the first instant; allowed: at most 1e+09 s, which is 31 years",
    ),
    ("2021-12-11, 11:00:00, 3\n2021-12-11", ", line 2: found 1 column; allowed: 3, 'YYYY-MM-DD, HH:MM:SS, count'"),
    # SkyPilot
    ('{"data": [1]}', f": 'metadata.gap_seconds' is missing; allowed: {GAP}"),
    ('{"metadata": 5, "data": [1]}', f": 'metadata.gap_seconds' is missing; allowed: {GAP}"),
    ("[1, 0]", f": 'metadata.gap_seconds' is missing; allowed: {GAP}"),
    ('{"metadata": {"gap_seconds": 0}, "data": [1]}', f", metadata.gap_seconds: found 0; allowed: {GAP}"),
    ('{"metadata": {"gap_seconds": NaN}, "data": [1]}', f", metadata.gap_seconds: found nan; allowed: {GAP}"),
    ('{"metadata": {"gap_seconds": "60"}, "data": [1]}', f", metadata.gap_seconds: found '60'; allowed: {GAP}"),
    ('{"metadata": {"gap_seconds": true}, "data": [1]}', f", metadata.gap_seconds: found true; allowed: {GAP}"),
    ('{"metadata": {"gap_seconds": 60}}', ": 'data' is missing; allowed: a list of counts that is not empty"),
    (JSON % "[]", ", data: found an empty list; allowed: a list of counts that is not empty"),
    (JSON % "{}", ", data: found an empty mapping; allowed: a list of counts that is not empty"),
    (JSON % "[1, [2]]", f", data[1]: found a list of 1 entry; allowed: {COUNT}"),
    (JSON % "[1, 2.5]", f", data[1]: found 2.5; allowed: {COUNT}"),
    (JSON % "[1, true]", f", data[1]: found true; allowed: {COUNT}"),
    (JSON % "[null]", f", data[0]: found null; allowed: {COUNT}"),
    (JSON % "[1, -1]", f", data[1]: found -1; allowed: {COUNT}"),
    (JSON % "[1, 2", ", line 1: not valid JSON: expecting ',' delimiter"),
    ("[" * 100_000, ": not valid JSON: nested too deeply, or a number with too many digits"),
    (
        '{"metadata": {"gap_seconds": 1e9}, "data": [1, 1]}',
        ", data: found 2e+09 s after the first instant; allowed: at most 1e+09 s, which is 31 years",
    ),
]


@pytest.mark.parametrize(("content", "message"), MALFORMED)
def test_malformed_traces_are_reported_in_one_line(tmp_path, content, message):
    path = tmp_path / "trace.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TraceError) as error:
        read_trace(path)
    assert str(error.value) == f"{path}{message}"


@pytest.mark.parametrize(
    ("content", "format", "polarity", "message"),
    [
        ("0,add,a", "auto", "preempted", ": polarity 'preempted' requires format skypilot; found bamboo"),
        (JSON % "[1, 2]", "auto", "preempted", ", data[1]: found 2; allowed: 0 or 1 with polarity preempted"),
        ("0,add,a", "skypilot", "available", ", line 1: not valid JSON: extra data"),
        (
            "date, time, count\n2021-12-11, 11:00:00, 3",
            "google_counts",
            "available",
            ", line 1: found 'date, time' as the time; allowed: 'YYYY-MM-DD, HH:MM:SS'",
        ),
    ],
)
def test_traces_of_another_format_are_reported(tmp_path, content, format, polarity, message):
    (tmp_path / "t").write_text(content)
    with pytest.raises(TraceError) as error:
        read_trace(tmp_path / "t", format, polarity)
    assert str(error.value) == f"{tmp_path / 't'}{message}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bambo_p3.csv", ": no such file; nearest: bamboo_p3.csv"),
        ("nowhere/at/all", ": no such file"),
        ("", ": is a folder; allowed: a trace file"),
        ("pipe", ": is not a regular file, but a pipe or a device"),
        ("a\0b", ": cannot be read: embedded null byte"),
        ("x" * 999, ": cannot be read: file name too long"),
    ],
)
def test_an_unreadable_file_is_reported(tmp_path, name, message):
    (tmp_path / "bamboo_p3.csv").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TraceError) as error:
        read_trace(tmp_path / name)
    assert str(error.value) == f"{tmp_path / name}{message}"


def test_too_long_a_trace_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(trace_text, "MAX_ROWS", 1000)
    monkeypatch.setattr(trace_formats, "MAX_ROWS", 1000)
    path = tmp_path / "trace"
    path.write_text("".join(f"{ms},add,n{ms}\n" for ms in range(1001)))
    with pytest.raises(TraceError, match=r"trace, line 1001: a trace has at most 1,000 lines$"):
        read_trace(path)
    path.write_text(JSON % ([1] * 1001))
    with pytest.raises(TraceError, match=r"trace, data: found 1,001 entries; allowed: at most 1,000$"):
        read_trace(path)
    monkeypatch.setattr(trace_text, "MAX_BYTES", 2**20)
    path.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(TraceError, match=r"trace: is larger than 1 MB$"):
        read_trace(path)


# ---- options that cannot be -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": ()}, "a trace needs 'file' .which is read with the scenario. or 'rows'"),
        ({"rows": ((0.0, 0, 0, ()), (9.0, 0, 0, ()))}, "a trace without nodes"),
        ({"rows": NAMED, "offset_hours": 0.5}, "offset_hours 0.5 is after the end of the trace, 0.01111 h"),
        (
            {"rows": NAMED, "time_scale": 0.01},
            r"the trace lasts 0.4 s; a repeated trace \(loop\) must last at least 1 s",
        ),
        ({"rows": ((1.0, 3, 0, ()),)}, "row 0: a trace must begin at 0.0 s, and no node can leave then"),
        ({"rows": ((0.0, 3, 1, (0,)),)}, "row 0: a trace must begin at 0.0 s, and no node can leave then"),
        ({"rows": ((0.0, 3, 0, ()), (0.0, 1, 0, ()))}, "row 1: 0 s is not after 0 s of the previous row"),
        ({"rows": ((0.0, 1, 0, ()), (2.0, 0, 2, ()))}, "row 1: 2 nodes leave, but 1 are present"),
        ({"rows": ((0.0, 2, 0, ()), (2.0, 0, 2, (1,)))}, "row 1: 2 nodes leave, but 1 are named; name all or none"),
        (
            {"rows": ((0.0, 3, 0, ()), (2.0, 0, 1, (1,)), (3.0, 0, 1, (1,)))},
            r"row 2: of the leaving nodes \[1\], one is not present or named twice",
        ),
        (
            {"rows": ((0.0, 3, 0, ()), (2.0, 0, 2, (1, 1)))},
            r"row 1: of the leaving nodes \[1, 1\], one is not present or named twice",
        ),
        ({"rows": ((0.0, 1.5, 0, ()),)}, "valid integer"),
        ({"rows": "0.0 3 0\n2.0 0 one 1"}, "row 1: found '2.0 0 one 1'; allowed: seconds, nodes that arrive, nodes"),
        ({"rows": "0.0 3 0\n\n2.0 0 0"}, "row 1: found ''; allowed: seconds"),
        ({"rows": "0.0 3 0\nnan 0 0"}, "rows"),
        ({"rows": NAMED, "time_scale": 0.0}, "time_scale"),
        ({"rows": NAMED, "max_nodes": 0}, "max_nodes"),
        ({"rows": NAMED, "max_nodes": 2, "additions": "ignore"}, "max_nodes requires additions 'replay'"),
        ({"rows": NAMED, "additions": "replace"}, "additions"),
    ],
)
def test_options_that_prevent_a_replay_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TraceConfig(**options)
