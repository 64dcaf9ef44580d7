"""Options of every strategy, such that all their ways of saving and recovering occur."""

from typing import Any

CHECKPOINTS = [
    {"kind": "checkpoint", "interval_iterations": interval, "blocking_share": share}
    for interval in (1, 4)
    for share in (0.0, 0.4, 1.0)
]


STRATEGY_OPTIONS: list[dict[str, Any]] = [
    {"kind": "none"},
    {"kind": "restart"},
    *CHECKPOINTS,
    {"kind": "checkpoint", "interval_seconds": 90.0},
    {"kind": "checkpoint", "interval": "young", "blocking_share": 0.5},
    {"kind": "checkpoint", "interval": "adaptive", "local_gib_per_s": 1e-6, "just_in_time": True},
    {"kind": "neighbour_checkpoint"},
    {"kind": "neighbour_checkpoint", "num_copies": 2, "interval_iterations": 3},
    {"kind": "two_tier_checkpoint", "memory_interval_iterations": 2, "interval_iterations": 3},
    {"kind": "two_tier_checkpoint", "interval_iterations": 4, "blocking_share": 1.0, "local_gib_per_s": 1e-6},
    {"kind": "stale_stage", "interval_iterations": 3},
    {"kind": "stale_stage", "interval_iterations": 2, "routes": "plain", "blocking_share": 1.0},
    {"kind": "repartition", "interval_iterations": 3},
    {"kind": "constant_batch"},
    {"kind": "constant_batch", "cut_iteration": "run_again"},
    {"kind": "constant_batch", "dealing": "by_pipeline"},
    {"kind": "elastic"},
    {"kind": "elastic", "pipelines": "formed_anew", "learning_rate": "sqrt"},
    {"kind": "diloco", "inner_steps": 3},
    {"kind": "diloco", "inner_steps": 5, "lost_stage": "checkfree_plus"},
    {"kind": "diloco", "inner_steps": 4, "lost_stage": "reinit"},
    {"kind": "diloco", "inner_steps": 5, "lost_stage": "neighbour_copy", "overlap_iterations": 2},
    {"kind": "diloco", "inner_steps": 5, "lost_stage": "checkpoint", "interval_iterations": 2},
    {"kind": "diloco", "inner_steps": 5, "lost_stage": "neighbour_checkpoint", "interval_iterations": 1},
    {"kind": "diloco", "inner_steps": 5, "lost_stage": "two_tier_checkpoint", "interval_iterations": 3},
    {"kind": "diloco", "inner_steps": 4, "lost_stage": "stale_stage", "interval_iterations": 3},
    {"kind": "diloco", "inner_steps": 4, "lost_stage": "checkfree_hybrid", "interval_iterations": 2},
    {
        "kind": "diloco",
        "inner_steps": 4,
        "partners": "pairs",
        "outer_learning_rate": 1.0,
        "outer_momentum": 0.0,
        "fragments": 2,
    },
    {"kind": "diloco", "inner_steps": 4, "fragments": 2, "overlap_iterations": 1, "min_replicas": 2},
    {
        "kind": "diloco",
        "inner_steps": 2,
        "join_timeout_seconds": 20.0,
        "weights": "tokens",
        "joiner_optimizer": "fresh",
    },
    {"kind": "skip"},
    {"kind": "neighbour_takeover"},
    {"kind": "peer"},
    {"kind": "reinit", "rule": "random"},
    {"kind": "reinit", "rule": "copy_previous", "preset": "reference_code"},
    {"kind": "checkfree_hybrid", "interval_iterations": 3, "blocking_share": 0.5},
    {"kind": "redundant"},
    {"kind": "redundant", "preset": "bamboo", "shadow": "lazy"},
    {"kind": "redundant", "preset": "bamboo_lazy"},
    {"kind": "redundant", "preset": "bamboo_forward_and_backward", "synchronisation": "gradients"},
    {"kind": "redundant", "preset": "paper_table2", "shadow": "lazy", "synchronisation": "gradients_and_weights"},
    {"kind": "checkfree", "preset": "reference_code"},
    *({"kind": "checkfree_plus", "embedding_copy": copy} for copy in ("beside", "blocking", "free")),
]
