"""Pipelines that are alike are priced as one, with the bits that pricing all of them gives."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.spec import swapped_routes
from sim.cluster.flows import FlowState
from sim.cluster.network import STORAGE
from sim.workload.config import plain_plan
from sim.workload.iteration_time import IterationTimes
from support.builders import a_link, a_site
from support.examples import examples
from support.simpy_iteration import fastest_run, run_among

LINKS = {"links": (("a", "b", 70.0, 1e-4), ("b", "c", 20.0, 3e-5), ("a", "c", 200.0, 2e-5))}
PLANS = {
    "plain": {},
    "swapped": {"routes": swapped_routes(4), "embedding_copies": True},
    "shadows": {"shadow_forwards": 1.0, "shadow": "lazy", "shadow_transfers": 1, "num_microbatches": 8},
}


@st.composite
def sites(draw):
    """Two to five pipelines of four stages, over links on which hops, copies and exchanges take seconds."""
    network = {
        "same_region": a_link(0.3, draw(st.sampled_from([300.0, 7000.0]))),
        "storage": a_link(0.1, 3000.0),
        "sharing": draw(st.sampled_from(["node_pair", "none"])),
        **LINKS,
    }
    if network["sharing"] == "none":
        network["access"] = {"up_mbit_per_s": 0.03, "down_mbit_per_s": 0.05, "latency_ms": 7.0}
    cluster = {
        "nodes_per_stage": draw(st.integers(2, 5)),
        "regions": draw(st.sampled_from([("a",), ("a", "b", "c")])),
        "placement": "stage_per_region",
        "stragglers": draw(st.sampled_from([(), ({"stage": 2, "slowdown": 1.7},)])),
        "jitter": draw(st.sampled_from([0.0, 0.3])),
    }
    return a_site(
        4,
        draw(st.sampled_from([2, 4])),
        schedule=draw(st.sampled_from(["gpipe", "1f1b", "fifo"])),
        head_seconds=draw(st.sampled_from([0.0, 0.9])),
        network=network,
        cluster=cluster,
        sequence_length=1,
        sequences_per_microbatch=2,
        pause_seconds=1.3,
        optimizer_seconds=0.7,
        loss_at=draw(st.sampled_from(["embedding_stage", "last_stage"])),
        gradient_exchange=draw(st.sampled_from(["ring", "all_to_all"])),
        overlap_gradient_exchange=draw(st.booleans()),
    )


@settings(max_examples=examples(20, 60))
@given(sites(), st.sampled_from(list(PLANS)), st.floats(1.0, 1e5))
def test_one_pipeline_takes_what_all_take_alone_and_with_uploads(site, name, num_bytes):
    plan, pipeline = replace(plain_plan(site.costs.workload), **PLANS[name]), IterationTimes(site, 0)
    assert site.representative is not None
    assert len(site.representative.cluster.regions_of_nodes) == 5
    assert pipeline.alone(plan) == fastest_run(site, plan).time
    others = tuple(FlowState(site.network.path(node, STORAGE), 0.1, num_bytes) for node in range(0, 8, 2))
    assert pipeline.among(plan, others) == run_among(site, plan, pipeline.alone(plan).order, others)


@pytest.mark.parametrize(
    ("cluster", "network"),
    [
        ({"nodes_per_stage": 1}, {}),
        ({"regions": ("a", "b"), "placement": "round_robin", "nodes_per_stage": 3}, LINKS),
        ({"stragglers": ({"stage": 1, "replica": 1, "slowdown": 2.0},)}, {}),
        ({}, {"access": {"up_mbit_per_s": 1.0, "down_mbit_per_s": 1.0}}),
        ({"regions": ("a", "b"), "placement": "stage_per_region"}, {**LINKS, "sharing": "region_pair"}),
    ],
)
def test_pipelines_that_differ_or_share_links_run_one_by_one(cluster, network):
    site = a_site(4, 2, cluster={"nodes_per_stage": 2, **cluster}, network=network)
    assert site.representative is None
    plan = plain_plan(site.costs.workload)
    assert IterationTimes(site, 0).alone(plan) == fastest_run(site, plan).time


def test_uploads_on_shared_links_are_computed_with_all_pipelines():
    site = a_site(2, 2, cluster={"nodes_per_stage": 2}, network={"same_region": a_link(0.0, 1000.0)}, sequence_length=1)
    plan, pipeline = plain_plan(site.costs.workload), IterationTimes(site, 0)
    others = (FlowState(site.network.path(2, 4), 0.0, 50_000.0),)  # as the activations of one pipeline
    assert pipeline.among(plan, others) == run_among(site, plan, pipeline.alone(plan).order, others)
    assert pipeline.among(plan, others).seconds > pipeline.alone(plan).seconds
