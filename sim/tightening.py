"""More replicates where intervals are wide."""

from sim.sweep_job import SweepJob


def share_of(text: str) -> float:
    return float(text.strip("%")) / 100


def tighten(job: SweepJob, share: float, most: int) -> None:
    raise NotImplementedError
