"""What binds an iteration, by how much, and which field to change."""

from __future__ import annotations

from sim.cluster.network import BYTES_PER_MBIT
from sim.core.text import format_number, format_percent
from sim.core.units import BYTES_PER_GIB
from sim.scenario.scenario import Scenario
from sim.simulation.run import build_site
from sim.workload.binding import Binding, binding, is_window_narrow


def narrow_window(scenario: Scenario) -> list[str]:
    """Say what a larger window would save where fewer microbatches are in flight than can hide the hops."""
    site = build_site(scenario)
    found = binding(site) if is_window_narrow(site) else None
    return [describe_binding(found, scenario)] if found and found.window else []


def binding_sentences(scenario: Scenario, only_limits: bool = False) -> list[str]:
    """Say what binds a plain iteration, by how much, and which field to change; nothing if it is not known.

    only_limits: nothing either where it is compute, as one would have it.
    """
    found = binding(build_site(scenario))
    if found is None or (only_limits and found.resource == "compute"):
        return []
    return [describe_binding(found, scenario)]


def describe_binding(found: Binding, scenario: Scenario) -> str:
    """Say what binds an iteration."""
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
        return f"Bound by the pipeline's bubble: nodes wait for each other {taken}; {change}."
    change = "a faster cluster.device" + ("" if workload.precision == "bf16" else " or workload.precision: bf16")
    return f"Bound by compute: the busiest node computes {taken}; only {change} would shorten it much."


def _slowest_link(scenario: Scenario, resource: str) -> tuple[str, str]:
    """The field of the links that bind, and its value."""
    network = scenario.network
    regions = scenario.cluster.regions or network.regions
    if resource == "bandwidth":
        if network.access:
            return "network.access.up_mbit_per_s", f"{network.access.up_mbit_per_s:g} Mbit/s"
        if len(set(regions)) > 1:
            slowest = min(network.links, key=lambda link: link[3])
            mbit_per_s = slowest[3] * BYTES_PER_GIB / BYTES_PER_MBIT
            return "network.links, or cluster.regions", f"{slowest[0]}-{slowest[1]} has {mbit_per_s:.3g} Mbit/s"
        return "network.same_region.bandwidth_mbit_per_s", f"{network.same_region.bandwidth_mbit_per_s:g} Mbit/s"
    if len(set(regions)) > 1:
        farthest = max(network.links, key=lambda link: link[2])
        return "network.links, or cluster.regions", f"{farthest[0]}-{farthest[1]} takes {farthest[2]:g} ms"
    if network.software_seconds_per_hop * 1e3 > network.same_region.latency_ms:
        return "network.software_seconds_per_hop", f"{network.software_seconds_per_hop:g} s"
    return "network.same_region.latency_ms", f"{network.same_region.latency_ms:g} ms"
