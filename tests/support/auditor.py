"""An independent account of which node holds which state, from arrivals, losses and messages alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import sim.simulation.run
from sim.cluster.membership import Node
from sim.cluster.network import STORAGE
from sim.simulation.transfers import StateTransfers
from sim.simulation.world import World
from sim.strategies.base import SAVED

STALE = ("checkfree_hybrid", "stale_stage")
"""Strategies under which a stage goes back alone; `skip` too, with `returns: stale`."""


class Sent:
    """A message outside iterations, with the nodes at its ends. version: number of complete iterations."""

    def __init__(self, what: str, ends: tuple[Node | None, Node | None], seconds: float, version: int) -> None:
        self.what, self.ends, self.seconds, self.version = what, ends, seconds, version
        self.arrived = self.was_cut = False
        self.carries: set[int] = set()


class Auditor:
    """A world's nodes by identity: the iteration of each one's state, and the copies it keeps."""

    def __init__(self, world: World, strategy: Any, fallback: Any) -> None:
        self.world, self.strategy, self.fallback = world, strategy, fallback
        kinds = [config for config in (strategy, fallback) if config.kind != "stop"]
        kinds = kinds[:1] if strategy.kind == "repartition" else kinds
        self.keeps_own = any("num_copies" in type(c).model_fields or getattr(c, "local_gib_per_s", None) for c in kinds)
        self.goes_back_alone = strategy.kind in STALE or getattr(strategy, "returns", "") == "stale"
        self.has_disks = any(getattr(c, "local_gib_per_s", None) for c in kinds)
        self.state: dict[Node, dict[int, int]] = {
            node: {self.own(node): 0} for node in world.membership.node_at if node
        }
        self.copies: dict[Node, dict[int, set[int]]] = {}
        self.last_sent_to: dict[Node, list[Sent]] = {}
        self.fetched: set[Node] = set()  # nodes that were sent the state beside the training and keep up since
        self.uploaded_bytes: dict[int, float] = {}
        self.stored: set[int] = set()
        self.replica_bytes: dict[tuple[int, int, bool], float] = {}  # saved, by replica, iteration, whether on nodes
        self.saved_replicas: set[int] = set()  # those in the store
        self.parts = PartsAccount(self) if strategy.kind == "repartition" else None
        self.lost: list[tuple[float, tuple[int, ...]]] = []
        self.arrivals: list[tuple[float, int, int | None]] = []
        for owner, name in (
            (world.transfers, "send_messages"),
            (world, "record"),
            (world.events, "note"),
            (world.iterations, "run"),
            (world.membership, "lose"),
            (world.membership, "arrive"),
        ):
            setattr(owner, name, getattr(self, f"watched_{name}")(getattr(owner, name)))
        world.iterations.time_in_leaps = lambda *_: None  # every iteration is looked at
        self.settle()

    def own(self, node: Node) -> int:
        assert node.slot is not None
        return self.world.cluster.stage_of(node.slot)

    # ---- what is watched ---------------------------------------------------------------------------

    def watched_lose(self, original: Any) -> Any:
        def lose(numbers: Any, now_seconds: float) -> Any:
            self.lost.append((now_seconds, tuple(numbers)))
            return original(numbers, now_seconds)

        return lose

    def watched_arrive(self, original: Any) -> Any:
        def arrive(now_seconds: float, *who: Any) -> Any:
            node = original(now_seconds, *who)
            self.arrivals.append((now_seconds, node.number, node.slot))
            return node

        return arrive

    def watched_run(self, original: Any) -> Any:
        def run(plan: Any, hosts: Any) -> Any:
            if self.world.stops_on_failures:
                slots = plan.layout.slots if plan.layout else range(len(self.world.membership.node_at))
                if self.parts:
                    assert hosts is None or not self.world.placement.missing
                    self.parts.check(plan.layout)
                else:
                    self.check(slots, hosts or range(len(self.world.membership.node_at)))
            failure = yield from original(plan, hosts)
            if failure is None:
                if self.parts:
                    self.parts.learn(plan.layout)
                self.last_sent_to.clear()
                for held in self.state.values():
                    held.update(dict.fromkeys(held, self.world.iterations.num_completed))
            return failure

        return run

    def watched_record(self, original: Any) -> Any:
        def record(kind: str, stage: int | None, iteration: int, detail: str = "") -> None:
            original(kind, stage, iteration, detail)
            if kind in ("recovered", "regrouped"):
                self.settle()
            elif detail.startswith("replica"):
                self.check_save(kind, int(detail.split()[1].rstrip(",:")), iteration, self.is_on_nodes(detail))
            elif kind == "checkpoint_started":
                self.uploaded_bytes[iteration] = 0.0
            elif kind == "checkpoint_durable" and not self.is_in_store_alone(detail):
                self.keep(iteration)

        return record

    def check_save(self, kind: str, replica: int, iteration: int, is_on_nodes: bool) -> None:
        """Check that a replica's save is complete only once all of its stages have arrived."""
        key = replica, iteration, is_on_nodes
        total = sum(map(self.world.costs.checkpoint_bytes, self.world.cluster.stages))
        if kind == "checkpoint_started":
            self.replica_bytes[key] = 0.0
        elif kind == "checkpoint_durable":
            assert self.replica_bytes[key] >= total * (1 - 1e-9), f"replica {replica} is not saved"
            if not is_on_nodes:
                self.saved_replicas.add(replica)

    def is_on_nodes(self, detail: str) -> bool:
        """Whether a replica's save is that on its nodes, not in the store."""
        return "in memory" in detail or self.strategy.lost_stage == "neighbour_checkpoint"

    def is_in_store_alone(self, detail: str) -> bool:
        """Whether a complete checkpoint of two tiers is none of the nodes'."""
        return self.strategy.kind == "two_tier_checkpoint" and detail != "in memory" and not self.has_disks

    def watched_note(self, original: Any) -> Any:
        def note(seconds: float, kind: str, *what: Any) -> None:
            original(seconds, kind, *what)
            if kind == "node_joined":
                self.join()
            elif kind == "rolled_back":
                self.fetched.clear()

        return note

    def watched_send_messages(self, original: Any) -> Any:
        def send_messages(messages: Any) -> Any:
            flows = original(messages)
            for flow, (source, target, num_bytes, what) in zip(flows, messages, strict=True):
                watch(flow, source, target, num_bytes, what)
            return flows

        def watch(flow: Any, source: int, target: int, num_bytes: float, what: str) -> None:
            node_at, version = self.world.membership.node_at, self.world.iterations.num_completed
            ends = [None if place == STORAGE else node_at[place] for place in (source, target)]
            sent = Sent(what, (ends[0], ends[1]), self.world.now_seconds, version)
            if source != STORAGE and self.parts:
                assert sent.ends[0], f"{what} is sent from a place where nobody is"
            elif source != STORAGE:
                self.check_source(sent)
                self.check_pipeline(sent, num_bytes)
            elif what == SAVED:
                assert sent.ends[1], "nobody is there to receive it"
                assert self.replica_of(sent.ends[1]) in self.saved_replicas, "the store has no state of this replica"
            if target != STORAGE:
                assert sent.ends[1], "nobody is there to receive it"
                batch = self.last_sent_to.setdefault(sent.ends[1], [])
                if any(other.was_cut or other.seconds != sent.seconds for other in batch):
                    batch.clear()  # those of an earlier attempt
                batch.append(sent)

            def ended(_: float) -> None:
                there = [node is None or self.world.membership.nodes.get(node.number) is node for node in sent.ends]
                sent.arrived = flow.arrived.triggered and all(there)
                sent.was_cut = not sent.arrived
                if sent.arrived:
                    self.arrived(sent, num_bytes)

            flow.when_ended.append(ended)

        return send_messages

    # ---- who holds what ----------------------------------------------------------------------------

    def check_source(self, sent: Sent) -> None:
        """Check that senders exist and have the state or the copy."""
        node = sent.ends[0]
        assert node, f"{sent.what} is sent from a place where nobody is"
        own = self.own(node)
        if sent.what.startswith("checkpoint of stage"):
            stage = int(sent.what.split()[-1])
            sent.carries = set(self.copies.get(node, {}).get(stage, ()))
            if stage == own and own in self.state.get(node, {}):
                sent.carries.add(self.state[node][own])
            assert sent.carries, f"a node of stage {own} sends a copy of stage {stage} that it does not hold"
        elif not (sent.what == "state" and self.sends_what_it_lost(own)):
            held = self.state.get(node, {}).get(own)
            assert held == sent.version, f"stage {own} sends {sent.what} as of {held}, not {sent.version}"

    def check_pipeline(self, sent: Sent, num_bytes: float) -> None:
        """Check that, where pipelines train apart, copies of another stage come from the same pipeline."""
        source, target = sent.ends
        if self.strategy.kind != "diloco" or source is None or target is None or self.own(source) == self.own(target):
            return
        if num_bytes == self.world.costs.checkpoint_bytes(self.own(source)):
            assert self.replica_of(source) == self.replica_of(target), "another replica's state is sent"

    def replica_of(self, node: Node) -> int:
        assert node.slot is not None
        return self.world.cluster.place_of(node.slot)[1]

    def sends_what_it_lost(self, stage: int) -> bool:
        """Averages over lost neighbours, as in the released code."""
        return getattr(self.strategy, "adjacent_stages", "") == "one_after_the_other"

    def arrived(self, sent: Sent, num_bytes: float) -> None:
        source, target = sent.ends
        if self.parts and target:
            self.parts.arrived(sent, num_bytes)
        elif sent.what == SAVED and source:
            key = self.replica_of(source), sent.version, target is not None
            self.replica_bytes[key] = self.replica_bytes.get(key, 0.0) + num_bytes
        elif sent.what == SAVED and target:
            self.fetched.add(target)
        elif sent.what == "checkpoint" and target is None:
            self.uploaded_bytes[sent.version] = self.uploaded_bytes.get(sent.version, 0.0) + num_bytes
            total_bytes = sum(map(self.world.costs.checkpoint_bytes, self.world.cluster.stages))
            if self.uploaded_bytes[sent.version] >= total_bytes * (1 - 1e-9):
                self.stored.add(sent.version)
        elif target and sent.what.startswith("checkpoint of stage"):
            self.copies.setdefault(target, {}).setdefault(int(sent.what.split()[-1]), set()).update(sent.carries)
        elif source and target and sent.what == "state":
            if self.own(source) == self.own(target):
                self.receive_copies(target, source)
            if self.world.cluster.config.joining == "beside" or self.strategy.kind == "diloco":
                self.fetched.add(target)

    def keep(self, iteration: int) -> None:
        """A complete checkpoint: own copies are kept; nodes that joined meanwhile have what the others have.

        Nodes that have been sent the state and join after this iteration keep up already.
        """
        for node in {**self.state, **dict.fromkeys(self.fetched)} if self.keeps_own else ():
            mine = self.copies.setdefault(node, {})
            mine.setdefault(self.own(node), set()).add(iteration)
            for other in self.state:
                for stage, versions in self.copies.get(other, {}).items():
                    if self.own(other) == self.own(node) and iteration in versions:
                        mine.setdefault(stage, set()).add(iteration)

    def join(self) -> None:
        """Nodes that join after a fetch beside the training have the copies that others have kept meanwhile."""
        there = set(self.state)
        self.settle()
        for node in set(self.state).difference(there):
            for peer in there:
                if self.own(peer) == self.own(node):
                    self.receive_copies(node, peer)

    def receive_copies(self, target: Node, source: Node) -> None:
        """A node has the copies that another one has."""
        for stage, versions in self.copies.get(source, {}).items():
            self.copies.setdefault(target, {}).setdefault(stage, set()).update(versions)

    def settle(self) -> None:
        """Nodes that can have their stage's state after a recovery; a shadow comes with its holder's state."""
        if self.parts:
            return
        num_stages, now = self.world.num_stages, self.world.iterations.num_completed
        state = {}
        for node in filter(None, self.world.membership.node_at):
            own, held = self.own(node), self.state.get(node, {})
            shadow = [(own + 1) % (num_stages + 1)] if self.strategy.kind == "redundant" else []
            shadow += self.taken_over(node, now)
            wanted = [stage for stage in (own, *shadow) if held.get(stage) != now]
            got = self.received(node, wanted, now)
            state[node] = {stage: now for stage in (own, *shadow) if stage in got or held.get(stage) == now}
        self.state = {node: held for node, held in state.items() if self.own(node) in held}

    def taken_over(self, node: Node, now: int) -> list[int]:
        """Stages of others whose state a node has, or has just been sent to work for them."""
        if self.strategy.kind != "neighbour_takeover":
            return []
        arrived = [sent for sent in self.last_sent_to.get(node, []) if sent.arrived and sent.version == now]
        stages = {self.own(sent.ends[0]) for sent in arrived if sent.ends[0] and sent.what == "state"}
        return sorted((stages | set(self.state.get(node, {}))) - {self.own(node)})

    def received(self, node: Node, wanted: list[int], now: int) -> list[int]:
        """Stages whose current state a node can have though it did not have it before."""
        own, batch = self.own(node), self.last_sent_to.get(node, [])
        if now == 0 or (self.strategy.kind == "reinit" and self.strategy.rule == "random"):
            return wanted  # drawn afresh
        if node in self.fetched and self.world.placement.of(own):
            self.fetched.remove(node)
            return wanted
        got = [stage for stage in wanted if now in self.copies.get(node, {}).get(stage, ())]
        if batch and all(sent.arrived for sent in batch):
            downloads = [sent for sent in batch if sent.what == "checkpoint"]
            if now in self.stored or self.stale_versions(now):
                got += [stage for stage in wanted if stage not in got][: len(downloads)]
                if self.keeps_own and own in got:
                    self.copies.setdefault(node, {}).setdefault(own, set()).add(now)
            if any(sent.what == "state" and sent.version == now for sent in batch):
                got += wanted
        not_its_own = self.fallback.kind == "checkpoint"  # uploads of both are told apart by nothing
        if self.goes_back_alone and (not_its_own or not self.stale_versions(now)):
            return wanted  # drawn afresh, alone
        return got

    def stale_versions(self, now: int) -> set[int]:
        """The iterations that a stage can roll back to by itself."""
        interval = getattr(self.strategy, "interval_iterations", None) or 1
        versions = {version for version in self.stored if 0 < version <= now and version % interval == 0}
        return versions if self.goes_back_alone else set()

    def check(self, places: Any, hosts: Any) -> None:
        """Check that each node of the iteration has the state of every stage that it works for."""
        self.settle()
        for place in places:
            host = hosts[place]
            node, stage = self.world.membership.node_at[host], self.world.cluster.stage_of(place)
            assert node, f"place {host} works, and nobody is there"
            held = self.state.get(node, {}).get(stage)
            now = self.world.iterations.num_completed
            assert held == now, f"place {host} works for stage {stage} with its state as of {held}, not {now}"


