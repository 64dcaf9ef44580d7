"""Published bubble rates of 1F1B: Zero Bubble (Qi et al., ICLR 2024, arXiv 2401.10241), table 5, times of table 9."""

import pytest

from sim.scenario.loading import parse_scenario
from sim.simulation.run import build_site
from sim.workload.iteration_time import fastest_time
from sim.workload.window import plain_plan_on

SCENARIO = """
name: 1f1b
workload:
  model: {{preset: small, num_layers: 8}}
  num_stages: 8
  num_microbatches: {m}
  sequences_per_microbatch: 1
  precision: bf16
  loss_at: last_stage
  measured: {{forward_seconds: {forward}e-3, backward_seconds: {backward}e-3}}
training: {{learner: none, steps: 10, model: {{num_stages: 8}}}}
cluster: {{device: a100, embedding_on: first_stage}}
network:
  same_region: {{latency_ms: {hop}, bandwidth_mbit_per_s: 1e9}}
  storage: {{latency_ms: 1, bandwidth_mbit_per_s: 1e6}}
  sharing: none
failures: never
strategies: [none]
"""


@pytest.mark.parametrize(
    ("m", "forward", "backward", "hop", "published"),
    [
        (24, 18.522, 27.423, 0.601, 0.2431),
        (32, 18.513, 27.417, 0.626, 0.1985),
        (64, 18.546, 27.418, 0.762, 0.1240),
        (24, 29.718, 49.371, 0.527, 0.2347),
        (32, 29.802, 48.958, 0.577, 0.1898),
        (64, 29.935, 49.009, 0.535, 0.1091),
    ],
)
def test_bubble_rates_of_1f1b_are_the_published_ones(m, forward, backward, hop, published):
    """Eight stages with the embedding on the first: 1 - m (T_F + T_B + T_W) / T. Times in ms."""
    site = build_site(parse_scenario(SCENARIO.format(m=m, forward=forward, backward=backward, hop=hop)))
    seconds = fastest_time(site, plain_plan_on(site)).seconds
    assert 1 - m * (forward + backward) / 1e3 / seconds == pytest.approx(published, abs=1e-4)
