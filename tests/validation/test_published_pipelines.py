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


@pytest.mark.parametrize(
    ("m", "chunks", "forward", "backward", "hop", "published"),
    [
        (24, 3, 18.522, 27.423, 0.601, 0.1055),
        (32, 3, 18.513, 27.417, 0.626, 0.0818),
        (64, 3, 18.546, 27.418, 0.762, 0.0443),
        (24, 4, 29.718, 49.371, 0.527, 0.0808),
        (32, 4, 29.802, 48.958, 0.577, 0.0628),
        (64, 4, 29.935, 49.009, 0.535, 0.0320),
    ],
)
def test_bubble_rates_of_interleaved_1f1b_are_near_the_published_ones(m, chunks, forward, backward, hop, published):
    """The same table, as layers per stage (chunks are not printed). Within 0.004; without hops (p - 1) / (v m + p - 1).

    The published times have 2 (v p - 1) - p hops that nothing hides; in Megatron's order of visits, in which each
    waits for its own, there are 2 (v p - 1), and rates 0.001 to 0.004 higher.
    """
    interleaved = f"schedule: interleaved_1f1b\n  chunks_per_stage: {chunks}\n  precision:"

    def rate(hop_ms: float) -> float:
        text = SCENARIO.format(m=m, forward=forward, backward=backward, hop=hop_ms).replace("precision:", interleaved)
        site = build_site(parse_scenario(text.replace("num_layers: 8", f"num_layers: {8 * chunks}")))
        return 1 - m * (forward + backward) / 1e3 / fastest_time(site, plain_plan_on(site)).seconds

    assert rate(hop) == pytest.approx(published, abs=4e-3)
    assert rate(0.0) == pytest.approx(7 / (chunks * m + 7), abs=1e-4)


MEGATRON = """
name: megatron-175b
workload:
  model: {name: gpt175b, dim: 12288, num_heads: 96, num_layers: 96, hidden_dim: 32768, vocabulary_size: 51200}
  num_stages: 8
  sequence_length: 2048
  sequences_per_microbatch: 1
  num_microbatches: 64
  precision: bf16
  schedule: interleaved_1f1b
  chunks_per_stage: 3
  loss_at: last_stage
training: {learner: none, steps: 2, model: {num_stages: 8}}
cluster:
  device: {name: 8xA100, bf16_tflops: 2496, fp32_tflops: 156, memory_gib: 640, utilisation: 0.546}
network:
  same_region: {latency_ms: 0.02, bandwidth_mbit_per_s: 1600000}
  storage: {latency_ms: 1, bandwidth_mbit_per_s: 1000000}
failures: never
strategies: [none]
"""


@pytest.mark.parametrize(("recomputes", "published_seconds"), [("false", 13.75), ("true", 18.13)])
def test_megatron_175b_with_and_without_recomputation(recomputes, published_seconds):
    """Korthikanti et al. (arXiv 2205.05198), table 5; the utilisation is fitted to the first row.

    A tensor-parallel group is one node of eight times an A100; GELU's two matrices count as SwiGLU's three of 8/3 d.
    """
    text = MEGATRON.replace("precision:", f"recompute_activations: {recomputes}\n  precision:")
    site = build_site(parse_scenario(text))
    assert fastest_time(site, plain_plan_on(site)).seconds == pytest.approx(published_seconds, rel=0.006)


@pytest.mark.parametrize(
    ("num_parameters", "optimizer_bytes", "published_terabytes"),
    [(1.008e12, "null", 13.8), (0.1762e12, "null", 2.3 * 1.0995), (0.175e12, 7.1, 1.6)],
)
def test_sizes_of_published_checkpoints(num_parameters, optimizer_bytes, published_terabytes):
    """Megatron 1T (SC 2021, 5.10) 13.8 TB, BLOOM 2.3 TiB, OPT-175B 1.6 TB, with an optimizer state of its own."""
    text = MEGATRON.replace("precision:", f"optimizer_bytes_per_parameter: {optimizer_bytes}\n  precision:")
    costs = build_site(parse_scenario(text)).costs
    each = sum(map(costs.checkpoint_bytes, range(9))) / costs.num_parameters
    assert num_parameters * each / 1e12 == pytest.approx(published_terabytes, rel=0.03)
