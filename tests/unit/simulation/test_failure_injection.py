"""When nodes leave and come: failure processes on the event loop, orders, notices and returns."""

import math
from typing import Any

import numpy as np
import pytest

from sim.cluster.membership import node_seconds
from sim.cluster.topology import Cluster
from sim.core.rng import stream
from sim.failures.base import RatedConfig
from sim.failures.renewal import ExponentialConfig, ExponentialFailures, WeibullConfig, WeibullFailures
from support.failure_processes import Loss, Losses, LossesConfig, ScriptedConfig, ScriptedFailures
from support.memberships import Log, a_cluster, seated


def scripted(uptimes: dict[Any, tuple[float, ...]], cluster: Cluster | None = None, **options: Any) -> Log:
    """Stages (or other domains) fail by script."""
    return Log(ScriptedFailures(ScriptedConfig(uptimes=uptimes, **options)), cluster or a_cluster())


def leaving(*losses: Loss, cluster: Cluster, **options: Any) -> Log:
    """Any nodes leave by script."""
    return Log(Losses(LossesConfig(losses=losses, **options)), cluster)


def test_a_stage_fails_whole_and_uptimes_count_between_failures():
    cluster = a_cluster(nodes_per_stage=2, provisioning_seconds=30.0)
    log = scripted({1: (10.0, 20.0, 15.0)}, cluster).until(100.0)
    assert log.lost == [(10.0, (2, 3)), (45.0, (6, 7))]  # at 30 s nobody was there
    assert log.arrivals == [(40.0, 6, 2), (40.0, 7, 3), (75.0, 8, 2), (75.0, 9, 3)]


def test_spares_fill_vacant_slots_after_observers_saw_them():
    log = scripted({1: (10.0,)}, a_cluster(num_spares=1, provisioning_seconds=30.0))
    log.until(11.0)
    assert log.at_losses == [[0, None, 2]]
    assert seated(log.fleet) == [0, 3, 2]
    log.until(50.0)
    assert log.arrivals == [(40.0, 4, None)]  # it is the spare now
    log = scripted({1: (10.0, 0.0, 0.0), 2: (10.0,)}).until(20.0)
    assert log.lost == [(10.0, (1,)), (10.0, (2,)), (10.0, (3,)), (10.0, (5,))]
    assert log.at_losses == [[0, None, 2], [0, 3, None], [0, None, 4], [0, None, 4]]
    assert seated(log.fleet) == [0, 6, 4]
    assert log.strikes.num_awaited == 0


def test_a_failure_takes_a_region_or_the_chosen_nodes_and_spares():
    cluster = a_cluster(3, ("a", "b"), num_spares=2, provisioning_seconds=100.0)  # places a b a b, spares a b
    log = scripted({"b": (10.0,), "a": (500.0,)}, cluster, scope="region").until(50.0)
    assert log.lost == [(10.0, (1, 3, 5))]
    assert seated(log.fleet) == [0, 4, 2, None]
    log.until(200.0)
    assert log.arrivals == [(110.0, 6, 3), (110.0, 7, None), (110.0, 8, None)]
    assert [log.fleet.nodes[number].region for number in (6, 7, 8)] == ["b", "b", "b"]
    cluster = a_cluster(nodes_per_stage=2, num_spares=1, provisioning_seconds=1e3)
    log = leaving(Loss(5.0, ((0, None), (2, 1), (-1, None))), Loss(5.0, ((None, None),)), cluster=cluster).until(50.0)
    assert log.lost == [(5.0, (0, 1, 5, 6)), (10.0, (2, 3, 4))]


@pytest.mark.parametrize("scope", ["node", "stage", "region", "cluster"])
def test_stages_that_are_immune_are_spared_whatever_fails_as_one(scope):
    domains = {"node": range(6), "stage": range(3), "region": ("a",), "cluster": ("cluster",)}[scope]
    script = dict.fromkeys(domains, (10.0, 10.0))
    cluster = a_cluster(nodes_per_stage=2, provisioning_seconds=1e3)
    log = scripted(script, cluster, scope=scope, immune_stages=(1,)).until(50.0)
    assert sorted(number for _, numbers in log.lost for number in numbers) == [0, 1, 4, 5]
    assert seated(log.fleet) == [None, None, 2, 3, None, None]


def test_a_leaving_spare_stays_once_its_stage_is_immune():
    cluster = a_cluster(num_spares=1, provisioning_seconds=1e3)
    to_leave = LossesConfig(losses=(Loss(20.0, ((-1, None),)),), notice_seconds=10.0, immune_stages=(1,))
    log = leaving(Loss(15.0, ((1, None),)), cluster=cluster, beside=(to_leave,)).until(50.0)
    assert log.lost == [(15.0, (1,))]
    assert seated(log.fleet) == [0, 3, 2]


