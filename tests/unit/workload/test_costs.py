"""FLOPs, seconds and bytes of the target model: against published figures and against the real module."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.spec import ModelSpec, plain_routes
from models.staged_model import StagedModel
from sim.cluster.devices import Device
from sim.core.presets import presets
from sim.workload.config import IterationPlan, TargetModel, WorkloadConfig, schedule_of
from sim.workload.costs import Costs, share_of_peak

LAYERS = range(1, 7)
SEQUENCE, SEQUENCES, VOCABULARY = 16, 3, 70
REAL = ModelSpec(family="llama", dim=24, num_heads=2, num_stages=2, layers_per_stage=3, hidden_dim=40)


def paper(device: str = "t4", **workload: object) -> Costs:
    """The paper's 500M model in 6 stages, microbatches of 8 × 1024 tokens."""
    return Costs(WorkloadConfig(**workload), Device(**presets("devices")[device]))


def of_the_real_module(**workload: object) -> Costs:
    """Costs of a target model with the shape of the small module."""
    model = TargetModel(
        dim=REAL.dim,
        num_heads=REAL.num_heads,
        num_layers=REAL.num_stages * REAL.layers_per_stage,
        hidden_dim=REAL.hidden_dim,
        vocabulary_size=VOCABULARY,
    )
    shape = {"num_stages": REAL.num_stages, "sequence_length": SEQUENCE, "sequences_per_microbatch": SEQUENCES}
    return Costs(WorkloadConfig(model=model, **shape, **workload), Device(**presets("devices")["l4"]))


@pytest.fixture(scope="module")
def real() -> StagedModel:
    return StagedModel(REAL, VOCABULARY, SEQUENCE, init_seed=0)


def test_stages_and_microbatches_have_the_papers_size_and_flops():
    costs = paper()
    assert [costs.stage_parameters(stage) for stage in range(7)] == [65_537_024, *[67_117_056] * 6]
    assert sum(costs.stage_parameters(stage) for stage in range(7)) == 468_239_360
    assert costs.weight_bytes(1) == pytest.approx(256 * 2**20, rel=0.001)
    costs = paper()
    assert f"{costs.forward_flops(1) / costs.tokens_per_microbatch / 1e6:.1f}" == "151.0"
    assert f"{costs.forward_flops(1) / 1e12:.3f}" == "1.237"
    assert f"{costs.forward_flops(0) / 1e12:.3f}" == "0.537"
    whole_model = sum(3 * costs.forward_flops(stage) for stage in range(7)) / costs.tokens_per_microbatch
    assert f"{whole_model / 1e9:.4f}" == "2.9145"


@pytest.mark.parametrize("model", presets("models"))
def test_flops_agree_with_megatrons_formula(model):
    costs = paper(model=presets("models")[model], num_stages=2)
    shape, s = costs.workload.model, costs.workload.sequence_length
    h, f, layers, vocabulary = shape.dim, shape.hidden_dim, shape.num_layers, shape.vocabulary_size
    megatron = 12 * layers * h**2 * (1 + 1 + s / h + 1.5 * f / h + vocabulary / (2 * layers * h))
    ours = sum(3 * costs.forward_flops(stage) for stage in range(3)) / costs.tokens_per_microbatch
    assert ours == pytest.approx(megatron, rel=1e-12)


@pytest.mark.parametrize(
    ("precision", "activation_bytes", "checkpoint", "state"),
    [("fp32", 33_554_432, 12, 16), ("bf16", 16_777_216, 14, 18)],
)
def test_precision_sets_bytes_of_activations_checkpoints_state(precision, activation_bytes, checkpoint, state):
    """Checkpoints hold weights and moments, devices the gradients too: bytes for each parameter."""
    costs = paper(precision=precision)
    assert costs.activation_bytes == activation_bytes
    assert costs.checkpoint_bytes(1) == checkpoint * 67_117_056
    assert costs.state_bytes(1) == state * 67_117_056


