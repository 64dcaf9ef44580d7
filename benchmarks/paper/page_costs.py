"""Table 1 of the paper as it is measured here: what strategies cost while nothing fails, and what they recover."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from benchmarks.paper.jobs import JOBS
from benchmarks.paper.page_cells import name_of
from benchmarks.paper.sides import NOT_REPRODUCED, REPRODUCED
from models.spec import EMBEDDING_STAGE
from sim.cli.costs import in_models
from sim.experiments.overheads import overheads, recovers
from sim.scenario.loading import load_scenario
from sim.simulation.run import build_site
from sim.strategies import strategy_class

MEMORY, STORED, SENT, PASSES, ENDS = 0, 1, 2, 3, 6
"""Places of the columns of `table_1`, after the strategy's name."""

STRATEGIES = ("checkpoint", "redundant_text", "redundant_table2", "checkfree", "checkfree_plus")

WHERE = "[Table 1](#table-1-costs-while-nothing-fails)"


def table_1() -> Iterator[Sequence[str]]:
    """A row a strategy."""
    scenario = load_scenario(JOBS[0].scenario)
    costs = build_site(scenario).costs
    stages = range(EMBEDDING_STAGE, scenario.workload.num_stages + 1)
    model_bytes = math.fsum(costs.checkpoint_bytes(stage) for stage in stages)
    workload = scenario.workload.model_copy(update={"optimizer_seconds": 0.0})
    without_optimizer = overheads(scenario.model_copy(update={"workload": workload}))
    for config, found, bare in zip(scenario.strategies, overheads(scenario), without_optimizer, strict=True):
        if not strategy_class(config.kind).stops_on_failures:
            continue
        does = {name: "yes" if it_does else "no" for name, it_does in recovers(scenario, config).items()}
        yield (
            name_of(config.name),
            *(in_models(number / model_bytes) for number in (found.device_bytes, found.stored_bytes, found.sent_bytes)),
            *(f"{share:+.0%}" if abs(share) > 1e-9 else "0" for share in (bare.computed_share, found.computed_share)),
            *(does["adjacent"], does["first"] if does["first"] == does["last"] else "one of them", does["stage 0"]),
        )


def cost_verdicts(rows: Sequence[Sequence[str]]) -> Iterator[Sequence[str]]:
    """Claims of the paper's Table 1 beside the rows of `table_1`, as rows of `benchmarks.paper.verdicts`."""
    cells = {name: own for name, *own in rows}
    saved, text, table_2, checkfree, plus = (cells[name_of(name)] for name in STRATEGIES)
    while_nothing_fails = checkfree[: PASSES + 1]
    claims = (
        ("checkpointing stores the model once", f"{saved[STORED]} ×", saved[STORED] == "1"),
        (
            "redundant computation computes one forward pass more",
            f"{text[PASSES]} of forward and backward as `paper_text`, {table_2[PASSES]} as `paper_table2`",
            text[PASSES] == "+33%",
        ),
        (
            "redundant computation sends the model in each iteration",
            f"{text[SENT]} × as `paper_text`; {table_2[SENT]} × as `paper_table2`, but activations",
            text[SENT] == "1",
        ),
        (
            "CheckFree needs no memory, storage, messages or computation while nothing fails",
            ", ".join(while_nothing_fails),
            set(while_nothing_fails) == {"0"},
        ),
        (
            "CheckFree+ holds and sends embedding and head: less than a model",
            f"{plus[MEMORY]} × and {plus[SENT]} ×",
            max(float(plus[MEMORY]), float(plus[SENT])) < 1,
        ),
        ("CheckFree cannot bring back the first and last stage", "copies a neighbour", checkfree[ENDS] == "no"),
    )
    for claim, here, agrees in claims:
        yield claim, "Table 1", here, "", REPRODUCED if agrees else NOT_REPRODUCED, WHERE
