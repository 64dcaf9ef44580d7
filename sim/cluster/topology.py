"""Topology of a cluster: slots for nodes, one for each stage (stage 0 too) and pipeline, and the price of nodes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from models.spec import Config
from sim.cluster.devices import Device
from sim.core.presets import OrPreset


class Straggler(Config):
    """A node that is slower than the others, all the time."""

    stage: int = Field(ge=0, description="its stage")
    replica: int | None = Field(None, ge=0, description="its pipeline; default: the stage's nodes of all pipelines")
    slowdown: float = Field(ge=1e-6, le=1e6, description="its time for an operation, × the others'")


class ClusterConfig(Config):
    """The `cluster:` section of a scenario."""

    device: Annotated[Device, OrPreset("devices")] = Field(
        "l4", validate_default=True, description="device of each node: a preset's name or its figures"
    )
    price: Literal["spot", "on_demand"] = Field("spot", description="which price of the device applies to every node")
    nodes_per_stage: int = Field(1, ge=1, le=100_000, description="data-parallel replicas of each stage")
    embedding_on: Literal["own_node", "first_stage"] = Field(
        "own_node",
        description="nodes of stage 0, the embedding: its own, as in the CheckFree paper, or those of S1, as in "
        "Megatron and torchtitan, so that it is lost with S1. Default with loss_at last_stage: first_stage, unless "
        "stage 0 is immune or a strategy needs own nodes",
    )
    stage_state: Literal["replicated", "sharded"] = Field(
        "replicated",
        description="replicated: each node of a stage holds all of its state, and others continue when one is lost; "
        "sharded: each holds an equal share (ZeRO, FSDP), and the stage is lost with any of its nodes",
    )
    regions: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="regions in which nodes are placed; default: all regions of the network",
    )
    placement: Literal["round_robin", "stage_per_region", "by_hand"] = Field(
        "round_robin",
        description="regions of nodes: in turn; each stage in a region of its own, in turn; or "
        "by_hand: `regions` names a region for each node, replicas of stage 0 first",
    )
    stragglers: tuple[Straggler, ...] = Field((), description="nodes that are slower than the device")
    jitter: float = Field(
        0.0, ge=0, le=2, description="spread (sigma) of a lognormal factor, of mean 1, on the time of each operation"
    )
    num_spares: int = Field(0, ge=0, le=100_000, description="idle nodes that replace lost ones")
    detection_seconds: float = Field(0.0, ge=0, le=1e8, description="from a failure until the other nodes detect it")
    provisioning_seconds: float = Field(
        0.0, ge=0, le=1e8, description="mean time from ordering a new node until it is available"
    )
    provisioning_sigma: float = Field(
        0.0, ge=0, le=5, description="spread (sigma) of a lognormal factor, of mean 1, on provisioning_seconds"
    )
    startup_seconds: float = Field(
        0.0, ge=0, le=1e8, description="time to start the process and join, on the node that takes over"
    )
    regroup_seconds: float = Field(
        0.0, ge=0, le=1e8, description="time until the others continue without a lost node whose stage has other nodes"
    )
    joining: Literal["standstill", "beside"] = Field(
        "standstill",
        description="how a node joins others of its stage: all wait while it is sent the state, or it is sent beside "
        "the training and the node takes part from the next iteration on",
    )


def num_shares_of(config: ClusterConfig) -> int:
    """Number of shares of a stage's state, each on its own node."""
    return config.nodes_per_stage if config.stage_state == "sharded" else 1


def first_stage_of(config: ClusterConfig) -> int:
    """The first stage with nodes of its own."""
    return 1 if config.embedding_on == "first_stage" else 0


class Cluster:
    """Slots, numbered by stage, then by pipeline (replica); a replacement has the region and slowdown of its slot."""

    def __init__(self, config: ClusterConfig, num_stages: int, regions: tuple[str, ...]) -> None:
        self.config = config
        self.num_stages = num_stages
        self.stages = tuple(range(num_stages + 1))
        self.first_stage = first_stage_of(config)
        self.stages_with_nodes = self.stages[self.first_stage :]
        self.replicas = tuple(range(config.nodes_per_stage))
        self.num_shares, self.is_sharded = num_shares_of(config), config.stage_state == "sharded"
        if len(regions) == 1:
            self.regions_of_nodes = regions * (len(self.stages_with_nodes) * config.nodes_per_stage)
        else:
            by_stage = config.placement == "stage_per_region"
            places = ((stage, replica) for stage in self.stages_with_nodes for replica in self.replicas)
            numbers = (stage if by_stage else self.slot(stage, replica) for stage, replica in places)
            self.regions_of_nodes = tuple(regions[number % len(regions)] for number in numbers)
        self.regions = tuple(dict.fromkeys(self.regions_of_nodes))
        self._slowdowns: dict[tuple[int, int], float] = {}
        for slow in config.stragglers:
            for replica in self.replicas if slow.replica is None else (slow.replica,):
                self._slowdowns[slow.stage, replica] = self.slowdown(slow.stage, replica) * slow.slowdown

    def slot(self, stage: int, replica: int) -> int:
        """Number of a stage's slot in a pipeline."""
        return (self.host_of(stage) - self.first_stage) * self.config.nodes_per_stage + replica

    def host_of(self, stage: int) -> int:
        """The stage whose nodes hold a stage: itself, or S1 for an embedding without nodes of its own."""
        return max(stage, self.first_stage)

    @property
    def num_slots(self) -> int:
        """Number of slots of all stages."""
        return len(self.regions_of_nodes)

    def slots_of(self, stage: int) -> range:
        """Slots of a stage, one for each pipeline."""
        first = self.slot(stage, 0)
        return range(first, first + self.config.nodes_per_stage)

    def stage_of(self, slot: int) -> int:
        """Stage of a slot."""
        return slot // self.config.nodes_per_stage + self.first_stage

    def place_of(self, slot: int) -> tuple[int, int]:
        """Stage and pipeline of a slot."""
        return self.stage_of(slot), slot % self.config.nodes_per_stage

    def stages_on(self, stage: int) -> range:
        """Stages whose state the nodes of a stage hold: its own, and the embedding's on S1."""
        return range(0 if stage == self.first_stage else stage, stage + 1)

    def slowdown(self, stage: int, replica: int) -> float:
        """Factor on the device's time for an operation."""
        return self._slowdowns.get((stage, replica), 1.0)


# ---- price: node-hours, idle spares included, times the price of a node ----
# *Not modelled*: storage, traffic, minimum billing times, prices that change during a run.


def usd_per_node_hour(cluster: ClusterConfig) -> float | None:
    """Price of a node, which is one device; None where it is unknown."""
    device = cluster.device
    return device.spot_usd_per_hour if cluster.price == "spot" else device.on_demand_usd_per_hour


def num_nodes(cluster: ClusterConfig, num_stages: int) -> int:
    """Nodes of a complete cluster: those of every stage that has its own, and spares."""
    return (num_stages + 1 - first_stage_of(cluster)) * cluster.nodes_per_stage + cluster.num_spares
