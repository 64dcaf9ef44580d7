"""Table 1 of the paper as it is measured here: what strategies cost while nothing fails, and what they recover."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from models.lineage import EMBEDDING_STAGE
from sim.loading import load_scenario
from sim.overheads import in_models, overheads, recovers
from sim.paper.jobs import JOBS
from sim.paper.page_cells import name_of
from sim.simulation import build_site
from sim.strategies import strategy_class


def table_1() -> Iterator[Sequence[str]]:
    """A row a strategy."""
    scenario = load_scenario(JOBS[0].scenario)
    costs = build_site(scenario).costs
    stages = range(EMBEDDING_STAGE, scenario.workload.num_stages + 1)
    model_bytes = math.fsum(costs.checkpoint_bytes(stage) for stage in stages)
    for config, found in zip(scenario.strategies, overheads(scenario), strict=True):
        if not strategy_class(config.kind).heeds_failures:
            continue
        does = {name: "yes" if it_does else "no" for name, it_does in recovers(scenario, config).items()}
        yield (
            name_of(config.name),
            *(in_models(number / model_bytes) for number in (found.device_bytes, found.stored_bytes, found.sent_bytes)),
            f"{found.computed_share:+.0%}" if abs(found.computed_share) > 1e-9 else "0",
            *(does["adjacent"], does["first"] if does["first"] == does["last"] else "one of them", does["stage 0"]),
        )
