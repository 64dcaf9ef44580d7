"""What the `sweep:` section must agree on, with itself and with the seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sim.names import shortened
from sim.scenario import Scenario

Check = Callable[[Scenario], "Iterator[tuple[str, str]]"]
FIXED = {"name": "it names the folder of all points", "sweep": "a sweep has no sweep of its own"}


def zipped_fields_have_equally_many_values(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Values that are taken together are equally many."""
    columns = scenario.sweep.zip if scenario.sweep else {}
    counts = {field: len(values) for field, values in columns.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{shortened(field)}: {count}" for field, count in counts.items())
        yield "sweep.zip", f"fields that vary together need equally many values, found {found}"


def fields_are_swept_once(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """A field has one value at a point."""
    if scenario.sweep is None:
        return
    sections = {"grid": scenario.sweep.grid, "zip": scenario.sweep.zip}
    by_hand = {field for point in scenario.sweep.list for field in point}
    for field in sections["grid"]:
        if field in sections["zip"]:
            yield "sweep.zip", f"'{shortened(field)}' is in the grid already: each field once"
    for name, section in sections.items():
        for field in section:
            if field in by_hand:
                yield "sweep.list", f"'{shortened(field)}' is in the {name} already: each field once"


def what_names_the_sweep_is_not_swept(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """The name, the sweep itself and the seeds are the same at every point."""
    if scenario.sweep is None:
        return
    sections = {"grid": [scenario.sweep.grid], "zip": [scenario.sweep.zip], "list": scenario.sweep.list}
    for name, points in sections.items():
        for field in dict.fromkeys(field for point in points for field in point):
            head = field.partition(".")[0].partition("[")[0].strip()
            why = FIXED.get(head) or ("replicates and training_replicates say how many" if head == "seeds" else None)
            if why:
                yield f"sweep.{name}", f"'{shortened(field)}' cannot be swept: {why}"


def replicates_are_counted_or_listed(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """Seeds are counted up from one, or written out."""
    if scenario.sweep is None:
        return
    for field, seeds, kind in (
        ("replicates", scenario.seeds.failures, "failures"),
        ("training_replicates", scenario.seeds.training, "training"),
    ):
        if getattr(scenario.sweep, field) is not None and len(seeds) > 1:
            yield f"sweep.{field}", f"seeds.{kind} lists {len(seeds)} seeds already: give one of the two"


SWEEP_CHECKS: list[tuple[Check, tuple[str, ...]]] = [
    (zipped_fields_have_equally_many_values, ("sweep",)),
    (fields_are_swept_once, ("sweep",)),
    (what_names_the_sweep_is_not_swept, ("sweep",)),
    (replicates_are_counted_or_listed, ("sweep", "seeds")),
]
