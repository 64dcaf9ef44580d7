"""Iterations of all shapes, drawn by Hypothesis."""

from hypothesis import strategies as st

from models.spec import plain_routes, swapped_routes
from sim.core.units import to_ticks
from sim.workload.config import IterationPlan
from sim.workload.deployment import Deployment
from sim.workload.schedule import SCHEDULES
from support.builders import a_link, a_site

seconds = st.floats(0.01, 10.0).map(to_ticks)


schedules = st.sampled_from(list(SCHEDULES))


def options_of(schedule: str) -> dict[str, object]:
    """A schedule, and the least that it needs beside its name."""
    return {"schedule": schedule, **({"chunks_per_stage": 2} if SCHEDULES[schedule].is_interleaved else {})}


@st.composite
def shapes(draw, replicas=(1, 1, 2, 3), jitter=0.0) -> tuple[Deployment, IterationPlan]:
    """All shapes: routes, heads, hops, bytes on shared links, shadows, bounds, replicas, stragglers."""
    schedule = draw(schedules)
    interleaved = SCHEDULES[schedule].is_interleaved
    p = draw(st.integers(2, 6))
    m = (
        SCHEDULES[schedule].microbatch_multiple(p) * draw(st.integers(1, 3))
        if interleaved
        else draw(st.integers(1, 10))
    )
    swapped = p >= 4 and not interleaved and draw(st.booleans())
    plan = IterationPlan(
        m,
        swapped_routes(p) if swapped else plain_routes(p),
        microbatch_size=draw(st.sampled_from([0.5, 1.0])),
        shadow_forwards=0.0 if SCHEDULES[schedule].splits_backward else draw(st.sampled_from([0.0, 0.0, 1.0])),
        shadow=draw(st.sampled_from(["with_forward", "eager", "lazy"])),
        shadow_transfers=draw(st.integers(0, 2)),
        embedding_copies=draw(st.booleans()),
    )
    link = a_link(draw(st.sampled_from([0.0, 0.0, 0.3, 5.0])), draw(st.sampled_from([1e35, 1e6, 1e5])))
    network = {"same_region": link, "sharing": draw(st.sampled_from(["node_pair", "none"]))}
    if draw(st.booleans()):
        network["access"] = {"up_mbit_per_s": draw(st.sampled_from([0.5, 8.0])), "down_mbit_per_s": 4.0}
    cluster = {"nodes_per_stage": draw(st.sampled_from(replicas)), "jitter": jitter}
    if draw(st.booleans()):
        cluster["stragglers"] = ({"stage": draw(st.integers(0, p)), "slowdown": draw(st.sampled_from([0.5, 2.0]))},)
    workload = {
        "loss_at": draw(st.sampled_from(["embedding_stage", "last_stage"])),
        "gradient_exchange": draw(st.sampled_from(["ring", "all_to_all"])),
        "overlap_gradient_exchange": draw(st.booleans()),
        "pause_seconds": draw(st.sampled_from([0.0, 0.7])),
        "optimizer_seconds": draw(st.sampled_from([0.0, 0.3])),
    }
    if interleaved:
        workload["chunks_per_stage"] = draw(st.integers(2, 3))
    if SCHEDULES[schedule].limits_in_flight:
        workload["max_in_flight"] = draw(st.one_of(st.none(), st.integers(1, 15)))
    shape = (p, m, draw(seconds), draw(seconds), schedule, draw(st.sampled_from([0.0, 1.5])))
    return a_site(*shape, network=network, cluster=cluster, **workload), plan
