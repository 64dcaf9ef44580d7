"""When nodes leave and come: failure processes and arrivals as processes of the event loop.

Nothing here depends on what a strategy does, except through processes that count iterations: all strategies meet the
same churn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any, TypeGuard, overload

import numpy as np
import simpy

from sim.cluster.membership import Membership, Node
from sim.cluster.topology import Cluster, ClusterConfig
from sim.core.distributions import unit_lognormal
from sim.core.rng import stream
from sim.core.units import to_ticks
from sim.failures import FailureProcess, ProcessConfig
from sim.failures.base import Member
from sim.failures.poisson import PoissonFailures
from sim.workload.iteration_time import Memo

Process = Generator[simpy.Event, Any, None]


class FailureInjector:
    """Moves the fleet as the failure process says, and tells of it.

    lost: told the nodes that are gone, and whether a notice came before, when their places are still vacant; arrived:
    told when nodes have taken vacant places; noticed: told the numbers of nodes that are about to leave. Processes that
    count iterations strike within an iteration, at a fraction of what it usually takes.
    """

    def __init__(
        self,
        env: simpy.Environment,
        cluster: Cluster,
        failures: FailureProcess,
        seed: int,
        lost: Callable[[list[Node], bool], None],
        arrived: Callable[[], None],
        noticed: Callable[[Sequence[int]], None],
    ) -> None:
        self._env, self._cluster, self._seed = env, cluster, seed
        self._lost, self._arrived, self._noticed = lost, arrived, noticed
        self.fleet = Membership(cluster, failures.num_initial_nodes, stream(seed, "places"))
        self._orders = not failures.supplies_nodes
        self._ordered: dict[int, None] = {}
        self.num_awaited = 0
        self._due: list[tuple[int, int]] = []
        self._by_iteration: list[tuple[int, Iterator[float], float]] = []
        self._of_nodes: list[tuple[str, FailureProcess]] = []
        self._streams: dict[tuple[str, int], tuple[np.random.Generator, Iterator[float | None]]] = {}
        self._everyone = Everyone(self.fleet, cluster.config.nodes_per_stage, self._where)
        self.failures = failures.for_members(self._everyone)
        self.gives_notice = any(part.config.notice_seconds for _, part in self.failures.parts)
        for name, part in self.failures.parts:
            self._begin(name, part)

    def _begin(self, name: str, part: FailureProcess) -> None:
        """Start a process: one life for each of its domains."""
        if part.scope == "node":
            self._of_nodes.append((name, part))
            for node in list(self.fleet.nodes.values()):
                self._env.process(self._life_of_node(name, part, node))
            return
        domains: dict[str, Sequence[int | str]] = {
            "stage": [stage for stage in self._cluster.stages if stage not in part.config.immune_stages],
            "region": self._cluster.regions,
            "cluster": ["cluster"],
        }
        for domain in domains[part.scope]:
            if part.unit == "seconds":
                self._env.process(self._life(name, part, domain))
            else:
                assert isinstance(domain, int), "what counts iterations strikes stages"
                uptimes = part.uptimes(stream(self._seed, "failures", process=name, domain=domain), domain)
                self._by_iteration.append((domain, uptimes, next(uptimes, math.inf)))

    # ---- lives -----------------------------------------------------------------------------------

    def _life(self, name: str, part: FailureProcess, domain: int | str) -> Process:
        """Life of a stage's, a region's or the cluster's process: quiet for a while, struck, and the same again."""
        uptimes, downtimes, rng = (
            part.uptimes(stream(self._seed, "failures", process=name, domain=domain), domain),
            part.downtimes(stream(self._seed, "downtimes", process=name, domain=domain), domain),
            stream(self._seed, "victims", process=name, domain=domain),
        )
        for index, uptime_seconds in enumerate(uptimes):
            if math.isinf(uptime_seconds):
                return
            choose = partial(self._victims, part, domain, rng, index)
            yield from self._strike_after(uptime_seconds, part, choose, downtimes)
            for _ in range(part.arrivals(index)):
                self._arrive()

    def _life_of_node(self, name: str, part: FailureProcess, node: Node) -> Process:
        """Life of a node from its arrival: it ages, whoever else fails, until it is lost."""
        path = {"process": name, "domain": f"node {node.number}"}
        if (name, node.number) not in self._streams:
            self._streams[name, node.number] = (
                stream(self._seed, "failures", **path),
                part.downtimes(stream(self._seed, "downtimes", **path), node.number),
            )
        rng, downtimes = self._streams[name, node.number]
        uptimes = part.starting_at(float(self._env.now)).uptimes(rng, node.number)
        for uptime_seconds in uptimes:
            if math.isinf(uptime_seconds):
                return
            yield from self._strike_after(uptime_seconds, part, partial(self._itself, part, node), downtimes)
            if self.fleet.nodes.get(node.number) is not node:
                return

    def _strike_after(
        self,
        uptime_seconds: float,
        part: FailureProcess,
        choose: Callable[[], Sequence[int]],
        downtimes: Iterator[float | None],
    ) -> Process:
        """Wait, give notice, wait for the rest, strike."""
        whole_seconds = to_ticks(uptime_seconds)
        if not part.config.notice_seconds:
            yield self._env.timeout(whole_seconds)
            self._take(list(dict.fromkeys(choose())), next(downtimes, None), False)
            return
        notice_seconds = min(to_ticks(part.config.notice_seconds), whole_seconds)
        yield self._env.timeout(whole_seconds - notice_seconds)
        numbers = choose()
        downtime_seconds = next(downtimes, None)
        if notice_seconds and numbers:
            if downtime_seconds is None:
                self._order(numbers)
            self._noticed(numbers)
        there = {number: self.fleet.nodes[number] for number in numbers}
        if notice_seconds:
            yield self._env.timeout(notice_seconds)
        still = [number for number, node in there.items() if self._itself(part, node)]
        self._take(still, downtime_seconds, notice_seconds > 0.0)

    def _victims(self, part: FailureProcess, domain: int | str, rng: Any, index: int) -> Sequence[int]:
        """Whom a strike takes, of those of the domain that are there."""
        if part.accepts_any_order:
            found = part.lost_nodes(rng, self._everyone, index)
            return [number for number in found if self._itself(part, self.fleet.nodes[number])]
        everyone, immune = part.scope == "cluster", part.config.immune_stages
        mortal = [member for member in self._members() if member.stage is None or member.stage not in immune]
        return part.lost_nodes(rng, [m for m in mortal if everyone or domain in (m.stage, m.region)], index)

    def _members(self) -> list[Member]:
        """The nodes that are there."""
        return [self._everyone.member(node) for node in self.fleet.nodes.values()]

    def _itself(self, part: FailureProcess, node: Node) -> Sequence[int]:
        """The node, if it is there still and at no immune stage."""
        there = self.fleet.nodes.get(node.number) is node
        immune = node.place is not None and self._cluster.stage_of(node.place) in part.config.immune_stages
        return [node.number] if there and not immune else []

    # ---- what they do to the fleet -----------------------------------------------------------------

    def _take(self, numbers: Sequence[int], downtime_seconds: float | None, announced: bool) -> None:
        """Nodes are gone; spares take their places, and others are ordered, or these return after a while."""
        if not numbers:
            return
        nodes = self.fleet.lose(numbers, float(self._env.now))
        self._lost(nodes, announced)
        self.fleet.seat_spares(float(self._env.now))
        if downtime_seconds is None:
            self._order(numbers, nodes)
        else:
            for node in nodes:
                self._later(downtime_seconds, partial(self._arrive, node.region, node.number))
        self._arrived()

    def _order(self, numbers: Sequence[int], nodes: Sequence[Node] | None = None) -> None:
        """A new node for each, unless it has been ordered already or nobody orders any."""
        for node in nodes or [self.fleet.nodes[number] for number in numbers]:
            if self._orders and node.number not in self._ordered:
                self._ordered[node.number] = None
                self.num_awaited += 1
                self._later(self._provisioning_seconds(node), partial(self._arrive_as_ordered, self._where(node)))

    def _provisioning_seconds(self, node: Node) -> float:
        config = self._cluster.config
        if not config.provisioning_sigma:
            return config.provisioning_seconds
        rng = stream(self._seed, "provisioning", node=node.number)
        return config.provisioning_seconds * unit_lognormal(rng, config.provisioning_sigma)

    def _where(self, node: Node) -> str:
        """The region that a node works in, and its replacement will: its place's, where it has one."""
        return node.region if node.place is None else self._cluster.regions_of_nodes[node.place]

    def _arrive_as_ordered(self, region: str) -> None:
        self.num_awaited -= 1
        self._arrive(region)

    def _arrive(self, region: str | None = None, number: int | None = None) -> None:
        """A node comes, and its own life begins."""
        node = self.fleet.arrive(float(self._env.now), region, number)
        for name, part in self._of_nodes:
            self._env.process(self._life_of_node(name, part, node))
        self._arrived()

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a while; at once where that is no time at all."""
        seconds = to_ticks(seconds)
        if seconds == 0.0:
            action()
            return
        timeout = self._env.timeout(seconds)
        assert timeout.callbacks is not None
        timeout.callbacks.append(lambda _: action())

    # ---- processes that count iterations -----------------------------------------------------------

    def iteration_begins(self, execution: int, usual_seconds: float) -> None:
        """Schedule the strikes of processes that count iterations and whose turn is this one."""
        for index, (stage, uptimes, at_iteration) in enumerate(self._by_iteration):
            if at_iteration >= execution:
                continue
            seconds = max(0.0, at_iteration - (execution - 1)) * usual_seconds
            self._due.append((execution, stage))
            self._env.process(self._strike_within(stage, seconds, execution))
            self._by_iteration[index] = (stage, uptimes, at_iteration + next(uptimes, math.inf))

    def num_spared(self, num_executed: int) -> float:
        """How many iterations after so many executed ones no process strikes that counts iterations."""
        first = min((at_iteration for _, _, at_iteration in self._by_iteration), default=math.inf)
        return first if math.isinf(first) else math.floor(first) - num_executed

    def iteration_ends(self, failed: bool) -> None:
        """Strikes of it that are still to come find it over, if a failure has ended it; else they come at its end."""
        due, self._due = self._due, []
        for _, stage in () if failed else due:
            self._take_stage(stage)

    def _strike_within(self, stage: int, seconds: float, execution: int) -> Process:
        """A strike in the iteration that begins now; none if another failure has ended that iteration before."""
        yield self._env.timeout(to_ticks(seconds))
        if (execution, stage) in self._due:
            self._due.remove((execution, stage))
            self._take_stage(stage)

    def _take_stage(self, stage: int) -> None:
        places = self._cluster.nodes_of(stage)
        self._take([node.number for node in map(self.fleet.node_at.__getitem__, places) if node], None, False)


class Everyone(Sequence[Member]):
    """The nodes that are there, in the order of the fleet's roster: that of their numbers at time zero."""

    def __init__(self, fleet: Membership, nodes_per_stage: int, where: Callable[[Node], str]) -> None:
        self._fleet, self._nodes_per_stage, self._where = fleet, nodes_per_stage, where

    def member(self, node: Node) -> Member:
        """A node as a failure process sees it."""
        stage = replica = None
        if node.place is not None:
            stage, replica = divmod(node.place, self._nodes_per_stage)
        return Member(number=node.number, region=self._where(node), stage=stage, replica=replica)

    def __len__(self) -> int:
        """How many are there."""
        return len(self._fleet.roster)

    @overload
    def __getitem__(self, index: int) -> Member: ...

    @overload
    def __getitem__(self, index: slice) -> list[Member]: ...

    def __getitem__(self, index: int | slice) -> Member | list[Member]:
        """One of them, or some."""
        fleet = self._fleet
        if isinstance(index, slice):
            return [self.member(fleet.nodes[number]) for number in fleet.roster[index]]
        return self.member(fleet.nodes[fleet.roster[index]])


