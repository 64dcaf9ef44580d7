"""Consistency checks of traces: they have the nodes and the regions that the cluster needs."""

from __future__ import annotations

from collections.abc import Iterator

from sim.cluster.topology import first_stage_of, num_nodes
from sim.core.text import format_count, shortened, suggestion
from sim.failures.history import fleet_counts
from sim.failures.trace import TraceConfig
from sim.scenario.checks import Findings, check, processes
from sim.scenario.scenario import Scenario


def traces(scenario: Scenario) -> Iterator[tuple[str, TraceConfig]]:
    """The traces among the failure processes, with their paths."""
    for path, process in processes(scenario):
        if isinstance(process, TraceConfig):
            yield path, process


def replayed_traces(scenario: Scenario) -> Iterator[tuple[str, TraceConfig]]:
    """The traces that supply the nodes, with their paths."""
    for path, process in traces(scenario):
        if process.additions == "replay" and process.nodes_follow != "each":
            yield path, process


@check("workload.num_stages")
def traces_have_a_node_for_every_stage(scenario: Scenario) -> Findings:
    """A replayed trace has, at some time, a node for every stage."""
    last, first = scenario.workload.num_stages, first_stage_of(scenario.cluster)
    needed = last + 1 - first
    for path, process in replayed_traces(scenario):
        most = max(fleet_counts(process.rows)[1])
        if process.max_nodes is not None and process.max_nodes < most:
            most, path = process.max_nodes, f"{path}.max_nodes"
        if most < needed:
            allowed = (
                f"at least {needed}, a node for each of the stages {first} to {last}; or choose additions 'ignore'; or "
                "nodes_follow 'each', and every node follows a node of the trace by itself"
            )
            yield path, f"the trace has at most {format_count(most, 'node')} at a time; allowed: {allowed}"


@check("workload.num_stages", "cluster.nodes_per_stage", "cluster.num_spares")
def small_traces_say_who_follows_them(scenario: Scenario) -> Findings:
    """A trace of fewer nodes than the cluster has says whether all its nodes are lost together, or each by itself."""
    needed = num_nodes(scenario.cluster, scenario.workload.num_stages)
    for path, process in traces(scenario):
        most = max(fleet_counts(process.rows)[1])
        if process.additions == "ignore" and process.nodes_follow is None and most < needed:
            found = f"the trace has at most {format_count(most, 'node')} at a time, the cluster {needed}"
            each = "each (every node follows a node of the trace by itself, from a random offset of its own)"
            together = f"together (a loss of the trace takes {needed / most:.2g} nodes at once)"
            yield f"{path}.nodes_follow", f"{found}: choose {each} or {together}"


@check("cluster.regions", "network.links", "network.preset")
def regions_of_traces_are_in_the_cluster(scenario: Scenario) -> Findings:
    """The regions of a trace that is replayed are those of the cluster, all or none."""
    known = scenario.cluster.regions or scenario.network.regions
    for path, process in replayed_traces(scenario):
        found = dict.fromkeys(process.nodes_and_regions[1])
        unknown = [region for region in found if region not in known]
        if unknown and (process.regions or len(unknown) < len(found)):
            where = f"in this cluster{suggestion(unknown[0], known)}"
            message = f"no region '{shortened(unknown[0])}' {where}; or give regions: [[{shortened(unknown[0])}, ...]]"
            yield f"{path}.regions", message


@check("cluster.num_spares")
def traces_supply_the_spares(scenario: Scenario) -> Findings:
    """Spares are not given where a trace supplies all nodes."""
    if scenario.cluster.num_spares and any(replayed_traces(scenario)):
        found = f"found {scenario.cluster.num_spares}, but the trace supplies all nodes"
        yield "cluster.num_spares", f"{found}: leave it out, or choose additions 'ignore'"
