"""The commands in groups, with an example of each, for the help, the documentation and its tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Listed:
    """A command in the help: the module of this package that has its function, and an example."""

    module: str
    example: str


GROUPS: dict[str, dict[str, Listed]] = {
    "Describe a cluster, e.g. churnlab init my_cluster.yaml": {
        "init": Listed("init", "churnlab init my_cluster.yaml --template spot --nodes 24"),
        "validate": Listed("check", "churnlab validate my_cluster.yaml"),
        "list": Listed("lists", "churnlab list devices"),
        "fit": Listed("fit", "churnlab fit preemptions.csv --write my_cluster.yaml"),
        "schema": Listed("check", "churnlab schema > scenario.schema.json"),
    },
    "Choose a strategy, e.g. churnlab advise my_cluster.yaml": {
        "costs": Listed("tables", "churnlab costs my_cluster.yaml"),
        "advise": Listed("map", "churnlab advise my_cluster.yaml"),
        "map": Listed("map", "churnlab map my_cluster.yaml --x failures.rate_per_hour=0.01..0.3"),
        "branches": Listed("branches", "churnlab branches my_cluster.yaml"),
        "explore": Listed("explore", "churnlab explore my_cluster.yaml"),
        "interval": Listed("interval", "churnlab interval --mtbf 6h --save 40s"),
    },
    "Run experiments, e.g. churnlab run my_cluster.yaml": {
        "run": Listed("run", "churnlab run my_cluster.yaml --set failures.rate_per_hour=0.1"),
        "sweep": Listed("run", "churnlab sweep my_cluster.yaml --jobs 4"),
        "status": Listed("run", "churnlab status results/my_cluster"),
        "cache": Listed("cache", "churnlab cache prune --to 2GB"),
    },
    "Look at results, e.g. churnlab report results/my_cluster": {
        "report": Listed("results", "churnlab report results/my_cluster"),
        "plot": Listed("results", "churnlab plot results/my_cluster --kind loss --kind ledger"),
        "table": Listed("table", "churnlab table results/my_cluster --format latex"),
        "animate": Listed("animate", "churnlab animate results/my_cluster --strategies checkpoint,checkfree_plus"),
        "timeline": Listed("results", "churnlab timeline RUN --from 3600 --to 4000"),
    },
}

COMMANDS = {name: listed for group in GROUPS.values() for name, listed in group.items()}

FIRST_STEPS = (
    "First steps: churnlab init my_cluster.yaml; churnlab advise my_cluster.yaml; churnlab run my_cluster.yaml."
)