class PartsAccount:
    """Nodes and the parts of the state that they hold where pipelines are recut, by messages alone.

    Parts are the layers by number, "embedding" and "head". What a message carries is told by its bytes.
    """

    def __init__(self, auditor: Auditor) -> None:
        self.auditor, self.world = auditor, auditor.world
        self.held: dict[Node, dict[Any, int]] = {}  # with the iteration of each
        self.received: dict[Node, tuple[float, set[Any]]] = {}  # since the last iteration: bytes, and possible parts
        self.all_parts = {*range(self.world.costs.workload.model.num_layers), "embedding", "head"}

    def needed(self, layout: Any) -> dict[int, set[Any]]:
        """The parts of each place that takes part."""
        world = self.world
        first, workload = world.cluster.first_stage, world.costs.workload
        layers = layout.layers_per_stage if layout else [world.costs.num_layers(s) for s in world.cluster.stages[1:]]
        slots = layout.slots if layout else tuple(range(world.cluster.num_slots))
        num_pipelines = len(slots) // (len(layers) + 1 - first)
        found: dict[int, set[Any]] = {}
        for number, slot in enumerate(slots):
            stage = number // num_pipelines + first
            parts: set[Any] = set(range(sum(layers[: stage - 1]), sum(layers[:stage]))) if stage else set()
            parts |= {"embedding"} if stage == first else set()
            parts |= {"head"} if stage == (0 if workload.loss_at == "embedding_stage" else len(layers)) else set()
            found[slot] = parts
        assert len(found) == len(slots), "a place works for two stages"
        assert set.union(*found.values()) == self.all_parts
        return found

    def num_bytes(self, parts: Any) -> float:
        """Bytes of weights and both moments, in fp32."""
        model = self.world.costs.workload.model
        layer = 4 * model.dim**2 + 3 * model.dim * model.hidden_dim + 2 * model.dim
        table = model.vocabulary_size * model.dim
        return 12.0 * sum({"embedding": table, "head": table + model.dim}.get(part, layer) for part in parts)

    def arrived(self, sent: Sent, num_bytes: float) -> None:
        """Note what a message may have brought: any parts that its sender has, or any from the store."""
        source, target = sent.ends
        assert target
        sent_bytes, may_have = self.received.get(target, (0.0, set()))
        if source is None:
            assert sent.what == "checkpoint"
            had = {"store", *self.all_parts}
        else:
            assert sent.what == "state"
            had = {part for part, version in self.held.get(source, {}).items() if version == sent.version}
            had |= self.received.get(source, (0.0, set()))[1]
        self.received[target] = (sent_bytes + num_bytes, may_have | had)

    def check(self, layout: Any) -> None:
        """Check that each node has every part that it works with, as of now."""
        now = self.world.iterations.num_completed
        for slot, parts in self.needed(layout).items():
            node = self.world.membership.node_at[slot]
            assert node, f"place {slot} works, and nobody is there"
            lacking = {part for part in parts if self.held.get(node, {}).get(part) != now}
            if now and lacking:
                self.check_received(node, parts, lacking, now)

    def check_received(self, node: Node, parts: set[Any], lacking: set[Any], now: int) -> None:
        """Check that a node has been sent what it lacks, by nodes that have it, or all that it needs by the store."""
        num_bytes, may_have = self.received.get(node, (0.0, set()))
        assert lacking <= may_have, f"nobody has sent {lacking - may_have}"
        assert num_bytes >= self.num_bytes(parts if may_have == {"store", *self.all_parts} else lacking)
        assert "store" not in may_have or now in self.auditor.stored, f"nothing of iteration {now} is in the store"

    def learn(self, layout: Any) -> None:
        """After an iteration, the nodes that took part hold their parts as of its end; all else is out of date."""
        now, node_at = self.world.iterations.num_completed, self.world.membership.node_at
        self.held = {node_at[slot]: dict.fromkeys(parts, now) for slot, parts in self.needed(layout).items()}  # type: ignore[misc]
        self.received.clear()


@contextmanager
def audited(strategy: Any, fallback: Any) -> Iterator[list[Auditor]]:
    """Give an auditor to every world built in this context."""
    auditors: list[Auditor] = []
    build = sim.simulation.run.build_world

    def build_world(*args: Any, **options: Any) -> World:
        world = build(*args, **options)
        auditors.append(Auditor(world, strategy, fallback))
        return world

    with (
        patch.object(sim.simulation.run, "build_world", build_world),
        patch.object(StateTransfers, "has_idle_links", False),  # every message is followed
    ):
        yield auditors
