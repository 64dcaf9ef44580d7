"""Limits of an iteration: the binding resource, its effect, and the field to change."""

from __future__ import annotations

from itertools import pairwise

from sim.cluster.network import BYTES_PER_MBIT, AccessConfig, LinkConfig
from sim.core.text import format_number, format_percent
from sim.core.units import BYTES_PER_GIB
from sim.scenario.scenario import Scenario
from sim.simulation.run import build_site
from sim.workload.binding import Binding, binding, is_window_narrow

BETWEEN_REGIONS = "network.links, or cluster.regions"
"""Fields that determine the links between regions."""


def narrow_window(scenario: Scenario) -> list[str]:
    """Return a sentence on a larger window if too few microbatches are in flight to hide the hops."""
    site = build_site(scenario)
    found = binding(site) if is_window_narrow(site) else None
    return [describe_binding(found, scenario)] if found and found.window else []


def binding_sentences(scenario: Scenario, only_limits: bool = False) -> list[str]:
    """Return sentences on the binding resource of a plain iteration, its effect and the field to change.

    Empty if it is unknown. only_limits: also empty if it is compute, which is the ideal.
    """
    found = binding(build_site(scenario))
    if found is None or (only_limits and found.resource == "compute"):
        return []
    return [describe_binding(found, scenario)]


def describe_binding(found: Binding, scenario: Scenario) -> str:
    """Return a sentence on the binding resource of an iteration."""
    workload, seconds, without = scenario.workload, format_number(found.seconds), format_number(found.without_seconds)
    taken = f"{format_percent(found.share)} of an iteration's {seconds} s"
    if found.resource in ("bandwidth", "latency"):
        field, what = _slowest_link(scenario, found.resource)
        half = "" if workload.precision == "bf16" else "precision: bf16, "
        send_less = f"; or send less ({half}fewer stages)" if found.resource == "bandwidth" else ""
        bound = f"Bound by the {found.resource} of the links: an iteration takes {seconds} s, with unlimited links "
        return f"{bound}{without} s. Change {field} ({what}){send_less}."
    if found.resource in ("window", "memory"):
        change = f"set workload.max_in_flight: {found.window}"
        if found.resource == "memory":
            change = "they do not fit; try recompute_activations: true, smaller microbatches or a larger cluster.device"
        flight = f"with {found.window} microbatches in flight an iteration takes {without} s in place of"
        return f"Bound by {'the window' if found.resource == 'window' else 'memory'}: {flight} {seconds} s; {change}."
    if found.resource == "bubble":
        change = f"raise workload.num_microbatches ({workload.num_microbatches}) for {workload.num_stages} stages"
        return f"Bound by the pipeline bubble: nodes wait for each other {taken}; {change}."
    change = "a faster cluster.device" + ("" if workload.precision == "bf16" else " or workload.precision: bf16")
    return f"Bound by compute: the busiest node computes {taken}; only {change} would shorten it much."


def _slowest_link(scenario: Scenario, resource: str) -> tuple[str, str]:
    """Field of the binding links, and its value, between neighbours in a pipeline or in a ring."""
    network, pairs = scenario.network, _neighbouring_regions(scenario)
    rows = {frozenset(row[:2]): row for row in network.links}
    between = [rows[pair] for pair in pairs if pair in rows]
    is_local = any(len(pair) == 1 for pair in pairs)
    found: list[tuple[float, str, str]] = []
    if resource == "bandwidth":
        if access := network.access:
            up, down = access.up_mbit_per_s, access.down_mbit_per_s
            fields = (
                "up_mbit_per_s and down_mbit_per_s" if up == down else f"{'up' if up < down else 'down'}_mbit_per_s"
            )
            found.append((min(up, down), f"network.access.{fields}", f"{min(up, down):g} Mbit/s"))
        if is_local:
            rate = network.same_region.bandwidth_mbit_per_s
            found.append((rate, "network.same_region.bandwidth_mbit_per_s", f"{rate:g} Mbit/s"))
        for a, b, _, gib_per_s in between:
            rate = gib_per_s * BYTES_PER_GIB / BYTES_PER_MBIT
            found.append((rate * network.parallel_streams, BETWEEN_REGIONS, f"{a}-{b} has {rate:.3g} Mbit/s"))
        return min(found)[1:]
    found = [(ms, BETWEEN_REGIONS, f"{a}-{b} takes {ms:g} ms") for a, b, ms, _ in between]
    if is_local:
        found.append((network.same_region.latency_ms, "network.same_region.latency_ms", _ms(network.same_region)))
    if access := network.access:
        found.append((2 * access.latency_ms, "network.access.latency_ms", _ms(access)))
    seconds = network.software_seconds_per_hop
    found.append((1e3 * seconds, "network.software_seconds_per_hop", f"{seconds:g} s"))
    return max(found)[1:]


def _neighbouring_regions(scenario: Scenario) -> set[frozenset[str]]:
    """Pairs of regions of consecutive nodes in a pipeline, or in the ring of a stage's replicas."""
    cluster = build_site(scenario).cluster
    stages, replicas = cluster.stages_with_nodes, cluster.replicas
    rings = [[cluster.slot(stage, replica) for replica in replicas] for stage in stages]
    pipelines = [list(line) for line in zip(*rings, strict=True)]
    if scenario.workload.loss_at == "embedding_stage":
        pipelines = [[*line, line[0]] for line in pipelines]
    rings = [[*ring, ring[0]] for ring in rings if len(ring) > 1]
    pairs = [pair for line in (*rings, *pipelines) for pair in pairwise(line)]
    return {frozenset(cluster.regions_of_nodes[slot] for slot in pair) for pair in pairs}


def _ms(link: LinkConfig | AccessConfig) -> str:
    return f"{link.latency_ms:g} ms"
