"""Executes iterations: each is one event, priced by itself or beside the messages that are under way.

With `fidelity: microbatch`, and in the window of a trace, every forward, backward and message of it is an event of the
world. Both end at the same instant, to the bit.
What is left of an iteration that is resumed after a failure is always one event. A message that begins in the midst of
one event (a checkpoint upon a notice) meets the others from the next iteration on.
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
from sim.workload.deployment import Deployment, Hosts
from sim.workload.iteration_time import AmongOthers, IterationTime, IterationTimeCache, IterationTimes

Fidelity = Literal["iteration", "microbatch"]


class IterationExecutor:
    """The iterations of one run, one after the other.

    cut_share: of an iteration that a failure has cut, the share that was done; 0 where there is none. Its time is lost
    work, unless the next one resumes it and completes.
    """

    def __init__(
        self,
        site: Deployment,
        seed: int,
        work: InterruptibleWork,
        flows: Flows,
        strikes: FailureInjector,
        fidelity: Fidelity,
        prices: IterationTimeCache,
    ) -> None:
        self.pipeline = IterationTimes(site, seed, prices)
        self.fidelity = fidelity
        self.most_executed = math.inf
        self.num_executed = 0
        self.num_completed = 0
        self.cut_share = 0.0
        self._cut_seconds = 0.0
        self._work, self._flows, self._strikes = work, flows, strikes
        self._is_shared, self._jitters = site.network.is_shared, site.cluster.config.jitter > 0.0

    def run(self, plan: IterationPlan, hosts: Hosts | None) -> Process[Failure | None]:
        """Execute one iteration, or what is left of one that was cut; what a failure interrupts is lost work."""
        if self.num_executed >= self.most_executed:
            raise GaveUpError
        work, started_seconds = self._work, self._work.now_seconds
        self.num_executed += 1
        done_share, done_seconds = self.cut_share, self._cut_seconds
        others = self._flows.states() if self._is_shared and not done_share else ()
        priced = self._priced(plan, others, hosts)
        left_seconds = to_ticks(priced.seconds * (1.0 - done_share)) if done_share else priced.seconds
        self._strikes.iteration_begins(self.num_executed, left_seconds)
        if done_share:
            split, failure = priced.split, (yield from work.wait(left_seconds))
        elif self._plays_every_event(priced.seconds, bool(others)):
            split, failure = yield from self._play(plan, hosts)
        else:
            split, failure = yield from self._pass(priced)
        self._strikes.iteration_ends(failure is not None)
        if failure is None and work.queued:
            failure = work.queued.popleft()
        took_seconds = work.now_seconds - started_seconds
        if failure is None:
            self.cut_share = self._cut_seconds = 0.0
            self.num_completed += 1
            work.ledger.take_back("lost_work", done_seconds)
            work.ledger.complete_iteration(split.lasting(done_seconds + took_seconds) if done_share else split)
            return None
        # of what it usually takes, where operations jitter
        share = min(1.0, took_seconds / left_seconds) if left_seconds else 1.0
        self.cut_share = done_share + (1.0 - done_share) * share
        self._cut_seconds = done_seconds + took_seconds
        work.ledger.spend("lost_work", took_seconds)
        if work.recorder:
            work.recorder.add_span("lost_work", started_seconds, work.now_seconds)
        return failure

    def price_in_leaps(self, plan: IterationPlan, hosts: Hosts | None) -> IterationTime | None:
        """What each of the following iterations takes, as long as nothing happens; None where each is looked at.

        That is where they jitter, are played event by event, or share links with messages.
        """
        shares_links = self._is_shared and self._flows.busy
        if self._jitters or self.fidelity == "microbatch" or self.cut_share or shares_links or self._work.recorder:
            return None
        priced = self.pipeline.price(plan, hosts)
        return priced if priced.seconds > 0.0 else None

    @property
    def most_in_a_leap(self) -> float:
        """Iterations until one is struck by a process that counts them, or too many have been executed."""
        return min(self.most_executed - self.num_executed, self._strikes.num_spared(self.num_executed))

    def complete(self, leap: RepeatedIterations, split: IterationSplit) -> None:
        """The iterations and pauses of a leap have passed."""
        self.num_executed += leap.num_iterations
        self.num_completed += leap.num_iterations
        self._work.ledger.complete_iteration(split, leap.num_iterations)
        self._work.ledger.spend("checkpoint_save", leap.num_pauses * leap.pause_seconds)

    def forget_cut(self) -> None:
        """The iteration that a failure cut is not resumed: the next one begins anew."""
        self.cut_share = self._cut_seconds = 0.0

    def roll_back(self, num_iterations: int) -> None:
        """Only the first `num_iterations` iterations still count."""
        self._work.ledger.roll_back(num_iterations)
        self.num_completed = num_iterations

    def _priced(
        self, plan: IterationPlan, others: tuple[FlowState, ...], hosts: Hosts | None
    ) -> IterationTime | AmongOthers:
        """The iteration that begins now, run by itself; where it jitters and is not to be one event, the usual one."""
        if others and not self._jitters:
            return self.pipeline.among(plan, others, hosts)
        if self._jitters and (others or self.fidelity == "microbatch"):
            return self.pipeline.price(plan, hosts)
        return self.pipeline.executed(plan, self.num_executed, hosts)

    def _plays_every_event(self, seconds: float, beside_others: bool) -> bool:
        """Asked for, wanted for the trace, or needed since an iteration that draws its times is not alone."""
        work = self._work
        if work.recorder and work.recorder.is_open(work.now_seconds, work.now_seconds + seconds):
            return True
        return self.fidelity == "microbatch" or (beside_others and self._jitters)

    def _play(self, plan: IterationPlan, hosts: Hosts | None) -> Process[tuple[IterationSplit, Failure | None]]:
        """An iteration event by event, in the order that it was priced in."""
        work, started_seconds, sample = self._work, self._work.now_seconds, self.num_executed
        if self.fidelity == "iteration":
            sample = self.pipeline.sample_of(sample)
        run = self.pipeline.begin(plan, work.env, self._flows, sample, hosts)
        failure = yield from work.wait_until(run.done)
        if failure:
            run.stop()
        if work.recorder:
            work.recorder.add_iteration(run, started_seconds, work.now_seconds)
        return run.split(work.now_seconds - started_seconds), failure

    def _pass(self, priced: IterationTime | AmongOthers) -> Process[tuple[IterationSplit, Failure | None]]:
        """An iteration as one event. Messages under way beside it share its links; a failure ends these anyway."""
        work = self._work
        if work.queued:
            return priced.split, work.next_failure()
        if isinstance(priced, AmongOthers):
            self._flows.hold(priced.arrivals_seconds)
        failure = yield from work.wait(priced.seconds)
        if failure is None and isinstance(priced, AmongOthers):
            self._flows.release(priced.left)
        return priced.split, failure