def test_the_model_has_parameters_and_flops_of_the_real_module(real):
    costs = of_the_real_module()
    assert [costs.stage_parameters(stage) for stage in range(3)] == [flat.numel() for flat in real.flat]
    tokens = torch.zeros(SEQUENCES, SEQUENCE, dtype=torch.long)
    costs = of_the_real_module()
    counted = counted_flops(lambda: real.loss(tokens, tokens, (1, 2)).backward())
    # The embedding's look-up is no product, and tokens have no gradient: all that is left is three times the forward.
    assert counted == 3 * sum(costs.forward_flops(stage) for stage in range(3))


@pytest.mark.parametrize(
    ("name", "published", "key_width"),
    [
        ("1B", 1_100_048_384, 256),
        ("3B", 3_426_473_600, 3200),
        ("7B", 6_738_415_616, 4096),
        ("8B", 8_030_261_248, 1024),
        ("13B", 13_015_864_320, 5120),
        ("70B", 70_553_706_496, 1024),
    ],
)
def test_presets_differ_from_published_sizes_by_grouped_queries(name, published, key_width):
    """Keys and values of the published models have the width given, those of the target model its whole width."""
    model = TargetModel(**presets("models")[name])
    costs = paper(model=model, num_stages=2)
    grouped = 2 * model.num_layers * model.dim * (model.dim - key_width)
    assert costs.num_parameters - grouped == published
    excess, stated = costs.num_parameters / published - 1, re.search(r"(\d+) % above", model.description)
    assert round(100 * excess) == (int(stated[1]) if stated else 0)


