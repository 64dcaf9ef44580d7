"""One iteration alone on SimPy's event loop, with its record: the reference for times and for the loop over arrays."""

from dataclasses import dataclass
from functools import partial

import simpy

from sim.cluster.flows import Flows, FlowState
from sim.workload import iteration
from sim.workload.config import IterationPlan
from sim.workload.deployment import Assignment, Deployment
from sim.workload.iteration import IterationRun
from sim.workload.iteration_time import AmongOthers, IterationTime
from sim.workload.iteration_work import IterationWork, Order, TimeFactor


@dataclass(frozen=True)
class FinishedIteration(IterationTime):
    """An iteration that has run alone, from time zero, with its record."""

    run: IterationRun

    @property
    def time(self) -> IterationTime:
        return IterationTime(self.seconds, self.split, self.order)


def run_alone(
    deployment: Deployment,
    plan: IterationPlan,
    order: Order,
    time_factor: TimeFactor | None = None,
    assignment: Assignment | None = None,
) -> FinishedIteration:
    work = IterationWork(deployment, plan, order, assignment)
    run = iteration.run_alone(work, time_factor)
    return FinishedIteration(float(run.done.env.now), run.split(float(run.done.env.now)), work.order, run)


def run_among(
    deployment: Deployment,
    plan: IterationPlan,
    order: Order,
    others: tuple[FlowState, ...],
    assignment: Assignment | None = None,
    time_factor: TimeFactor | None = None,
) -> AmongOthers:
    """One iteration with messages that are already in flight."""
    env = simpy.Environment()
    flows = Flows(env)
    arrivals_seconds: list[float | None] = [None] * len(others)
    for index, state in enumerate(others):
        flows.resume(state).when_ended.append(partial(list.__setitem__, arrivals_seconds, index))
    run = IterationRun(IterationWork(deployment, plan, order, assignment), env, flows, time_factor)
    env.run(until=run.done)
    seconds = float(env.now)
    return AmongOthers(seconds, run.split(seconds), tuple(arrivals_seconds), flows.states())


def fastest_run(deployment: Deployment, plan: IterationPlan, assignment: Assignment | None = None) -> FinishedIteration:
    """An iteration in the faster order; the schedule's where both are equal."""
    is_complete = assignment is None or assignment == deployment.complete_assignment
    if not is_complete or not deployment.costs.schedule(plan).has_textbook_order:
        return run_alone(deployment, plan, "arrival", assignment=assignment)
    textbook, arrival = run_alone(deployment, plan, "textbook"), run_alone(deployment, plan, "arrival")
    return arrival if arrival.seconds < textbook.seconds else textbook
