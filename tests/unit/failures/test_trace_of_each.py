"""What a trace of one node or zone says of many: who is lost with whom, and how often per hour of presence."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sim.cluster.membership import node_seconds
from sim.failures.trace import TraceConfig, TraceFailures
from sim.failures.trace_formats import read_churn
from support.memberships import Log, a_cluster

HOUR = 3600.0
BAMBOO = Path(__file__).parents[3] / "scenarios" / "traces" / "bamboo_p3.csv"
HALF_THE_TIME = tuple((HOUR * i, int(i % 2 == 0), int(i % 2), ()) for i in range(48))
"""One node, there for an hour and away for an hour."""


def log_of(rows, cluster=None, hours: float = 100.0, seed: int = 0, **options) -> Log:
    failures = TraceFailures(TraceConfig(rows=rows, **options))
    return Log(failures, cluster or a_cluster(3, nodes_per_stage=2), seed).until(hours * HOUR)


def losses_per_hour(log: Log) -> float:
    """Of presence."""
    return sum(len(numbers) for _, numbers in log.lost) / (node_seconds(log.fleet.counts, log.env.now) / HOUR)


@pytest.mark.parametrize("additions", ["ignore", "replay"])
def test_nodes_that_follow_by_themselves_are_lost_one_by_one(additions):
    """There for an hour, away for an hour: one loss per node and hour of presence, not a half."""
    log = log_of(HALF_THE_TIME, additions=additions, nodes_follow="each")
    assert losses_per_hour(log) == pytest.approx(1.0, rel=0.02)
    at_once = Counter(len(numbers) for _, numbers in log.lost)
    assert at_once.keys() == {1}
    if additions == "replay":  # half of the nodes are away, and nobody is ordered
        counts = [count.num_nodes for count in log.fleet.counts]
        assert np.mean(counts) == pytest.approx(4.0, abs=0.6)
        assert log.fleet.num_arrived == 8


def test_nodes_that_follow_together_are_lost_per_hour_of_presence():
    log = log_of(HALF_THE_TIME, additions="ignore", nodes_follow="together")
    assert {len(numbers) for _, numbers in log.lost} == {8}
    assert losses_per_hour(log) == pytest.approx(1.0, rel=0.02)


def test_the_clock_of_losses_alone_stands_still_without_nodes():
    rows = ((0.0, 0, 0, ()), (5.0, 4, 0, ()), (20.0, 0, 2, ()), (30.0, 0, 2, ()), (90.0, 3, 0, ()), (100.0, 0, 3, ()))
    log = log_of(rows, a_cluster(3), hours=86.0 / HOUR, additions="ignore")
    assert [at for at, _ in log.lost] == [15.0, 25.0, 35.0, 50.0, 60.0, 70.0, 85.0]
    later = TraceConfig(rows=rows, additions="ignore", offset_hours=95.0 / HOUR)
    assert later.replayed_rows[1] == pytest.approx(30.0)
    assert TraceConfig(rows=rows, additions="ignore", offset_hours=50.0 / HOUR).replayed_rows[1] == pytest.approx(25.0)
    assert TraceConfig(rows=rows).replayed_rows == (rows, 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_each_node_is_lost_as_often_as_those_of_a_real_trace(seed):
    """167 losses in 273 h of presence, 0.61 an hour."""
    rows = read_churn(BAMBOO).rows
    log = log_of(rows, a_cluster(15, nodes_per_stage=4), hours=60, seed=seed, additions="ignore", nodes_follow="each")
    assert losses_per_hour(log) == pytest.approx(0.611, rel=0.08)


def test_a_node_follows_one_node_of_the_trace_and_its_absences():
    rows = ((0.0, 2, 0, ()), (10.0, 0, 1, (0,)), (40.0, 1, 0, ()), (100.0, 0, 0, ()))
    log = log_of(rows, a_cluster(0), hours=1000 / HOUR, nodes_follow="each", arrivals="0\n1\n0")
    lost = [at for at, _ in log.lost]
    came = [at for at, _, _ in log.arrivals]
    if lost:  # it follows node 0 of the trace, which is away from 10 to 40 s
        assert {round(then - at, 6) for at, then in pairwise(lost)} == {100.0}
        assert [round(then - at, 6) for at, then in zip(lost, came, strict=False)] == [30.0] * len(came)
    followed = [
        bool(log_of(rows, a_cluster(0), 1000 / HOUR, seed, nodes_follow="each", arrivals="0\n1\n0").lost)
        for seed in range(60)
    ]
    assert 0.25 < np.mean(followed) < 0.6  # 70 of 170 s of presence


def test_nodes_arrive_in_the_regions_of_the_trace():
    rows = ((0.0, 2, 0, ()), (10.0, 0, 1, (0,)), (40.0, 1, 0, ()), (60.0, 1, 0, ()))
    options = {"loop": False, "arrivals": "0 east\n1 west\n2 east\n3 west", "regions": (("east", "a"), ("west", "b"))}
    log = log_of(rows, a_cluster(3, ("a", "b")), hours=1, **options)
    assert [log.fleet.nodes[number].region for number in (1, 2, 3)] == ["b", "a", "b"]
    slots = [log.fleet.nodes[number].slot for number in (1, 2, 3)]
    assert [log.fleet.cluster.regions_of_nodes[slot] for slot in slots] == ["b", "a", "b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rows": ((0.0, 3, 0, ()), (9.0, 0, 1, ()))},
            "each' needs a trace that names its nodes, or one of a single node",
        ),
        ({"rows": HALF_THE_TIME, "loop": False}, "loop requires nodes_follow 'together'"),
        ({"rows": HALF_THE_TIME, "max_nodes": 1}, "max_nodes requires nodes_follow 'together'"),
        ({"rows": HALF_THE_TIME, "offset_hours": 1.0}, "offset_hours requires nodes_follow 'together'"),
        ({"rows": HALF_THE_TIME, "file": "a", "files": ({"file": "b"},)}, "file and files are both given"),
        ({"rows": HALF_THE_TIME, "arrivals": "a b"}, "arrivals: allowed: lines with a number and a region"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TraceConfig(**{"nodes_follow": "each", **options})


def test_later_fields_at_their_defaults_are_not_stored():
    stored = TraceConfig(rows=HALF_THE_TIME).model_dump(mode="json")
    assert stored.keys() == {
        *("kind", "immune_stages", "notice_seconds", "name", "description", "source", "file", "format", "polarity"),
        *("rows", "time_scale", "offset_hours", "loop", "max_nodes", "additions"),
    }
