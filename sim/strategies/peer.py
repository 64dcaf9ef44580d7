"""Data-parallel copies alone: a lost node is replaced from another of its stage; a stage without any is gone.

What the redundancy of replicas carries by itself, and where it ends (Oobleck's boundary, SOSP '23).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from models.lineage import Position
from sim.records import Failure
from sim.strategies.base import Process, Strategy, StrategyConfig, StrategyWorld, UnrecoverableError


class PeerConfig(StrategyConfig):
    """`peer` has no options of its own."""

    kind: Literal["peer"] = "peer"


class Peer(Strategy):
    """Nothing is kept beside the replicas. Their copying from each other is the cluster's, under every strategy."""

    kind = "peer"
    summary = "replicas of a stage copy from each other, and that is all: a lost stage is gone"
    Config: ClassVar[type[StrategyConfig]] = PeerConfig

    def recover(self, world: StrategyWorld, failure: Failure, position: Position) -> Process[Position]:  # noqa: ARG002
        """There is nobody to copy from."""
        yield from ()
        lost = sorted(world.lost_stages)
        raise UnrecoverableError(f"stage {lost[0]} has lost its last node, and nobody else holds its state")
