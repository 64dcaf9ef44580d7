"""Immutable records of what happened in a run; all results derive from records."""

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
"""What simulated time is spent on. Every second of a run is in exactly one bucket."""

BUCKETS: tuple[Bucket, ...] = Bucket.__args__  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Failure:
    """The loss of one or all nodes of a stage; announced: a preemption notice preceded it."""

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
    "stage_left_out",
    "stage_returned",
    "notice",
    "regrouped",
    "recut",
    "synchronised",
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
    """An event, other than an iteration, at one instant of simulated time; `iteration`: number of completed ones.

    Kind `failure`: a stage lost its state with the last node that held it; `node_lost`: other nodes still hold it;
    `stage_left_out`, `stage_returned`: from when until when training goes around a stage.
    """

    time_seconds: float
    kind: EventKind
    stage: int | None
    iteration: int
    detail: str = ""


class Synchronisation(NamedTuple):
    """The numbers of replicas in a synchronisation and of complete pipelines at that instant, of so many in all."""

    time_seconds: float
    num_replicas: int
    num_complete: int
    num_pipelines: int


class NodeCount(NamedTuple):
    """The number of nodes present from an instant of simulated time on, idle spares included."""

    time_seconds: float
    num_nodes: int


@dataclass(frozen=True)
class Operation:
    """An operation of a node: forward, backward, weights (gradients of weights that a schedule puts off), or shadow.

    A shadow is the work of another stage. microbatch: -1 for several.

    stage: the stage whose work it is; replica: the pipeline of the node that does it, also where that is a substitute.
    In pipelines laid out anew, both are those of the node's place.
    """

    kind: str
    stage: int
    replica: int
    microbatch: int
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Message:
    """Bytes sent between nodes, or to or from the checkpoint store (node -1); `arrived`, or ended by a failure."""

    what: str
    source: int
    target: int
    num_bytes: float
    start_seconds: float
    end_seconds: float
    arrived: bool


@dataclass(frozen=True)
class Span:
    """Time that the training process spent on one ledger bucket."""

    bucket: Bucket
    start_seconds: float
    end_seconds: float
