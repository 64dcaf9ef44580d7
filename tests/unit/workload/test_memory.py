"""Device memory: what a stage needs, and whether what a message suggests really helps."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models.llama import LlamaLayer
from models.spec import ModelSpec, plain_routes
from sim.cluster.devices import Device
from sim.core.presets import presets
from sim.scenario.loading import ScenarioError, parse_scenario
from sim.strategies import STRATEGIES
from sim.workload.config import IterationPlan, WorkloadConfig
from sim.workload.costs import Costs
from sim.workload.memory import held_bytes, layer_bytes_per_token, needed_bytes, working_bytes
from support.examples import examples

GIB = 2**30
LAYER_STATE = 16 * 67_117_056
ENDS = 65_537_024
HELD = 4 * 8192 * ((10 * 1024 + 3 * 4096) * 4 + 4 * 16)
LOGITS = 8192 * 32_000 * 4


def the_costs(**workload: Any) -> Costs:
    """The default workload: medium in 6 stages, microbatches of 8 × 1024 tokens in fp32."""
    return Costs(WorkloadConfig(**workload), Device(**presets("devices")["l4"]))


def plain(num_microbatches: int = 100, **plan: Any) -> IterationPlan:
    return IterationPlan(num_microbatches, plain_routes(6), **plan)


def test_a_stage_needs_its_state_and_the_microbatches_in_flight():
    costs = the_costs()
    assert held_bytes(costs, 1) == HELD == 2_954_887_168
    assert needed_bytes(costs, plain(), 1) == LAYER_STATE + 7 * HELD
    assert needed_bytes(costs, plain(3), 1) == LAYER_STATE + 3 * HELD
    assert needed_bytes(costs, plain(), 1, extra_bytes=5.0) == LAYER_STATE + 7 * HELD + 5
    assert needed_bytes(costs, plain(microbatch_size=0.5), 1) == LAYER_STATE + 7 * HELD / 2
    assert needed_bytes(costs, plain(max_in_flight=2), 1) == LAYER_STATE + 2 * HELD
    assert needed_bytes(the_costs(schedule="gpipe"), plain(), 1) == LAYER_STATE + 100 * HELD


def test_the_stage_with_the_head_has_its_logits():
    around = 2 * 8192 * 1024 * 4
    assert needed_bytes(the_costs(), plain(), 0) == 16 * ENDS + 7 * around + LOGITS
    there = the_costs(loss_at="last_stage")
    assert needed_bytes(there, plain(), 0) == 16 * 32_000 * 1024
    assert needed_bytes(there, plain(), 6) == there.state_bytes(6) + 6 * (HELD + around) + LOGITS
    assert needed_bytes(there, plain(), 5) == LAYER_STATE + 6 * HELD


def test_recomputing_and_half_precision_keep_fewer_activations():
    """Recomputing keeps the layers' inputs and one layer; bf16 half of all but the rows' sums, and more state."""
    costs = the_costs(recompute_activations=True)
    assert held_bytes(costs, 1) == 4 * 8192 * 1024 * 4
    assert working_bytes(costs, 1) == HELD / 4
    assert working_bytes(costs, 0) == LOGITS
    assert needed_bytes(costs, plain(), 1) < needed_bytes(the_costs(), plain(), 1) / 5
    half, row_sums = the_costs(precision="bf16"), 4 * 8192 * 4 * 16
    assert held_bytes(half, 1) - row_sums == (HELD - row_sums) / 2
    assert half.state_bytes(1) == 18 * 67_117_056


def test_bytes_of_gradients_and_optimizer_can_be_set():
    """Published checkpoints: OPT-175B 1.6 TB (metaseq chronicles), 9.1 bytes per parameter; 14 by default."""
    usual, other = (
        the_costs(precision="bf16", **given)
        for given in ({}, {"gradient_bytes_per_parameter": 2, "optimizer_bytes_per_parameter": 7.1})
    )
    number = usual.stage_parameters(1)
    assert (usual.gradient_bytes(1), usual.checkpoint_bytes(1)) == (2 * number, 14 * number)
    assert usual.state_bytes(1) == 18 * number
    assert other.checkpoint_bytes(1) == pytest.approx(9.1 * number)
    assert other.state_bytes(1) == pytest.approx(11.1 * number)
    summed_in_fp32 = the_costs(precision="bf16", gradient_bytes_per_parameter=4)
    assert summed_in_fp32.gradient_bytes(1) == 2 * usual.gradient_bytes(1)
    assert summed_in_fp32.embedding_copy_bytes == 2 * usual.embedding_copy_bytes
    assert summed_in_fp32.state_bytes(1) == usual.state_bytes(1)


@given(st.integers(0, 6), st.integers(1, 200), st.integers(1, 200), st.sampled_from(["1f1b", "fifo"]))
def test_more_in_flight_never_needs_less(stage, few, many, schedule):
    few, many = sorted((few, many))
    needs = [needed_bytes(the_costs(schedule=schedule, max_in_flight=most), plain(), stage) for most in (few, many)]
    assert needs[0] <= needs[1] <= needed_bytes(the_costs(schedule="gpipe"), plain(), stage)


def bytes_kept(dim: int, hidden_dim: int) -> int:
    """Bytes that the project's own layer keeps of 32 tokens for its backward, parameters and tables aside."""
    layer = LlamaLayer(ModelSpec(dim=dim, num_heads=2, num_stages=2, hidden_dim=hidden_dim), 32)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*layer.parameters(), *layer.buffers())}
    for parameter in layer.parameters():
        parameter.data.normal_()
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(torch.randn(1, 32, dim, requires_grad=True))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_a_layer_keeps_what_the_real_one_keeps():
    """But for what fused kernels save."""

    def ours(dim: int, hidden_dim: int) -> int:
        model = {"dim": dim, "num_heads": 2, "num_layers": 6, "hidden_dim": hidden_dim, "vocabulary_size": 9}
        return 32 * layer_bytes_per_token(the_costs(model=model))

    def growth(count: Callable[[int, int], int], dim: int, hidden_dim: int) -> float:
        """Values a token more, for each more of a width."""
        return (count(32 + dim, 64 + hidden_dim) - count(32, 64)) / (32 * 4 * (dim + hidden_dim))

    assert growth(ours, 0, 64) == 3
    assert growth(bytes_kept, 0, 64) == 4  # silu(gate), which a fused SwiGLU computes again
    assert growth(ours, 64, 0) == 10
    assert 10 <= growth(bytes_kept, 64, 0) <= 13  # a norm of single operations keeps its result before the gain, too
    assert ours(32, 64) <= bytes_kept(32, 64) <= 1.35 * ours(32, 64)