def test_nodes_age_alone_and_return_as_good_as_new():
    uptimes = {0: (100.0,), 1: (30.0, 1.0), 2: (1e3,), 3: (25.0,), 4: (1e3,)}
    log = scripted(uptimes, a_cluster(provisioning_seconds=20.0), scope="node").until(200.0)
    assert log.lost == [(30.0, (1,)), (75.0, (3,)), (100.0, (0,))]  # node 3 came at 50 s
    assert log.arrivals == [(50.0, 3, 1), (95.0, 4, 1), (120.0, 5, 0)]
    log = scripted({2: (40.0,), 3: (10.0,)}, a_cluster(1, num_spares=2, provisioning_seconds=20.0), scope="node")
    log.until(100.0)
    assert log.lost == [(10.0, (3,)), (40.0, (2,))]
    assert log.arrivals == [(30.0, 4, None), (60.0, 5, None)]
    # Also when another process had taken it.
    cluster = a_cluster(provisioning_seconds=1e6)
    by_node = ScriptedConfig(uptimes={1: (30.0, 50.0)}, scope="node", away_seconds=7.0)

    class Both(Losses):
        parts = (
            ("losses", Losses(LossesConfig(losses=(Loss(20.0, ((1, None),), 5.0),)))),
            ("scripted", ScriptedFailures(by_node)),
        )

    log = Log(Both(LossesConfig()), cluster).until(200.0)
    assert log.lost == [(20.0, (1,)), (75.0, (1,))]  # not at 30 s: it came back at 25 s, and its next life is 50 s
    assert log.arrivals == [(25.0, 1, 1), (82.0, 1, 1)]


def test_each_node_and_process_draws_from_a_stream_of_its_own():
    config = WeibullConfig(mean_uptime_hours=1.0, shape=3.0, scope="node")
    cluster = a_cluster(num_spares=2, nodes_per_stage=2, provisioning_seconds=600.0)
    log = Log(WeibullFailures(config), cluster, seed=8).until(10 * 3600.0)
    assert len(log.lost) > 50
    came = {**dict.fromkeys(range(8), 0.0), **{number: seconds for seconds, number, _ in log.arrivals}}
    for seconds, (number,) in log.lost:
        rng = stream(8, "failures", process="weibull", domain=f"node {number}")
        assert seconds - came[number] == pytest.approx(next(WeibullFailures(config).uptimes(rng, number)), abs=1e-6)
    part = ExponentialFailures(ExponentialConfig(mean_uptime_hours=1.0))

    class Twice(Losses):
        parts = (("first", part), ("second", part))

    log = Log(Twice(LossesConfig()), a_cluster(1), seed=5).until(1e5)
    expected = []
    for name in ("first", "second"):
        for stage in (0, 1):
            draws = stream(5, "failures", process=name, domain=stage).standard_exponential(200).cumsum() * 3600.0
            expected += [seconds for seconds in draws if seconds < 1e5]
    assert [seconds for seconds, _ in log.lost] == pytest.approx(sorted(expected), abs=1e-5)
    assert isinstance(part.config, RatedConfig)


def test_a_node_has_one_life_at_a_time_also_where_immune():
    uptimes = {1: (30.0, 50.0, 20.0, 1e3)}
    log = scripted(uptimes, scope="node", away_seconds=10.0).until(500.0)
    assert [seconds for seconds, _ in log.lost] == [30.0, 90.0, 120.0]
    log = scripted({1: (10.0, 30.0)}, scope="node", immune_stages=(1,)).until(100.0)
    assert log.lost == []


def test_losses_at_a_constant_rate_are_proportional_to_node_time():
    config = ExponentialConfig(mean_uptime_hours=1.0, scope="node")
    cluster = a_cluster(4, num_spares=5, nodes_per_stage=3, provisioning_seconds=1800.0)
    log = Log(ExponentialFailures(config), cluster).until(100 * 3600.0)
    node_hours = node_seconds(log.fleet.counts, log.env.now) / 3600.0
    assert len(log.lost) > 1000
    assert abs(len(log.lost) - node_hours) < 4 * math.sqrt(node_hours)
    assert node_hours / 100 == pytest.approx(20 / 1.5, rel=0.04)  # up an hour, replaced after half an hour


