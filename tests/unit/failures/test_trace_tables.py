"""Tables of churn are read whatever their columns are called; what does not fit is one message with its line."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.failures.history import History, fleet_counts, history_of_rows, node_seconds, rows_of_history
from sim.failures.trace_files import TraceFile, TraceFiles, read_files
from sim.failures.trace_formats import Churn, read_churn
from sim.failures.trace_tables import ColumnsConfig
from sim.failures.trace_text import TraceError
from support.examples import examples

MANY_FILES = settings(
    max_examples=examples(20, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ROWS = ((0.0, 1, 0, ()), (10.0, 1, 0, ()), (30.0, 0, 1, (0,)), (40.0, 1, 0, ()), (60.0, 0, 1, (1,)))
"""Node a from 0 to 30 and from 40 on, node b from 10 to 60 s, when the observation ends."""


@pytest.fixture
def read(tmp_path: Path):
    """Read a text, or lines of it, as a file of churn."""

    def reader(content: str | Iterable[str], **options: object) -> Churn:
        path = tmp_path / "table"
        path.write_text(content if isinstance(content, str) else "\n".join(content))
        return read_churn(path, **options)

    return reader


SAME = {
    "plain": "node,start,end\na,0,30\nb,10,60\na,40,\n",
    "without header": "a,0,30\nb,10,60\na,40,-\n",
    "other order and names": "stop;host;from\n30;a;0\n60;b;10\nnull;a;40\n",
    "whitespace": "# a comment\nmachine start end\n\na 0 30\nb 10 60\na 40 none\n",
    "tabs, quotes, extra columns": 'node\tprice\tstart\tend\n"a"\t3\t0\t30\nb\t\t10\t60\na\t2\t40\t\n',
    "milliseconds by header": "node,start_ms,end_ms\na,5000,35000\nb,15000,65000\na,45000,\n",
    "minutes by header": "node,start (min),end (min)\na,0,0.5\nb,0.16666666666666666,1\na,0.66666666666666666,\n",
    "ISO times": "node,start,end\na,2026-05-01T10:00:00,2026-05-01T10:00:30\n"
    "b,2026-05-01 10:00:10,2026-05-01 10:01:00\n"
    "a,2026-05-01T12:00:40+02:00,\n",
    "states": "node,start,end,state\na,0,30,1\na,30,40,0\nb,10,60,up\nb,60,60,down\na,40,60,1\n",
    "events": "time,node,event\n0,a,add\n10,b,ADD\n20,b,update\n30,a,remove\n40,a,add\n60,b,remove\n",
    "Google's codes": "timestamp,machine_id,event_type,platform\n0,a,0,x\n10,b,0,y\n30,a,1,x\n40,a,0,x\n60,b,1,x\n",
    "states over time": "time,node,state\n0,a,1\n5,a,1\n10,b,1\n30,a,0\n35,a,0\n40,a,1\n60,b,0\n",
    "events out of order": "time,node,event\n30,a,remove\n40,a,add\n60,b,remove\n0,a,add\n10,b,add\n",
    "JSON Lines": '[1000, "add", {"nodes": ["a"]}]\n[11000, "add", {"nodes": ["b"]}]\n'
    '[31000, "remove", {"nodes": ["a"]}]\n'
    '[41000, "add", {"nodes": ["a"]}]\n[61000, "remove", {"nodes": ["b"]}]\n',
    "Failure Trace Archive": "# event component node platform name up start stop reason\n"
    "0 1 7 1 a.b 1 100 130 NULL\n1 1 7 1 a.b 0 130 140 3\n2 1 8 1 c 1 110 160 NULL\n"
    "3 1 8 1 c 0 160 160 3\n4 1 7 1 a.b 1 140 160 NULL\n",
}


@pytest.mark.parametrize("content", SAME.values(), ids=SAME.keys())
def test_one_history_in_many_forms_is_read_alike(read, content):
    churn = read(content)
    assert [(round(row[0], 9), *row[1:]) for row in churn.rows] == list(ROWS)
    if churn.format not in ("parcae", "bamboo"):
        assert len(set(churn.history.node)) == 2
        assert churn.history.downtimes().round(9).tolist() == [10.0]


def test_headers_of_the_archive_are_read(read):
    header = "event_id\tcomponent_id\tnode_id\tplatform_id\tnode_name\tevent_type\tevent_start_time\tevent_stop_time\n"
    churn = read(header + "0\t1\t7\t2\ta\t1\t100\t130\n1\t1\t8\t2\tb\t1\t110\t140\n")
    assert churn.format == "fta"
    assert churn.history.regions == ("2",)
    assert churn.rows == ((0.0, 1, 0, ()), (10.0, 1, 0, ()), (30.0, 0, 1, (0,)), (40.0, 0, 1, (1,)))


@pytest.mark.parametrize("names", [{"node": "vm", "start": "t0", "end": "t1"}, {"node": 2, "start": 1, "end": 4}])
def test_columns_are_found_by_name_or_number(read, names):
    lines = ["t0,vm,x,t1", "0,a,q,30", "10,b,q,60", "40,a,q,"]
    columns = ColumnsConfig(**names)
    assert read(lines, columns=columns).rows == ROWS
    if names["node"] == 2:
        assert read(lines[1:], columns=columns).rows == ROWS


@pytest.mark.parametrize(("unit", "scale"), [("microseconds", 1e6), ("milliseconds", 1e3), ("hours", 1 / 3600)])
def test_units_of_numbers_can_be_given(read, unit, scale):
    lines = ["node,start,end", *(f"{node},{start * scale!r},{end * scale!r}" for node, start, end in [("a", 0, 30)])]
    assert read(lines, unit=unit).rows[-1][0] == pytest.approx(30.0)


def test_downtimes_alone_are_read_as_presences_between_them(read):
    churn = read("node,start,end,state\na,30,40,0\nb,0,10,0\nb,60,,0\nc,20,20,0\n")
    history = churn.history
    found = sorted(zip(history.node, history.start, history.end, history.is_lost, strict=True))
    assert [tuple(map(float, each)) for each in found] == [
        (0, 0, 30, 1),
        (0, 40, 60, 0),
        (1, 10, 60, 1),
        (2, 0, 20, 1),
        (2, 20, 60, 0),
    ]
    assert any("state down" in note for note in churn.notes)


def test_what_is_left_out_is_said(read):
    notes = read("node,start,end,price\na,0,30,1\nb,5,5,2\nc,,20,3\nd,9,,4\n").notes
    assert notes == (
        "columns that are not used: price",
        "1 line of no length left out",
        "1 line without end: no loss, the node was still there",
        "1 line without start: the node was there before, its age is not known",
    )
    notes = read("time,node,event\n0,x,update\n3,a,remove\n5,b,add\n9,d,add\n9,d,remove\n").notes
    assert notes == (
        "1 line without a change left out",
        "1 line of a node that left at the instant of its arrival left out",
        "1 node still present at the last event: no losses",
        "1 node present before the first event: the age is not known",
    )
    assert read("lifetime,censored\n5,0\n0,0\n7,1\n").notes == (
        "1 line of no length left out",
        "1 line censored: the node was not lost",
    )


def test_counts_are_the_points_of_a_step_plot(read):
    assert read("0,0\n600,0\n600,8\n5400,8\n5400,6\n9000,6\n9000,8\n14400,8\n").rows == (
        (0.0, 0, 0, ()),
        (600.0, 8, 0, ()),
        (5400.0, 0, 2, ()),
        (9000.0, 2, 0, ()),
        (14400.0, 0, 0, ()),
    )
    assert read("hours,count\n0,2\n1,1\n").rows == ((0.0, 2, 0, ()), (3600.0, 0, 1, ()))
    assert read("2021-12-11 11:00:00, 3\n2021-12-11 11:00:05, 1\n").rows == ((0.0, 3, 0, ()), (5.0, 0, 2, ()))


def test_lifetimes_and_failure_times_are_read(read):
    lifetimes = read("5,0\n3,1\n").lifetimes
    assert (lifetimes.seconds.tolist(), lifetimes.is_lost.tolist()) == ([5.0, 3.0], [True, False])
    assert read("uptime_hours\n2\n1\n").lifetimes.seconds.tolist() == [7200.0, 3600.0]
    assert read("4\n2\n", format="lifetimes").lifetimes.seconds.tolist() == [4.0, 2.0]
    assert read("4\n2\n", format="times").failures.tolist() == [2.0, 4.0]
    assert read("time\n4\n9\n").failures.tolist() == [4.0, 9.0]
    assert np.diff(read("2026-05-01T10:00:00\n2026-05-01T11:00:00\n").failures).tolist() == [3600.0]


HEADER = "node,start,end\n"
MALFORMED = [
    (HEADER, "line 1: a header without any line after it"),
    ("# nothing\n", "contains only comments; allowed: a table"),
    (HEADER + "a,0,1\nb,2\n", "line 3: found 2 columns; allowed: 3, as in the header"),
    (HEADER + "a,0,1\nb,2,3,4\n", "line 3: found 4 columns; allowed: 3, as in the header"),
    (HEADER + "a,0,1\n,2,3\n", "line 3: found an empty node; allowed: its name"),
    (HEADER + "a,0,1\nb,two,3\n", "line 3: found 'two' as the start; allowed: a number, or an ISO time such as"),
    (HEADER + "a,0,1\nb,2,2026-01-01\n", "line 3: found '2026-01-01' as the end"),
    (HEADER + "a,2026-01-01,2026-13-01\n", "line 2: found '2026-13-01' as the end"),
    (HEADER + "a,0,1\nb,3,2\n", "line 3: found the end '2' before the start '3'; allowed: after it"),
    (HEADER + "a,0,9\nb,0,1\na,5,12\n", "line 4: the interval of node 'a' overlaps that of line 2"),
    (HEADER + "a,,\n", "no line has a start or an end"),
    (HEADER + "a,5,5\n", "no line has an interval in which a node was there"),
    (HEADER + "a,0,1\nb,3e9,\n", "line 3: found 3e+09 s after the first instant; allowed: at most 1e+09 s"),
    (HEADER + 'a,0,1\n"b,2,3\n', "line 3: not a valid line of a table"),
    ("node,start,end,state\na,0,1,2\n", "line 2: found '2' as the state; allowed: 1, up or 0, down"),
    ("node,start\na,0\n", "line 1: found 'node,start', which is not the start of a trace; allowed: a table of node"),
    ("when,what\n0,x\n", "line 1: found 'when,what', which is not the start of a trace"),
    ("time,node,event\n0,a,add\n5,a,add\n", "line 3: node 'a' is added, but is present since line 2"),
    ("time,node,event\n0,a,add\n5,a,1\n6,a,1\n", "line 4: node 'a' is removed, but is not present"),
    ("time,node,event\n0,a,ad\n", "line 2: found 'ad' as the event; nearest: add; allowed: add, 0, remove"),
    ("time,node,event\n0,,add\n", "line 2: found an empty node; allowed: its name"),
    ("time,node,event\nx,a,add\n", "line 2: found 'x' as the time"),
    ("time,count\n0,1\n5,2.5\n", "line 3: found '2.5' as the count; allowed: a whole number from 0 to 100,000"),
    ("time,count\n0,1\n5,-1\n", "line 3: found '-1' as the count"),
    ("time,count\n5,1\n0,1\n", "line 3: time 0 after 5; allowed: times in ascending order"),
    ("0,1\n5,x\n", "line 2: found 'x' as the count"),
    ("lifetime\n5\n-1\n", "line 3: found '-1' as the lifetime; allowed: a number of at least 0"),
    ("lifetime,censored\n5,perhaps\n", "line 2: found 'perhaps' as the censored"),
    ("lifetime\n0\n", "no lifetime is above 0"),
    ("5\n3\n", "line 1: a list of numbers can be lifetimes or failure times; allowed: a header"),
    ('[0, "add", {"nodes": ["a"]}]\n[5, "ad", {}]', "line 2: found 'ad'; nearest: add; allowed: add, remove, no-op"),
    ('[0, "add", {"nodes": ["a"]}]\n[5, "add", {"nodes": 3}]', 'line 2: found \'[5, "add", {"nodes": 3}]\'; allowed'),
    ('[0, "add", {"nodes": ["a"]}]\nnonsense', "line 2: found 'nonsense', not valid JSON; allowed"),
    ('[9, "add", {"nodes": ["a"]}]\n[5, "add", {"nodes": ["b"]}]', "line 2: time 5 after 9"),
    ('[0, "remove", {"nodes": ["a"]}]', "line 1: node 'a' is removed, but was never added"),
]


@pytest.mark.parametrize(("content", "message"), MALFORMED)
def test_a_malformed_table_is_one_message_with_its_line(read, content, message):
    with pytest.raises(TraceError) as error:
        read(content)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_named_ones_complete_what_the_header_says(read):
    churn = read(["box,launched,preempted,type", "a,0,30,x", "b,10,60,x", "a,40,,x"], columns=ColumnsConfig(node="box"))
    assert churn.rows == ROWS
    assert set(churn.history.names) == {"a", "b"}
    assert "columns that are not used: type" in churn.notes


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"node": "hots", "start": "t0", "end": "t1"}, "no column 'hots'; nearest: host; allowed: host, t0, t1"),
        ({"node": 4, "start": 2, "end": 3}, "columns.node: found 4; allowed: the number of a column, 1 to 3"),
        ({"node": "host", "start": "t0"}, "found 'host,t0,t1', which is not the start of a trace"),
    ],
)
def test_columns_that_are_not_there_are_reported(read, columns, message):
    with pytest.raises(TraceError, match=message.replace("(", r"\(")):
        read("host,t0,t1\na,0,1\n", columns=ColumnsConfig(**columns))


def test_a_format_that_the_table_is_not_is_reported(read):
    with pytest.raises(TraceError, match="no column for node and event of events: found the columns time and count"):
        read("time,count\n0,1\n", format="events")


@given(st.text(alphabet='0123456789,.;-\t\n "{}[]:abcdnostrue#\\', max_size=80))
@MANY_FILES
def test_any_text_is_read_or_refused_in_one_line(tmp_path, text):
    (tmp_path / "x").write_text(text)
    assert "\n" not in refusal(tmp_path / "x")


def refusal(path: Path) -> str:
    """Why a file is refused; nothing if it is read."""
    try:
        churn = read_churn(path)
    except TraceError as error:
        return str(error)
    assert churn.rows or churn.lifetimes or len(churn.failures)
    return ""


# ---- laws ---------------------------------------------------------------------------------------------
@st.composite
def presences(draw) -> list[tuple[str, int, int | None]]:
    """Intervals of several nodes, one after another, of which the last may be open."""
    found: list[tuple[str, int, int | None]] = []
    for name in draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5, unique=True)):
        instants = sorted(draw(st.sets(st.integers(0, 10**6), min_size=2, max_size=8)))
        pairs = list(zip(instants[::2], instants[1::2], strict=False))
        found += [(name, start, end) for start, end in pairs]
        if len(instants) % 2:
            found.append((name, instants[-1], None))
    return found


@given(presences(), st.data())
@MANY_FILES
def test_order_and_form_of_intervals_change_nothing(tmp_path, intervals, data):
    path = tmp_path / "t.csv"
    path.write_text("node,start,end\n" + "\n".join(f"{n},{a},{'' if b is None else b}" for n, a, b in intervals))
    churn = read_churn(path)
    events = [(a, "add", n) for n, a, _ in intervals] + [(b, "remove", n) for n, _, b in intervals if b is not None]
    shuffled = data.draw(st.permutations(events))
    path.write_text("time,node,event\n" + "\n".join(f"{at},{n},{what}" for at, what, n in shuffled))
    try:
        other = read_churn(path)
    except TraceError:  # a node that leaves and comes at one instant, in the other order
        return
    assert [row[:3] for row in other.rows] == [row[:3] for row in churn.rows]
    assert presences_of(other.history) == presences_of(churn.history)  # numbers of nodes that come at once may differ
    assert node_seconds(churn.rows) == pytest.approx(churn.history.node_seconds)
    assert sum(row[2] for row in churn.rows) == churn.history.num_lost


def presences_of(history: History) -> list[tuple[str, float, float]]:
    """Node, start and end of each interval."""
    names = [history.names[node] for node in history.node]
    return sorted(zip(names, history.start.tolist(), history.end.tolist(), strict=True))


@given(presences())
@MANY_FILES
def test_rows_and_history_are_the_same(tmp_path, intervals):
    path = tmp_path / "t.csv"
    path.write_text("node,start,end\n" + "\n".join(f"{n},{a},{'' if b is None else b}" for n, a, b in intervals))
    churn = read_churn(path)
    again = history_of_rows(churn.rows, churn.history.node.tolist())
    if again is not None:
        assert rows_of_history(again) == churn.rows
        assert again.downtimes().tolist() == churn.history.downtimes().tolist()


# ---- several files ------------------------------------------------------------------------------------
def files(tmp_path: Path, contents: dict[str, str], **offsets: float) -> TraceFiles:
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    return TraceFiles(
        tuple(
            TraceFile(file=name, region=name.partition(".")[0], offset_hours=offsets.get(name.partition(".")[0], 0.0))
            for name in contents
        )
    )


def test_files_of_several_zones_are_one_trace(tmp_path):
    zone = json.dumps({"metadata": {"gap_seconds": 3600}, "data": [1, 0, 1]})
    trace = read_files(tmp_path, files(tmp_path, {"east.json": zone, "west.json": zone}, west=0.5))
    assert trace.history.regions == ("east", "west")
    assert trace.history.node.tolist() == [0, 1, 0, 1]
    assert trace.arrivals_as_text(needed=False) == "0 east\n1 west\n0 east\n1 west"
    assert list(zip(*fleet_counts(trace.rows), strict=True)) == [
        (0.0, 1),
        (1800.0, 2),
        (3600.0, 1),
        (5400.0, 0),
        (7200.0, 1),
        (9000.0, 2),
        (12600.0, 2),
    ]


def test_counts_of_several_zones_are_added(tmp_path):
    about = files(tmp_path, {"a.csv": "0,2\n10,1\n20,4\n", "b.csv": "0,3\n10,5\n"})
    assert read_files(tmp_path, about).rows == ((0.0, 5, 0, ()), (10.0, 2, 1, ()), (20.0, 3, 0, ()))


def test_files_that_name_and_count_are_not_mixed(tmp_path):
    about = files(tmp_path, {"a.csv": "node,start,end\nx,0,9\ny,0,5\n", "b.csv": "0,3\n10,5\n"})
    with pytest.raises(TraceError, match=r"'a.csv' names its nodes, but 'b.csv' has only counts"):
        read_files(tmp_path, about)


def test_lifetimes_are_not_replayed(tmp_path):
    with pytest.raises(
        TraceError, match=r"a.csv: lifetimes do not contain the nodes present at each time; `churnlab fit`"
    ):
        read_files(tmp_path, files(tmp_path, {"a.csv": "lifetime\n5\n"}))
