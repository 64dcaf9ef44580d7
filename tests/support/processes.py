"""Failure processes by kind, members for them, and what they draw."""

from itertools import islice

import numpy as np

from sim.core.rng import stream
from sim.failures import PROCESSES, FailureProcess
from sim.failures.base import Member

FLEET = [Member(number=4 * s + r, region="AB"[s % 2], stage=s, replica=r) for s in range(5) for r in range(4)]


SPARES = [Member(number=20, region="A", stage=None), Member(number=21, region="B", stage=None)]


def process(kind: str, **options: object) -> FailureProcess:
    return PROCESSES[kind](PROCESSES[kind].Config(**options))


def uptimes(process: FailureProcess, count: int, seed: int = 0, domain: int | str = 1) -> np.ndarray:
    rng = stream(seed, "failures", process=process.kind, domain=domain)
    return np.array(list(islice(process.uptimes(rng, domain), count)))


def lost(process: FailureProcess, members: list[Member], index: int = 0) -> list[int]:
    """Numbers of the nodes lost in a failure."""
    return list(process.lost_nodes(stream(0, "victims", process=process.kind, domain=1), members, index))