@pytest.mark.parametrize("kind", STRATEGIES)
def test_strategies_hold_what_they_say_in_addition_to_a_stage(kind):
    costs = the_costs()
    extra = [STRATEGIES[kind].extra_memory_bytes(STRATEGIES[kind].Config(), costs, stage) for stage in range(7)]
    layers, ends = 12 * 67_117_056, 12 * ENDS
    copies = [0, ends / 2, 0, 0, 0, 0, ends / 2]
    expected = {
        "redundant": [*[layers] * 6, ends],  # the ring 0, S1 ... S6: each the next
        "checkfree_plus": copies,
        "checkfree_hybrid": copies,
        "stale_stage": copies,
        "neighbour_takeover": [0.0, *[16 * 67_117_056] * 6],  # room for a neighbour's state, gradients included
    }
    assert extra == expected.get(kind, [0.0] * 7)
    assert complaint(f"name: x\nstrategies: [{kind}]\n") is None  # a default scenario fits


DEVICE = "{name: mine, bf16_tflops: 1, fp32_tflops: 1, memory_gib: %g, utilisation: 1}"


def a_text(strategy: Any, memory_gib: float, **workload: Any) -> str:
    sequences = workload.pop("sequences", 8)
    options = "".join(f", {key}: {value}" for key, value in workload.items())
    return (
        f"name: x\nworkload: {{sequences_per_microbatch: {sequences}{options}}}\n"
        f"cluster: {{device: {DEVICE % memory_gib}}}\nstrategies: [{strategy}]\n"
    )


def complaint(text: str, *overrides: str) -> str | None:
    """What is said of memory."""
    try:
        parse_scenario(text, overrides=overrides)
    except ScenarioError as error:
        return next((problem.message for problem in error.problems if " GiB" in problem.message), None)
    return None


