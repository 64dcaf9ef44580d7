"""Real training shows what the paper shows: failures and swapped routes cost loss, over seeds. Slow."""

from pathlib import Path
from statistics import mean

import pytest

from sim.experiments.sweep import run_scenario
from sim.scenario.loading import parse_scenario

SCENARIO = """
name: convergence
workload: {num_microbatches: 4}
training:
  model: {dim: 64, num_heads: 4}
  optimizer: {learning_rate: 0.001}
  sequences_per_batch: 16
  steps: 1500
  evaluation: {interval_steps: 1500, num_sequences: 256}
failures: {kind: bernoulli, per_iteration_probability: 0.01, immune_stages: [0]}
strategies: [none, checkfree_plus]
seeds: {training: [0, 1]}
"""


def mean_final_losses(tmp_path: Path, *overrides: str) -> dict[str, float]:
    scenario = parse_scenario(SCENARIO, overrides=overrides)
    losses: dict[str, list[float]] = {}
    for run in run_scenario(scenario, tmp_path, cache=tmp_path / "cache").run_files():
        losses.setdefault(run.summary["strategy"], []).append(run.summary["final_validation_loss"])
    return {strategy: mean(values) for strategy, values in losses.items()}


@pytest.mark.slow
def test_losses_rank_as_in_the_paper(tmp_path):
    under_failures = mean_final_losses(tmp_path)
    ends_spared = ("strategies=[checkfree]", "failures.immune_stages=[0, 1, 6]", "name=ends_spared")
    checkfree = mean_final_losses(tmp_path, *ends_spared)["checkfree"]
    swapped = mean_final_losses(tmp_path, "strategies=[checkfree_plus]", "failures=never", "name=swapped")
    assert under_failures["none"] < swapped["checkfree_plus"] < under_failures["checkfree_plus"]
    assert swapped["checkfree_plus"] < checkfree