# Mean time between failures that concern the training, as the failure process has it.

OTHER_LUCK = 2**62
"""A seed for what may be expected, which nobody's own failures should be drawn from."""

NUM_LOSSES, MOST_EVENTS, MOST_SECONDS = 2000, 300_000, 1e9

_MEANS_SECONDS: Memo[tuple[ClusterConfig, tuple[str, ...], ProcessConfig], float] = Memo(most=64)
"""Played once for each process."""


def mtbf_seconds(cluster: Cluster, failures: FailureProcess, iteration_seconds: float) -> float:
    """Mean time between strikes that take a node with a place, or a stage; inf where nothing fails.

    Exact where stages or nodes fail by themselves; else the mean of other luck, played on the fleet alone.
    """
    by_themselves = [part for _, part in failures.parts if part.scope in ("node", "stage") or fails_as_nodes_do(part)]
    if len(by_themselves) < len(failures.parts):
        processes = (failures, *(part for _, part in failures.parts))
        if not all(type(process).__module__.startswith("sim.") for process in processes):
            return mean_seconds_between_losses(cluster, failures)  # what comes from outside need not be pure
        where = cluster.config, cluster.regions_of_nodes, failures.config
        return _MEANS_SECONDS.get(where, lambda: mean_seconds_between_losses(cluster, failures))
    num_per_second = 0.0
    for part in by_themselves:
        num_stages = len([stage for stage in cluster.stages if stage not in part.config.immune_stages])
        num_domains = num_stages * (1 if part.scope == "stage" else len(cluster.replicas))
        mean = part.mean_uptime_iterations * iteration_seconds
        if part.unit == "seconds":
            mean = part.config.mean_uptime_seconds if fails_as_nodes_do(part) else part.mean_uptime_seconds
        num_per_second += num_domains / mean
    return 1.0 / num_per_second if num_per_second else math.inf


def fails_as_nodes_do(part: FailureProcess) -> TypeGuard[PoissonFailures]:
    """Whether a process of the whole cluster is the sum of its nodes' own."""
    return isinstance(part, PoissonFailures)


def mean_seconds_between_losses(cluster: Cluster, failures: FailureProcess) -> float:
    """Mean time between strikes that take a node with a place, from a fleet that is played alone; inf without any.

    Over 2000 strikes, so with a standard error of 2 % where they come at random.
    """
    env, losses_seconds = simpy.Environment(), []

    def lost(nodes: list[Node], announced: bool) -> None:  # noqa: ARG001
        if any(node.place is not None for node in nodes):
            losses_seconds.append(float(env.now))

    FailureInjector(env, cluster, failures, OTHER_LUCK, lost, lambda: None, lambda _: None)
    for _ in range(MOST_EVENTS):
        if len(losses_seconds) == NUM_LOSSES or env.peek() > MOST_SECONDS:
            break
        env.step()
    return losses_seconds[-1] / len(losses_seconds) if losses_seconds else math.inf
