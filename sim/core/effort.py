"""The effort of simulating a run."""

from dataclasses import dataclass


@dataclass
class Effort:
    """The events of a run's simulation, and the operations of the iterations whose times it computes."""

    num_events: int = 0