def counted_flops(run) -> int:
    """FLOPs of the products of matrices in what runs, attention in plain products."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("stage", "module_of"),
    [(1, lambda real: real.stages[1]), (0, lambda real: real.ends.logits)],
    ids=["layers", "head"],
)
def test_a_stage_runs_the_flops_of_the_real_module(real, stage, module_of):
    x, module = torch.randn(SEQUENCES, SEQUENCE, REAL.dim, requires_grad=True), module_of(real)
    forward = counted_flops(lambda: module(x))
    assert forward == of_the_real_module().forward_flops(stage)
    assert counted_flops(lambda: module(x).sum().backward()) == 3 * forward


def test_layers_and_head_are_where_the_scenario_says():
    costs = paper(layers_per_stage=(1, 2, 3, 4, 6, 8))
    assert [costs.num_layers(stage) for stage in range(7)] == [0, 1, 2, 3, 4, 6, 8]
    assert costs.forward_seconds(6) == pytest.approx(8 * costs.forward_seconds(1))
    assert sum(costs.stage_parameters(stage) for stage in range(7)) == 468_239_360
    assert sum(costs.forward_flops(stage) for stage in LAYERS) == 6 * paper().forward_flops(1)
    here, there = paper(), paper(loss_at="last_stage")
    assert (here.head_stage, there.head_stage) == (0, 6)
    assert there.stage_parameters(0) == 32_000 * 1024
    assert there.stage_parameters(6) == 67_117_056 + 32_000 * 1024 + 1024
    assert there.stage_parameters(3) == here.stage_parameters(3)
    assert sum(there.stage_parameters(stage) for stage in range(7)) == 468_239_360
    for stage in range(7):  # the head's work keeps its number, whoever does it
        assert there.forward_seconds(stage) == here.forward_seconds(stage)


def test_measured_and_computed_seconds_follow_the_flops():
    t4 = presets("devices")["t4"]
    reached = t4["fp32_tflops"] * 1e12 * t4["utilisation"]
    assert paper().forward_seconds(1) == pytest.approx(1.237e12 / reached, rel=5e-4)
    assert paper().backward_seconds(1) == 2 * paper().forward_seconds(1)
    measured = paper(measured={"forward_seconds": 0.2, "backward_seconds": 0.5, "head_seconds": 0.3})
    assert (measured.forward_seconds(3), measured.backward_seconds(3)) == (0.2, 0.5)
    assert measured.forward_seconds(0) + measured.backward_seconds(0) == pytest.approx(0.3)
    costs = paper(layers_per_stage=(2, 2, 2, 2, 8, 8), measured={"forward_seconds": 0.2, "backward_seconds": 0.5})
    assert [costs.forward_seconds(stage) for stage in (1, 5)] == pytest.approx([0.1, 0.4])
    assert [costs.backward_seconds(stage) for stage in (1, 5)] == pytest.approx([0.25, 1.0])
    assert sum(costs.forward_seconds(stage) for stage in LAYERS) == pytest.approx(6 * 0.2)


@given(st.sampled_from(range(7)), st.floats(0.01, 1.0), st.booleans())
def test_a_smaller_microbatch_takes_its_share_of_time(stage, size, is_measured):
    measured = {"forward_seconds": 0.2, "backward_seconds": 0.5, "head_seconds": 0.3} if is_measured else None
    costs = paper(measured=measured)
    assert costs.forward_seconds(stage, size) == pytest.approx(size * costs.forward_seconds(stage))
    assert costs.backward_seconds(stage, size) == pytest.approx(size * costs.backward_seconds(stage))


def test_recomputing_adds_a_forward_of_the_layers_not_the_head():
    costs = paper(recompute_activations=True)
    assert costs.backward_seconds(1) == 3 * costs.forward_seconds(1)
    assert costs.backward_seconds(0) == 2 * costs.forward_seconds(0)
    measured = paper(recompute_activations=True, measured={"forward_seconds": 0.2, "backward_seconds": 0.5})
    assert measured.backward_seconds(1) == 0.5


@pytest.mark.parametrize(
    ("gflop", "share"),
    [(0.5, 0.10), (0.999, 0.10), (1, 0.60), (15.9, 0.60), (16, 0.90), (127, 0.90), (128, 0.95), (1e6, 0.95)],
)
def test_larger_products_reach_more_of_the_peak(gflop, share):
    assert share_of_peak(gflop * 1e9) == share


def test_each_product_runs_at_its_own_speed():
    costs = paper("a100", precision="bf16", efficiency="by_operation_size")
    projection, scores, feed_forward = (product.flops for product in costs.forward_operations(1))
    assert [projection, scores, feed_forward] == [2 * 8192 * 1024**2, 2 * 8192 * 1024 * 1024, 2 * 8192 * 1024 * 4096]
    by_hand = 4 * (4 * projection + 2 * scores + 3 * feed_forward) / (312e12 * 0.90)  # all between 16 and 128 GFLOP
    assert costs.forward_seconds(1) == pytest.approx(by_hand)
    assert costs.forward_seconds(0) == pytest.approx(costs.forward_flops(0) / (312e12 * 0.95))
    assert costs.backward_seconds(1) == 2 * costs.forward_seconds(1)
    # Half a microbatch takes more than half the time.
    projection, scores, feed_forward = (product.flops for product in costs.forward_operations(1, 0.5))
    by_hand = 4 * ((4 * projection + 2 * scores) / 0.60 + 3 * feed_forward / 0.90) / 312e12
    assert costs.forward_seconds(1, 0.5) == pytest.approx(by_hand)
    assert costs.forward_seconds(1, 0.5) > 0.5 * costs.forward_seconds(1)


@given(st.sampled_from(range(7)), st.floats(0.001, 1.0), st.floats(0.001, 1.0))
def test_a_token_never_takes_less_in_a_smaller_microbatch(stage, size, other):
    costs = paper("a100", precision="bf16", efficiency="by_operation_size")
    small, large = sorted((size, other))
    per_token = [costs.forward_seconds(stage, size) / size for size in (small, large)]
    assert per_token[0] >= per_token[1] * (1 - 1e-12)


@pytest.mark.parametrize(
    ("workload", "of_plan", "head_computes", "limit"),
    [
        ({"schedule": "gpipe"}, None, True, 40),
        ({"schedule": "1f1b"}, None, True, 7),
        ({"schedule": "1f1b"}, None, False, 6),
        ({"schedule": "1f1b", "loss_at": "last_stage"}, None, True, 6),
        ({"schedule": "fifo", "max_in_flight": 3}, None, True, 3),
        ({"schedule": "fifo", "max_in_flight": 3}, 5, True, 5),
        ({"schedule": "1f1b", "max_in_flight": 99}, None, True, 40),
        ({"schedule": "interleaved_1f1b", "chunks_per_stage": 2}, None, True, 12),
    ],
)
def test_in_flight_limits_come_from_schedule_scenario_and_plan(workload, of_plan, head_computes, limit):
    plan = IterationPlan(40, plain_routes(6), max_in_flight=of_plan)
    assert schedule_of(WorkloadConfig(**workload), plan, head_computes).in_flight_limit == limit
