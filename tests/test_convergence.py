"""Real training shows what the paper shows: failures and swapped routes cost loss, over seeds. Takes minutes."""

from pathlib import Path
from statistics import mean

import pytest

from sim.loading import parse_scenario
from sim.runner import PlannedRun, ScenarioRunner

SCENARIO = """
name: convergence
workload: {num_microbatches: 4}
training:
  model: {dim: 32, num_heads: 4}
  optimizer: {learning_rate: 0.002}
  sequences_per_batch: 8
  steps: 600
  evaluation: {interval_steps: 600, num_sequences: 256}
failures: {kind: bernoulli, per_iteration_probability: 0.01, immune_stages: [0]}
strategies: [none, checkfree_plus, {kind: checkfree, end_stages: copy}]
seeds: {training: [0, 1, 2]}
"""


class Silent:
    def started(self, planned: PlannedRun):
        return lambda progress: None

    def finished(self, planned: PlannedRun, reused: bool) -> None:
        pass


def mean_final_losses(tmp_path: Path, *overrides: str) -> dict[str, float]:
    scenario = parse_scenario(SCENARIO, overrides=overrides)
    runner = ScenarioRunner(scenario, Path(), tmp_path, tmp_path / "cache")
    losses: dict[str, list[float]] = {}
    for run in runner.run(Silent()):
        losses.setdefault(run.summary["strategy"], []).append(run.summary["final_validation_loss"])
    return {strategy: mean(values) for strategy, values in losses.items()}


@pytest.mark.slow
def test_losses_rank_as_in_the_paper(tmp_path):
    under_failures = mean_final_losses(tmp_path)
    swapped = mean_final_losses(tmp_path, "strategies=[checkfree_plus]", "failures=never", "name=swapped")
    reference, plus, plain = (under_failures[name] for name in ("none", "checkfree_plus", "checkfree"))
    assert reference < swapped["checkfree_plus"] < plus
    assert reference < plain
