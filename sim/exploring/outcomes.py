"""Answer to a position of the sliders: runs simulated without training, with predicted losses, as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from sim.cluster.topology import usd_per_node_hour
from sim.core.records import BUCKETS
from sim.core.text import format_count, format_name
from sim.core.units import SECONDS_PER_HOUR
from sim.experiments.branches.whole_runs import rebuilt_in
from sim.exploring.learning import Learning
from sim.reporting.ledger import LOOKS
from sim.reporting.tables import mean_and_spread
from sim.reporting.verdict import MetricRanking, describe_ranking
from sim.results.prediction import Prediction
from sim.results.ranking import Outcomes, rank
from sim.results.statistics import Values, estimate
from sim.scenario.scenario import Scenario
from sim.simulation.first_times import first_time, first_times
from sim.simulation.log import num_failures_until
from sim.simulation.run import Run, simulate, time_only
from sim.strategies import StrategyConfig, answers_lost_nodes, legend_label, strategy_class

NUM_SEEDS = 4
"""Failure seeds of a complete answer; few, so that the answer takes less than a second."""

FEWEST_SEEDS = 2
"""Failure seeds of a first answer if all of them would take too long."""

GIVE_UP_AFTER = 5.0
"""Multiple of the iterations after which a run without progress is stopped, unless the scenario stops it earlier."""

SHARE_AT_START = 0.04
"""Share of the steps at the start whose losses are left out, since they would fill the figure."""


@dataclass(frozen=True)
class Simulated:
    """Runs of a strategy under all failure seeds. to_target: seconds to the target loss, NaN if it is not reached."""

    config: StrategyConfig
    runs: Sequence[Run]
    to_target: Sequence[float]
    curve: tuple[list[float], list[float]]  # hours and losses under the first failure seed

    @property
    def is_ideal(self) -> bool:
        """Whether failures have no effect."""
        return not strategy_class(self.config.kind).stops_on_failures


def runs_of(scenario: Scenario, num_seeds: int = NUM_SEEDS) -> Iterator[Run]:
    """Simulate every strategy under one failure seed after another, without training."""
    first, give_up_after = scenario.seeds.failures[0], min(scenario.give_up_after, GIVE_UP_AFTER)
    scenario = scenario.model_copy(update={"give_up_after": give_up_after})
    for seed in range(first, first + num_seeds):
        for config in scenario.strategies:
            yield simulate(scenario, config, seed, 0, time_only(scenario))


def by_strategy(scenario: Scenario, learning: Learning, runs: Sequence[Run]) -> Iterator[Simulated]:
    """Predict the losses of runs in the order of `runs_of`. Runs of seeds that some strategy lacks are left out."""
    num = len(scenario.strategies)
    whole = runs[: len(runs) // num * num]
    for number, config in enumerate(scenario.strategies if whole else ()):
        own, prediction = whole[number::num], learning.predictions.get(config.name)
        to_target = [_to_target(scenario, run, prediction) for run in own]
        yield Simulated(config, own, to_target, _curve(scenario, own[0], prediction))


def _to_target(scenario: Scenario, run: Run, prediction: Prediction | None) -> float:
    target = scenario.training.target_loss
    if prediction is None or target is None:
        return math.nan
    steps = prediction.step_of(target, prediction.seeds[0], rebuilt_in(run))
    return first_time(first_times(run), steps * scenario.iterations_per_step)


def _curve(scenario: Scenario, run: Run, prediction: Prediction | None) -> tuple[list[float], list[float]]:
    if prediction is None:
        return [], []
    times, steps = first_times(run), np.array(prediction.steps)
    losses = prediction.losses(prediction.seeds[0], rebuilt_in(run))
    iterations = steps * scenario.iterations_per_step
    shown = (iterations < len(times)) & (steps >= SHARE_AT_START * steps[-1])
    return (times[iterations[shown]] / SECONDS_PER_HOUR).tolist(), losses[shown].tolist()


def answer(scenario: Scenario, found: Sequence[Simulated]) -> dict[str, Any]:
    """Return the content of the page: a verdict, a row for each strategy, curves and hours by ledger bucket."""
    target = scenario.training.target_loss
    reaches = target is not None and any(not math.isnan(seconds) for one in found for seconds in one.to_target)
    num_seeds = len(found[0].runs) if found else 0
    runs = format_count(num_seeds, "failure seed") + (f", soon over {NUM_SEEDS}" if num_seeds < NUM_SEEDS else "")
    return {
        "is_complete": num_seeds == NUM_SEEDS,
        "verdict": _verdict(found, f"{target:g}" if reaches else None),
        "about": f"Means over {runs}; curves are under failure seed {scenario.seeds.failures[0]}.",
        "target": target,
        "rows": [_row(scenario, one) for one in found],
        "curves": [
            {"strategy": number, "hours": hours, "loss": loss}
            for number, one in enumerate(found)
            for hours, loss in zip(*one.curve, strict=True)
        ],
        "ledger": [part for number, one in enumerate(found) for part in _ledger(number, one)],
        "stopped": [
            f"{legend_label(one.config.name)} stopped: {run.stopped}"
            for one in found
            for run in one.runs
            if run.stopped
        ][:3],
    }


def _verdict(found: Sequence[Simulated], target: str | None) -> str:
    """Return the verdict in the words of `run` and `report`."""
    outcomes: dict[str, Outcomes] = {}
    for one in found:
        if not one.is_ideal:
            until = one.to_target if target else [run.wall_clock_seconds for run in one.runs]
            seeds = np.array([(run.failure_seed, run.training_seed) for run in one.runs], dtype=np.int64)
            lost = [float(_num_lost(one, run, end)) for run, end in zip(one.runs, until, strict=True)]
            values = [math.nan if run.stopped and not target else end for run, end in zip(one.runs, until, strict=True)]
            outcomes[one.config.name] = Outcomes(Values(seeds, np.array(values)), Values(seeds, np.array(lost)))
    if not outcomes:
        return "Failures affect no strategy of this scenario."
    ranked = rank(outcomes).standings
    return describe_ranking(MetricRanking(ranked, {name: one.values for name, one in outcomes.items()}), target)


def _num_lost(one: Simulated, run: Run, until_seconds: float) -> int:
    end = math.inf if math.isnan(until_seconds) else until_seconds
    kind = "node_lost" if answers_lost_nodes(one.config.kind) else "failure"
    return num_failures_until(run.events, end, "failure") + (
        num_failures_until(run.events, end, "node_lost") if kind == "node_lost" else 0
    )


def _row(scenario: Scenario, one: Simulated) -> dict[str, Any]:
    """Numbers of a strategy, as text."""
    price, ended = usd_per_node_hour(scenario.cluster), [run for run in one.runs if not run.stopped]
    seeds = np.array([(run.failure_seed, run.training_seed) for run in one.runs], dtype=np.int64)
    takes = estimate(Values(seeds, np.array(one.to_target)))
    mean, spread = mean_and_spread(takes.mean / SECONDS_PER_HOUR, takes.half_width / SECONDS_PER_HOUR)
    final = one.curve[1][-1] if one.curve[1] and not one.runs[0].stopped else None
    lost = [] if one.is_ideal else [run.num_failures for run in one.runs]
    usd = [price * run.node_hours for run in ended] if price is not None else []
    return {
        "label": legend_label(one.config.name),
        "to_target": "-" if math.isnan(takes.mean) else mean,
        "spread": spread,
        "reached": f"{takes.num_reached} of {takes.num_runs} runs" if takes.num_reached < takes.num_runs else "",
        "to_end": _mean([run.wall_clock_seconds / SECONDS_PER_HOUR for run in ended]),
        "usd": _mean(usd),
        "iteration_seconds": _mean([run.iteration_seconds for run in one.runs]),
        "lost": f"{fmean(lost):.1f}" if lost else "-",
        "final_loss": "-" if final is None else f"{final:.3f}",
    }


def _mean(values: Sequence[float]) -> str:
    return mean_and_spread(fmean(values), math.nan)[0] if values else "-"


def _ledger(number: int, one: Simulated) -> Iterator[Mapping[str, Any]]:
    for order, bucket in enumerate(BUCKETS):
        hours = fmean(run.ledger[bucket] for run in one.runs) / SECONDS_PER_HOUR
        if hours:
            name = format_name(bucket)
            yield {"strategy": number, "label": legend_label(one.config.name), "bucket": name, "order": order,
                   "hours": round(hours, 6)}  # fmt: skip


def bucket_colours() -> dict[str, str]:
    """Colour of each ledger bucket, as in all figures."""
    return {format_name(bucket): LOOKS[bucket][0] for bucket in BUCKETS}
