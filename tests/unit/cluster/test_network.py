"""Which links a message crosses, and fair shares of them: definitions, textbook networks, the paper's figures."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cluster.network import STORAGE, Link, Network, NetworkConfig, Path, max_min_rates
from sim.cluster.topology import Cluster, ClusterConfig
from sim.core.presets import presets
from sim.core.units import BYTES_PER_GIB
from sim.simulation.run import build_site
from support.builders import BYTES_PER_SECOND, INSTANT, a_link, a_scenario

MIB = 2**20
REGIONS = ("a", "b")
ROW = ("a", "b", 100.0, 100 / BYTES_PER_GIB)  # 0.1 s, 100 bytes a second


def a_network(regions_of_nodes: str = "aabb", **config: object) -> Network:
    """Nodes in regions a and b; 10 bytes a second within a region, 1000 to and from the store."""
    links = {"same_region": a_link(0.01, 10.0), "storage": a_link(1.0, 1000.0), "links": (ROW,)}
    return Network(NetworkConfig.model_validate({**links, **config}), regions_of_nodes)


def names(path: Path) -> list[str]:
    return [link.name for link in path.links]


# ---- a message by itself ----------------------------------------------------------------------------
@given(st.floats(0.0, 1e4), st.floats(1e-3, 1e6), st.floats(0.0, 1e12))
def test_a_message_takes_latency_plus_bytes_over_bandwidth(latency_ms, mbit_per_s, num_bytes):
    link = {"latency_ms": latency_ms, "bandwidth_mbit_per_s": mbit_per_s}
    expected = latency_ms / 1000 + num_bytes * 8 / (mbit_per_s * 1e6)
    network = a_network(same_region=link, storage=link)
    for ends in ((0, 1), (0, STORAGE), (STORAGE, 0)):
        assert network.path(*ends).seconds(num_bytes) == pytest.approx(expected)


def test_links_go_both_ways_and_unknown_ones_are_errors():
    config = NetworkConfig(same_region=INSTANT, storage=INSTANT, links=(("a", "b", 100.0, 0.5),))
    network = Network(config, "abc")
    assert network.path(0, 1).seconds(BYTES_PER_GIB) == network.path(1, 0).seconds(BYTES_PER_GIB) == 2.1
    with pytest.raises(KeyError):
        network.path(0, 2)


def test_the_papers_network_gives_the_papers_figures():
    config = NetworkConfig.model_validate(presets("networks")["gcp_paper"])
    network = Network(config, ("NL", "NL", *config.regions))
    assert network.path(0, 1).seconds(0.5 * BYTES_PER_GIB) == pytest.approx(0.01 + 1.0)
    australia, belgium = (2 + config.regions.index(region) for region in ("Australia", "Belgium"))
    assert network.path(australia, belgium).seconds(256 * MIB) == pytest.approx(25.57, abs=0.01)
    assert network.path(australia, belgium).seconds(4 * 65_537_024) == pytest.approx(24.97, abs=0.01)
    nodes = range(2, 2 + len(config.regions))
    assert all(network.path(a, b).seconds(1.0) > 0.0 for a in nodes for b in nodes)


# ---- which links it crosses -------------------------------------------------------------------------
def test_a_message_crosses_access_links_and_the_path_between():
    access = {"up_mbit_per_s": 20 * BYTES_PER_SECOND, "down_mbit_per_s": 30 * BYTES_PER_SECOND, "latency_ms": 1000.0}
    network = a_network(access=access)
    assert names(network.path(0, 1)) == ["node 0 to 1", "node 0 up", "node 1 down"]
    assert names(network.path(0, STORAGE)) == ["storage in", "node 0 up"]
    assert names(network.path(STORAGE, 0)) == ["storage out", "node 0 down"]
    assert network.path(0, 1).latency_seconds == pytest.approx(0.01 + 2.0)
    assert network.path(0, 2).latency_seconds == pytest.approx(0.1 + 2.0)
    assert network.path(0, STORAGE).latency_seconds == pytest.approx(1.0 + 1.0)
    assert network.path(0, 1).alone_bytes_per_second == pytest.approx(10.0)  # within the region
    assert network.path(0, 2).alone_bytes_per_second == pytest.approx(20.0)  # its own way up
    assert network.path(STORAGE, 2).alone_bytes_per_second == pytest.approx(30.0)  # its own way down


def test_paths_share_the_very_links_that_they_have_in_common():
    access = {"up_mbit_per_s": 1.0, "down_mbit_per_s": 1.0}
    network = a_network(access=access)

    def shared(one: tuple[int, int], other: tuple[int, int]) -> set[str]:
        return {link.name for link in set(network.path(*one).links) & set(network.path(*other).links)}

    assert shared((0, 1), (0, 2)) == {"node 0 up"}
    assert shared((0, 2), (1, 2)) == {"node 2 down"}
    assert shared((0, 1), (1, 0)) == set()  # full duplex
    assert shared((0, STORAGE), (1, STORAGE)) == {"storage in"}
    assert shared((STORAGE, 0), (STORAGE, 1)) == {"storage out"}
    assert shared((0, STORAGE), (STORAGE, 0)) == set()
    assert network.path(0, 1) is network.path(0, 1)


@pytest.mark.parametrize(
    ("sharing", "between_regions", "within"),
    [("node_pair", ["node 0 to 2"], ["node 0 to 1"]), ("region_pair", ["a to b"], ["node 0 to 1"]), ("none", [], [])],
)
def test_sharing_says_what_lies_between(sharing, between_regions, within):
    network = a_network(sharing=sharing)
    assert names(network.path(0, 2)) == between_regions
    assert names(network.path(0, 1)) == within
    assert network.is_shared == (sharing != "none")
    if sharing == "region_pair":  # one line for each direction
        assert network.path(0, 2).links == network.path(1, 3).links != network.path(2, 0).links
        assert names(network.path(2, 0)) == ["b to a"]
    # A message that is alone takes as long whatever is shared.
    access = {"up_mbit_per_s": 20 * BYTES_PER_SECOND, "down_mbit_per_s": 30 * BYTES_PER_SECOND, "latency_ms": 7.0}
    reference, network = a_network(access=access), a_network(access=access, sharing=sharing)
    for ends in ((0, 1), (0, 3), (2, 1), (0, STORAGE), (STORAGE, 3)):
        assert network.path(*ends).seconds(1e6) == reference.path(*ends).seconds(1e6)


@pytest.mark.parametrize("streams", [1, 8])
def test_parallel_streams_multiply_rows_and_nothing_else(streams):
    network = a_network(parallel_streams=streams)
    assert network.path(0, 2).alone_bytes_per_second == pytest.approx(streams * 100.0)
    assert network.path(0, 2).latency_seconds == 0.1
    assert network.path(0, 1).alone_bytes_per_second == pytest.approx(10.0)
    assert network.path(0, STORAGE).alone_bytes_per_second == pytest.approx(1000.0)


@given(st.floats(0.01, 100.0))
def test_a_bandwidth_factor_concerns_links_between_nodes_alone(factor):
    access = {"up_mbit_per_s": 8e-5, "down_mbit_per_s": 8e-5, "latency_ms": 7.0}
    for given_access in (None, access):
        plain = a_network(access=given_access)
        faster = a_network(access=given_access, bandwidth_factor=factor)
        for ends in ((0, 1), (0, 2)):
            before, after = plain.path(*ends), faster.path(*ends)
            assert after.latency_seconds == before.latency_seconds
            assert after.alone_bytes_per_second == pytest.approx(factor * before.alone_bytes_per_second)
            assert [link.bytes_per_second for link in after.links] == pytest.approx(
                [factor * link.bytes_per_second for link in before.links]
            )
    to_store, before = (a_network(bandwidth_factor=each).path(0, STORAGE).seconds(500.0) for each in (factor, 1.0))
    assert to_store == before


def test_the_store_is_reached_at_the_nodes_or_the_links_limit():
    storage = {**a_link(1.0, 1000.0), "node_mbit_per_s": 300 * BYTES_PER_SECOND}
    network = a_network("aaaaa", storage=storage)
    paths = [network.path(node, STORAGE) for node in range(5)]
    assert paths[0].alone_bytes_per_second == pytest.approx(300.0)
    assert max_min_rates(paths[:3]) == pytest.approx([300.0] * 3)
    assert max_min_rates(paths) == pytest.approx([200.0] * 5)


def test_negligible_hops_take_no_time():
    network = a_network(negligible_seconds=1.1)  # 1 byte: 0.11 s within a region
    assert network.hop_seconds(0, 1, 1.0) == 0.0
    assert network.hop_seconds(0, 1, 10.0) == 0.0
    assert network.hop_seconds(0, 1, 11.0) == pytest.approx(1.11)
    assert network.hop_seconds(0, 2, 100.0) == pytest.approx(1.1)  # just as much counts
    assert network.path(0, 1).seconds(1.0) == pytest.approx(0.11)  # other messages take what they take


# ---- where nodes are --------------------------------------------------------------------------------
def test_nodes_are_dealt_to_regions_in_turn():
    links = tuple((a, b, 1.0, 1.0) for a, b in ("ab", "bc", "ac"))
    network = {"same_region": INSTANT, "storage": INSTANT, "links": links}
    deployment = build_site(a_scenario(network=network, cluster={"nodes_per_stage": 2}))
    assert "".join(deployment.cluster.regions_of_nodes) == "abcabcabca"
    assert deployment.network.regions_of_nodes == deployment.cluster.regions_of_nodes
    assert deployment.cluster.slots_of(2) == range(4, 6)


@pytest.mark.parametrize(
    ("placement", "regions", "expected"),
    [
        ("round_robin", "abc", "abcabcabca"),
        ("stage_per_region", "abc", "aabbccaabb"),
        ("by_hand", "aabbaabbab", "aabbaabbab"),
    ],
)
def test_nodes_are_placed_as_the_scenario_says(placement, regions, expected):
    config = ClusterConfig(nodes_per_stage=2, placement=placement, regions=tuple(regions))
    cluster = Cluster(config, 4, tuple(regions))
    assert "".join(cluster.regions_of_nodes) == expected
    if placement == "stage_per_region":
        for stage in cluster.stages:
            assert len({cluster.regions_of_nodes[node] for node in cluster.slots_of(stage)}) == 1


# ---- fair shares: the definition --------------------------------------------------------------------
@st.composite
def networks(draw) -> list[Path]:
    """Up to 12 flows, each over some of up to 6 links, some with a limit of their own."""
    rates = st.floats(1.0, 1e6)
    links = [Link(f"link {number}", draw(rates)) for number in range(draw(st.integers(1, 6)))]
    paths = []
    for _ in range(draw(st.integers(1, 12))):
        crossed = draw(st.lists(st.sampled_from(links), unique=True, min_size=0, max_size=4))
        own = draw(st.one_of(st.just(math.inf), rates)) if crossed else draw(rates)
        paths.append(Path(0.0, own, tuple(crossed)))
    return paths


def load(paths: list[Path], rates: list[float], link: Link) -> float:
    return math.fsum(rate for path, rate in zip(paths, rates, strict=True) if link in path.links)


@given(networks())
def test_every_flow_has_a_bottleneck_within_all_limits(paths):
    """Rates are max-min fair just where this holds (Bertsekas and Gallager, Data Networks, 6.5.2)."""
    rates = max_min_rates(paths)
    assert len(rates) == len(paths)
    assert all(0.0 < rate <= path.bytes_per_second for path, rate in zip(paths, rates, strict=True))
    for link in {link for path in paths for link in path.links}:
        assert load(paths, rates, link) <= link.bytes_per_second * (1 + 1e-9)
    for path, rate in zip(paths, rates, strict=True):

        def is_bottleneck(link: Link, rate: float = rate) -> bool:
            fastest = max(other for p, other in zip(paths, rates, strict=True) if link in p.links)
            full = load(paths, rates, link) >= link.bytes_per_second * (1 - 1e-9)
            return full and rate >= fastest * (1 - 1e-9)

        assert rate == path.bytes_per_second or any(is_bottleneck(link) for link in path.links)
        assert max_min_rates([path]) == [path.alone_bytes_per_second]
    assert max_min_rates([]) == []


@given(networks(), st.randoms(use_true_random=False))
def test_shares_do_not_depend_on_the_order_of_the_flows(paths, random):
    order = list(range(len(paths)))
    random.shuffle(order)
    rates, shuffled = max_min_rates(paths), max_min_rates([paths[index] for index in order])
    assert [rates[index] for index in order] == pytest.approx(shuffled, rel=1e-9)


@given(networks(), st.integers(-20, 20))
def test_twice_the_network_gives_twice_the_shares(paths, power):
    scale = 2.0**power
    links = {link: Link(link.name, link.bytes_per_second * scale) for path in paths for link in path.links}
    scaled = [Path(0.0, path.bytes_per_second * scale, tuple(links[link] for link in path.links)) for path in paths]
    assert max_min_rates(scaled) == [rate * scale for rate in max_min_rates(paths)]


# ---- fair shares: textbook networks -------------------------------------------------------------------
def over(*links: Link, limit: float = math.inf) -> Path:
    return Path(0.0, limit, links)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_a_link_is_shared_in_equal_parts(n):
    link = Link("one", 42.0)
    assert max_min_rates([over(link)] * n) == [42.0 / n] * n


def test_textbook_networks_have_their_fair_shares():
    link = Link("one", 10.0)
    assert max_min_rates([over(link, limit=1.0), over(link), over(link, limit=4.0), over(link)]) == [1.0, 3.0, 3.0, 3.0]
    assert max_min_rates([over(link, limit=1.0), over(link), over(link, limit=2.0)]) == [1.0, 7.0, 2.0]
    # k flows join at the k-th link: the long one shares the last with them all, the first short one gains by it.
    first, second, third = (Link(str(number), 12.0) for number in range(3))
    rates = max_min_rates([over(first, second, third), over(first), *[over(second)] * 2, *[over(third)] * 3])
    assert rates == [3.0, 9.0, 4.5, 4.5, 3.0, 3.0, 3.0]
    # Data Networks, 6.5.2: unit arcs; three sessions fill (2,3), (1,3) has a third to spare.
    arc13, arc23, arc35, arc45 = (Link(name, 1.0) for name in ("1 to 3", "2 to 3", "3 to 5", "4 to 5"))
    sessions = [over(arc13, arc35), over(arc23), over(arc23), over(arc45), over(arc23, arc35)]
    assert max_min_rates(sessions) == pytest.approx([2 / 3, 1 / 3, 1 / 3, 1.0, 1 / 3])