def test_the_message_says_how_much_where_and_what_would_help():
    by_hand = (LAYER_STATE + 6 * HELD) / GIB
    assert complaint("name: x\nstrategies: [none]\ncluster: {device: t4}\n") == (
        f"'none' needs {by_hand:.1f} GiB on stage 1, {by_hand - 16:.1f} GiB more than the 16 GiB of device 't4'; "
        "would fit: max_in_flight 5, or recompute_activations true, or sequences_per_microbatch 4, "
        "or device l4, rtx4090, rtx3090, ..."
    )
    assert (LAYER_STATE + 5 * HELD) / GIB <= 16 < by_hand


def test_messages_are_exact_about_redundancy_and_the_last_byte():
    gib = (LAYER_STATE + 6 * HELD) / GIB
    assert complaint(a_text("none", gib + 1e-4)) is None
    told = complaint(a_text("none", gib - 1e-4))
    assert "less than 0.1 GiB more than" in told
    gib = (LAYER_STATE + 6 * HELD) / GIB + 0.01
    redundant = "{kind: redundant, microbatch_size_factor: 1, microbatch_count_factor: 1}"
    assert complaint(a_text("none", gib)) is None
    assert f"{12 * 67_117_056 / GIB - 0.01:.1f} GiB more" in complaint(a_text(redundant, gib))
    assert complaint(a_text("redundant", gib)) is None  # with half the microbatch it fits again


def test_suggestions_are_possible_or_said_to_be_none():
    message = complaint(a_text("none", 0.5, model="large", schedule="gpipe", num_microbatches=10_000, sequences=1))
    assert message.endswith("no single change of schedule, microbatches or device makes it fit")
    assert "sequences_per_microbatch 2," in complaint(a_text("none, redundant", 6, num_microbatches=6))
    assert "sequences_per_microbatch" not in complaint(a_text("none, redundant", 2.5, num_microbatches=6))


@pytest.mark.parametrize(
    ("strategy", "workload"),
    [
        ("none", {"num_microbatches": "x"}),
        ("none", {"layers_per_stage": "[x, 4, 4, 4, 4, 4]"}),
        ("none", {"num_stages": 5}),
        ("{kind: redundant, microbatch_size_factor: 0.3}", {}),
    ],
    ids=str,
)
def test_a_faulty_field_causes_no_message_about_memory(strategy, workload):
    assert complaint(a_text(strategy, 1, **workload)) is None


def suggestions(told: str) -> list[str]:
    """The --set options that a message's suggestions mean."""
    fields = {"device": "cluster.device"}
    options = []
    for found in re.split(r",? or ", told.partition("would fit: ")[2]):
        if found:
            field, _, values = found.partition(" ")
            names = [value for value in values.split(", ") if value != "..."]
            options += [f"{fields.get(field, f'workload.{field}')}={name}" for name in names]
    return options


@given(
    st.sampled_from(["none", "redundant", "{kind: redundant, preset: paper_table2}", "checkfree_plus", "checkpoint"]),
    st.floats(0.5, 120.0),
    st.sampled_from(["gpipe", "1f1b", "fifo"]),
    st.sampled_from([1, 2, 6, 8, 16]),
    st.sampled_from([2, 6, 12, 48]),
    st.sampled_from(["embedding_stage", "last_stage"]),
    st.sampled_from(["small", "medium", "large"]),
    st.booleans(),
)
@settings(max_examples=examples(20, 60))
def test_what_is_suggested_really_fits(
    strategy, memory_gib, schedule, sequences, num_microbatches, loss_at, model, recompute
):
    workload = {"schedule": schedule, "num_microbatches": num_microbatches, "loss_at": loss_at, "model": model}
    text = a_text(strategy, memory_gib, sequences=sequences, recompute_activations=str(recompute).lower(), **workload)
    told = complaint(text)
    assume(told)
    for option in suggestions(told):
        assert complaint(text, option) is None, option
    largest = re.search(r"max_in_flight (\d+)", told)
    if largest:
        assert complaint(text, f"workload.max_in_flight={int(largest[1]) + 1}")
