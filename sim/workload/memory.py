"""Device memory that a stage needs: state, additions of a strategy, activations of microbatches in flight.

*Not modelled*: buffers of the network and of kernels, gradients of activations, fragmentation, the driver's own memory.
"""

from __future__ import annotations

from sim.workload.config import IterationPlan
from sim.workload.costs import VALUE_BYTES, Costs

LOGIT_BYTES = 4

ROW_SUM_BYTES = 4


def needed_bytes(costs: Costs, plan: IterationPlan, stage: int, extra_bytes: float = 0.0, num_shares: int = 1) -> float:
    """Most bytes of memory that a node of a stage needs: state + extra + microbatches in flight + current microbatch.

    num_shares: nodes over which the state is sharded evenly; the layer that a node fetches from others while it works
    is not counted.

    Every stage is assumed to hold all microbatches in flight at some time, each with all its layers. That is so at the
    first position; in 1f1b the i-th of p holds i - 1 less, and with interleaved_1f1b most have not passed all chunks of
    a stage. The result is an upper bound, tight for the stage that needs most.
    """
    held = held_bytes(costs, stage, plan.microbatch_size)
    working = working_bytes(costs, stage, plan.microbatch_size)
    return costs.state_bytes(stage) / num_shares + extra_bytes + costs.schedule(plan).in_flight_limit * held + working


def held_bytes(costs: Costs, stage: int, microbatch_size: float = 1.0) -> float:
    """Bytes that a stage keeps of one microbatch from its forward until its backward.

    Every layer: `layer_bytes_per_token`; with `recompute_activations` only the d values that enter it. The head: 2 d
    values per token, around its norm.
    """
    workload = costs.workload
    width_bytes = workload.model.dim * VALUE_BYTES[workload.precision]
    per_layer = width_bytes if workload.recompute_activations else layer_bytes_per_token(costs)
    around_head = 2 * width_bytes if stage == costs.head_stage else 0
    tokens = microbatch_size * costs.tokens_per_microbatch
    return tokens * (costs.num_layers(stage) * per_layer + around_head)


def working_bytes(costs: Costs, stage: int, microbatch_size: float = 1.0) -> float:
    """Bytes that a stage needs for the current microbatch beside `held_bytes`.

    The head: a logit for every token and entry of the vocabulary, in fp32. With `recompute_activations`: the
    activations of one layer.
    """
    workload = costs.workload
    per_token = LOGIT_BYTES * workload.model.vocabulary_size if stage == costs.head_stage else 0
    if workload.recompute_activations and costs.num_layers(stage):
        per_token = max(per_token, layer_bytes_per_token(costs))
    return microbatch_size * costs.tokens_per_microbatch * per_token


def layer_bytes_per_token(costs: Costs) -> int:
    """Bytes that one layer keeps of a token for its backward: 10 d + 3 f values, and 4 bytes a head.

    10 d: what enters and leaves each norm (4), queries, keys and values (3), the first two once more when rotated (2),
    attention's result (1). 3 f: SwiGLU's gate, its other branch, their product. 4 bytes a head: FlashAttention's
    logarithm of each row's sum. Attention and norms as llm-analysis counts them (github.com/cli99/llm-analysis; after
    Korthikanti et al. 2022, arXiv 2205.05198), which has two f, for a feed-forward without gate. Norms and SwiGLU are
    taken to be fused, dropout to be absent.
    """
    workload = costs.workload
    values = 10 * workload.model.dim + 3 * workload.model.hidden_dim
    return values * VALUE_BYTES[workload.precision] + ROW_SUM_BYTES * workload.model.num_heads
