"""Nodes and who hosts what: each stage, the ends (stage 0) included, has a node in every pipeline.

A node's life: hosting → lost (with its whole stage, in this version) → replaced. Every loss orders a new
node, which arrives `provisioning_seconds` later; the vacant place takes whichever node is there first, a
spare or an ordered one. That depends on the failures alone, so all strategies wait alike.
"""

from __future__ import annotations

import heapq
from typing import Annotated

from pydantic import Field

from models.lineage import Config
from sim.costs import Device
from sim.presets import or_preset


class ClusterConfig(Config):
    """The `cluster:` section of a scenario."""

    device: Annotated[Device, or_preset("devices")] = Field(
        "t4", validate_default=True, description="device of each node: a preset's name or its figures"
    )
    nodes_per_stage: int = Field(1, ge=1, le=1000, description="data-parallel replicas of each stage")
    regions: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="regions that nodes are dealt to, round-robin; default: all of the network's",
    )
    num_spares: int = Field(0, ge=0, le=10**6, description="idle nodes ready to take a lost one's place")
    detection_seconds: float = Field(0.0, ge=0, description="from a failure until the others know")
    provisioning_seconds: float = Field(0.0, ge=0, description="from ordering a new node until it is there")
    startup_seconds: float = Field(0.0, ge=0, description="process start and joining, on the node that takes over")


class Cluster:
    """Which node is where, and when a lost stage has its nodes again. Times are simulated seconds."""

    def __init__(self, config: ClusterConfig, num_stages: int, regions: tuple[str, ...]) -> None:
        self.config = config
        self.num_stages = num_stages
        self.stages = tuple(range(num_stages + 1))
        self._regions = regions
        self._arrivals_seconds = [0.0] * config.num_spares
        self._ready_seconds = dict.fromkeys(self.stages, 0.0)

    def region(self, stage: int, replica: int) -> str:
        """Region of a stage's node in a pipeline: node stage · replicas + replica, dealt round-robin."""
        return self._regions[(stage * self.config.nodes_per_stage + replica) % len(self._regions)]

    def regions_of(self, stage: int) -> tuple[str, ...]:
        """Regions of all nodes of a stage."""
        return tuple(self.region(stage, replica) for replica in range(self.config.nodes_per_stage))

    def lose(self, stage: int, now_seconds: float) -> bool:
        """A stage loses all its nodes. False, and nothing happens, where their places are still vacant."""
        if now_seconds < self._ready_seconds[stage]:
            return False
        for _ in range(self.config.nodes_per_stage):
            heapq.heappush(self._arrivals_seconds, now_seconds + self.config.provisioning_seconds)
            arrival_seconds = heapq.heappop(self._arrivals_seconds)
            self._ready_seconds[stage] = max(self._ready_seconds[stage], now_seconds, arrival_seconds)
        return True

    def ready_seconds(self, stage: int) -> float:
        """When all places of a stage are (or were) filled again."""
        return self._ready_seconds[stage]
