"""One immutable record for each thing that happened; every result derives from records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Bucket = Literal[
    "productive_compute",
    "bubble_and_communication",
    "redundant_compute",
    "checkpoint_save",
    "lost_work",
    "detection",
    "provisioning",
    "state_transfer",
    "waiting_for_nodes",
]
"""Where a simulated second goes. Every second of a run is in exactly one bucket."""

BUCKETS: tuple[Bucket, ...] = Bucket.__args__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Failure:
    """A stage lost a node, or all of them, at `time_seconds` of simulated time; announced: there was a notice of it."""

    time_seconds: float
    stage: int
    announced: bool = False


@dataclass(frozen=True)
class IterationRecord:
    """An iteration that completed. `execution` counts completions of this iteration number, from 1."""

    iteration: int
    step: int
    execution: int
    started_seconds: float
    ended_seconds: float
    lineage: str
    train_loss: float | None
    validation_loss: float | None


EventKind = Literal[
    "failure",
    "node_lost",
    "node_joined",
    "notice",
    "regrouped",
    "recovered",
    "rolled_back",
    "fallback",
    "unrecoverable",
    "checkpoint_started",
    "checkpoint_durable",
    "checkpoint_lost",
]


@dataclass(frozen=True)
class EventRecord:
    """Something other than an iteration that happened at one instant of simulated time.

    failure: a stage lost its state with its last node that held it; node_lost: others of the stage still hold it.

    stage: the stage concerned, None where none is; iteration: completed iterations at that instant;
    detail: a few words for people.
    """

    time_seconds: float
    kind: EventKind
    stage: int | None
    iteration: int
    detail: str = ""


class NodeCount(NamedTuple):
    """From an instant of simulated time on, so many nodes are there, idle spares among them."""

    time_seconds: float
    num_nodes: int


@dataclass(frozen=True)
class Operation:
    """What a stage's node of a pipeline (`replica`) did: forward, backward, or shadow (another stage's work).

    microbatch: -1 where it is of several. stage: whose work it is; replica: that of the node that does it, so that work
    for a pipeline without node stands in its stand-in's row.
    """

    kind: str
    stage: int
    replica: int
    microbatch: int
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Message:
    """Bytes sent from node to node, or to or from the checkpoint store (node -1); `arrived` or ended by a failure."""

    what: str
    source: int
    target: int
    num_bytes: float
    start_seconds: float
    end_seconds: float
    arrived: bool


@dataclass(frozen=True)
class Span:
    """Time that the training process spent on something, by ledger bucket."""

    bucket: Bucket
    start_seconds: float
    end_seconds: float
