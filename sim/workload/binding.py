"""What binds an iteration: how much shorter it would be with unlimited links, a larger window, or no bubble."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sim.cluster.network import LinkConfig, Network, NetworkConfig, StorageConfig
from sim.workload.config import IterationPlan
from sim.workload.deployment import Deployment
from sim.workload.iteration_time import fastest_time, num_operations
from sim.workload.window import (
    SPARE,
    embedding_bytes,
    occupied_seconds,
    plain_plan_on,
    window_that_fits,
    window_that_hides_hops,
)

Resource = Literal["compute", "bandwidth", "latency", "window", "memory", "bubble"]

MOST_OPERATIONS = 40_000
"""Operations up to which iterations are timed for this: larger ones take minutes."""
WIDE_ENOUGH = 0.05
"""Share of an iteration that a larger window must save to bind."""
FASTER = 1e6


@dataclass(frozen=True)
class Binding:
    """The resource that binds a plain iteration, and how long the iteration would take without its limit.

    window: microbatches in flight that would hide the hops, where that is the limit.
    """

    resource: Resource
    seconds: float
    without_seconds: float
    window: int | None = None

    @property
    def share(self) -> float:
        """Share of the iteration that the limit costs; for compute, that in which the busiest node computes."""
        cost = self.without_seconds if self.resource == "compute" else self.seconds - self.without_seconds
        return cost / self.seconds if self.seconds else 0.0


def binding(deployment: Deployment) -> Binding | None:
    """What binds a plain iteration; None where that would take long to find out.

    Each limit is lifted alone. A window counts as the limit if a larger one saves at least half of what unlimited links
    would: it is there to hide them.
    """
    site, plan = deployment.representative or deployment, plain_plan_on(deployment)
    if num_operations(site, plan) > MOST_OPERATIONS:
        return None
    given_seconds = fastest_time(site, plan).seconds
    linkless_seconds = min(given_seconds, _seconds_on(site, plan, unlimited(site.network.config)))
    window = _window(site, plan, given_seconds)
    if window and given_seconds - window.without_seconds >= (given_seconds - linkless_seconds) / 2:
        return window
    busy_seconds = plan.num_microbatches * max(max(occupied_seconds(site, plan, r)) for r in site.cluster.replicas)
    links, bubble = given_seconds - linkless_seconds, linkless_seconds - busy_seconds
    if links >= max(bubble, busy_seconds):
        faster = site.network.config.model_copy(update={"bandwidth_factor": FASTER})
        saved_seconds = given_seconds - _seconds_on(site, plan, faster)
        return Binding("bandwidth" if saved_seconds >= links / 2 else "latency", given_seconds, linkless_seconds)
    if bubble > busy_seconds:
        return Binding("bubble", given_seconds, given_seconds - bubble)
    return Binding("compute", given_seconds, busy_seconds)


def is_window_narrow(deployment: Deployment) -> bool:
    """Whether fewer microbatches are in flight than Little's law asks for: surely too few to hide the hops."""
    plan = plain_plan_on(deployment)
    schedule = deployment.costs.schedule(plan)
    if not schedule.limits_in_flight or schedule.is_interleaved:
        return False
    hiding = window_that_hides_hops(deployment, plan) / SPARE
    return schedule.in_flight_limit < min(plan.num_microbatches, hiding)


def _window(site: Deployment, plan: IterationPlan, given_seconds: float) -> Binding | None:
    """The smallest power of two times the window that saves most, or the largest that fits, if that is worth it."""
    schedule = site.costs.schedule(plan)
    if not schedule.limits_in_flight or schedule.is_interleaved or schedule.in_flight_limit >= plan.num_microbatches:
        return None
    widest = fastest_time(site, replace(plan, max_in_flight=plan.num_microbatches)).seconds
    if given_seconds - widest < WIDE_ENOUGH * given_seconds:
        return None
    window, seconds = schedule.in_flight_limit, given_seconds
    while given_seconds - seconds < 0.9 * (given_seconds - widest):
        window = min(2 * window, plan.num_microbatches)
        seconds = fastest_time(site, replace(plan, max_in_flight=window)).seconds
    fitting = window_that_fits(
        site.costs, plan, embedding_bytes(site.costs, site.cluster.config), site.cluster.num_shares
    )
    if schedule.in_flight_limit < fitting < window:
        fitting_seconds = fastest_time(site, replace(plan, max_in_flight=fitting)).seconds
        if given_seconds - fitting_seconds >= WIDE_ENOUGH * given_seconds:
            return Binding("window", given_seconds, fitting_seconds, fitting)
    return Binding("window" if window <= fitting else "memory", given_seconds, seconds, window)


def _seconds_on(site: Deployment, plan: IterationPlan, network: NetworkConfig) -> float:
    other = Deployment(site.costs, site.cluster, Network(network, site.network.regions_of_nodes))
    return fastest_time(other, plan).seconds


def unlimited(config: NetworkConfig) -> NetworkConfig:
    """A network on which messages take no time worth mentioning."""
    link = {"latency_ms": 0.0, "bandwidth_mbit_per_s": 1e15}
    return config.model_copy(
        update={
            "same_region": LinkConfig(**link),
            "storage": StorageConfig(**link),
            "access": None,
            "links": tuple((a, b, 0.0, 1e12) for a, b, *_ in config.links),
            "sharing": "none",
            "software_seconds_per_hop": 0.0,
        }
    )
