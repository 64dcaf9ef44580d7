"""Execution of iterations, each as one event whose duration is known when it begins.

With `fidelity: microbatch`, and in the window of a recording, every forward, backward and message is an event of the
loop. Both end at the same instant, to the bit. Messages that begin meanwhile share links from the next iteration on.
"""

from __future__ import annotations

import math
from typing import Literal

from sim.cluster.flows import Flows, FlowState
from sim.core.ledger import IterationSplit
from sim.core.records import Failure
from sim.core.units import to_ticks
from sim.simulation.failure_injection import FailureInjector
from sim.simulation.interruptible import GaveUpError, InterruptibleWork
from sim.simulation.leap import RepeatedIterations
from sim.strategies.base import Process
from sim.workload.config import IterationPlan
from sim.workload.deployment import Assignment
from sim.workload.iteration_time import AmongOthers, IterationTime, IterationTimes

Fidelity = Literal["iteration", "microbatch"]


class IterationExecutor:
    """Executes the iterations of one run; GaveUpError once `most_executed` have been executed.

    cut_share, cut_seconds: part of the last iteration that was done when a failure interrupted it; 0 if none did. It is
    lost work, unless the next iteration resumes it and completes.
    """

    def __init__(
        self,
        times: IterationTimes,
        work: InterruptibleWork,
        flows: Flows,
        injector: FailureInjector,
        fidelity: Fidelity,
    ) -> None:
        self.times, self.fidelity, self.most_executed = times, fidelity, math.inf
        self.num_executed = 0
        self.cut_share = self.cut_seconds = 0.0
        self._work, self._flows, self._injector = work, flows, injector
        self._is_shared = times.deployment.network.is_shared
        self._jitters = times.deployment.cluster.config.jitter > 0.0

    @property
    def num_completed(self) -> int:
        """Iterations that count: completed, and not undone by a rollback."""
        return self._work.ledger.num_iterations

    def run(self, plan: IterationPlan, assignment: Assignment | None) -> Process[Failure | None]:
        """Execute one iteration, or the rest of one that was interrupted; interrupted work is lost."""
        if self.num_executed >= self.most_executed:
            raise GaveUpError
        work, started_seconds = self._work, self._work.now_seconds
        self.num_executed += 1
        iteration = self.num_completed + 1
        done_share, done_seconds = self.cut_share, self.cut_seconds
        others = self._flows.states() if self._is_shared and not done_share else ()
        iteration_time = self._time(plan, others, assignment)
        left_seconds = to_ticks(iteration_time.seconds * (1.0 - done_share)) if done_share else iteration_time.seconds
        self._injector.iteration_begins(iteration, done_share, left_seconds)
        if done_share:
            split, failure = iteration_time.split, (yield from work.wait(left_seconds))
        elif self._plays_every_event(iteration_time.seconds, bool(others)):
            split, failure = yield from self._play(plan, assignment)
        else:
            split, failure = yield from self._pass(plan, iteration_time, others, assignment)
        self._injector.iteration_ends(iteration, failure is not None)
        if failure is None and work.queued:
            failure = work.queued.popleft()
        took_seconds = work.now_seconds - started_seconds
        if failure is None:
            self.cut_share = self.cut_seconds = 0.0
            work.ledger.take_back("lost_work", done_seconds)
            work.ledger.complete_iteration(split.lasting(done_seconds + took_seconds) if done_share else split)
            return None
        # of the usual duration, if operations jitter
        share = min(1.0, took_seconds / left_seconds) if left_seconds else 1.0
        self.cut_share = done_share + (1.0 - done_share) * share
        self.cut_seconds = done_seconds + took_seconds
        work.ledger.spend("lost_work", took_seconds)
        if work.recorder:
            work.recorder.add_span("lost_work", started_seconds, work.now_seconds)
        return failure

    def keep_of_cut(self, share: float) -> None:
        """Keep a share of what was done of the interrupted iteration for the next one to continue; the rest is lost."""
        self.cut_share, self.cut_seconds = self.cut_share * share, to_ticks(self.cut_seconds * share)

    def time_in_leaps(self, plan: IterationPlan, assignment: Assignment | None) -> IterationTime | None:
        """Duration of each of the next iterations while nothing is due; None if they differ from each other."""
        if self._jitters or self.fidelity == "microbatch" or self.cut_share or self._work.recorder:
            return None
        iteration_time = self.times.alone(plan, assignment)
        return iteration_time if iteration_time.seconds > 0.0 else None

    @property
    def most_in_a_leap(self) -> float:
        """Number of iterations until a process that counts them causes a failure, or too many have been executed."""
        return min(self.most_executed - self.num_executed, self._injector.num_failure_free(self.num_completed))

    def complete(self, leap: RepeatedIterations, booked: RepeatedIterations | None, split: IterationSplit) -> None:
        """Book the iterations and saves of a leap, except those that have been booked before."""
        num = leap.num_iterations - (booked.num_iterations if booked else 0)
        num_pauses = leap.num_pauses - (booked.num_pauses if booked else 0)
        if num:
            self.num_executed += num
            self._work.ledger.complete_iteration(split, num)
        self._work.ledger.spend("checkpoint_save", num_pauses * leap.pause_seconds)

    def cut(self, would_end_seconds: float, usual_seconds: float) -> None:
        """Book an iteration that a failure has interrupted now."""
        done_seconds = self._work.now_seconds - (would_end_seconds - usual_seconds)
        self.num_executed += 1
        self.cut_share, self.cut_seconds = min(1.0, done_seconds / usual_seconds), done_seconds
        self._work.ledger.spend("lost_work", done_seconds)

    def _time(
        self, plan: IterationPlan, others: tuple[FlowState, ...], assignment: Assignment | None
    ) -> IterationTime | AmongOthers:
        """Duration of the iteration that begins now; its usual duration if it jitters and is played event by event."""
        if others and not self._jitters:
            return self.times.among(plan, others, assignment)
        if self._jitters and (others or self.fidelity == "microbatch"):
            return self.times.alone(plan, assignment)
        return self.times.executed(plan, self.num_executed, assignment)

    def _plays_every_event(self, seconds: float, beside_others: bool) -> bool:
        """Whether the fidelity or the recording asks for every event, or a jittering iteration shares links."""
        now_seconds, recorder = self._work.now_seconds, self._work.recorder
        is_recorded = recorder is not None and recorder.is_open(now_seconds, now_seconds + seconds)
        return is_recorded or self.fidelity == "microbatch" or (beside_others and self._jitters)

    def _play(
        self, plan: IterationPlan, assignment: Assignment | None
    ) -> Process[tuple[IterationSplit, Failure | None]]:
        """Execute an iteration event by event, in the order for which its duration was computed."""
        work, started_seconds, num = self._work, self._work.now_seconds, self.num_executed
        sample = self.times.sample_of(num) if self.fidelity == "iteration" else num
        run = self.times.begin(plan, work.env, self._flows, sample, assignment)
        failure = yield from work.wait_until(run.done)
        if failure:
            run.stop()
            self._flows.states()  # what is left of other messages is rounded as in `_pass`
        if work.recorder:
            work.recorder.add_iteration(run, started_seconds, work.now_seconds)
        return run.split(work.now_seconds - started_seconds), failure

    def _pass(
        self,
        plan: IterationPlan,
        iteration_time: IterationTime | AmongOthers,
        others: tuple[FlowState, ...],
        assignment: Assignment | None,
    ) -> Process[tuple[IterationSplit, Failure | None]]:
        """Execute an iteration as one event; messages that share its links are held meanwhile."""
        work, started_seconds = self._work, self._work.now_seconds
        if work.queued:
            return iteration_time.split, work.next_failure()
        if not isinstance(iteration_time, AmongOthers):
            return iteration_time.split, (yield from work.wait(iteration_time.seconds))
        self._flows.hold(iteration_time.arrivals_seconds)
        failure = yield from work.wait(iteration_time.seconds)
        if failure is None:
            self._flows.release(iteration_time.left)
        elif self._flows.under_way:
            cut_seconds = work.now_seconds - started_seconds
            self._flows.release(self.times.left_at(plan, others, assignment, cut_seconds) if cut_seconds else others)
        return iteration_time.split, failure
