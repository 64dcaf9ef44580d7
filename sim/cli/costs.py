"""Tables of `churnlab costs`."""

from __future__ import annotations

import math

from sim.core.units import BYTES_PER_GIB
from sim.experiments.overheads import lost_stages, overheads, recoveries
from sim.reporting.tables import Row, Table, columns_of
from sim.scenario.scenario import Scenario
from sim.simulation.run import build_site

HEADINGS = (
    "devices\n× model",
    "hosts\n× model",
    "storage\n× model",
    "sent an iter.\n× model",
    "computed\nan iter.",
    "seconds an\niter., all in",
)


def overhead_table(scenario: Scenario) -> Table:
    """One row per strategy: memory, communication and computation with no failure."""
    costs = build_site(scenario).costs
    model_bytes = math.fsum(costs.checkpoint_bytes(stage) for stage in range(scenario.workload.num_stages + 1))
    title = f"{scenario.name}: costs with no failure; model and optimizer state: {model_bytes / BYTES_PER_GIB:.2f} GiB"
    rows = []
    for found in overheads(scenario):
        num_bytes = (found.device_bytes, found.host_bytes, found.stored_bytes, found.sent_bytes)
        multiples = [in_models(number / model_bytes) for number in num_bytes]
        share = f"{found.computed_share:+.0%}" if abs(found.computed_share) > 1e-9 else "0"
        rows.append(Row((found.strategy, *multiples, share, f"{found.iteration_seconds:.1f}")))
    return Table(title, columns_of(HEADINGS), tuple(rows))


def recovery_table(scenario: Scenario) -> Table:
    """One row per strategy that stops on failures: which stages it recovers that are lost at once."""
    trials = lost_stages(scenario.workload.num_stages)
    headings = [f"{name}\n({', '.join(map(str, stages))})" for name, stages in trials.items()]
    rows = [
        Row((name, *("yes" if recovered[trial] else "no" for trial in trials)))
        for name, recovered in recoveries(scenario).items()
    ]
    return Table(f"{scenario.name}: stages recovered that are lost at once", columns_of(headings), tuple(rows))


def in_models(multiple: float) -> str:
    """Format a multiple of the model's bytes to two digits."""
    return "0" if multiple == 0.0 else f"{multiple:.2g}"