def provisioning_seconds(*lost_nodes: int, seed: int = 0, **cluster: Any) -> dict[int, float]:
    """How long each lost node's replacement takes: those of one instant, by the places that they take."""
    shape = a_cluster(2, nodes_per_stage=20, provisioning_seconds=100.0, provisioning_sigma=1.0, **cluster)
    who = tuple((place // 20, place % 20) for place in lost_nodes)
    log = Log(Losses(LossesConfig(losses=(Loss(5.0, who),))), shape, seed)
    log.until(1e6)
    return {number: seconds - 5.0 for seconds, number, _ in log.arrivals}


def test_provisioning_scatters_around_its_mean_by_own_streams():
    seconds = np.array([s for seed in range(25) for s in provisioning_seconds(*range(1, 60), seed=seed).values()])
    assert len(seconds) == 1475
    assert abs(seconds.mean() - 100.0) < 4 * seconds.std() / math.sqrt(len(seconds))
    assert np.log(seconds).std() == pytest.approx(1.0, rel=0.05)
    alone, among = (sorted(provisioning_seconds(*lost_nodes).values()) for lost_nodes in ((17,), (3, 17, 45)))
    assert alone[0] in among
    draw = math.exp(float(stream(0, "provisioning", node=17).standard_normal()) - 0.5)
    assert alone == [pytest.approx(100.0 * draw, abs=1e-7)]


def test_a_replacement_comes_in_time_and_in_the_slots_region():
    log = scripted({1: (10.0,), 2: (20.0,)}, a_cluster(provisioning_seconds=30.0))
    awaited = [log.until(seconds).strikes.num_awaited for seconds in (9.0, 11.0, 21.0, 41.0, 51.0)]
    assert awaited == [0, 1, 2, 1, 0]
    cluster = a_cluster(1, ("a", "b"), num_spares=1, provisioning_seconds=5.0)  # the spare is in region a
    log = leaving(Loss(10.0, ((1, None),)), Loss(20.0, ((1, None),)), cluster=cluster).until(100.0)
    assert log.lost == [(10.0, (1,)), (30.0, (2,))]
    assert log.arrivals == [(15.0, 3, None), (35.0, 4, None)]
    assert log.fleet.nodes[4].region == "b"


def test_a_replacement_is_ordered_at_the_notice_and_once():
    cluster = a_cluster(provisioning_seconds=40.0)
    log = scripted({1: (100.0,)}, cluster, notice_seconds=30.0).until(300.0)
    assert (log.notices, log.lost, log.announced) == ([(70.0, (1,))], [(100.0, (1,))], [True])
    assert log.arrivals == [(110.0, 3, 1)]
    log = scripted({1: (100.0,)}, a_cluster(provisioning_seconds=10.0), notice_seconds=30.0).until(300.0)
    assert log.arrivals == [(80.0, 3, None)]
    assert seated(log.fleet) == [0, 3, 2]
    assert log.fleet.nodes[3].assigned_seconds == 100.0
    assert scripted({1: (100.0,)}).until(300.0).announced == [False]


def test_notices_are_cut_to_uptimes_and_order_nodes_once():
    log = scripted({1: (20.0, 5.0)}, notice_seconds=30.0).until(300.0)
    assert [seconds for seconds, _ in log.notices] == [0.0, 20.0]
    assert [seconds for seconds, _ in log.lost] == [20.0, 25.0]
    to_leave = LossesConfig(losses=(Loss(50.0, ((1, None), (2, None))),), notice_seconds=30.0)
    cluster = a_cluster(provisioning_seconds=1e3)
    log = leaving(Loss(30.0, ((1, None),)), Loss(0.0, ((2, None),), 5.0), cluster=cluster, beside=(to_leave,))
    log.until(100.0)
    assert log.notices == [(20.0, (1, 2))]
    assert log.lost == [(30.0, (1,)), (30.0, (2,))]
    assert (log.arrivals, log.strikes.num_awaited) == ([(35.0, 2, 1)], 2)  # it takes the place of longest vacancy


def test_returning_nodes_are_the_same_and_none_is_ordered():
    cluster = a_cluster(2, ("a", "b"), provisioning_seconds=1.0)
    log = scripted({1: (10.0, 30.0)}, cluster, away_seconds=12.0).until(100.0)
    assert (log.lost, log.arrivals) == ([(10.0, (1,)), (40.0, (1,))], [(22.0, 1, 1), (52.0, 1, 1)])
    assert (log.strikes.num_awaited, log.fleet.num_arrived) == (0, 3)
    assert log.fleet.nodes[1].region == "b"
    log = scripted({1: (50.0,)}, notice_seconds=20.0, away_seconds=12.0).until(100.0)
    assert (log.notices, log.arrivals) == ([(30.0, (1,))], [(62.0, 1, 1)])
    log = scripted({1: (10.0,)}, away_seconds=0.0).until(20.0)
    assert log.arrivals == [(10.0, 1, 1)]
    assert log.at_losses == [[0, None, 2]]


def test_no_node_is_ordered_where_nodes_come_by_themselves():
    cluster = a_cluster(provisioning_seconds=1.0)
    script = {"cluster": (10.0, 10.0, 10.0)}
    log = scripted(script, cluster, scope="cluster", num_initial_nodes=2, arrivals=(0, 1, 2))
    assert len(log.fleet.nodes) == 2
    log.until(100.0)
    assert [seconds for seconds, _ in log.lost] == [10.0, 30.0]  # all at once; at 20 s nobody was there
    assert [(seconds, number) for seconds, number, _ in log.arrivals] == [(20.0, 2), (30.0, 3), (30.0, 4)]
    assert log.strikes.num_awaited == 0
